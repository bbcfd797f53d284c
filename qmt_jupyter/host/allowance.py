"""What one user may take, whoever of the user's seats asks. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from ..errors import OptionInvalid
from .calendar import Week, zone_of
from .limits import Limits

_MOST = 2**53
_MOST_ENTRIES = 64
_HIGHEST_PRIORITY = 100
_COUNTED = (
    "tokens_per_day",
    "tokens_per_month",
    "concurrent",
    "requests_per_minute",
    "answer_tokens",
)


@dataclass(frozen=True)
class Allowance:
    """What a user's seats may take together. None, and no entries: not limited.

    ``tokens_per_day`` and ``tokens_per_month`` count prompts and answers by the calendar of
    ``zone``, an IANA name; a request counts on the day on which it was asked. ``concurrent``
    requests run or wait, ``requests_per_minute`` hold in any sixty seconds, ``answer_tokens`` cuts
    one answer, and ``models`` names those that may be asked. ``hours`` are those of the week in
    which requests may begin, by the clocks of ``zone``: ``Mon-Fri 08:00-12:30``,
    ``Sat 22:00-02:00``. ``priority``, 1 to 100, is how many times the share of a user of priority 1
    this one gets while others wait. Who is ``paused`` may ask nothing.

    Raises :class:`~qmt_jupyter.errors.OptionInvalid` for what makes no sense.
    """

    models: tuple[str, ...] = ()
    tokens_per_day: int | None = None
    tokens_per_month: int | None = None
    concurrent: int | None = None
    requests_per_minute: int | None = None
    answer_tokens: int | None = None
    priority: int = 1
    hours: tuple[str, ...] = ()
    zone: str = "UTC"
    paused: bool = False

    def __post_init__(self) -> None:
        for name in _COUNTED:
            value = getattr(self, name)
            if value is not None and not _is_number(value, _MOST):
                raise OptionInvalid(
                    f"{_shown(value)} is not a limit for {name}.",
                    next_step="Give a whole number of at least 1, or leave it out for no limit.",
                )
        if not _is_number(self.priority, _HIGHEST_PRIORITY):
            raise OptionInvalid(
                f"{_shown(self.priority)} is not a priority.",
                next_step=f"Give a whole number from 1 to {_HIGHEST_PRIORITY}.",
            )
        if not isinstance(self.paused, bool):
            raise OptionInvalid("A user is paused or not: true or false.")
        object.__setattr__(self, "models", _texts("models", self.models))
        object.__setattr__(self, "hours", _texts("hours", self.hours))
        self.week()

    def week(self) -> Week:
        """The hours of the week in which requests may begin."""
        return Week(self.hours, zone_of(self.zone))

    def limits(self) -> Limits:
        """The part of it that an invite's limits can say."""
        return Limits(
            concurrent=self.concurrent,
            requests_per_minute=self.requests_per_minute,
            answer_tokens=self.answer_tokens,
            models=self.models,
        )

    def as_dict(self) -> dict[str, Any]:
        """What is set and not the default, ready for JSON."""
        given = {
            each.name: value
            for each in fields(self)
            if (value := getattr(self, each.name)) != each.default
        }
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in given.items()
        }

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> Allowance:
        """Read back what :meth:`as_dict` gave; an unknown name raises like a value that is none."""
        if not isinstance(stored, dict):
            raise OptionInvalid("A user's limits are given by their names.")
        known = {each.name for each in fields(cls)}
        for name in stored:
            if name not in known:
                raise OptionInvalid(f"{_shown(name)} is not a limit of a user.")
        return cls(**stored)


def _shown(value: object) -> str:
    """What was given, if it is short; a number can have more digits than can be written."""
    if isinstance(value, int) and abs(value) > _MOST:
        return "A number that large"
    return repr(value if isinstance(value, int) else str(value)[:40])


def _is_number(value: object, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= most


def _texts(name: str, given: Sequence[str]) -> tuple[str, ...]:
    """A bare string would count as its letters."""
    texts = (given,) if isinstance(given, str) else given
    if (
        not isinstance(texts, list | tuple)
        or len(texts) > _MOST_ENTRIES
        or not all(isinstance(each, str) and 0 < len(each) <= 200 for each in texts)
    ):
        raise OptionInvalid(
            f"A user's {name} are given as a list of at most {_MOST_ENTRIES} texts."
        )
    return tuple(texts)


NO_LIMITS = Allowance()
