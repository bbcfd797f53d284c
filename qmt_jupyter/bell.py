"""Waking an event loop from other threads: once for all that is there when it gets to it.

The loop's own way writes to a pipe for each call, and lets go of the interpreter there: threads
that have something at the same moment take turns through the kernel, on a processor that the
model could use.
"""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from collections import deque
from collections.abc import Callable


class Bell:
    """Has callbacks run in one event loop; any thread may ask. Made by :func:`bell_of`."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        # The registry would keep every loop that there ever was.
        self._loop = weakref.ref(loop)
        self._asked: deque[Callable[[], object]] = deque()
        self._has_rung = False
        self._rings_soon_in: asyncio.AbstractEventLoop | None = None

    def ring(self, callback: Callable[[], object] | None = None) -> None:
        """Have ``callback`` called in the loop soon, after those asked for before.

        None has only those called that were to be called within a time. Raises
        :class:`RuntimeError` where the loop is closed.
        """
        loop = self._loop()
        if loop is None or loop.is_closed():
            raise RuntimeError("the event loop is closed")
        if callback is not None:
            self._asked.append(callback)
        if self._asked and not self._has_rung:
            self._has_rung = True
            try:
                if _running() is loop:
                    loop.call_soon(self._answer)
                else:
                    loop.call_soon_threadsafe(self._answer)
            except BaseException:
                self._has_rung = False
                raise

    def ring_within(self, seconds: float, callback: Callable[[], object]) -> None:
        """Have ``callback`` called within ``seconds``, together with what is asked for until then.

        To be called in another event loop. A bell whose loop is closed by then stays silent.
        """
        self._asked.append(callback)
        caller = asyncio.get_running_loop()
        # One that has ended meanwhile rings no more.
        if self._rings_soon_in is not caller:
            self._rings_soon_in = caller
            caller.call_later(seconds, self._ring_late)

    def _ring_late(self) -> None:
        self._rings_soon_in = None
        with contextlib.suppress(RuntimeError):
            self.ring()

    def _answer(self) -> None:
        # Before the look: who comes from here on rings anew.
        self._has_rung = False
        while self._asked:
            callback = self._asked.popleft()
            try:
                callback()
            except Exception as error:
                loop = asyncio.get_running_loop()
                loop.call_exception_handler({"message": f"{callback!r} failed", "exception": error})


_bells: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Bell] = weakref.WeakKeyDictionary()


def bell_of(loop: asyncio.AbstractEventLoop) -> Bell:
    """The one bell of a loop."""
    bell = _bells.get(loop)
    if bell is None:
        bell = _bells.setdefault(loop, Bell(loop))
    return bell


def _running() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
