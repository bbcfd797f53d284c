"""What administrators have changed on the page, kept on disk so that it holds after a restart.

One change a user, the newest one; services of one Hub exchange them, and the newer wins.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import OptionInvalid
from ..harmless import printable
from ..settings import write_private
from .person import LONGEST_NAME
from .policy import read_limits

_LARGEST_FILE = 8 * 1024 * 1024
_END = 2**40
# A change that is taken over leaves room for those that are made here after it.
_LATEST_TAKEN = _END - 2**20
MOST = 20_000
"""So many users can have been changed."""


@dataclass(frozen=True)
class Override:
    """A change for one user: paused or not, and limits in place of the policy's (None: none).

    ``at`` is when, in seconds since 1970. One that is neither stays known, for other services.
    """

    paused: bool = False
    limits: Mapping[str, Any] | None = None
    at: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        limits = None
        if self.limits is not None:
            limits = {k: list(v) if isinstance(v, tuple) else v for k, v in self.limits.items()}
        return {"paused": self.paused, "limits": limits, "at": self.at}


NONE = Override()


class Overrides:
    """The changes of one service, in ``path`` (0600), read once and written at each change.

    Raises :class:`~qmt_jupyter.errors.OptionInvalid` for a file that it did not write: to go on
    without it would let in who is paused.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._users: dict[str, Override] = _read(path)

    def of(self, user: str) -> Override:
        """What was changed for a user; :data:`NONE` where nothing was."""
        return self._users.get(user, NONE)

    def users(self) -> list[str]:
        """Everybody for whom something is changed now."""
        return sorted(u for u, each in self._users.items() if each.paused or each.limits)

    def put(self, user: str, override: Override) -> Override:
        """Keep a change made now. Raises OptionInvalid or HomeNotWritable; nothing changes then."""
        if not _is_name(user):
            raise OptionInvalid(f"A user's name is a text of 1 to {LONGEST_NAME} characters.")
        if user not in self._users and len(self._users) >= MOST:
            raise OptionInvalid(
                f"{MOST} users have been changed already.",
                next_step="Set limits for groups in the service's configuration instead.",
            )
        # Later than the one before, whatever the clock does.
        kept = replace(override, at=max(time.time(), self.of(user).at + 0.001))
        self._write({**self._users, user: kept})
        return kept

    def changes(self) -> list[dict[str, Any]]:
        """Every change, for another service's :meth:`take`."""
        return [{"user": user, **each.as_dict()} for user, each in sorted(self._users.items())]

    def take(self, changes: Iterable[Any]) -> list[str]:
        """Take over what another service knows newer; returns for which users.

        What makes no sense is left out. Raises like :meth:`put`.
        """
        newer: dict[str, Override] = {}
        known = set(self._users)
        for each in changes:
            try:
                user, override = _entry(each, _LATEST_TAKEN)
            except (ValueError, OptionInvalid):
                continue
            is_newer = override.at > newer.get(user, self.of(user)).at
            if is_newer and (user in known or len(known) < MOST):
                known.add(user)
                newer[user] = override
        if newer:
            self._write({**self._users, **newer})
        return sorted(newer)

    def _write(self, users: dict[str, Override]) -> None:
        held = {
            "version": 1,
            "users": [{"user": user, **each.as_dict()} for user, each in users.items()],
        }
        data = json.dumps(held).encode()
        if len(data) > _LARGEST_FILE:
            # It could not be read again, and the service not be started.
            raise OptionInvalid(
                f"{len(self._users)} users have been changed already, and no more can be kept.",
                next_step="Set limits for groups in the service's configuration instead.",
            )
        write_private(self._path, data)
        self._users = users


def _is_name(user: object) -> bool:
    """Any text that a Hub lets a user be called; half a character is none."""
    if not isinstance(user, str) or not 0 < len(user) <= LONGEST_NAME:
        return False
    return not any("\ud800" <= letter <= "\udfff" for letter in user)


def _entry(value: Any, end: float = _END) -> tuple[str, Override]:
    """One user's change. ValueError or OptionInvalid where it is none."""
    if not isinstance(value, dict):
        raise ValueError("not an object")
    user, paused, limits, at = (value.get(k) for k in ("user", "paused", "limits", "at"))
    if not isinstance(user, str) or not _is_name(user):
        raise ValueError("no user's name")
    if not isinstance(paused, bool) or not (limits is None or isinstance(limits, dict)):
        raise ValueError("no change")
    if isinstance(at, bool) or not isinstance(at, (int, float)) or not 0 <= at < end:
        raise ValueError("no time")
    return user, Override(paused, None if limits is None else read_limits(limits), float(at))


def _read(path: Path) -> dict[str, Override]:
    try:
        with path.open("rb") as file:
            data = file.read(_LARGEST_FILE + 1)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise _damaged(path, error.strerror or "it cannot be read") from None
    try:
        if len(data) > _LARGEST_FILE:
            raise ValueError("it is too large")
        held = json.loads(data.decode("utf-8"), parse_constant=_refuse)
        if not isinstance(held, dict) or held.get("version") != 1:
            raise ValueError("it is none of this version's")
        users = held.get("users")
        if not isinstance(users, list) or len(users) > MOST:
            raise ValueError("it holds no users")
        return dict(_entry(each) for each in users)
    except OptionInvalid as error:
        raise _damaged(path, error.sentence) from None
    except (ValueError, RecursionError) as error:
        raise _damaged(path, str(error)) from None


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _damaged(path: Path, why: str) -> OptionInvalid:
    return OptionInvalid(
        f"What administrators have changed cannot be read from {path}: {printable(why, 120)}.",
        next_step="Put back a copy of the file, or remove it: then nobody is paused or limited by "
        "them any more.",
    )
