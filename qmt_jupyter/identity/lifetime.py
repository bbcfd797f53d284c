"""Lifetimes as people write them: ``90s``, ``15m``, ``24h``, ``7d``, ``none``."""

from __future__ import annotations

import re

from ..errors import OptionInvalid

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_LONGEST = 10 * 366 * 86400


def parse(text: str) -> int | None:
    """Seconds, or None for ``none``.

    Anything else raises :class:`~qmt_jupyter.errors.OptionInvalid`: a typo must never become
    "for ever".
    """
    cleaned = text.strip().lower()
    if cleaned == "none":
        return None
    match = re.fullmatch(r"([1-9][0-9]{0,8})([smhd])", cleaned, re.ASCII)
    if match is None:
        raise OptionInvalid(
            f"{text!r} is not a lifetime.", next_step="Write it as 90s, 15m, 24h, 7d or none."
        )
    seconds = int(match[1]) * _UNITS[match[2]]
    if seconds > _LONGEST:
        raise OptionInvalid(
            f"{text!r} is longer than ten years.", next_step="Write none for no end."
        )
    return seconds


def describe(seconds: float) -> str:
    """A rough, readable length of time: ``"6 days"``, ``"3 hours"``, ``"45 seconds"``."""
    for unit, size in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= 2 * size:
            return f"{round(seconds / size)} {unit}s"
    count = max(0, round(seconds))
    return f"{count} second{'' if count == 1 else 's'}"
