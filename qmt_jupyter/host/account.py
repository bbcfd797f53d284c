"""What an invite's limits have left: tokens are reserved before a request and settled after it.

Pure: the time is an argument, in seconds of any clock that only goes forward. Reserving first
means that requests side by side cannot overrun a budget together; settling gives back what an
answer did not need.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Any

from ..errors import (
    DayUsedUp,
    LimitReached,
    MonthUsedUp,
    RequestRateReached,
    RequestsUsedUp,
    TokenRateReached,
    TokensReserved,
    TokensUsedUp,
    TooManyAtOnce,
)
from .limits import UNLIMITED, Limits

MINUTE = 60
_SOON = 5.0
# A minute's rest that is smaller than this share of the whole waits for more.
_LEAST_SHARE = 8

REFUSALS: dict[str, type[LimitReached]] = {
    "budget": TokensUsedUp,
    "rate": TokenRateReached,
    "day": DayUsedUp,
    "month": MonthUsedUp,
}
"""Why an answer is cut off, and what a request is refused with for the same reason."""


class Window:
    """How much fell into the last sixty seconds, kept by whole seconds and never too little."""

    def __init__(self) -> None:
        self._seconds: deque[list[int]] = deque()  # [second, amount], oldest first
        self._sum = 0

    def add(self, now: float, amount: int) -> None:
        """Count ``amount`` at ``now``."""
        second = math.floor(now)
        if self._seconds and self._seconds[-1][0] >= second:
            # What comes late counts from the newest second: rather too long than too short.
            self._seconds[-1][1] += amount
        else:
            self._seconds.append([second, amount])
        self._sum += amount

    def take_back(self, when: float) -> None:
        """Count one less at ``when``, if that is within the minute still."""
        for entry in reversed(self._seconds):
            if entry[0] <= math.floor(when):
                entry[1] -= 1
                self._sum -= 1
                return

    def used(self, now: float) -> int:
        """What fell into the minute before ``now``."""
        while self._seconds and self._seconds[0][0] + MINUTE + 1 <= now:
            self._sum -= self._seconds.popleft()[1]
        return self._sum

    def wait(self, now: float, allowed: int) -> float:
        """In how many seconds no more than ``allowed`` is left in the minute, at least one."""
        left = self.used(now)
        for second, amount in self._seconds:
            if left <= allowed:
                break
            left -= amount
            wait = second + MINUTE + 1 - now
            if left <= allowed:
                return max(1.0, wait)
        return 1.0


class Grant:
    """What one request may take. Ended by :meth:`settle`, exactly once.

    ``answer_limit`` is the longest answer in tokens (None: as long as the model likes);
    ``cut_by`` says what a longer one would break: ``length`` (asked for, or the invite's longest
    answer), ``budget`` or ``rate``, and of a seat ``day`` or ``month``. ``held`` tokens are
    reserved. ``streamed`` is counted up by whoever delivers.
    """

    def __init__(
        self,
        account: Account,
        prompt: int,
        answer_limit: int | None,
        cut_by: str,
        held: int,
        asked: float,
    ) -> None:
        self._account = account
        self.asked = asked
        self.held = held
        self.prompt = prompt
        self.answer_limit = answer_limit
        self.cut_by = cut_by
        self.streamed = 0
        self.started = False

    def know_prompt(self, tokens: int, now: float) -> None:
        """The engine has counted the prompt; the reservation follows, and the answer's limit.

        Raises the one of :data:`REFUSALS` that fits where nothing is left for an answer.
        """
        more, self.prompt = tokens - self.prompt, tokens
        if not self.held:
            return
        granted = min(more, self._account.free_for(self, now))
        self.held += granted
        self._account.reserved += granted
        if granted < more and self.answer_limit is not None:
            self.answer_limit -= more - granted
            self.cut_by = self._account.scarcest(self)
            if self.answer_limit < 1:
                refusal = REFUSALS[self.cut_by]
                raise refusal(f"The prompt has {tokens} tokens, and fewer are left.")

    def withdraw(self, now: float) -> None:
        """The request was refused before it began: it counts for nothing."""
        if self._account.end(self, 0, now):
            self._account.requests -= 1
            self._account.forget_request(self.asked)
        self.held = 0

    def settle(self, prompt: int, answer: int, now: float) -> None:
        """The request has ended and took this many tokens."""
        self._account.end(self, prompt + answer, now)
        self.held = 0


class Account:
    """The state of one set of limits: of an invite, or of one guest of it.

    ``is_paused``: nothing may be asked for now. ``weight`` is the share in the queue.
    """

    is_paused = False
    weight = 1

    def __init__(self, limits: Limits = UNLIMITED, *, requests: int = 0, tokens: int = 0) -> None:
        self.limits = limits
        self.requests = requests
        self.tokens = tokens
        self.reserved = 0
        self._running: set[Grant] = set()
        self._request_times = Window()
        self._token_times = Window()

    def recall(self, asked: float, ended: float, tokens: int, now: float) -> None:
        """A request of before a restart, which is in the totals already.

        It was asked and has ended so many seconds ago.
        """
        if asked < MINUTE:
            self._request_times.add(now - max(0.0, asked), 1)
        if ended < MINUTE:
            self._token_times.add(now - max(0.0, ended), tokens)

    @property
    def running(self) -> int:
        """Requests that run or wait."""
        return len(self._running)

    def free(self, now: float) -> int:
        """Tokens that could be reserved now; a very large number where nothing limits them."""
        limits, free = self.limits, 2**60
        if limits.tokens is not None:
            free = limits.tokens - self.tokens - self.reserved
        if limits.tokens_per_minute is not None:
            rate = limits.tokens_per_minute - self._token_times.used(now) - self.reserved
            free = min(free, rate)
        return max(0, free)

    def free_for(self, grant: Grant, now: float) -> int:  # noqa: ARG002  (a seat's needs it)
        """Tokens that a request which runs could have beyond what it holds."""
        return self.free(now)

    def scarcest(self, grant: Grant) -> str:  # noqa: ARG002  (a seat's needs it)
        """Which of :data:`REFUSALS` bounds a request that runs."""
        return "budget" if self.limits.tokens else "rate"

    def begin(
        self, *, prompt: int, wanted: int | None, longest: int, now: float, wall: float = 0.0
    ) -> Grant:
        """Let a request in and reserve what it may take.

        ``prompt`` is how many tokens it has, or a careful guess; ``wanted`` the longest answer
        that was asked for, ``longest`` the longest that the model can give. ``wall`` is now in
        seconds since 1970, for what goes by the calendar.

        Raises a :class:`~qmt_jupyter.errors.LimitReached` that says what is left, or when to try
        again; nothing is counted then.
        """
        self._require_turn(now, wall)
        longest_here = self.limits.answer_tokens
        asked = min(each for each in (wanted, longest, longest_here) if each is not None)
        cut_by, held = "length", 0
        limit: int | None = asked
        bounds = self._bounds(prompt, asked, now, wall)
        if bounds:
            room, by = min(bounds, key=lambda bound: bound[0])
            if room < asked:
                limit, cut_by = room, by
            held = prompt + min(asked, room)
        elif wanted is None and longest_here is None:
            limit = None
        grant = Grant(self, prompt, limit, cut_by, held, now)
        self.reserved += held
        self.requests += 1
        self._running.add(grant)
        self._request_times.add(now, 1)
        return grant

    def _bounds(
        self,
        prompt: int,
        asked: int,
        now: float,
        wall: float,  # noqa: ARG002  (a seat's needs it)
    ) -> list[tuple[int, str]]:
        """How many tokens of an answer are left, by each of :data:`REFUSALS` that bounds it."""
        limits, bounds = self.limits, []
        if limits.tokens is not None:
            bounds.append((self._budget_room(limits.tokens, prompt), "budget"))
        if limits.tokens_per_minute is not None:
            bounds.append((self._rate_room(limits.tokens_per_minute, prompt, asked, now), "rate"))
        return bounds

    def _require_turn(self, now: float, wall: float) -> None:  # noqa: ARG002  (as above)
        limits = self.limits
        if limits.concurrent is not None and self.running >= limits.concurrent:
            raise TooManyAtOnce(
                f"The invite allows {limits.concurrent} requests at once, "
                f"and {self.running} run or wait.",
                retry_after=_SOON,
            )
        if limits.requests is not None and self.requests >= limits.requests:
            raise RequestsUsedUp(f"All {limits.requests} requests of this invite have been made.")
        per_minute = limits.requests_per_minute
        if per_minute is not None and self._request_times.used(now) >= per_minute:
            wait = self._request_times.wait(now, per_minute - 1)
            raise RequestRateReached(
                f"The invite allows {per_minute} requests a minute; "
                f"the next one in {math.ceil(wait)} s.",
                retry_after=wait,
            )

    def _budget_room(self, budget: int, prompt: int) -> int:
        left = budget - self.tokens
        if left <= prompt:
            said = f"{max(0, left)} of the invite's {budget} tokens are left"
            if left > 0:
                said += f", and the prompt takes about {prompt}"
            raise TokensUsedUp(f"{said}.")
        if left - self.reserved <= prompt:
            raise TokensReserved(
                f"{left} of the invite's {budget} tokens are left, and running requests hold "
                f"{self.reserved} of them.",
                retry_after=_SOON,
            )
        return left - self.reserved - prompt

    def _rate_room(self, rate: int, prompt: int, asked: int, now: float) -> int:
        needed = prompt + min(asked, max(1, rate // _LEAST_SHARE))
        if prompt >= rate:
            raise TokenRateReached(
                f"The prompt takes about {prompt} tokens, and the invite allows {rate} a minute.",
                next_step="Shorten it, or start over with --new.",
            )
        room = rate - self._token_times.used(now) - self.reserved
        if room < min(needed, rate):
            wait = self._token_times.wait(now, max(0, rate - self.reserved - min(needed, rate)))
            raise TokenRateReached(
                f"The invite allows {rate} tokens a minute; enough are free again in about "
                f"{math.ceil(wait)} s.",
                retry_after=wait,
            )
        return room - prompt

    def forget_request(self, asked: float) -> None:
        """A request that began at ``asked`` does not count after all."""
        self._request_times.take_back(asked)

    def end(self, grant: Grant, tokens: int, now: float) -> bool:
        """A grant was settled; a second time is nothing, and False."""
        if grant not in self._running:
            return False
        self._running.discard(grant)
        self.reserved -= grant.held
        self.tokens += tokens
        self._token_times.add(now, tokens)
        return True

    def left(self, wall: float) -> dict[str, Any]:  # noqa: ARG002  (a seat's needs it)
        """What remains, as plain numbers: ``requests`` and ``tokens``, None where not limited.

        ``wall`` is now in seconds since 1970, for what goes by the calendar.
        """
        limits = self.limits
        running = sum(each.prompt + each.streamed for each in self._running if each.started)
        return {
            "requests": None
            if limits.requests is None
            else max(0, limits.requests - self.requests),
            "tokens": None
            if limits.tokens is None
            else max(0, limits.tokens - self.tokens - running),
        }
