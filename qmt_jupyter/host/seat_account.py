"""What a user's allowance has left, for all of the user's seats together.

Pure: ``now`` is in seconds of any clock that only goes forward, ``wall`` in seconds since 1970. A
request counts on the day on which it was asked, in memory as in the ledger, so a restart changes
nothing. What was used on other hosts is told from outside, and holds for the day and the month in
which it was told.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..errors import (
    DayUsedUp,
    MonthUsedUp,
    OutsideHours,
    Paused,
    RequestRateReached,
    TokensReserved,
    TooManyAtOnce,
)
from .account import Account, Grant
from .allowance import Allowance
from .calendar import QUARTER, Span, day_of, moment, month_of, zone_of

REMEMBERED = 33 * 86400.0
"""So many seconds back from now are needed to count a month in any zone."""
_SOON = 5.0
_NOWHERE = Span(0.0, 0.0)


@dataclass
class _Period:
    """A day or a month: what requests asked in it took here, and what others said they took."""

    name: str
    span: Span = _NOWHERE
    used: int = 0
    told: int = 0
    told_at: float = 0.0

    @property
    def all_used(self) -> int:
        return self.used + self.told


class SeatAccount(Account):
    """The state of one user's allowance. ``is_recorded``: it is in the ledger as it is."""

    def __init__(self, allowance: Allowance, spent: Mapping[int, int] | None = None) -> None:
        """``spent``: tokens of requests by the quarter of an hour since 1970 of their asking."""
        super().__init__(allowance.limits())
        self.allowance = allowance
        self.is_recorded = False
        self._spent = Counter(spent or {})
        self._asked_at: dict[Grant, float] = {}
        self._day = _Period("day")
        self._month = _Period("month")
        self.allow(allowance)

    def allow(self, allowance: Allowance) -> None:
        """From now on this holds. What runs goes on as it was let in."""
        if allowance.zone != self.allowance.zone:
            # Counted anew: there it may be another day, for what others said as well.
            for period in (self._day, self._month):
                period.span = _NOWHERE
        self.allowance = allowance
        tokens = allowance.tokens_per_day or allowance.tokens_per_month
        self.limits = replace(allowance.limits(), tokens=tokens)
        self.is_paused = allowance.paused
        self.weight = allowance.priority
        self._zone = zone_of(allowance.zone)
        self._week = allowance.week()

    def told_elsewhere(self, day: int, month: int, wall: float) -> None:
        """So many tokens were used on other hosts today and this month."""
        self._turn(wall)
        self._day.told, self._month.told = day, month
        self._day.told_at = self._month.told_at = wall

    def used(self, wall: float) -> dict[str, int]:
        """Tokens of today and of this month here, with what running requests have so far."""
        self._turn(wall)
        return {each.name: each.used + self._streamed(each) for each in (self._day, self._month)}

    def elsewhere(self, wall: float) -> dict[str, int]:
        """What :meth:`told_elsewhere` said, as long as it is the same day and month."""
        self._turn(wall)
        return {"day": self._day.told, "month": self._month.told}

    def rest(self, wall: float) -> dict[str, int | None]:
        """Tokens left of the ``day`` and the ``month``; None where not limited."""
        used, elsewhere = self.used(wall), self.elsewhere(wall)
        budgets = {
            "day": self.allowance.tokens_per_day,
            "month": self.allowance.tokens_per_month,
        }
        return {
            name: None if budget is None else max(0, budget - used[name] - elsewhere[name])
            for name, budget in budgets.items()
        }

    def left(self, wall: float) -> dict[str, Any]:
        """``tokens`` is the smaller of what the day and the month have left."""
        known = [each for each in self.rest(wall).values() if each is not None]
        return {"requests": None, "tokens": min(known, default=None)}

    # Letting in ------------------------------------------------------------------------------

    def begin(
        self, *, prompt: int, wanted: int | None, longest: int, now: float, wall: float = 0.0
    ) -> Grant:
        """Like an account's, by the clock on the ``wall`` too."""
        self._turn(wall)
        grant = super().begin(prompt=prompt, wanted=wanted, longest=longest, now=now, wall=wall)
        self._asked_at[grant] = wall
        return grant

    def end(self, grant: Grant, tokens: int, now: float) -> bool:
        """Like an account's; the tokens are those of the day of asking."""
        asked = self._asked_at.pop(grant, None)
        if asked is not None:
            self._spent[int(asked // QUARTER)] += tokens
            for period in (self._day, self._month):
                if period.span.has(asked):
                    period.used += tokens
        return super().end(grant, tokens, now)

    def free_for(self, grant: Grant, now: float) -> int:  # noqa: ARG002  (an invite's needs it)
        """Tokens that a running request could have beyond what it holds."""
        rooms = self._rooms(grant)
        return max(0, min(room for room, _ in rooms)) if rooms else 2**60

    def scarcest(self, grant: Grant) -> str:
        """``day`` or ``month``."""
        return min(self._rooms(grant), default=(0, "day"))[1]

    def _rooms(self, grant: Grant) -> list[tuple[int, str]]:
        asked = self._asked_at.get(grant, 0.0)
        return [
            (budget - self._taken(period, asked), period.name) for period, budget in self._budgets()
        ]

    def _taken(self, period: _Period, asked: float) -> int:
        """What is used and held of the day or the month of ``asked``, which may be over.

        What began yesterday takes nothing of today, and no more than yesterday had left.
        """
        if period.span.has(asked):
            return period.all_used + self._reserved(period)
        over = _Period(period.name)
        over.span = (day_of if period is self._day else month_of)(asked, self._zone)
        return self._spent_in(over.span) + self._reserved(over)

    def _budgets(self) -> list[tuple[_Period, int]]:
        allowed = self.allowance
        found = ((self._day, allowed.tokens_per_day), (self._month, allowed.tokens_per_month))
        return [(period, budget) for period, budget in found if budget is not None]

    def _require_turn(self, now: float, wall: float) -> None:
        allowed = self.allowance
        if self.is_paused:
            raise Paused("Your seat is paused; nothing can be asked until it is not.")
        if not self._week.is_open(wall):
            opens = self._week.opens(wall)
            said = "now" if opens is None else f"until {moment(opens, wall, self._zone)}"
            raise OutsideHours(
                f"Your seat may not be used {said}; its hours are {', '.join(allowed.hours)}.",
                retry_after=None if opens is None else max(1.0, opens - wall),
            )
        if allowed.concurrent is not None and self.running >= allowed.concurrent:
            raise TooManyAtOnce(
                f"You may have {allowed.concurrent} requests at once, on all your servers "
                f"together, and {self.running} run or wait.",
                retry_after=_SOON,
            )
        per_minute = allowed.requests_per_minute
        if per_minute is not None and self._request_times.used(now) >= per_minute:
            wait = self._request_times.wait(now, per_minute - 1)
            raise RequestRateReached(
                f"You may make {per_minute} requests a minute; the next one in "
                f"{math.ceil(wait)} s.",
                retry_after=wait,
            )

    def _bounds(
        self,
        prompt: int,
        asked: int,  # noqa: ARG002  (an invite's needs it)
        now: float,  # noqa: ARG002  (an invite's needs it)
        wall: float,
    ) -> list[tuple[int, str]]:
        return [
            (self._room(period, budget, prompt, wall), period.name)
            for period, budget in self._budgets()
        ]

    def _room(self, period: _Period, budget: int, prompt: int, wall: float) -> int:
        """The tokens that are left for an answer. Raises where there are none."""
        left, held = budget - period.all_used, self._reserved(period)
        if left - held > prompt:
            return left - held - prompt
        if left > prompt:
            raise TokensReserved(
                f"{left} of your {budget} tokens for this {period.name} are left, and running "
                f"requests hold {held} of them.",
                retry_after=_SOON,
            )
        ends, wait = moment(period.span.ends, wall, self._zone), period.span.ends - wall
        takes = f", and the prompt takes about {prompt}" if left > 0 else ""
        if period is self._day:
            raise DayUsedUp(
                f"{max(0, left)} of your {budget} tokens for this day are left{takes}; "
                f"there are none until {ends}.",
                retry_after=wait,
            )
        raise MonthUsedUp(
            f"{max(0, left)} of your {budget} tokens for this month are left{takes}; "
            f"there are none until {ends}.",
            retry_after=wait,
        )

    # Counting --------------------------------------------------------------------------------

    def _turn(self, wall: float) -> None:
        """Turn over the pages of the calendar that are over."""
        for period, spans in ((self._day, day_of), (self._month, month_of)):
            if period.span.has(wall):
                continue
            period.span = span = spans(wall, self._zone)
            if not span.has(period.told_at):
                period.told = 0
            period.used = self._spent_in(span)
        if len(self._spent) > 40 * 96:
            oldest = (wall - REMEMBERED) // QUARTER
            self._spent = Counter({at: n for at, n in self._spent.items() if at >= oldest})

    def _spent_in(self, span: Span) -> int:
        return sum(tokens for each, tokens in self._spent.items() if span.has(each * QUARTER))

    def _reserved(self, period: _Period) -> int:
        return sum(grant.held for grant, asked in self._asked_at.items() if period.span.has(asked))

    def _streamed(self, period: _Period) -> int:
        return sum(
            grant.prompt + grant.streamed
            for grant, asked in self._asked_at.items()
            if grant.started and period.span.has(asked)
        )
