"""What stands quietly below an answer, and how fast it comes meanwhile."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from ..harmless import printable
from ..identity.peer_id import short

if TYPE_CHECKING:
    from ..api import Answer

_CUT = {
    "length": "cut off at the longest length allowed",
    "budget": "cut off: the invite's tokens are spent",
    "rate": "cut off: the invite's tokens for this minute are spent",
    "day": "cut off: your tokens for this day are spent",
    "month": "cut off: your tokens for this month are spent",
}


class Clock:
    """When an answer was asked for, when it began, and how many pieces have come.

    A piece is about a token; the host's own count comes with the end.
    """

    def __init__(self) -> None:
        self._asked = time.perf_counter()
        self._first: float | None = None
        self._pieces = 0

    def heard(self, piece: str) -> None:
        """A piece of text has come; an empty one does not count."""
        if not piece:
            return
        self._pieces += 1
        if self._first is None:
            self._first = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Since it was asked."""
        return time.perf_counter() - self._asked

    def progress(self) -> str:
        """Seconds, tokens so far and how many a second, for showing while it arrives."""
        parts = [f"{self.seconds:.0f} s"]
        if self._first is not None:
            parts.append(f"about {self._pieces} tokens")
            parts += self._rate(self._pieces)
        return " · ".join(parts)

    def footer(self, answer: Answer, end: str = "") -> str:
        """Model, host, tokens and speed in one line, and why it ended where that is special."""
        host = short(answer.host) if answer.host else "this kernel"
        parts = [f"{printable(answer.model or '', 80) or 'no model yet'} on {host}"]
        usage = answer.usage or {}
        came, went = (_number(usage, f"{kind}_tokens") for kind in ("completion", "prompt"))
        if came is not None:
            parts.append(f"{came} tokens" + ("" if went is None else f", {went} in the prompt"))
        if self._first is not None:
            parts.append(f"first after {span(self._first - self._asked)}")
            parts += self._rate(self._pieces if came is None else came)
        parts += [each for each in (_CUT.get(answer.finish_reason or "", ""), end) if each]
        return " · ".join(parts)

    def _rate(self, tokens: int) -> list[str]:
        spent = 0.0 if self._first is None else time.perf_counter() - self._first
        return [f"{(tokens - 1) / spent:.0f} tokens/s"] if tokens > 1 and spent > 0 else []


def _number(usage: dict[str, Any], key: str) -> int | None:
    value = usage.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def span(seconds: float) -> str:
    """A time for people: ``173 ms`` or ``18.0 s``."""
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"
