"""Providers that other packages bring, under entry points of the group ``qmt_jupyter.providers``.

The contract is in :mod:`.base`. A plugin is code that the person who hosts has installed, so it is
trusted as such; it is not trusted to work.
"""

from __future__ import annotations

import inspect
import re
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from ..errors import EngineMissing, ModelNotLoaded, OptionInvalid, QmtError
from ..harmless import printable
from .base import Model, Options, Provider

GROUP = "qmt_jupyter.providers"
_LONGEST_NAME = 200  # characters of a model's name
_MOST_MODELS = 1024
_MOST_SLOTS = 1024

# One letter before the colon is a drive. What the model files' own names begin with is no plugin.
_NAMED = re.compile(r"([A-Za-z][A-Za-z0-9_.-]+):(.*)", re.DOTALL)
_NOT_PLUGINS = ("hf", "http", "https", "file")


def plugin_in(model: str) -> tuple[str, str] | None:
    """The plugin's name and the rest, where ``model`` is ``NAME:REST`` and no file is called so."""
    match = _NAMED.fullmatch(model)
    if match is None or match[1].lower() in _NOT_PLUGINS:
        return None
    try:
        if Path(model).exists():
            return None
    except (OSError, ValueError):
        pass
    return match[1], match[2]


async def load_plugin(name: str, rest: str, options: Options) -> Provider:
    """Load the plugin ``name`` and have it make a provider from ``rest``.

    Raises :class:`~qmt_jupyter.errors.EngineMissing` where there is none,
    :class:`~qmt_jupyter.errors.OptionInvalid` where there are several, and
    :class:`~qmt_jupyter.errors.ModelNotLoaded` for one that is broken.
    """
    entry = _find(name)
    brought_by = f" of {entry.dist.name}" if entry.dist else ""
    plugin = f"The provider plugin {name}{brought_by}"
    problem: str
    try:
        factory = entry.load()
    except Exception as error:
        problem = f"{plugin} does not load ({_said(error)})."
    else:
        try:
            made: Any = factory(rest, options)
            if inspect.isawaitable(made):
                made = await made
        except QmtError:
            raise
        except Exception as error:
            problem = f"{plugin} failed ({_said(error)})."
        else:
            if isinstance(made, Provider):
                await require_sound(made, plugin)
                return made
            problem = f"{plugin} gave a {type(made).__name__} and no provider."
    # Raised out here, no frame of the plugin hangs on to it.
    raise ModelNotLoaded(problem, next_step="Update or mend the package that brings it.")


async def require_sound(provider: Provider, what: str) -> None:
    """Close a provider that says what no provider may say of itself, and refuse it.

    Raises :class:`~qmt_jupyter.errors.ModelNotLoaded`; ``what`` begins the sentence.
    """
    try:
        problem = _unsound(provider)
    except Exception as error:
        problem = f"cannot say what it offers ({_said(error)})"
    if problem is None:
        return
    try:
        await provider.aclose()
    except Exception as error:
        problem += f", and fails to close ({_said(error)})"
    raise ModelNotLoaded(
        f"{what} {problem}.", next_step="Mend it; docs/providers.md says what a provider promises."
    )


def _unsound(provider: Provider) -> str | None:
    models = tuple(provider.models)
    if not 0 < len(models) <= _MOST_MODELS:
        return f"has {len(models)} models, and 1 to {_MOST_MODELS} can be shared"
    for model in models:
        name = model.name if isinstance(model, Model) else None
        if not isinstance(name, str) or not 0 < len(name) <= _LONGEST_NAME:
            return f"has a model without a name of 1 to {_LONGEST_NAME} characters"
        if not name.isprintable():
            return f"has a model, {printable(name, 80)!r}, whose name cannot be printed"
        context = model.context
        if context is not None and not (isinstance(context, int) and 0 < context < 2**31):
            return f"has a model, {name[:80]!r}, whose context is {printable(repr(context), 40)}"
    names = [model.name for model in models]
    if len(set(names)) < len(names):
        return "has two models of one name"
    slots = provider.slots
    if isinstance(slots, bool) or not isinstance(slots, int) or not 0 < slots <= _MOST_SLOTS:
        return f"runs {printable(repr(slots), 40)} requests side by side"
    return None


def _find(name: str) -> EntryPoint:
    installed = sorted(entry_points(group=GROUP), key=lambda each: each.name)
    fitting = [each for each in installed if each.name == name]
    if not fitting:
        names = ", ".join(printable(each.name, 60) for each in installed[:20]) or "none"
        raise EngineMissing(
            f"There is no provider plugin {name} here, and no file of that name; the installed "
            f"plugins are: {names}.",
            next_step="Install the package that brings it, or correct --model.",
        )
    brought_by = {each.dist.name if each.dist else each.value for each in fitting}
    if len(brought_by) > 1:
        raise OptionInvalid(
            f"Several packages bring a provider plugin {name}: {', '.join(sorted(brought_by))}.",
            next_step="Uninstall all but one.",
        )
    return fitting[0]


def _said(error: BaseException) -> str:
    text = printable(str(error), 200).rstrip(".")
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
