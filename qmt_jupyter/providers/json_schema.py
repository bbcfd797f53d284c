"""Which JSON schemas llama.cpp can be given without harm.

A schema becomes a grammar inside the engine, in code that trusts it: with ``minItems`` above
``maxItems`` the engine never returns, for anyone; thousands of optional properties take minutes;
of a ``pattern`` or a bound that it cannot take it writes a complaint, with the guest's text in
it, to the host's terminal. What does any of this is refused before.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import RequestInvalid

_MOST_NODES = 2000
_MOST_PROPERTIES = 64  # optional ones cost the engine their square
_MOST_CHOICES = 500
_MOST_REPEATS = 1000
_DEEPEST = 32

_RANGES = (
    ("minItems", "maxItems"),
    ("minLength", "maxLength"),
    ("minProperties", "maxProperties"),
    ("minContains", "maxContains"),
)
_NUMBER_RANGES = (
    ("minimum", "maximum"),
    ("exclusiveMinimum", "exclusiveMaximum"),
    ("minimum", "exclusiveMaximum"),
    ("exclusiveMinimum", "maximum"),
)
_LARGEST_NUMBER = 2**53  # what JSON numbers hold exactly


def check_schema(where: str, value: Any) -> None:
    """Refuse ``value``, which holds JSON schemas at any level, where one could do harm.

    ``where`` names it in the sentence. Raises :class:`~qmt_jupyter.errors.RequestInvalid`.
    """
    level: list[Any] = [value]
    nodes = 0
    for _ in range(_DEEPEST):
        below: list[Any] = []
        for item in level:
            if isinstance(item, Mapping):
                _check_object(where, item)
                below.extend(item.values())
            elif isinstance(item, (list, tuple)):
                if len(item) > _MOST_CHOICES:
                    raise RequestInvalid(f"{where} has a list of more than {_MOST_CHOICES}.")
                below.extend(item)
            elif isinstance(item, str):
                _check_text(where, item)
        nodes += len(below)
        if nodes > _MOST_NODES:
            raise RequestInvalid(f"{where} has more than {_MOST_NODES} parts.")
        if not below:
            return
        level = below
    raise RequestInvalid(f"{where} is nested more than {_DEEPEST} levels deep.")


def _check_object(where: str, item: Mapping[Any, Any]) -> None:
    if len(item) > _MOST_PROPERTIES:
        raise RequestInvalid(f"{where} has an object of more than {_MOST_PROPERTIES} properties.")
    for name in item:
        if not isinstance(name, str):
            raise RequestInvalid(f"{where} has a property whose name is not text.")
        _check_text(where, name)
    if isinstance(item.get("pattern"), str):
        raise RequestInvalid(f"{where} has a pattern: regular expressions are not taken here.")
    for lower, upper in _RANGES:
        least, most = _number(item.get(lower)), _number(item.get(upper))
        for name, bound in ((lower, least), (upper, most)):
            if bound is not None and not 0 <= bound <= _MOST_REPEATS:
                raise RequestInvalid(f"{where}: {name} must be between 0 and {_MOST_REPEATS}.")
        _check_order(where, lower, least, upper, most)
    for lower, upper in _NUMBER_RANGES:
        least, most = _number(item.get(lower)), _number(item.get(upper))
        for name, bound in ((lower, least), (upper, most)):
            if bound is not None and not abs(bound) <= _LARGEST_NUMBER:
                raise RequestInvalid(f"{where}: {name} is too large.")
        _check_order(where, lower, least, upper, most)


def _check_order(
    where: str, lower: str, least: float | None, upper: str, most: float | None
) -> None:
    if least is not None and most is not None and least > most:
        raise RequestInvalid(f"{where}: {lower} is greater than {upper}.")


def _check_text(where: str, text: str) -> None:
    # A complaint of the engine could carry it to the host's terminal, and steer it.
    if any((ord(c) < 32 and c not in "\n\r\t") or 127 <= ord(c) < 160 for c in text):
        raise RequestInvalid(f"{where} has control characters.")


def _number(value: Any) -> float | None:
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None
