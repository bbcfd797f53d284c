"""Showing an answer while it arrives: one output that grows, or plain text in a terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

from ..harmless import plain
from . import markdown

_FASTEST = 0.1
_BYTES_PER_SECOND = 250_000


def is_terminal(shell: Any) -> bool:
    """Whether ``shell`` writes to a terminal: what it shows cannot be replaced later."""
    return not hasattr(shell, "kernel")


class Growing:
    """One output of a cell. Drawn at most ten times a second, less often the longer it is."""

    def __init__(self) -> None:
        self._handle: Any = None
        self._shown: tuple[str, str] | None = None
        self._drawn = 0.0
        self._wait = 0.0

    def show(self, text: str, footer: str) -> None:
        """Draw what is new, unless something was drawn a moment ago."""
        if (text, footer) != self._shown and time.monotonic() - self._drawn >= self._wait:
            self._draw(text, footer, {})

    def finish(self, text: str, footer: str, metadata: dict[str, Any]) -> None:
        """Draw for the last time: this is what the notebook keeps."""
        self._draw(text, footer, {"qmt": metadata})

    def _draw(self, text: str, footer: str, metadata: dict[str, Any]) -> None:
        from IPython.display import display

        began = time.monotonic()
        data = markdown.bundle(text, footer)
        if self._handle is None:
            self._handle = display(data, raw=True, display_id=True, metadata=metadata)
        else:
            self._handle.update(data, raw=True, metadata=metadata)
        size = sum(len(each.encode()) for each in data.values())
        self._shown = (text, footer)
        self._drawn = time.monotonic()
        # A text that is slow to render leaves the kernel four fifths of its time.
        self._wait = max(_FASTEST, size / _BYTES_PER_SECOND, 4 * (self._drawn - began))


class Streaming:
    """A terminal: pieces are written once, as they come."""

    def __init__(self) -> None:
        self._written = 0
        self._footer = ""

    def show(self, text: str, footer: str) -> None:
        """Write what is new; while there is no text yet, the footer when it changes."""
        if not text and footer and footer != self._footer:
            self._footer = footer
            sys.stdout.write(f"{footer}\n")
        sys.stdout.write(plain(text[self._written :]))
        sys.stdout.flush()
        self._written = len(text)

    def finish(self, text: str, footer: str, metadata: dict[str, Any]) -> None:  # noqa: ARG002
        """Write what is left, and the footer."""
        self.show(text, "")
        sys.stdout.write(f"\n\n{footer}\n" if footer else "\n")
        sys.stdout.flush()


def fetching() -> Callable[[int, int], None]:
    """A progress line in a notebook for a model that is being fetched."""
    screen: list[Any] = []

    def show(done: int, total: int) -> None:
        from IPython.display import display

        share = min(1.0, done / total) if total else 0.0
        filled = round(share * 30)
        bar = "█" * filled + "░" * (30 - filled)
        line = f"Fetching the model {bar} {share:4.0%} of {total / 1e6:.0f} MB"
        data = {"text/plain": line}
        if screen:
            screen[0].update(data, raw=True)
        else:
            screen.append(display(data, raw=True, display_id=True))

    return show
