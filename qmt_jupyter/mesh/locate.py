"""Finding a host: every source raced, the first that leads to the right key wins.

A source is only a hint of where to look. A slow or dead one never delays a good one, and the
whole has a deadline, after which the report says what each source had to say.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

import anyio
import anyio.lowlevel
from anyio.abc import TaskGroup

from ..errors import ConfigurationError, HostNotFound, UdpBlocked, VersionMismatch
from ..identity import keys, link, peer_id
from . import lan
from .addresses import Reach
from .blocked import on_a_hub, udp_is_blocked
from .endpoint import AlpnMismatch, Connection, Endpoint, TransportError
from .path import Carrier
from .relay import NO_RELAY, Relays

log = logging.getLogger(__name__)

DEADLINE = 10.0
RELAY_AFTER = 0.3  # by then a direct way would have answered, and the relay need not know
LAST_RESORT_AFTER = 0.5
TRIES_AT_ONCE = 8  # of one source; past them its oldest is given up
MOST_PLACES = 64  # of one source, which others may fill: packets go to each of them
BLOCKED_GRACE = 1.5  # for a host on this very machine, where no UDP gets out of it


@dataclass(frozen=True)
class Place:
    """Where a host may be: a UDP address as ``IP:PORT``, the relay at a URL, or what carries to it.

    The address of a ``carrier`` is one of this machine.
    """

    at: str
    is_relay: bool = False
    carrier: Carrier | None = None


@dataclass
class Attempt:
    """What one source said, and in how many seconds. A source sets ``outcome`` as it learns."""

    source: str
    outcome: str = "no answer"
    seconds: float = 0.0

    def __str__(self) -> str:
        return f"{self.source}: {self.outcome} ({self.seconds:.1f} s)"


@dataclass(frozen=True)
class Source:
    """A way to learn where the host may be.

    ``search`` yields places as it learns of them, as many and as late as it likes; it is closed
    when the race is over. What it wants to say in the report it writes into its attempt.

    A ``last_resort`` needs no UDP that leaves this machine. It begins :data:`LAST_RESORT_AFTER` s
    after the others, or at once where UDP is blocked.
    """

    name: str
    search: Callable[[Attempt], AsyncGenerator[Place, None]]
    last_resort: bool = False


async def locate(
    host_key: bytes,
    hints: link.Hints,
    reach: Reach,
    alpn: bytes,
    *,
    known: Sequence[str] = (),
    others: Sequence[Source] = (),
    deadline: float = DEADLINE,
) -> tuple[Endpoint, Connection]:
    """Connect to the holder of ``host_key``, wherever a source finds it.

    The sources are the link's ``hints``, the places ``known`` from earlier (``IP:PORT``), the
    local network, and ``others``. Returns the endpoint that got through, which is the caller's
    to close, and its connection.

    Raises :class:`~qmt_jupyter.errors.HostNotFound` with the report after ``deadline`` seconds,
    or sooner when every source has given up; :class:`~qmt_jupyter.errors.UdpBlocked`, almost at
    once, where no UDP leaves this machine and neither a relay nor a last resort is known; and
    :class:`~qmt_jupyter.errors.VersionMismatch` for a host that speaks another version.
    """
    blocked = udp_is_blocked((*hints.addresses, *known), reach)
    resorts = tuple(each.name for each in others if each.last_resort)
    if blocked and hints.relay is None and not resorts:
        deadline = min(deadline, BLOCKED_GRACE)
    race = _Race(host_key, reach, alpn, hurry=blocked is not None)
    try:
        await race.run([*_sources(host_key, hints, reach, known), *others], deadline)
    except BaseException:
        if race.winner is not None:
            _close_by_and_by(race.winner[0])
        raise
    if race.winner is not None:
        return race.winner
    if race.other_version:
        raise VersionMismatch(
            "The host speaks another version of the exchange.",
            next_step="Update qmt-jupyter on both sides.",
        )
    raise _not_found(host_key, race.attempts, blocked, hints.relay, resorts)


def _not_found(
    host_key: bytes,
    attempts: Sequence[Attempt],
    blocked: str | None,
    relay: str | None,
    resorts: Sequence[str],
) -> HostNotFound:
    said = "; ".join(str(attempt) for attempt in attempts)
    sentence = f"The host {peer_id.short(peer_id.to_text(host_key))} was not found. {said}."
    error: HostNotFound
    if resorts:
        # It is there by TCP, and may be again in a moment.
        why = f"UDP is blocked here ({blocked}). " if blocked else ""
        error = HostNotFound(f"{why}{sentence}", next_step="Wait a moment, then try again.")
    elif blocked:
        which = "the link names no relay" if relay is None else f"the relay {relay} did not help"
        error = UdpBlocked(f"UDP is blocked here ({blocked}), and {which}. {sentence}")
    elif relay is not None:
        error = HostNotFound(sentence, next_step="Check that the host runs, then try again.")
    elif on_a_hub():
        error = HostNotFound(
            sentence,
            next_step="Check that the host runs. A JupyterHub's network may let no UDP out: "
            "then ask the host for a link made with --relay URL.",
        )
    else:
        error = HostNotFound(
            sentence,
            next_step="Check that the host runs and both are on the same network; for guests on "
            "other networks the host needs --relay.",
        )
    error.report = tuple(
        {"source": each.source, "outcome": each.outcome, "seconds": round(each.seconds, 3)}
        for each in attempts
    )
    return error


# Where to look -----------------------------------------------------------------------------


def _sources(
    host_key: bytes, hints: link.Hints, reach: Reach, known: Sequence[str]
) -> list[Source]:
    wanted = peer_id.to_text(host_key)

    def listed(addresses: Sequence[str]) -> Callable[[Attempt], AsyncGenerator[Place, None]]:
        async def search(attempt: Attempt) -> AsyncGenerator[Place, None]:
            attempt.outcome = f"no answer from {', '.join(addresses)}"
            for address in addresses:
                yield Place(address)

        return search

    async def by_lan(attempt: Attempt) -> AsyncGenerator[Place, None]:
        attempt.outcome = "no host of that id answered"
        try:
            async with lan.Lan(reach) as network:
                addresses = await network.find(wanted)
                attempt.outcome = f"found at {', '.join(addresses)}, but no answer from there"
                for address in addresses:
                    yield Place(address)
        except lan.LanUnavailable as error:
            attempt.outcome = f"multicast DNS does not work here: {error}"

    async def by_relay(attempt: Attempt) -> AsyncGenerator[Place, None]:
        attempt.outcome = f"no answer through {hints.relay}"
        if hints.relay is not None:
            yield Place(hints.relay, is_relay=True)

    sources = [Source("local network", by_lan)]
    unhinted = tuple(each for each in known if each not in hints.addresses)
    if unhinted:
        sources.insert(0, Source("where it was last", listed(unhinted)))
    if hints.addresses:
        sources.insert(0, Source("addresses in the link", listed(hints.addresses)))
    if hints.relay is not None:
        sources.append(Source("relay", by_relay))
    return sources


# The race ------------------------------------------------------------------------------------

_closing: set[asyncio.Task[None]] = set()


def _close_by_and_by(endpoint: Endpoint) -> None:
    """Close an endpoint that lost. In mid-handshake that takes a second, which nobody waits for."""
    task = asyncio.ensure_future(endpoint.close())
    _closing.add(task)
    task.add_done_callback(_closing.discard)


@dataclass
class _Race:
    """One search. Every try has an endpoint of its own, with a fresh key.

    An endpoint remembers addresses by peer, and a wrong one that answers would spoil the right
    one's handshake. Each source has tries of its own too: what one of them has spoiled or used up
    does not count against another that knows better.
    """

    host_key: bytes
    reach: Reach
    alpn: bytes
    hurry: bool
    attempts: list[Attempt] = field(default_factory=list)
    winner: tuple[Endpoint, Connection] | None = None
    other_version: bool = False
    _started: float = field(default_factory=time.monotonic)
    _scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)

    async def run(self, sources: Sequence[Source], deadline: float) -> None:
        """Race the sources until one has won, all have given up, or the deadline has passed."""
        with self._scope:
            self._scope.deadline = anyio.current_time() + deadline
            async with anyio.create_task_group() as following:
                for source in sources:
                    following.start_soon(self._follow, source)

    async def _follow(self, source: Source) -> None:
        attempt = Attempt(source.name)
        self.attempts.append(attempt)
        began = time.monotonic()
        running: list[anyio.CancelScope] = []
        seen: set[Place] = set()
        try:
            if source.last_resort:
                attempt.outcome, untried = "not tried", attempt.outcome
                await self._late(LAST_RESORT_AFTER)
                attempt.outcome = untried
            async with (
                anyio.create_task_group() as tries,
                aclosing(source.search(attempt)) as found,
            ):
                async for place in found:
                    if place in seen or len(seen) >= MOST_PLACES:
                        continue
                    seen.add(place)
                    self._begin(tries, running, attempt, place)
        except Exception as error:
            # What breaks in one way of finding must not end the others.
            log.warning("looking for the host by %s failed: %r", source.name, error)
            attempt.outcome = "it failed here"
        finally:
            attempt.seconds = time.monotonic() - began

    def _begin(
        self,
        tries: TaskGroup,
        running: list[anyio.CancelScope],
        attempt: Attempt,
        place: Place,
    ) -> None:
        scope = anyio.CancelScope()

        async def tried() -> None:
            try:
                with scope:
                    await self._try(attempt, place)
            finally:
                if scope in running:
                    running.remove(scope)

        if len(running) >= TRIES_AT_ONCE:
            running.pop(0).cancel()
        running.append(scope)
        tries.start_soon(tried)

    async def _late(self, seconds: float) -> None:
        """Wait until the race has gone on for so long, where it may be won by UDP."""
        if not self.hurry:
            await anyio.sleep(self._started + seconds - time.monotonic())

    async def _try(self, attempt: Attempt, place: Place) -> None:
        if place.is_relay:
            await self._late(RELAY_AFTER)
        relays = Relays(place.at) if place.is_relay else NO_RELAY
        await anyio.lowlevel.checkpoint()  # one that was given up already opens nothing
        try:
            # Cancelled half-way, the opened sockets would be nobody's to close.
            with anyio.CancelScope(shield=True):
                endpoint = await Endpoint.bind(
                    keys.Identity.fresh().seed, self.reach, relays=relays
                )
        except ConfigurationError as error:
            attempt.outcome = error.sentence.rstrip(".")
            return
        if place.carrier is not None:
            place.carrier.serve(endpoint.ports)
        addresses, relay = ((), place.at) if place.is_relay else ((place.at,), None)
        where = place.at if place.carrier is None else "its end"
        connection: Connection | None = None
        try:
            connection = await endpoint.connect(self.host_key, addresses, self.alpn, relay)
        except AlpnMismatch:
            self.other_version = True
            attempt.outcome = f"speaks another version at {where}"
        except TransportError:
            attempt.outcome = f"nobody with the right key at {where}"
        finally:
            if connection is not None and self.winner is None:
                if place.carrier is not None:
                    endpoint.carried_by(place.carrier)
                self.winner = (endpoint, connection)
                self._scope.cancel()
            else:
                _close_by_and_by(endpoint)
