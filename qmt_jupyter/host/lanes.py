"""The providers of a host, each behind a queue of its own, and the names of their models."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from ..errors import OptionInvalid
from ..harmless import printable
from ..providers.base import Model, Provider
from . import aliases as naming
from .queue import FairQueue

_LONGEST_LABEL = 60
# What a message to a guest can hold: 64 KiB in all, and 200 characters a name.
_LONGEST_NAME = 200
_OFFER_BYTES = 64
_MOST_OFFERED = 60_000


@dataclass(frozen=True, eq=False)
class Lane:
    """One provider and the requests that wait for it."""

    provider: Provider
    queue: FairQueue


class Lanes:
    """Which lane answers for which model.

    A model goes by its own name, and by ``LABEL/NAME`` where several providers have one of that
    name (``LABEL-2/NAME`` from the second provider of one label, in the order they were given).
    A model with an alias goes by that alone. Raises :class:`~qmt_jupyter.errors.OptionInvalid`
    for an alias that fits no model.
    """

    def __init__(self, providers: Sequence[Provider], aliases: Sequence[naming.Alias] = ()) -> None:
        self._lanes = [Lane(each, FairQueue(each.slots)) for each in providers]
        seen: Counter[str] = Counter()
        self._labels: dict[Lane, str] = {}
        for lane in self._lanes:
            label = printable(lane.provider.label, _LONGEST_LABEL) or "provider"
            seen[label] += 1
            self._labels[lane] = label if seen[label] == 1 else f"{label}-{seen[label]}"
        self._aliases: dict[tuple[Lane, str], str] = {}
        unnamed = self._table()
        for public, alias in naming.resolve(aliases, tuple(unnamed)).items():
            lane, model = unnamed[public]
            self._aliases[lane, model.name] = alias
        names = tuple(self._table())
        if sum(map(len, names)) + _OFFER_BYTES * len(names) > _MOST_OFFERED:
            raise OptionInvalid(
                f"{len(names)} models are more than a guest can be told of.",
                next_step="Share fewer, e.g. with --upstream-model.",
            )
        for name in names:
            if len(name) > _LONGEST_NAME:
                raise OptionInvalid(
                    f"{printable(name, 60)!r} is too long for a model's name.",
                    next_step="Give it a shorter one: --as NAME=MODEL.",
                )

    @property
    def waiting(self) -> int:
        """How many requests wait, for whatever provider."""
        return sum(lane.queue.waiting for lane in self._lanes)

    @property
    def models(self) -> tuple[Model, ...]:
        """All models by their public names."""
        return tuple(replace(model, name=name) for name, (_, model) in self._table().items())

    def loads(self) -> dict[str, tuple[int, int]]:
        """Of each public name: how many requests run side by side, and how many run or wait."""
        return {
            name: (lane.provider.slots, lane.queue.busy)
            for name, (lane, _) in self._table().items()
        }

    @property
    def busy(self) -> int:
        """How many requests run or wait, for whatever provider."""
        return sum(lane.queue.busy for lane in self._lanes)

    def find(self, name: str) -> tuple[Lane, Model]:
        """The lane and the provider's own model behind a public name that is offered."""
        return self._table()[name]

    def meant(self, wanted: str, offered: Collection[str]) -> str | None:
        """The one of the ``offered`` public names that ``wanted`` stands for.

        That is itself, or the one model without an alias whose bare name, or name with its
        provider's label, is ``wanted``. None where it is none of them, or several.
        """
        if wanted in offered:
            return wanted
        meant = [
            name
            for name, (lane, model) in self._table().items()
            if name in offered
            and (lane, model.name) not in self._aliases
            and wanted in (model.name, f"{self._labels[lane]}/{model.name}")
        ]
        return meant[0] if len(meant) == 1 else None

    def _table(self) -> dict[str, tuple[Lane, Model]]:
        offered = [(lane, model) for lane in self._lanes for model in lane.provider.models]
        named = self._aliases
        # What has an alias clashes with nothing any more.
        times = Counter(model.name for lane, model in offered if (lane, model.name) not in named)
        taken = set(named.values())
        table: dict[str, tuple[Lane, Model]] = {}
        for lane, model in offered:
            name = named.get((lane, model.name))
            if name is None:
                bare = times[model.name] == 1 and model.name not in taken
                name = model.name if bare else f"{self._labels[lane]}/{model.name}"
            free, number = name, 2
            while free in table:  # a model's own name may look like another's with its label
                free, number = f"{name}-{number}", number + 1
            table[free] = (lane, model)
        return table
