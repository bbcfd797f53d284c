"""Reading a model's files before the engine does.

The engine keeps Python's interpreter to itself while it loads: no other thread of the process
moves, and an interrupt waits. What was read before is in the machine's memory, so that this takes
as long as memory takes, and not as long as a disk.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from pathlib import Path

import anyio

from .base import Progress

_BLOCK = 16 << 20
# What is read sooner than this needs nobody to be told.
_PATIENCE = 1.0


async def read_ahead(paths: Sequence[Path], progress: Progress | None = None) -> None:
    """Read ``paths`` once, block by block, in worker threads.

    ``progress`` is called there, once this has taken a second. Cancelling ends it within a block of
    16 MiB. A file that cannot be read is left to the engine, which says so.
    """
    with contextlib.suppress(OSError):
        total = sum(path.stat().st_size for path in paths)
        began, done, buffer = time.monotonic(), 0, bytearray(_BLOCK)
        for path in paths:
            with path.open("rb", buffering=0) as file:
                while count := await anyio.to_thread.run_sync(file.readinto, buffer):
                    done += count
                    if progress is not None and time.monotonic() - began > _PATIENCE:
                        await anyio.to_thread.run_sync(progress, min(done, total), total)
