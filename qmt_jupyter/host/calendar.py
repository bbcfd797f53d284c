"""Days, months and hours of the week as a time zone has them. Pure: the time is an argument.

Instants are seconds since 1970. A day begins when the clocks of its zone first show it, so it may
have 23 or 25 hours; hours of the week are read off those clocks as well.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone, tzinfo
from zoneinfo import ZoneInfo

from ..errors import OptionInvalid

_ZONE = re.compile(r"[A-Za-z0-9_+-]{1,32}(?:/[A-Za-z0-9_+-]{1,32}){0,2}", re.ASCII)
_HOURS = re.compile(
    r"(?P<days>[A-Z][a-z]{2}(?:[-,][A-Z][a-z]{2}){0,12}) "
    r"(?P<from>[0-9]{2}:[0-9]{2})-(?P<to>[0-9]{2}:[0-9]{2})",
    re.ASCII,
)
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_LONG_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip
_DAY = 24 * 60
_WEEK = 7 * _DAY
QUARTER = 900
"""Zones differ by whole quarters of an hour, so their days begin with one."""


def zone_of(name: str) -> tzinfo:
    """The zone of this IANA name. Raises :class:`~qmt_jupyter.errors.OptionInvalid`."""
    if name == "UTC":  # there even where the machine knows no zones at all
        return timezone.utc
    if isinstance(name, str) and _ZONE.fullmatch(name):
        try:
            return ZoneInfo(name)
        except (KeyError, ValueError, OSError):
            pass
    raise OptionInvalid(
        f"{str(name)[:64]!r} is not a time zone that this machine knows.",
        next_step="Write it as Europe/Berlin, America/New_York or UTC.",
    )


@dataclass(frozen=True)
class Span:
    """From ``starts`` until just before ``ends``."""

    starts: float
    ends: float

    def has(self, instant: float) -> bool:
        """Whether an instant is within."""
        return self.starts <= instant < self.ends


def day_of(instant: float, zone: tzinfo) -> Span:
    """The calendar day that an instant is in."""
    today = datetime.fromtimestamp(instant, zone).date()
    return _span(instant, today, today + timedelta(days=1), zone)


def month_of(instant: float, zone: tzinfo) -> Span:
    """The calendar month that an instant is in."""
    first = datetime.fromtimestamp(instant, zone).date().replace(day=1)
    return _span(instant, first, (first + timedelta(days=31)).replace(day=1), zone)


def _span(instant: float, first: date, after: date, zone: tzinfo) -> Span:
    starts, ends = (_begins(each, zone) for each in (first, after))
    # Where clocks go back over midnight a day's last hour comes a second time, after its end.
    return Span(min(starts, instant), ends if ends > instant else instant + QUARTER)


def _begins(day: date, zone: tzinfo) -> float:
    return datetime(day.year, day.month, day.day, tzinfo=zone).timestamp()


def moment(instant: float, now: float, zone: tzinfo) -> str:
    """An instant in words, as ``Monday 08:00 (Europe/Berlin)``; with its date from a week on."""
    at = datetime.fromtimestamp(instant, zone)
    day = _LONG_DAYS[at.weekday()]
    if instant - now >= 6 * 86400:
        day = f"{at.day} {_MONTHS[at.month - 1]}"
    return f"{day} {at:%H:%M} ({zone})"


class Week:
    """Hours of the week, such as ``Mon-Fri 08:00-12:30`` or ``Sat,Sun 22:00-02:00``; none: always.

    An end that is not after its start is the next day's. Raises
    :class:`~qmt_jupyter.errors.OptionInvalid` for what does not read like that.
    """

    def __init__(self, hours: Sequence[str], zone: tzinfo) -> None:
        self._zone = zone
        self._spans = [span for text in hours for span in _read(text)]
        # What was refused last is refused again without another search.
        self._closed: Span | None = None

    def is_open(self, instant: float) -> bool:
        """Whether an instant is within the hours."""
        if not self._spans:
            return True
        at = datetime.fromtimestamp(instant, self._zone)
        minute = at.weekday() * _DAY + at.hour * 60 + at.minute
        return any((minute - start) % _WEEK < length for start, length in self._spans)

    def opens(self, instant: float) -> float | None:
        """When the hours begin next after an instant that is outside; None: not within days."""
        if self._closed is None or not self._closed.has(instant):
            found = [each for each in self._turns(instant) if each > instant and self.is_open(each)]
            if not found:
                return None
            self._closed = Span(instant, min(found))
        return self._closed.ends

    def _turns(self, instant: float) -> Iterator[float]:
        """Instants of the next days at which the hours may begin."""
        today = datetime.fromtimestamp(instant, self._zone).date()
        for day in (today + timedelta(days=ahead) for ahead in range(9)):
            for start, _ in self._spans:
                if start // _DAY != day.weekday():
                    continue
                hour, minute = divmod(start % _DAY, 60)
                for fold in (0, 1):  # an hour that comes twice
                    at = datetime(day.year, day.month, day.day, hour, minute, fold=fold)
                    yield at.replace(tzinfo=self._zone).timestamp()
        # Where clocks are changed they may jump into the hours.
        quarter = instant // QUARTER * QUARTER
        before = None
        for step in range(9 * 96):
            at = datetime.fromtimestamp(quarter + step * QUARTER, self._zone)
            if before is not None and at.utcoffset() != before:
                yield quarter + step * QUARTER
            before = at.utcoffset()


def _read(text: str) -> Iterator[tuple[int, int]]:
    """``(start, length)`` of each of an entry's spans, in minutes of the week."""
    read = _HOURS.fullmatch(text) if isinstance(text, str) else None
    if read is not None:
        start, end = _minutes(read["from"]), _minutes(read["to"])
        days = [day for part in read["days"].split(",") for day in _days(part)]
        if start is not None and end is not None and start != end and start < _DAY and all(
            day is not None for day in days
        ):  # fmt: skip
            for day in sorted({day for day in days if day is not None}):
                yield day * _DAY + start, (end - start) % _DAY or _DAY
            return
    raise OptionInvalid(
        f"{str(text)[:64]!r} does not read like hours of the week.",
        next_step="Write them as Mon-Fri 08:00-12:30 or Sat 22:00-02:00.",
    )


def _minutes(text: str) -> int | None:
    hour, minute = int(text[:2]), int(text[3:])
    total = hour * 60 + minute
    return total if minute < 60 and total <= _DAY else None


def _days(part: str) -> list[int | None]:
    """The weekdays of ``Mon`` or ``Fri-Mon``; None among them for what is none."""
    names = part.split("-")
    if len(names) > 2 or not all(name in _DAYS for name in names):
        return [None]
    first, last = _DAYS.index(names[0]), _DAYS.index(names[-1])
    return [(first + step) % 7 for step in range((last - first) % 7 + 1)]
