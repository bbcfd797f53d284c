"""What a guest is told of the models: which its invite includes, and how busy they are.

All guests of invites with the same models are told the same list, made at most twice a second
however many guests there are. Pure; the time is an argument.
"""

from __future__ import annotations

from collections.abc import Callable

from ..providers.base import Model
from ..wire import messages
from .limits import Limits

TELL_EVERY = 2.0
"""A guest is told again after so many seconds at the soonest."""

# A host with hundreds of models would otherwise send its list to hundreds of guests all the time.
_MODELS_A_SECOND = 8
_FRESH = 0.5

Offered = Callable[[Limits], tuple[Model, ...]]
Loads = Callable[[], dict[str, tuple[int, int]]]


class Offers:
    """The lists that guests are told. ``loads`` gives a model's slots and how many are busy."""

    def __init__(self, offered: Offered, loads: Loads) -> None:
        self._offered = offered
        self._loads = loads
        self._made: dict[tuple[str, ...], list[messages.ModelOffer]] = {}
        self._made_at = float("-inf")

    def to(self, limits: Limits, now: float) -> list[messages.ModelOffer]:
        """What a guest within ``limits`` is offered, at most half a second old."""
        if not 0 <= now - self._made_at < _FRESH:
            self._made.clear()
            self._made_at = now
        if limits.models not in self._made:
            loads = self._loads()
            self._made[limits.models] = [
                _offer(model, *loads[model.name]) for model in self._offered(limits)
            ]
        return self._made[limits.models]


def _offer(model: Model, slots: int, busy: int) -> messages.ModelOffer:
    return messages.ModelOffer(
        name=model.name,
        context=model.context,
        chats=model.chats,
        embeds=model.embeds,
        slots=min(max(slots, 1), messages.MOST_SLOTS),
        busy=min(busy, messages.MOST_BUSY),
    )


class Telling:
    """When one guest is told the models again: seldom, and only when they have changed."""

    def __init__(self, told: list[messages.ModelOffer], now: float) -> None:
        self._told = told
        self._at = now

    def due(self, offers: list[messages.ModelOffer], now: float) -> bool:
        """Whether ``offers`` are to be told now; they count as told then."""
        if now - self._at < TELL_EVERY or offers == self._told:
            return False
        others = [each.name for each in offers] != [each.name for each in self._told]
        if not others and now - self._at < len(offers) / _MODELS_A_SECOND:
            return False
        self._told, self._at = offers, now
        return True
