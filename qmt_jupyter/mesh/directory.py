"""The directory of hosts: this process's part in the DHT, as hosts and guests use it.

A host's record is kept in it, a guest looks one up, and both help others do the same. Nodes are
learnt from links, from hosts, from the local network, from earlier sessions and from the
configuration; where there are none, and where ``QMT_DHT=off`` says so, it is silent.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import logging
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from typing import Any

import anyio

from ..errors import ConfigurationError, InterfaceUnknown
from ..identity import keys, link
from ..identity.whereabouts import Whereabouts
from ..settings import Settings
from . import addresses, lan
from .announcing import Announcer
from .contact import GLOBAL, Contact, introduced
from .ending import end
from .locate import Attempt, Place, Source
from .node import DhtNode
from .table import FILE, Table, configured, contact_at

LOOK_EVERY = 2.0
SOUGHT_AFTER = 3.0
_SOUGHT_FOR = 3.0
_SOUGHT_AGAIN = 10.0
_LAN_AGAIN = 60.0
_SEARCH_AGAIN = 0.3
_SEARCH_AGAIN_AT_MOST = 4.0

log = logging.getLogger(__name__)


class Neighbours(enum.Enum):
    """How the nodes on the local network are met.

    Each user of multicast DNS at one address may get the answers for another, so there are no more
    of them than needed: a host's own announcer meets them on the way (``BY_OWNER``, see
    :meth:`Directory.meet`), a bootstrap node is there all the time (``ALWAYS``), and a guest seeks
    them for some seconds when it has been there for a while and still knows nobody (``SOUGHT``).
    """

    BY_OWNER = "by owner"
    ALWAYS = "always"
    SOUGHT = "sought"


class Directory:
    """A node that is kept in touch with others. Everything in one event loop."""

    def __init__(
        self,
        settings: Settings,
        node: DhtNode | None,
        neighbours: Neighbours = Neighbours.BY_OWNER,
        *,
        off: str = "",
    ) -> None:
        self._interfaces = settings.interfaces
        self._node = node
        self._off = off
        self._announcer: Announcer | None = None
        self._moved = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        if node is None:
            return
        self._table = Table(node, bootstrap=settings.bootstrap, remember=settings.home / FILE)
        self._tasks = [
            asyncio.ensure_future(self._table.keep()),
            asyncio.ensure_future(self._follow_addresses(node)),
        ]
        if neighbours is Neighbours.ALWAYS:
            self._tasks.append(asyncio.ensure_future(self._stay_on_lan()))
        elif neighbours is Neighbours.SOUGHT:
            self._tasks.append(asyncio.ensure_future(self._seek_on_lan(node)))

    @classmethod
    async def open(
        cls,
        settings: Settings,
        neighbours: Neighbours = Neighbours.BY_OWNER,
        *,
        port: int | None = None,
    ) -> Directory:
        """Open a node, unless it is switched off.

        Without a ``port`` it takes a free one, and a node that cannot be opened is said in
        :attr:`state` and no more, since everything else works without. Raises
        :class:`~qmt_jupyter.errors.OptionInvalid` for a QMT_BOOTSTRAP that cannot be read, and
        with a ``port`` :class:`~qmt_jupyter.errors.PortInUse` and other
        :class:`~qmt_jupyter.errors.ConfigurationError`.
        """
        if not settings.dht and port is None:
            return cls(settings, None, off="switched off by QMT_DHT")
        configured(settings.bootstrap)
        reach = addresses.reach(settings.interfaces)
        try:
            node = await DhtNode.open(reach, port=port or 0)
        except ConfigurationError as error:
            if port is not None:
                raise
            return cls(settings, None, off=error.sentence)
        return cls(settings, node, neighbours)

    # What it is ------------------------------------------------------------------------------

    @property
    def port(self) -> int:
        """The node's UDP port, 0 without a node."""
        return self._node.port if self._node is not None else 0

    @property
    def state(self) -> str:
        """In a word or two: ``quiet``, ``3 nodes known``, ``published to 3 nodes``, or why not."""
        if self._node is None:
            return self._off
        if self._announcer is not None:
            return self._announcer.state
        known = len(self._node.contacts)
        return f"{known} node{'' if known == 1 else 's'} known" if known else "quiet"

    def status(self) -> dict[str, Any]:
        """``state``, how many ``nodes`` are known and ``records`` kept, and the ``port``."""
        node = self._node
        return {
            "state": self.state,
            "nodes": len(node.contacts) if node is not None else 0,
            "records": node.records if node is not None else 0,
            "port": self.port,
        }

    def nodes(self, most: int = link.MAX_NODES) -> tuple[str, ...]:
        """The nodes that are known, as ``IP:PORT``."""
        return _texts(self._node.contacts if self._node is not None else (), most)

    def lasting_nodes(self, most: int = link.MAX_NODES) -> tuple[str, ...]:
        """The configured nodes that answer: fit to tell guests of, who are no guests themselves."""
        if self._node is None:
            return ()
        return _texts((c for c in self._node.contacts if c in self._table.lasting), most)

    async def settled(self, seconds: float) -> None:
        """Wait until a node has answered, at most so long, and not at all where none is known."""
        if self._node is not None and self._table.some_are_known:
            with anyio.move_on_after(seconds):
                await self._table.entered.wait()

    # Learning and finding ----------------------------------------------------------------------

    def name(self, texts: Iterable[str]) -> None:
        """Somebody says that there are nodes at these ``IP:PORT``; the rest of them is skipped."""
        if self._node is not None:
            found = [contact_at(text) for text in texts]
            self._table.name(each for each in found if each is not None)

    def name_by(self, place: str, texts: Iterable[str]) -> None:
        """A host at ``place`` (``IP:PORT``; empty: by a relay) says so; it may point to nowhere
        nearer than it is itself, nor to a port where others' services live."""
        host = contact_at(place)
        found = [each for each in map(contact_at, texts) if each is not None]
        if host is None:
            near = [each for each in found if each.scope == GLOBAL]
        else:
            near = [each for each in found if introduced(each.ip, each.port, host)]
        self.name(str(each) for each in near)

    def sources(self, granted: link.Link) -> Sequence[Source]:
        """The DHT as a source for the race to the link's host."""
        self.name(granted.hints.nodes)

        def search(attempt: Attempt) -> AsyncGenerator[Place, None]:
            return self._places(granted.invite.host_key, attempt)

        return (Source("DHT", search),)

    async def _places(self, host_key: bytes, attempt: Attempt) -> AsyncGenerator[Place, None]:
        """Where the host says it is, and again when it says something newer."""
        node = self._node
        if node is None:
            attempt.outcome = self._off
            return
        if not node.contacts:
            attempt.outcome = (
                "no node that is known answers"
                if self._table.some_are_known
                else "no node is known"
            )
            await self._table.entered.wait()
        newest = -1
        pause = _SEARCH_AGAIN
        while True:
            if newest < 0:
                known = len(node.contacts)
                attempt.outcome = f"no record of the host ({known} nodes are known)"
            async with contextlib.aclosing(_search(node, host_key)) as records:
                async for record in records:
                    if record.sequence <= newest:
                        continue
                    newest = record.sequence
                    attempt.outcome = (
                        f"found at {', '.join(record.addresses) or 'no address'}, "
                        "but no answer from there"
                    )
                    for address in record.addresses:
                        yield Place(address)
                    if record.relay is not None:
                        yield Place(record.relay, is_relay=True)
            await asyncio.sleep(pause)
            pause = min(2 * pause, _SEARCH_AGAIN_AT_MOST)

    async def announce(self, identity: keys.Identity, where: Callable[[], link.Hints]) -> None:
        """Keep the record of the host ``identity``, which is at ``where()``, until cancelled."""
        if self._node is not None:
            self._announcer = Announcer(self._node, identity, where, lost=self._table.lost)
            await self._announcer.run()

    # The local network -----------------------------------------------------------------------

    async def meet(self, network: lan.Lan) -> None:
        """Be found by the nodes on the local network and find them, until cancelled."""
        if self._node is None:
            await asyncio.Event().wait()
        # Announcing takes a second in which others can be met already.
        announcing = asyncio.ensure_future(network.announce_node(self.port))
        try:
            await self._find_on(network)
        finally:
            announcing.cancel()
            with anyio.CancelScope(shield=True):
                await asyncio.gather(announcing, return_exceptions=True)

    async def _find_on(self, network: lan.Lan) -> None:
        async with contextlib.aclosing(network.nodes()) as found:
            async for texts in found:
                self.name(texts)

    async def _stay_on_lan(self) -> None:
        """Meet all the time, on whichever network this machine is."""
        while True:
            moved = asyncio.ensure_future(self._moved.wait())
            meeting = asyncio.ensure_future(self._meet_here())
            try:
                await asyncio.wait([moved, meeting], return_when=asyncio.FIRST_COMPLETED)
                if meeting.done():
                    await asyncio.wait([moved], timeout=_LAN_AGAIN)
            finally:
                for task in (moved, meeting):
                    task.cancel()
                with anyio.CancelScope(shield=True):
                    await asyncio.gather(moved, meeting, return_exceptions=True)

    async def _meet_here(self) -> None:
        try:
            async with lan.Lan(addresses.reach(self._interfaces)) as network:
                await self.meet(network)
        except (lan.LanUnavailable, InterfaceUnknown, OSError) as error:
            log.debug("nodes on the local network cannot be met: %s", error)

    async def _seek_on_lan(self, node: DhtNode) -> None:
        """Look for nodes now and then, as long as none is known."""
        pause = SOUGHT_AFTER
        while True:
            await asyncio.sleep(pause)
            pause = min(2 * max(pause, _SOUGHT_AGAIN), _LAN_AGAIN)
            if node.contacts:
                continue
            try:
                with anyio.move_on_after(_SOUGHT_FOR):
                    async with lan.Lan(addresses.reach(self._interfaces)) as network:
                        await self._find_on(network)
            except (lan.LanUnavailable, InterfaceUnknown, OSError) as error:
                log.debug("nodes on the local network cannot be sought: %s", error)

    async def _follow_addresses(self, node: DhtNode) -> None:
        """Notice that this machine is somewhere else; those who were known may be out of reach."""
        former: addresses.Reach | None = None
        while True:
            # What the user named may be gone for now: unplugged, perhaps. It may come back.
            with contextlib.suppress(InterfaceUnknown):
                reach = addresses.reach(self._interfaces)
                if former not in (None, reach):
                    await node.rebind(reach)
                    self._table.lost()
                    moved, self._moved = self._moved, asyncio.Event()
                    moved.set()
                former = reach
            await asyncio.sleep(LOOK_EVERY)

    async def close(self) -> None:
        """Note who was there and close the node; safe to call twice."""
        tasks, self._tasks = self._tasks, []
        with anyio.CancelScope(shield=True):
            await end(tasks)
            if self._node is not None:
                await self._node.close()


def _texts(contacts: Iterable[Contact], most: int) -> tuple[str, ...]:
    known = sorted(contacts, key=lambda each: each.scope, reverse=True)
    return tuple(str(each) for each in known[:most])


async def _search(node: DhtNode, host_key: bytes) -> AsyncGenerator[Whereabouts, None]:
    """The records that one look-up brings, as they come."""
    records: asyncio.Queue[Whereabouts | None] = asyncio.Queue()
    searching = asyncio.ensure_future(node.search(host_key, records.put_nowait))
    searching.add_done_callback(lambda _: records.put_nowait(None))
    try:
        while (record := await records.get()) is not None:
            yield record
    finally:
        searching.cancel()
        with anyio.CancelScope(shield=True):
            await asyncio.wait([searching])
