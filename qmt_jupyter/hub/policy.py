"""Who may take how much: a TOML file made into the allowance of one person. Pure.

Limit by limit: what an administrator has set on the page comes first, then the user's own table,
then the most generous of the groups that say something about it, then ``[everybody]``, then the
defaults.
"""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import OptionInvalid
from ..facade import Allowance
from ..harmless import printable
from .person import Person

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Table = Mapping[str, Any]

COUNTED = (
    "tokens_per_day",
    "tokens_per_month",
    "concurrent",
    "requests_per_minute",
    "answer_tokens",
)
LISTED = ("models", "hours")
LIMITS = (*COUNTED, "priority", *LISTED)
"""What a table of the file, and an administrator, can set."""

DEFAULTS: Table = {"tokens_per_day": 200_000, "concurrent": 2, "requests_per_minute": 30}
_TOP = ("zone", "only", "everybody", "groups", "users")
_MOST_NAMES = 10_000
_MOST_ENTRIES = 64
_CLOSE = 0.6


@dataclass(frozen=True)
class Policy:
    """What the file says, checked. ``only``: groups that may use the service; None: everybody.

    The tables hold limits by their names in :class:`~qmt_jupyter.Allowance`.
    """

    zone: str = "UTC"
    only: frozenset[str] | None = None
    everybody: Table = field(default_factory=dict)
    groups: Mapping[str, Table] = field(default_factory=dict)
    users: Mapping[str, Table] = field(default_factory=dict)

    def allows(self, person: Person) -> bool:
        """Whether the person is in one of the groups that may use the service."""
        return self.only is None or bool(self.only & person.groups)

    def allowance(
        self, person: Person, changed: Table | None = None, *, paused: bool = False
    ) -> tuple[Allowance, dict[str, str]]:
        """What the person may take, and for each limit where it comes from.

        That is ``admin``, ``user``, ``group NAME`` (or ``groups A, B``), ``everybody`` or
        ``default``. ``changed`` and ``paused`` are an administrator's.
        """
        given: dict[str, Any] = {}
        rules: dict[str, str] = {}
        for limit in LIMITS:
            given[limit], rules[limit] = self._limit(limit, person, changed or {})
        given = {limit: value for limit, value in given.items() if value is not None}
        return Allowance(**given, zone=self.zone, paused=paused), rules

    def _limit(self, limit: str, person: Person, changed: Table) -> tuple[Any, str]:
        if limit in changed:
            return changed[limit], "admin"
        if limit in (own := self.users.get(person.name, {})):
            return own[limit], "user"
        stated = {
            name: table[limit]
            for name, table in sorted(self.groups.items())
            if name in person.groups and limit in table
        }
        if stated:
            value, names = _most_generous(limit, stated)
            return value, f"group{'s' if len(names) > 1 else ''} {', '.join(names)}"
        if limit in self.everybody:
            return self.everybody[limit], "everybody"
        return DEFAULTS.get(limit), "default"


def _most_generous(limit: str, stated: dict[str, Any]) -> tuple[Any, list[str]]:
    """The value that lets do most, and which groups gave it. Lists are joined, one empty wins."""
    if limit in LISTED:
        free = [name for name, value in stated.items() if not value]
        if free:
            return (), free[:1]
        joined = tuple(dict.fromkeys(each for value in stated.values() for each in value))
        # More than an allowance can hold are of a hundred groups; the first ones do.
        return joined[:_MOST_ENTRIES], list(stated)
    best = max(stated, key=lambda name: _size(stated[name]))
    return stated[best], [best]


def _size(value: int | None) -> float:
    return float("inf") if value is None else value


def read_limits(given: Table, zone: str = "UTC") -> dict[str, Any]:
    """Limits as a person wrote them, checked: 0 and None are no limit.

    Raises :class:`~qmt_jupyter.errors.OptionInvalid` for a limit that there is not, and for a
    value that it cannot have.
    """
    read: dict[str, Any] = {}
    for key, value in given.items():
        if key not in LIMITS:
            raise OptionInvalid(_unknown(key, LIMITS, "limit"), next_step=_known(LIMITS))
        if key in LISTED:
            value = () if value is None else value
            if not isinstance(value, (list, tuple)) or not all(isinstance(v, str) for v in value):
                raise OptionInvalid(
                    f"{key} has to be a list of texts.", next_step=f'Write {key} = ["…"].'
                )
            read[key] = tuple(value)
        elif key == "priority":
            read[key] = 1 if value is None else value
        else:
            is_none = value is None or (
                value == 0 and isinstance(value, int) and value is not False
            )
            read[key] = None if is_none else value
    Allowance(**{key: value for key, value in read.items() if value is not None}, zone=zone)
    return read


