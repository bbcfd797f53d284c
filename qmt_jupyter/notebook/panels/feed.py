"""The one thread that tells the front ends what has changed, while somebody watches."""

from __future__ import annotations

import atexit
import logging
import threading
import time
from typing import Protocol

TELL_EVERY = 0.25
"""A panel is told of at most so often, in seconds."""
WATCHED_FOR = 30.0
"""A front end that has not said for so long that it watches does not watch any more."""
# Where views are much work, as those of thousands of guests are, they come less often instead.
_REST = 20
_LONGEST_REST = 5.0

log = logging.getLogger(__name__)


class Watched(Protocol):
    """What can be fed."""

    def tell(self) -> None:
        """Send what has changed."""


class Feed:
    """Feeds every panel that is watched. Its thread ends when none is, and at the exit."""

    def __init__(self) -> None:
        self._watched: dict[Watched, float] = {}
        # Reentrant, because a panel that is thrown away is forgotten wherever that happens, also
        # in the middle of this.
        self._lock = threading.RLock()
        self._thread: threading.Thread | None = None
        self._ended = threading.Event()

    def watch(self, panel: Watched) -> None:
        """Somebody looks at ``panel`` now; safe from any thread."""
        with self._lock:
            self._watched[panel] = time.monotonic() + WATCHED_FOR
            # A forked child has the object, but not the thread.
            if self._ended.is_set() or (self._thread is not None and self._thread.is_alive()):
                return
            self._thread = threading.Thread(target=self._run, name="qmt-panels", daemon=True)
            self._thread.start()

    def forget(self, panel: Watched) -> None:
        """Nobody looks at it any more."""
        with self._lock:
            self._watched.pop(panel, None)

    def end(self) -> None:
        """Stop, and wait a moment for what is being said."""
        self._ended.set()
        thread = self._thread
        if thread is not None and thread.is_alive():
            thread.join(timeout=1)

    def _due(self) -> list[Watched]:
        with self._lock:
            now = time.monotonic()
            self._watched = {each: until for each, until in self._watched.items() if until > now}
            if not self._watched:
                self._thread = None
            return list(self._watched)

    def _run(self) -> None:
        while not self._ended.is_set() and (due := self._due()):
            began = time.monotonic()
            for panel in due:
                try:
                    panel.tell()
                except Exception:  # one that cannot speak silences no other
                    log.debug("a panel could not be told of", exc_info=True)
            work = time.monotonic() - began
            self._ended.wait(max(TELL_EVERY, min(_REST * work, _LONGEST_REST)))


FEED = Feed()
# Before the runtime ends, which is asked for what is shown: what was registered last comes first.
atexit.register(FEED.end)
