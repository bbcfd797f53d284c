"""Ending background tasks, for certain."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

AGAIN = 5.0  # seconds; clearing up takes less


async def end(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Cancel ``tasks`` until they have ended.

    A cancellation can get lost: before Python 3.12 ``wait_for`` drops one that comes as its future
    ends, and a task with a deadline can take it for that. Such a task would go on for ever, and so
    would whoever waits for its end.
    """
    left = set(tasks)
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=AGAIN)
