"""Several links side by side: joined, reached again, and one that was replaced let go."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable

from ..errors import QmtError
from .link import HostLink

# Of several hosts that are joined together, those that are late come in by and by.
_GRACE = 2.0
_LAST_ANSWERS = 60.0
_LOOK_EVERY = 0.2


async def first_to_join(tasks: Iterable[asyncio.Task[None]], is_enough: Callable[[], bool]) -> None:
    """Wait until it is enough, or until every task has ended; two more seconds for the others."""
    pending = set(tasks)
    while pending and not is_enough():
        _, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
    if pending:
        await asyncio.wait(pending, timeout=_GRACE)


async def try_to_reach(links: Iterable[HostLink]) -> None:
    """Connect to each of them, side by side, as far as it can be."""

    async def reach(link: HostLink) -> None:
        with contextlib.suppress(QmtError):
            await link.connect()

    await asyncio.gather(*(reach(link) for link in links))


async def retire(link: HostLink) -> None:
    """Close a link that nothing new is asked of, once what runs on it has ended (a minute)."""
    loop = asyncio.get_running_loop()
    until = loop.time() + _LAST_ANSWERS
    try:
        while link.is_connected and link.status()["running"] and loop.time() < until:
            await asyncio.sleep(_LOOK_EVERY)
    finally:
        await link.close()
