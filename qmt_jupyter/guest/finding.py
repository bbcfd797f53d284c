"""Where a guest looks for its hosts: what it remembers of them, and what all links share."""

from __future__ import annotations

import asyncio

from ..errors import ConfigurationError
from ..identity.link import Link
from ..mesh import addresses
from ..mesh.directory import Directory, Neighbours
from ..mesh.endpoint import Connection, Endpoint
from ..mesh.locate import DEADLINE, Source, locate
from ..settings import Settings
from ..wire import messages
from .places import Places


class Finder:
    """Finds the host of a link, from the network as it is at that moment.

    Beside the link, the places remembered and the local network it asks the DHT, with a node that
    is opened for the first search and lives until :meth:`close`.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._interfaces = settings.interfaces
        self._places = Places(settings.guest_dir)
        self._directory: Directory | None = None
        self._opening = asyncio.Lock()
        self._closed = False
        self._dht_ports: dict[str, int] = {}
        self._also: dict[str, Source] = {}

    def reach(self) -> addresses.Reach:
        """This machine's addresses now. Raises a
        :class:`~qmt_jupyter.errors.ConfigurationError`."""
        return addresses.reach(self._interfaces)

    def here(self) -> addresses.Reach | None:
        """The same for comparing; None while this machine has not what the user named."""
        try:
            return self.reach()
        except ConfigurationError:
            return None

    def also_by(self, host_id: str, source: Source | None) -> None:
        """Look for the host of this peer id by ``source`` too from now on; None: not any more."""
        if source is None:
            self._also.pop(host_id, None)
        else:
            self._also[host_id] = source

    async def find(self, link: Link, deadline: float = DEADLINE) -> tuple[Endpoint, Connection]:
        """An endpoint, which is the caller's to close, and its connection to the link's host.

        Raises :class:`~qmt_jupyter.errors.HostNotFound`,
        :class:`~qmt_jupyter.errors.VersionMismatch` or a
        :class:`~qmt_jupyter.errors.ConfigurationError`.
        """
        also = self._also.get(link.invite.peer_id)
        return await locate(
            link.invite.host_key,
            link.hints,
            self.reach(),
            messages.ALPN,
            known=self._places.of(link.invite.peer_id),
            others=(*(await self._opened()).sources(link), *([also] if also else [])),
            deadline=deadline,
        )

    async def _opened(self) -> Directory:
        async with self._opening:
            if self._directory is None:
                self._directory = await Directory.open(self._settings, Neighbours.SOUGHT)
            if self._closed:
                await self._directory.close()
            return self._directory

    def found(self, link: Link, place: str) -> None:
        """Remember that the link's host was reached directly at ``place`` (``IP:PORT``)."""
        self._places.note(link.invite.peer_id, place)
        port = self._dht_ports.get(link.invite.peer_id)
        if port and self._directory is not None:
            self._directory.name([f"{place.rpartition(':')[0]}:{port}"])

    def welcomed(self, link: Link, welcome: messages.Welcome, place: str) -> None:
        """Take over the nodes of the DHT that the link's host, reached at ``place``, tells of."""
        self._dht_ports[link.invite.peer_id] = welcome.dht_port
        if self._directory is not None:
            self._directory.name_by(place, welcome.nodes)

    async def close(self) -> None:
        """Close the node of the DHT; safe to call twice."""
        self._closed = True
        if self._directory is not None:
            await self._directory.close()
