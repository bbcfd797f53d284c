"""A bootstrap node: a node of the DHT that does nothing but be there for others."""

from __future__ import annotations

from typing import Any

from ..settings import Settings
from . import addresses
from .directory import Directory, Neighbours

DEFAULT_PORT = 47471


class BootstrapNode:
    """A running bootstrap node. Everything in one event loop."""

    def __init__(self, directory: Directory, reach: addresses.Reach) -> None:
        self._directory = directory
        self._reach = reach

    @classmethod
    async def start(cls, settings: Settings, *, port: int = DEFAULT_PORT) -> BootstrapNode:
        """Open ``port`` (0: a free one) and keep in touch with the nodes that are known.

        Raises :class:`~qmt_jupyter.errors.PortInUse` and other
        :class:`~qmt_jupyter.errors.ConfigurationError`.
        """
        reach = addresses.reach(settings.interfaces)
        return cls(await Directory.open(settings, Neighbours.ALWAYS, port=port), reach)

    @property
    def port(self) -> int:
        """Its UDP port."""
        return self._directory.port

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where it can be reached, as ``IP:PORT``, the likeliest first."""
        return addresses.sockets(self._reach, self.port, self.port, 8)

    def status(self) -> dict[str, Any]:
        """How many nodes it knows and records it keeps, as plain values."""
        known = self._directory.status()
        return {"nodes": known["nodes"], "records": known["records"]}

    async def close(self) -> None:
        """Note who was there and close the socket; safe to call twice."""
        await self._directory.close()
