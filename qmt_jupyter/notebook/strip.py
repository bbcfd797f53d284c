"""A strip above an answer while it is written: how it goes on, and *Stop*.

A button is no use where the kernel hears of it after the cell only. So the strip is made where the
kernel has subshells and somebody sits in front of it, and shows itself only once the kernel has
heard from it and said so; elsewhere there is ■ alone. All that it shows travels as custom
messages, which no notebook saves; it has no state.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anywidget

from . import subshells

log = logging.getLogger(__name__)

_HERE = Path(__file__).parent
# Seconds between two messages: numbers that change more often cannot be read.
_APART = 0.5
# By then a page has loaded a strip, or never will: anywidget itself gives up after two seconds.
_LOADED_WITHIN = 5.0


class Strip(anywidget.AnyWidget):
    """One answer's strip. ``stop`` is called in another thread, at most once.

    The front end sends ``{"ask": "watch"}`` and ``{"ask": "stop"}``; it is sent ``{"phase": …,
    "figures": …}``.
    """

    _esm = (_HERE / "strip.js").read_text(encoding="utf-8")
    _css = (_HERE / "strip.css").read_text(encoding="utf-8")

    def __init__(self, stop: Callable[[], None]) -> None:
        super().__init__()
        self._stop = stop
        self._output: Any = None
        self._told: dict[str, str] | None = None
        self._told_at = 0.0
        self.is_watched = False
        self.is_pressed = False
        self.on_msg(self._heard)

    def open(self) -> None:
        """Open the comm; from the very next moment on the front end is heard."""
        super().open()
        subshells.hear_at_once(self)

    def set_state(self, sync_data: Any) -> None:
        """Take no state from a front end: it would reach every other page."""

    def _heard(self, _widget: Any, content: Any, _buffers: Any) -> None:
        ask = content.get("ask") if isinstance(content, dict) else None
        if ask == "watch":
            self._told = None  # a new view knows nothing yet
            self.is_watched = True
        elif ask == "stop" and not self.is_pressed:
            self.is_pressed = True
            self._stop()

    def place(self) -> None:
        """Put it below what the cell shows so far."""
        from IPython.display import display

        self._output = display(self, display_id=True)

    @property
    def is_due(self) -> bool:
        """Whether it could show something new."""
        return self.is_watched and (
            self._told is None or time.monotonic() - self._told_at >= _APART
        )

    def show(self, phase: str, figures: str) -> None:
        """Say how far it is, where anybody looks and it was not said just now."""
        told = {"phase": phase, "figures": figures}
        if self.is_due and told != self._told:
            self._told, self._told_at = told, time.monotonic()
            self.send(told)

    def finish(self) -> None:
        """Take it away; the notebook keeps nothing of it. Safe to call twice."""
        output, self._output = self._output, None
        if output is not None:
            output.update({"text/plain": ""}, raw=True)
        if self.is_watched:
            self.close()
            return
        # Closed while a page still loads it, anywidget logs an error there.
        later = threading.Timer(_LOADED_WITHIN, self._close_quietly)
        later.daemon = True
        later.start()

    def _close_quietly(self) -> None:
        try:
            self.close()
        except Exception:  # the kernel ends meanwhile, and its sockets with it
            log.debug("a strip could not be closed", exc_info=True)

    def __repr__(self) -> str:
        return ""
