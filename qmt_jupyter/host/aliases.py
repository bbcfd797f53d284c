"""Names that the person who hosts gives to models: guests see them and nothing of the old ones.

Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..errors import OptionInvalid
from ..harmless import printable

LONGEST = 100  # characters

Aliases = str | Sequence[str] | Mapping[str, str]
"""How they are given: ``NAME``, ``NAME=MODEL``, several of these, or names mapped to models."""


@dataclass(frozen=True)
class Alias:
    """``model`` goes by ``name``; None: the one model that is shared."""

    name: str
    model: str | None = None


def parse(given: Aliases) -> tuple[Alias, ...]:
    """Aliases from ``NAME`` and ``NAME=MODEL``, or from a mapping of names to models.

    Raises :class:`~qmt_jupyter.errors.OptionInvalid`.
    """
    if isinstance(given, str):
        given = (given,)
    if isinstance(given, Mapping):
        aliases = tuple(Alias(name, model) for name, model in given.items())
    else:
        parted = [text.partition("=") for text in given]
        aliases = tuple(Alias(name, model if sign else None) for name, sign, model in parted)
    for alias in aliases:
        _check(alias)
    names = [alias.name for alias in aliases]
    for name in names:
        if names.count(name) > 1:
            raise OptionInvalid(
                f"{name} is given to two models.", next_step="Give each --as another name."
            )
    return aliases


def _check(alias: Alias) -> None:
    name, model = alias.name, alias.model
    if not isinstance(name, str) or not isinstance(model, str | None) or model == "":
        raise OptionInvalid(
            "An alias is a name, or NAME=MODEL.", next_step="Correct --as, e.g. --as fast=smollm2."
        )
    if not name or len(name) > LONGEST:
        raise OptionInvalid(
            f"An alias has 1 to {LONGEST} characters, not {len(name)}.",
            next_step="Choose another name for --as.",
        )
    if not name.isprintable() or any(letter.isspace() for letter in name):
        raise OptionInvalid(
            f"{printable(name, 60)!r} has characters that a model's name must not have.",
            next_step="Choose a name for --as without blanks and invisible characters.",
        )


def resolve(aliases: Sequence[Alias], shared: Sequence[str]) -> dict[str, str]:
    """Which of the ``shared`` models goes by which alias.

    Raises :class:`~qmt_jupyter.errors.OptionInvalid` for a model that is not shared, one that is
    named twice, and a name that another model has.
    """
    listed = ", ".join(shared[:20]) or "none"
    names: dict[str, str] = {}
    for alias in aliases:
        model = alias.model
        if model is None:
            if len(shared) != 1:
                raise OptionInvalid(
                    f"{alias.name} could be any of {len(shared)} models: {listed}.",
                    next_step=f"Say which: --as {alias.name}=MODEL.",
                )
            model = shared[0]
        if model not in shared:
            raise OptionInvalid(
                f"There is no model {printable(model, 80)!r} to be called {alias.name}; shared "
                f"are {listed}.",
                next_step="Correct --as.",
            )
        if model in names:
            raise OptionInvalid(
                f"{model} gets two names, {names[model]} and {alias.name}.",
                next_step="Leave out one --as.",
            )
        names[model] = alias.name
    for model in shared:
        if model not in names and model in names.values():
            raise OptionInvalid(
                f"Another model is called {model} already.",
                next_step="Choose another name for --as, or name that one too.",
            )
    return names
