"""The providers of a host, each behind a queue of its own, and the names of their models."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..providers.base import Model, Provider
from .queue import FairQueue


@dataclass(frozen=True, eq=False)
class Lane:
    """One provider and the requests that wait for it."""

    provider: Provider
    queue: FairQueue


class Lanes:
    """Which lane answers for which model.

    A model goes by its own name, and by ``LABEL/NAME`` where several providers have one of that
    name (``LABEL-2/NAME`` from the second provider of one label).
    """

    def __init__(self, providers: Sequence[Provider]) -> None:
        self._lanes = [Lane(each, FairQueue(each.slots)) for each in providers]
        seen: Counter[str] = Counter()
        self._labels: dict[Lane, str] = {}
        for lane in self._lanes:
            label = lane.provider.label
            seen[label] += 1
            self._labels[lane] = label if seen[label] == 1 else f"{label}-{seen[label]}"

    @property
    def waiting(self) -> int:
        """How many requests wait, for whatever provider."""
        return sum(lane.queue.waiting for lane in self._lanes)

    @property
    def models(self) -> tuple[Model, ...]:
        """All models by their public names."""
        return tuple(replace(model, name=name) for name, (_, model) in self._table().items())

    def find(self, name: str) -> tuple[Lane, Model]:
        """The lane and the provider's own model behind a public name that is offered."""
        return self._table()[name]

    def _table(self) -> dict[str, tuple[Lane, Model]]:
        offered = [(lane, model) for lane in self._lanes for model in lane.provider.models]
        times = Counter(model.name for _, model in offered)
        return {
            model.name if times[model.name] == 1 else f"{self._labels[lane]}/{model.name}": (
                lane,
                model,
            )
            for lane, model in offered
        }
