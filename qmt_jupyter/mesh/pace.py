"""How fast a sender may come: token buckets, one for each group of addresses."""

from __future__ import annotations

from collections import OrderedDict


class Pace:
    """At most ``burst`` at once and ``rate`` a second of one sender, over all senders bounded.

    Where more than ``senders`` are known, the one not heard of longest is forgotten: who comes
    again after that has a full bucket, as any newcomer has.
    """

    def __init__(self, rate: float, burst: float, senders: int = 4096) -> None:
        self._rate = rate
        self._burst = burst
        self._senders = senders
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def allows(self, sender: str, now: float) -> bool:
        """Whether this one more is within the pace; ``now`` in seconds of any steady clock."""
        left, last = self._buckets.pop(sender, (self._burst, now))
        left = min(self._burst, left + max(0.0, now - last) * self._rate)
        allowed = left >= 1.0
        self._buckets[sender] = (left - 1.0 if allowed else left, now)
        if len(self._buckets) > self._senders:
            self._buckets.popitem(last=False)
        return allowed

    def __len__(self) -> int:
        return len(self._buckets)
