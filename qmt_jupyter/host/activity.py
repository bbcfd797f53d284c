"""What goes on at this moment, and how many tokens the last quarter of an hour took.

Kept in memory alone, in bounded room, and gone with the host. Pure: the time is an argument.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .usage import GuestUsage

EVERY = 5
"""Tokens are added up for so many seconds."""
KEPT = 180
"""So many of these sums are kept: fifteen minutes."""
_WINDOW = 3.0
_LEAST = 0.5


@dataclass
class _Sum:
    """The tokens of :data:`EVERY` seconds from ``start``, which is in seconds since 1970."""

    start: int
    prompt: int = 0
    completion: int = 0


class Meter:
    """Counts tokens over time. ``prompt`` and ``completion`` only grow, but for corrections."""

    def __init__(self) -> None:
        self.prompt = 0
        self.completion = 0
        self._added = (0, 0)
        self._sums: deque[_Sum] = deque(maxlen=KEPT)
        # Of each guest (None: the owner) that streams: when it had been sent how many tokens.
        self._trails: dict[str | None, deque[tuple[float, int]]] = {}

    def follow(self, membership_id: str | None, guest: GuestUsage, clock: float) -> None:
        """Look at how many tokens a guest has; at a request's begin, its end, and in between."""
        trail = self._trails.setdefault(membership_id, deque())
        trail.append((clock, guest.completion_tokens))
        self._shorten(trail, clock)

    def speed(self, membership_id: str | None, clock: float) -> float:
        """Tokens of answers a second that a guest gets now, over the last few seconds."""
        trail = self._trails.get(membership_id)
        if trail is None:
            return 0.0
        self._shorten(trail, clock)
        if not trail:
            return 0.0
        began, had = trail[0]
        return max(0, trail[-1][1] - had) / max(clock - began, _LEAST)

    @staticmethod
    def _shorten(trail: deque[tuple[float, int]], clock: float) -> None:
        while trail and trail[0][0] < clock - _WINDOW:
            trail.popleft()

    def forget(self, clock: float) -> None:
        """Let go of the guests that have not been followed for a while."""
        for membership_id, trail in list(self._trails.items()):
            self._shorten(trail, clock)
            if not trail:
                del self._trails[membership_id]

    def add_up(self, now: float) -> None:
        """Put what was counted since the last time where it belongs; ``now`` is since 1970."""
        prompt, completion = self._added
        more = max(0, self.prompt - prompt), max(0, self.completion - completion)
        # After a correction downwards, what comes next fills the gap first.
        self._added = max(self.prompt, prompt), max(self.completion, completion)
        start = int(now // EVERY) * EVERY
        while self._sums and self._sums[0].start <= start - KEPT * EVERY:
            self._sums.popleft()
        if more == (0, 0):
            return
        if not self._sums or self._sums[-1].start < start:
            self._sums.append(_Sum(start))
        self._sums[-1].prompt += more[0]
        self._sums[-1].completion += more[1]

    def series(self) -> list[list[int]]:
        """``[start, prompt tokens, answer tokens]`` for each sum that is not 0, oldest first."""
        return [[each.start, each.prompt, each.completion] for each in self._sums]
