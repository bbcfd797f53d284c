"""Showing an answer while it arrives: one output that grows, or plain text in a terminal."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..harmless import plain
from . import markdown, subshells

if TYPE_CHECKING:
    from .footer import Clock
    from .rendering import Rendering
    from .strip import Strip

_FASTEST = 0.1
_BYTES_PER_SECOND = 250_000
# Characters of the plain form while it grows: front ends that choose it are small ones.
_RECENT = 4_000
# What a file says that was saved in mid-answer, and a page that was loaded again meanwhile.
_UNFINISHED = "still being written; if the page is loaded again, %qmt_history shows it all"


def is_terminal(shell: Any) -> bool:
    """Whether ``shell`` writes to a terminal: what it shows cannot be replaced later."""
    return not hasattr(shell, "kernel")


class Growing:
    """One output of a cell. Drawn at most ten times a second, less often the longer it is.

    Above it stands a strip with *Stop* where that can be pressed (``shell`` decides).
    """

    def __init__(self, shell: Any = None) -> None:
        self._make_strip: type[Strip] | None = None
        # Loaded here and not while the answer is waited for, whose first word is timed. What is
        # wrong with widgets is no reason to answer nothing.
        with contextlib.suppress(ImportError):
            if subshells.is_pressable(shell):
                from .strip import Strip

                self._make_strip = Strip
        self._strip: Strip | None = None
        self._clock: Clock | None = None
        self._handle: Any = None
        self._rendering: Rendering | None = None
        self._shown: tuple[str, str] | None = None
        self._drawn = 0.0
        self._wait = 0.0

    def begin(self, stop: Callable[[], None], clock: Clock) -> None:
        """An answer has been asked for; ``stop`` ends it, from any thread."""
        self._clock = clock
        if self._make_strip is not None:
            self._strip = self._make_strip(stop)
            self._strip.place()

    @property
    def is_stopped(self) -> bool:
        """Whether *Stop* was pressed."""
        return self._strip is not None and self._strip.is_pressed

    @property
    def is_due(self) -> bool:
        """Whether :meth:`show` would draw anything: texts need not be put together before."""
        return time.monotonic() - self._drawn >= self._wait or (
            self._strip is not None and self._strip.is_due
        )

    def show(self, text: str, footer: str) -> None:
        """Draw what is new, unless something was drawn a moment ago."""
        if self._strip is not None and self._clock is not None:
            self._strip.show(footer or "answering", self._clock.progress())
        if (text, footer) != self._shown and time.monotonic() - self._drawn >= self._wait:
            began = time.monotonic()
            size = self._send(self._growing(text, footer), {})
            self._shown = (text, footer)
            self._drawn = time.monotonic()
            # A text that is slow to render leaves the kernel four fifths of its time.
            self._wait = max(_FASTEST, size / _BYTES_PER_SECOND, 4 * (self._drawn - began))

    def finish(self, text: str, footer: str, metadata: dict[str, Any]) -> None:
        """Draw for the last time: this is what the notebook keeps."""
        self.end()
        markup = None if self._rendering is None else self._rendering.whole(text)
        self._send(markdown.bundle(text, footer, markup), {"qmt": metadata})

    def end(self) -> None:
        """Take the strip away, however it ends. Safe to call twice."""
        if self._strip is not None:
            self._strip.finish()

    def _growing(self, text: str, footer: str) -> dict[str, str]:
        """What is looked at while it grows: not every form, and not all of a long plain one."""
        if self._rendering is None:
            from .rendering import Rendering

            self._rendering = Rendering()
        recent = text if len(text) <= _RECENT else f"…{text[-_RECENT:]}"
        if self._strip is not None and self._strip.is_watched and not text:
            below = ""  # the strip says it
        else:
            below = footer or _UNFINISHED
        markup = self._rendering.html(text)
        if len(markup) > markdown.LARGEST:
            markup = markdown.unparsed(plain(recent))
        return {
            "text/plain": plain(recent) + (f"\n\n{footer}" if footer else ""),
            "text/html": markdown.framed(markup, below, is_growing=True),
        }

    def _send(self, data: dict[str, str], metadata: dict[str, Any]) -> int:
        """Show it in the one output; returns its size in bytes."""
        from IPython.display import display

        if self._handle is None:
            self._handle = display(data, raw=True, display_id=True, metadata=metadata)
        else:
            self._handle.update(data, raw=True, metadata=metadata)
        return sum(len(each.encode()) for each in data.values())


class Streaming:
    """A terminal: pieces are written once, as they come."""

    is_due = True
    is_stopped = False

    def __init__(self) -> None:
        self._written = 0
        self._footer = ""

    def begin(self, stop: Callable[[], None], clock: Clock) -> None:
        """Nothing can be pressed in a terminal; Ctrl-C ends it."""

    def end(self) -> None:
        """Nothing is left to take away."""

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
    """A progress line in a notebook for a model that is being fetched or read."""
    screen: list[Any] = []

    def show(done: int, total: int) -> None:
        from IPython.display import display

        share = min(1.0, done / total) if total else 0.0
        filled = round(share * 30)
        bar = "█" * filled + "░" * (30 - filled)
        line = f"Getting the model {bar} {share:4.0%} of {total / 1e6:.0f} MB"
        data = {"text/plain": line}
        if screen:
            screen[0].update(data, raw=True)
        else:
            screen.append(display(data, raw=True, display_id=True))

    return show
