"""What a prompt takes along from the notebook: variables that fill it, and cells beside it.

Only what was asked for by name is taken, and everything that is taken can be said. Where anything
is wrong with one of the names, an error is raised before anything is sent.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import OptionInvalid
from ..harmless import printable
from .values import Sendable, bounded, require_sendable, sendable

_MOST_CELLS = 100
_CELLS = re.compile(r"(In|Out)?(?(1)\[)\s*(-?\d+)(?:\s*-\s*(-?\d+))?\s*(?(1)\])")
_FIELD = re.compile(r"([^\W\d]\w*)((?:\.\w+|\[[^\[\]]+\])*)")
_STEP = re.compile(r"\.(\w+)|\[([^\[\]]+)\]")
_NEXT_STEP = (
    "Give variables (df,x) and cells: 3, 2-5, -1 for the last one, In[3] for what was asked in "
    "it, Out[3] for its result."
)


@dataclass(frozen=True)
class Cells:
    """A session's cells as IPython keeps them. ``sources[0]`` is nobody's."""

    sources: Sequence[str]
    results: Mapping[int, Any]
    now: int

    @classmethod
    def of(cls, shell: Any) -> Cells:
        """Those of a running shell."""
        history = shell.history_manager
        # The one that runs is the last; what execution_count means meanwhile differs by version.
        sources = history.input_hist_raw
        return cls(sources, history.output_hist, len(sources) - 1)


# Filling ---------------------------------------------------------------------------------------


class _Filling(string.Formatter):
    """Names, attributes and keys; nothing is called, and nothing private is reached."""

    def __init__(self, names: Mapping[str, Any]) -> None:
        self._names = names
        self.filled: dict[str, Sendable] = {}

    def get_field(self, field_name: str, args: Any, kwargs: Any) -> tuple[Any, str]:  # noqa: ARG002
        first, steps = _steps(field_name)
        value = self._names[first]
        require_sendable(first, value)
        for is_attribute, step in steps:
            value = _step(value, is_attribute, step, field_name)
            require_sendable(field_name, value)
        return (field_name, value), first

    def convert_field(self, value: Any, conversion: Any) -> Any:
        field_name, inner = value
        try:
            return field_name, super().convert_field(inner, conversion)
        except Exception as error:
            raise _unfillable(field_name, error) from None

    def format_field(self, value: Any, format_spec: str) -> str:
        field_name, inner = value
        try:
            text = format(inner, format_spec)
        except Exception as error:
            raise _unfillable(field_name, error) from None
        filled = bounded(_shown(field_name), text)
        self.filled[field_name] = filled
        return filled.text


def fill(template: str, names: Mapping[str, Any]) -> tuple[str, list[Sendable]]:
    """The prompt with ``{name}``, ``{name.part}`` and ``{name[key]}`` replaced, and by what.

    A format (``{x:.2f}``, ``{x!r}``) is allowed as Python has it; ``{{`` and ``}}`` are braces.
    What is filled in is not read again. Raises :class:`~qmt_jupyter.errors.OptionInvalid` and
    lists all names that are missing.
    """
    missing = sorted({name for name in _roots(template) if name not in names})
    if missing:
        listed = ", ".join(_shown(name) for name in missing)
        raise OptionInvalid(
            f"There is no variable {listed}: nothing was sent.",
            next_step="Define it first, or write {{ and }} for braces that are to stay.",
        )
    filling = _Filling(names)
    try:
        text = filling.vformat(template, (), {})
    except ValueError as error:
        raise _unreadable(error) from None
    return text, list(filling.filled.values())


def _roots(template: str) -> Iterator[str]:
    try:
        for _, field_name, specification, _ in string.Formatter().parse(template):
            if field_name is None:
                continue
            root, _ = _steps(field_name)
            if not root:
                raise OptionInvalid(
                    f"{{{_shown(field_name)}}} names no variable: nothing was sent.",
                    next_step="--fill takes {name}, {name.part} and {name[key]}; write {{ and }} "
                    "for braces that are to stay.",
                )
            yield root
            yield from _roots(specification or "")
    except (ValueError, RecursionError) as error:
        raise _unreadable(error) from None


def _unreadable(error: Exception) -> OptionInvalid:
    return OptionInvalid(
        f"The braces of the prompt cannot be read ({printable(str(error), 80)}): nothing was sent.",
        next_step="Write {{ and }} for braces that are to stay, or leave out --fill.",
    )


def _steps(field_name: str) -> tuple[str, list[tuple[bool, str | int]]]:
    """The variable, and attributes (True) and keys from there. ("", []) where it is none such."""
    whole = _FIELD.fullmatch(field_name)
    if whole is None:
        return "", []
    steps: list[tuple[bool, str | int]] = []
    for attribute, key in _STEP.findall(whole[2]):
        steps.append((bool(attribute), attribute or (int(key) if key.isdecimal() else key)))
    return whole[1], steps


def _step(value: Any, is_attribute: bool, step: str | int, field_name: str) -> Any:
    if is_attribute and str(step).startswith("_"):
        raise OptionInvalid(
            f"{{{_shown(field_name)}}} reaches for what is private: nothing was sent.",
            next_step="Put the value into a variable of its own.",
        )
    try:
        return getattr(value, str(step)) if is_attribute else value[step]
    except Exception as error:
        raise _unfillable(field_name, error) from None


def _unfillable(field_name: str, error: Exception) -> OptionInvalid:
    return OptionInvalid(
        f"{{{_shown(field_name)}}} cannot be filled in: {_why(error)}.",
        next_step="Nothing was sent.",
    )


def _why(error: Exception) -> str:
    said = printable(str(error), 100)
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def _shown(name: str) -> str:
    return printable(name, 60)


# Context ---------------------------------------------------------------------------------------


def context(asked: Sequence[str], names: Mapping[str, Any], cells: Cells) -> list[Sendable]:
    """The variables and cells that ``asked`` lists, each once, in that order.

    A cell by its number alone is what was asked in it and its result, if it has one. Raises
    :class:`~qmt_jupyter.errors.OptionInvalid` where one is not there.
    """
    found: dict[str, Sendable] = {}
    for item in (part.strip() for each in asked for part in each.split(",")):
        for each in _found(item, names, cells):
            found.setdefault(each.label, each)
    return list(found.values())


def _found(item: str, names: Mapping[str, Any], cells: Cells) -> Iterator[Sendable]:
    numbers = _CELLS.fullmatch(item)
    if numbers is not None:
        kind, first, last = numbers[1], int(numbers[2]), numbers[3]
        yield from _cells(item, kind, first, int(last or first), cells)
    elif item in names and item.isidentifier():
        yield sendable(item, names[item])
    else:
        raise OptionInvalid(
            f"There is no variable or cell {_shown(item)!r}: nothing was sent.",
            next_step=_NEXT_STEP,
        )


def _cells(item: str, kind: str | None, first: int, last: int, cells: Cells) -> Iterator[Sendable]:
    first, last = (each + cells.now if each < 0 else each for each in (first, last))
    if not 1 <= first <= last < cells.now:
        raise OptionInvalid(
            f"There is no cell {_shown(item)} before this one: nothing was sent.",
            next_step=f"This is cell {cells.now}. {_NEXT_STEP}",
        )
    if last - first >= _MOST_CELLS:
        raise OptionInvalid(f"At most {_MOST_CELLS} cells are sent at once.")
    for number in range(first, last + 1):
        if kind != "Out":
            yield bounded(f"In[{number}]", cells.sources[number])
        if number in cells.results and kind != "In":
            yield sendable(f"Out[{number}]", cells.results[number])
        elif kind == "Out":
            raise OptionInvalid(
                f"Cell {number} has no result: nothing was sent.",
                next_step=f"In[{number}] is what was asked in it.",
            )


def with_context(prompt: str, sent: Sequence[Sendable]) -> str:
    """The prompt after what is sent along, each of it fenced under what it is called."""
    return "\n\n".join([*(_block(each) for each in sent), prompt])


def _block(each: Sendable) -> str:
    longest = max((len(run) for run in re.findall(r"`+", each.text)), default=0)
    fence = "`" * max(3, longest + 1)
    about = f" ({each.kind})" if each.kind else ""
    cut = "" if each.whole is None else f"\n[cut off here; it has {each.whole} characters]"
    return f"{each.label}{about}:\n{fence}\n{each.text}\n{fence}{cut}"


def sent_line(sent: Sequence[Sendable], filled: Sequence[Sendable]) -> str:
    """What the cell says of all that goes with its prompt; empty where nothing does."""
    said = []
    if sent:
        said.append(f"Sent with the prompt: {', '.join(each.size for each in sent)}.")
    if filled:
        said.append(f"Filled in: {', '.join(each.size for each in filled)}.")
    return "\n".join(said)


def prepared(
    text: str, asked: Sequence[str] | None, is_filled: bool, shell: Any
) -> tuple[str, str]:
    """A cell's prompt as it is sent, and what to say of it: see :func:`fill`, :func:`context`."""
    filled: list[Sendable] = []
    if is_filled:
        text, filled = fill(text, shell.user_ns)
    sent = context(asked, shell.user_ns, Cells.of(shell)) if asked else []
    return with_context(text, sent), sent_line(sent, filled)
