"""The transport's Python side, as the library generates it, with two of its ways made faster."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
from collections.abc import Callable
from functools import partial
from typing import Any

from iroh import iroh_ffi as iroh

from ..bell import bell_of

__all__ = ["iroh", "use_loop"]


def _hand_over_whole(builder: Any, value: bytes) -> None:
    """Copy ``value`` into the buffer that crosses to the library, in one piece.

    The library's own loop over single bytes takes a third of a second for a megabyte, during
    which nothing else in this process moves.
    """
    with builder._reserve(len(value)):
        start = ctypes.addressof(builder.rbuf.data.contents) + builder.rbuf.len
        ctypes.memmove(start, bytes(value), len(value))


if hasattr(getattr(iroh, "_UniffiRustBufferBuilder", None), "_reserve"):
    iroh._UniffiRustBufferBuilder.write = _hand_over_whole


class _Rung:
    """An event loop for the library: its own, woken by its bell.

    The loop's own wake-up goes through a pipe for each of the library's futures, also for what
    was ready at once, and for eight streams that were written together eight times.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._bell = bell_of(loop)

    def call_soon_threadsafe(self, callback: Callable[..., object], *arguments: Any) -> None:
        """Have ``callback`` called in the loop; called in any thread."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._bell.ring(partial(callback, *arguments))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)


def use_loop(loop: asyncio.AbstractEventLoop) -> None:
    """Have the library's calls come back in ``loop``."""
    iroh.uniffi_set_event_loop(_Rung(loop))
