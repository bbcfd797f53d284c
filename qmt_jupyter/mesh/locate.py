"""Finding a host: every source raced, the first that leads to the right key wins.

A source is only a hint of where to look. A slow or dead one never delays a good one, and the
whole has a deadline, after which the report says what each source had to say.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import anyio

from ..errors import HostNotFound, VersionMismatch
from ..identity import keys, link, peer_id
from . import lan
from .addresses import Reach
from .endpoint import AlpnMismatch, Connection, Endpoint, TransportError

DEADLINE = 10.0


@dataclass
class Attempt:
    """What one source said, and in how many seconds."""

    source: str
    outcome: str = "no answer"
    seconds: float = 0.0

    def __str__(self) -> str:
        return f"{self.source}: {self.outcome} ({self.seconds:.1f} s)"


_closing: set[asyncio.Task[None]] = set()


def _close_by_and_by(endpoint: Endpoint) -> None:
    """Close an endpoint that lost. In mid-handshake that takes a second, which nobody waits for."""
    task = asyncio.ensure_future(endpoint.close())
    _closing.add(task)
    task.add_done_callback(_closing.discard)


async def locate(
    host_key: bytes,
    hints: link.Hints,
    reach: Reach,
    alpn: bytes,
    *,
    deadline: float = DEADLINE,
) -> tuple[Endpoint, Connection]:
    """Connect to the holder of ``host_key``, wherever a source finds it.

    Every address is tried from an endpoint of its own, with a fresh key: an endpoint remembers
    addresses by peer, and a wrong one that answers would spoil the right one's handshake.
    Returns the endpoint that got through, which is the caller's to close, and its connection.

    Raises :class:`~qmt_jupyter.errors.HostNotFound` with the report after ``deadline`` seconds,
    or sooner when every source has given up, and :class:`~qmt_jupyter.errors.VersionMismatch`
    when a host was found that speaks another version.
    """
    wanted = peer_id.to_text(host_key)
    found: list[tuple[Endpoint, Connection]] = []
    attempts: list[Attempt] = []
    tried: set[str] = set()
    other_version = False

    async def connect(attempt: Attempt, address: str) -> None:
        nonlocal other_version
        endpoint = await Endpoint.bind(keys.Identity.fresh().seed, reach)
        try:
            found.append((endpoint, await endpoint.connect(host_key, (address,), alpn)))
            race.cancel_scope.cancel()
        except AlpnMismatch:
            other_version = True
            attempt.outcome = f"speaks another version at {address}"
        except TransportError:
            attempt.outcome = f"nobody with the right key at {address}"
        finally:
            if not any(endpoint is winner for winner, _ in found):
                _close_by_and_by(endpoint)

    async def connect_any(attempt: Attempt, addresses: tuple[str, ...]) -> None:
        async with anyio.create_task_group() as tries:
            for address in addresses:
                if address not in tried:
                    tried.add(address)
                    tries.start_soon(connect, attempt, address)

    async def by_hints(attempt: Attempt) -> None:
        attempt.outcome = f"no answer from {', '.join(hints.addresses)}"
        await connect_any(attempt, hints.addresses)

    async def by_lan(attempt: Attempt) -> None:
        attempt.outcome = "no host of that id answered"
        try:
            async with lan.Lan(reach) as network:
                addresses = await network.find(wanted)
                attempt.outcome = f"found at {', '.join(addresses)}, but no answer from there"
                await connect_any(attempt, addresses)
        except lan.LanUnavailable as error:
            attempt.outcome = f"multicast DNS does not work here: {error}"

    async def run(source: str, search: Callable[[Attempt], Awaitable[None]]) -> None:
        attempt = Attempt(source)
        attempts.append(attempt)
        started = time.monotonic()
        try:
            await search(attempt)
        finally:
            attempt.seconds = time.monotonic() - started

    with anyio.move_on_after(deadline):
        async with anyio.create_task_group() as race:
            if hints.addresses:
                race.start_soon(run, "addresses in the link", by_hints)
            race.start_soon(run, "local network", by_lan)
    for spare, _ in found[1:]:
        _close_by_and_by(spare)
    if found:
        return found[0]
    if other_version:
        raise VersionMismatch(
            "The host speaks another version of the exchange.",
            next_step="Update qmt-jupyter on both sides.",
        )
    report = "; ".join(str(attempt) for attempt in attempts)
    raise HostNotFound(f"The host {peer_id.short(wanted)} was not found. {report}.")
