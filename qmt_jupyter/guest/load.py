"""How busy a host is, by what it tells and by what this guest knows of itself. Pure.

A host tells at most every two seconds, and may lie. What this guest has begun or ended since is
added, and its own requests are the least that a host counts as having, whatever it says.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ..wire.messages import ModelOffer

LONGEST_PAUSE = 60.0


@dataclass(frozen=True)
class _Told:
    slots: int | None
    busy: int | None
    own: int  # requests of this guest's that ran or waited there at that moment


class HostLoad:
    """One host's load, model by model, and whether it is given a pause."""

    def __init__(self) -> None:
        self._own: Counter[str] = Counter()
        self._told: dict[str, _Told] = {}
        self._failures = 0
        self._paused_until = float("-inf")

    # How busy --------------------------------------------------------------------------------

    def told(self, offers: Iterable[ModelOffer]) -> None:
        """The host tells its models, all of them."""
        self._told = {
            offer.name: _Told(offer.slots, offer.busy, self._own[offer.name]) for offer in offers
        }

    @contextmanager
    def asking(self, model: str) -> Iterator[None]:
        """A request of this guest's for ``model`` is under way."""
        self._own[model] += 1
        try:
            yield
        finally:
            self._own[model] -= 1
            if not self._own[model]:
                del self._own[model]

    def slots(self, model: str) -> int | None:
        """How many requests run side by side; None where the host does not tell."""
        told = self._told.get(model)
        return None if told is None else told.slots

    def busy(self, model: str) -> int | None:
        """How many requests run or wait now; None where nothing is known of that."""
        told, own = self._told.get(model), self._own[model]
        if told is None or told.busy is None:
            return own or None
        return max(own, told.busy + own - told.own)

    def load(self, model: str) -> float | None:
        """Requests that run or wait for each slot: 0 idle, 1 full, above 1 some wait.

        None where nothing is known.
        """
        busy = self.busy(model)
        return None if busy is None else busy / (self.slots(model) or 1)

    # Pauses ----------------------------------------------------------------------------------

    def failed(self, now: float, retry_after: float | None = None) -> None:
        """The host did not take a request: for a while it is asked after all others.

        Twice as long each time, for a minute at most; ``retry_after`` is the host's own word.
        """
        if now < self._paused_until:
            return
        asked = retry_after if retry_after is not None and math.isfinite(retry_after) else 0.0
        self._paused_until = now + min(LONGEST_PAUSE, max(asked, 2.0**self._failures))
        self._failures = min(self._failures + 1, 6)

    def answered(self) -> None:
        """The host has begun to answer."""
        self._failures = 0
        self._paused_until = float("-inf")

    def is_paused(self, now: float) -> bool:
        """Whether the others come first now."""
        return now < self._paused_until
