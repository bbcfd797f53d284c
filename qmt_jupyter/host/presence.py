"""Where a host is on the network: its endpoint, its addresses now, and who is told of them.

Addresses change under a host: a laptop moves, a cable is pulled. They are looked at every few
seconds, and what has changed is announced anew; an invite carries those of the moment it is made.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import Any

import anyio

from ..errors import HomeNotWritable, InterfaceUnknown
from ..identity import keys, link
from ..mesh import addresses, lan
from ..mesh.directory import Directory
from ..mesh.endpoint import Endpoint
from ..mesh.relay import NO_RELAY, Relays
from ..settings import Settings
from ..wire import messages
from .granting import ReachFile

LOOK_EVERY = 2.0
RELAY_DEADLINE = 3.0
_ANNOUNCE_AGAIN = 60.0
_MOST_ADDRESSES = 6
_MOST_OUTSIDE = 2
_MOST_NODES = 2
_DHT_DEADLINE = 1.0

log = logging.getLogger(__name__)


class Presence:
    """A host's endpoint and what is known of where it is. Everything in one event loop."""

    def __init__(
        self,
        identity: keys.Identity,
        settings: Settings,
        endpoint: Endpoint,
        relays: Relays,
        directory: Directory,
    ) -> None:
        self.endpoint = endpoint
        self.directory = directory
        self._identity = identity
        self._interfaces = settings.interfaces
        self._relays = relays
        self._reach = addresses.reach(settings.interfaces)
        self._hints = link.Hints()
        self._noted: link.Hints | None = None
        self._lan_state = "starting"
        self._reach_file = ReachFile(settings.host_dir)
        self._changed = asyncio.Event()

    @classmethod
    async def open(
        cls,
        identity: keys.Identity,
        settings: Settings,
        *,
        port: int = 0,
        relays: Relays = NO_RELAY,
    ) -> Presence:
        """Open the endpoint; with relays, wait up to :data:`RELAY_DEADLINE` s for one of them.

        Raises a :class:`~qmt_jupyter.errors.ConfigurationError`.
        """
        endpoint = await Endpoint.bind(
            identity.seed,
            addresses.reach(settings.interfaces),
            port=port,
            alpns=(messages.ALPN,),
            relays=relays,
        )
        directory: Directory | None = None
        try:
            directory = await Directory.open(settings)
            presence = cls(identity, settings, endpoint, relays, directory)
            if relays.any:
                with anyio.move_on_after(RELAY_DEADLINE):
                    await endpoint.online()
            await directory.settled(_DHT_DEADLINE)
            presence._hints = presence._look()
            presence._note()
        except BaseException:
            with anyio.CancelScope(shield=True):
                if directory is not None:
                    await directory.close()
                await endpoint.close()
            raise
        return presence

    # What it is ------------------------------------------------------------------------------

    @property
    def hints(self) -> link.Hints:
        """Where the host can be reached now: the likeliest addresses, its relay, and nodes of the
        DHT that will know it when it has moved."""
        return replace(self._hints, nodes=self.directory.lasting_nodes(_MOST_NODES))

    def nodes(self) -> tuple[int, tuple[str, ...]]:
        """The port of its node of the DHT (0: none), and where it and others are, for a guest."""
        port = self.directory.port
        own = addresses.sockets(self._reach, port, port, _MOST_ADDRESSES) if port else ()
        return port, (*own, *self.directory.lasting_nodes())

    def status(self) -> dict[str, Any]:
        """``addresses``, ``lan``, ``dht`` and ``relay`` as plain values.

        ``relay`` is None where none is wanted, else its ``url`` (None: no public one was reached
        yet) and whether it is ``connected``.
        """
        return {
            "addresses": list(self._hints.addresses),
            "lan": self._lan_state,
            "dht": self.directory.status(),
            "relay": {"url": self._hints.relay, "connected": self.endpoint.relay is not None}
            if self._relays.any
            else None,
        }

    def _look(self) -> link.Hints:
        """The addresses and the relay as they are this moment."""
        try:
            self._reach = addresses.reach(self._interfaces)
        except InterfaceUnknown:
            # What the user named is gone for now: unplugged, perhaps. It may come back.
            log.info("the interfaces named for the host are not there now")
        v4_port, v6_port = self.endpoint.ports
        own = addresses.sockets(self._reach, v4_port, v6_port, _MOST_ADDRESSES)
        told = () if self._reach.restricted else self.endpoint.addresses
        read = [each for each in map(link.socket_address, told) if each]
        outside = [each for each in read if addresses.is_outside(each, self._reach)]
        return link.Hints(
            tuple(dict.fromkeys((*own, *outside[:_MOST_OUTSIDE])))[: link.MAX_ADDRESSES],
            self._relays.url or link.relay_url(self.endpoint.relay or ""),
        )

    def _note(self) -> None:
        """Leave where the host is to its owner's other processes."""
        if self.hints != self._noted:
            self._noted = self.hints
            self._reach_file.write(self._noted)

    # Being found -----------------------------------------------------------------------------

    async def keep_known(self) -> None:
        """Announce the host, and again whenever its addresses change, until cancelled."""
        async with anyio.create_task_group() as keeping:
            keeping.start_soon(self.directory.announce, self._identity, lambda: self._hints)
            keeping.start_soon(self._keep_announced)

    async def _keep_announced(self) -> None:
        while True:
            async with anyio.create_task_group() as announcing:
                announcing.start_soon(self._announce_on_lan)
                await self._next_change()
                announcing.cancel_scope.cancel()

    async def changes(self) -> AsyncGenerator[link.Hints, None]:
        """Where the host is: at first, and then whenever it has changed."""
        while True:
            changed = self._changed
            yield self._hints
            await changed.wait()

    async def _next_change(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY)
            former, self._hints = self._hints, self._look()
            try:
                self._note()
            except HomeNotWritable as error:
                log.warning("the host's addresses cannot be noted: %s", error)
            if self._hints == former:
                continue
            log.info("the host's addresses have changed")
            self._changed.set()
            self._changed = asyncio.Event()
            return

    async def _announce_on_lan(self) -> None:
        while True:
            try:
                self._lan_state = "starting"
                async with lan.Lan(self._reach) as network:
                    await network.announce(self._identity.peer_id, *self.endpoint.ports)
                    self._lan_state = "announced"
                    await self.directory.meet(network)
            except lan.LanUnavailable as error:
                self._lan_state = str(error)
                log.warning("multicast DNS does not work here: %s", error)
            except (OSError, asyncio.TimeoutError) as error:
                # An interface may vanish at any moment in between.
                self._lan_state = getattr(error, "strerror", None) or "it does not answer"
            await asyncio.sleep(_ANNOUNCE_AGAIN)

    async def close(self) -> None:
        """Close the endpoint; safe to call twice."""
        self._reach_file.remove()
        await self.directory.close()
        await self.endpoint.close()