def read_policy(text: str, called: str = "the configuration") -> Policy:
    """The policy in a TOML text; ``called`` is what sentences call it.

    Raises :class:`~qmt_jupyter.errors.OptionInvalid`, with the line.
    """
    try:
        read = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        said = printable(str(error), 200) or "it is nested too deeply"
        raise OptionInvalid(
            f"{called} is not TOML: {said}.", next_step="Correct that line."
        ) from None
    return _Reader(text, called).policy(read)


class _Reader:
    """Reads one file; knows its text, to say in which line something is wrong."""

    def __init__(self, text: str, called: str) -> None:
        self._lines = text.splitlines()
        self._called = called

    def policy(self, read: dict[str, Any]) -> Policy:
        for key in read:
            if key not in _TOP:
                raise self._error(_unknown(key, _TOP, "key"), (key,), next_step=_known(_TOP))
        zone = read.get("zone", "UTC")
        if not isinstance(zone, str):
            raise self._error("zone has to be a text", ("zone",))
        self._within(("zone",), lambda: read_limits({}, zone))
        return Policy(
            zone=zone,
            only=self._only(read.get("only")),
            everybody=self._table(read.get("everybody", {}), ("everybody",), zone),
            groups=self._tables(read.get("groups", {}), "groups", zone),
            users=self._tables(read.get("users", {}), "users", zone),
        )

    def _only(self, value: Any) -> frozenset[str] | None:
        if value is None:
            return None
        if not isinstance(value, list) or not all(isinstance(v, str) and v for v in value):
            raise self._error("only has to be a list of groups", ("only",))
        if not value:
            raise self._error("only is empty: nobody could use the service", ("only",))
        return frozenset(value)

    def _tables(self, value: Any, kind: str, zone: str) -> dict[str, Table]:
        if not isinstance(value, dict) or len(value) > _MOST_NAMES:
            raise self._error(f"{kind} has to be tables, [{kind}.NAME]", (kind,))
        return {name: self._table(table, (kind, name), zone) for name, table in value.items()}

    def _table(self, value: Any, path: tuple[str, ...], zone: str) -> Table:
        if not isinstance(value, dict):
            raise self._error(f"{printable('.'.join(path), 80)} has to be a table", path)
        limits: dict[str, Any] = {}
        for key, each in value.items():
            # One by one, so that the line is the one that is wrong; called at once, so that
            # the names it takes are this turn's.
            limits.update(self._within((*path, key), lambda: read_limits({key: each}, zone)))  # noqa: B023
        return limits

    def _within(self, path: tuple[str, ...], read: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        try:
            return read()
        except OptionInvalid as error:
            raise self._error(error.sentence, path, next_step=error.next_step) from None

    def _error(
        self, what: str, path: tuple[str, ...], *, next_step: str | None = None
    ) -> OptionInvalid:
        line = self._line(path)
        where = f"{self._called}, line {line}" if line else self._called
        return OptionInvalid(
            f"{where}: {what.rstrip('.')}.", next_step=next_step or "Correct it and start again."
        )

    def _line(self, path: tuple[str, ...]) -> int | None:
        """Where a key stands, as far as it is written the usual way."""
        *tables, key = path
        here: list[str] = []
        for number, line in enumerate(self._lines, 1):
            if header := re.match(r"\s*\[\s*([^\[\]]+?)\s*\]", line):
                here = [part.strip(" \"'") for part in header[1].split(".")]
                if here == list(path):
                    return number
            elif here == tables and re.match(rf"\s*[\"']?{re.escape(key)}[\"']?\s*[.=]", line):
                return number
        return None


def notices(policy: Policy) -> list[str]:
    """What is possible but looks like a slip: limits for a group that ``only`` leaves out, and for
    a user by a name with capitals, which few Hubs have."""
    said = []
    for name in sorted(policy.groups) if policy.only is not None else ():
        near = difflib.get_close_matches(name, sorted(policy.only or ()), 1, 0.75)
        if name not in (policy.only or ()) and near:
            said.append(
                f"[groups.{printable(name, 80)}] is for a group that is not in only; "
                f"is {printable(near[0], 80)} meant?"
            )
    said += [
        f"[users.{printable(name, 80)}] is for a name with capitals, and JupyterHub makes names "
        f"small unless it is told otherwise; is {printable(name.lower(), 80)} meant?"
        for name in sorted(policy.users)
        if name != name.lower() and name.lower() not in policy.users
    ]
    return said


def _unknown(key: str, known: tuple[str, ...], what: str) -> str:
    near = difflib.get_close_matches(key, known, 1, _CLOSE)
    hint = f"; the nearest is {near[0]}" if near else ""
    return f"there is no {what} {printable(key, 60)}{hint}"


def _known(known: tuple[str, ...]) -> str:
    return f"There are {', '.join(known)}."
