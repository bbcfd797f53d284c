"""The directory of hosts: this process's part in the DHT, as hosts and guests use it.

A host's record is kept in it, a guest looks one up, and both help others do the same. Nodes are
learnt from links, from hosts, from the local network, from earlier sessions and from the
configuration; where there are none, and where ``QMT_DHT=off`` says so, it is silent.
"""

from __future__ import annotations

import asyncio
import contextlib
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
from .locate import Attempt, Place, Source
from .node import DhtNode
from .table import FILE, Table, configured, contact_at

LOOK_EVERY = 2.0
# Who asks one question and leaves is not worth announcing: saying goodbye takes longer.
ANNOUNCE_AFTER = 5.0
_LAN_AGAIN = 60.0
_SEARCH_AGAIN = 0.3
_SEARCH_AGAIN_AT_MOST = 4.0

log = logging.getLogger(__name__)


class Directory:
    """A node that is kept in touch with others. Everything in one event loop."""

    def __init__(
        self,
        settings: Settings,
        node: DhtNode | None,
        *,
        off: str = "",
        announce_after: float = 0.0,
    ) -> None:
        self._interfaces = settings.interfaces
        self._node = node
        self._off = off
        self._announce_after = announce_after
        self._announcer: Announcer | None = None
        self._tasks: list[asyncio.Task[None]] = []
        if node is not None:
            self._table = Table(node, bootstrap=settings.bootstrap, remember=settings.home / FILE)
            self._tasks = [
                asyncio.ensure_future(self._table.keep()),
                asyncio.ensure_future(self._meet_neighbours()),
            ]

    @classmethod
    async def open(cls, settings: Settings, *, port: int | None = None) -> Directory:
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
        return cls(settings, node, announce_after=ANNOUNCE_AFTER if port is None else 0.0)

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
        """Nodes to tell others of, as ``IP:PORT``: the configured ones that answer come first."""
        if self._node is None:
            return ()
        lasting = self._table.lasting
        known = sorted(
            self._node.contacts, key=lambda each: (each in lasting, each.scope), reverse=True
        )
        return tuple(str(each) for each in known[:most])

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

    async def _meet_neighbours(self) -> None:
        """Be found by the nodes on the local network and find them, on whichever it is."""
        assert self._node is not None
        while True:
            pause = _LAN_AGAIN
            try:
                reach = addresses.reach(self._interfaces)
                await self._node.rebind(reach)
                async with lan.Lan(reach) as network:
                    await self._meet_on(network, reach)
                pause = 0.0
            except InterfaceUnknown:
                # What the user named is gone for now: unplugged, perhaps. It may come back.
                pause = LOOK_EVERY
            except (lan.LanUnavailable, OSError) as error:
                log.debug("nodes on the local network cannot be met: %s", error)
            await asyncio.sleep(pause)

    async def _meet_on(self, network: lan.Lan, reach: addresses.Reach) -> None:
        """The same on one network, until this machine's addresses are others."""
        beside: list[asyncio.Task[None]] = []
        with anyio.CancelScope() as here:
            try:
                beside.append(asyncio.ensure_future(self._announce_on(network)))
                beside.append(asyncio.ensure_future(self._until_moved(reach, here)))
                async with contextlib.aclosing(network.nodes()) as found:
                    async for texts in found:
                        self.name(texts)
            finally:
                for task in beside:
                    task.cancel()
                with anyio.CancelScope(shield=True):
                    await asyncio.gather(*beside, return_exceptions=True)

    async def _announce_on(self, network: lan.Lan) -> None:
        await asyncio.sleep(self._announce_after)
        await network.announce_node(self.port)

    async def _until_moved(self, reach: addresses.Reach, scope: anyio.CancelScope) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY)
            with contextlib.suppress(InterfaceUnknown):
                if addresses.reach(self._interfaces) == reach:
                    continue
            self._table.lost()
            scope.cancel()
            return

    async def close(self) -> None:
        """Note who was there and close the node; safe to call twice."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        with anyio.CancelScope(shield=True):
            if tasks:
                await asyncio.wait(tasks)
            if self._node is not None:
                await self._node.close()


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
