"""The transport's Python side, as the library generates it, with two of its parts made faster.

Both are private parts of generated code. Each is replaced only where it is there in the shape
that is known; the library's own does the same, only slower.
"""

from __future__ import annotations

import contextlib
import ctypes
from functools import partial
from typing import Any

from iroh import iroh_ffi as iroh

from ..bell import bell_of

__all__ = ["KNOWN", "iroh"]


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


def _go_on(waiting: int, result: int) -> None:
    """Have who waits for one of the library's futures look at it again; called in any thread.

    The library's own wakes the event loop through a pipe for each, even for what was ready at
    once, and for eight streams that were written together eight times.
    """
    loop, future = iroh._UniffiContinuationHandleMap.remove(waiting)
    with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
        bell_of(loop).ring(partial(iroh._uniffi_set_future_result, future, result))


KNOWN = (
    "_UNIFFI_RUST_FUTURE_CONTINUATION_CALLBACK",
    "_UniffiContinuationHandleMap",
    "_uniffi_continuation_callback",
    "_uniffi_set_future_result",
)
if all(hasattr(iroh, name) for name in KNOWN):
    # Who used the library before this module was imported may be called back by it yet.
    _former = iroh._uniffi_continuation_callback
    iroh._uniffi_continuation_callback = iroh._UNIFFI_RUST_FUTURE_CONTINUATION_CALLBACK(_go_on)
