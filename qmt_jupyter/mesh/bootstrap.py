"""A bootstrap node: a node of the DHT that does nothing but be there for others."""

from __future__ import annotations

import asyncio
from typing import Any

import anyio

from ..settings import Settings
from . import addresses
from .node import DhtNode
from .table import FILE, Table

DEFAULT_PORT = 47471


class BootstrapNode:
    """A running bootstrap node. Everything in one event loop."""

    def __init__(self, node: DhtNode, table: Table, reach: addresses.Reach) -> None:
        self._node = node
        self._table = table
        self._reach = reach
        self._keeping = asyncio.ensure_future(table.keep())

    @classmethod
    async def start(cls, settings: Settings, *, port: int = DEFAULT_PORT) -> BootstrapNode:
        """Open ``port`` (0: a free one) and keep in touch with the nodes that are known.

        Raises :class:`~qmt_jupyter.errors.PortInUse` and other
        :class:`~qmt_jupyter.errors.ConfigurationError`.
        """
        reach = addresses.reach(settings.interfaces)
        node = await DhtNode.open(reach, port=port)
        try:
            table = Table(node, bootstrap=settings.bootstrap, remember=settings.home / FILE)
        except BaseException:
            with anyio.CancelScope(shield=True):
                await node.close()
            raise
        return cls(node, table, reach)

    @property
    def port(self) -> int:
        """Its UDP port."""
        return self._node.port

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where it can be reached, as ``IP:PORT``, the likeliest first."""
        return addresses.sockets(self._reach, self.port, self.port, 8)

    def status(self) -> dict[str, Any]:
        """How many nodes it knows and records it keeps, as plain values."""
        return {"nodes": len(self._node.contacts), "records": self._node.records}

    async def close(self) -> None:
        """Note who was there and close the socket; safe to call twice."""
        self._keeping.cancel()
        with anyio.CancelScope(shield=True):
            await asyncio.wait([self._keeping])
            await self._node.close()
