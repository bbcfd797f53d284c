"""The local network: multicast DNS service discovery (RFC 6762, RFC 6763), through zeroconf.

A host announces ``PEER_ID._qmt._udp.local.`` with its port and addresses, and nothing else: no
name, no model. A guest asks for the one peer id that its invite names. What comes back is a
place to try; the connection itself proves who is there.

Nodes of the DHT that stay (hosts', bootstrap nodes) are announced as
``RANDOM._qmt-dht._udp.local.``, by a name that says nothing and is a new one each time.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncGenerator
from types import TracebackType

import anyio
from zeroconf import (
    InterfaceChoice,
    IPVersion,
    NonUniqueNameException,
    NotRunningException,
    ServiceStateChange,
    Zeroconf,
)
from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf

from .addresses import Reach

# A network that goes away while it is used makes the library warn on standard error, where nobody
# can do anything about it; what matters of it is raised here.
if logging.getLogger("zeroconf").level == logging.NOTSET:
    logging.getLogger("zeroconf").setLevel(logging.ERROR)

SERVICE = "_qmt._udp.local."
NODE_SERVICE = "_qmt-dht._udp.local."
_MOST_NODES = 64
_ROUND_MS = 1500


class LanUnavailable(Exception):
    """Multicast DNS does not work here; the message says why."""


class Lan:
    """Multicast DNS on the interfaces of a :class:`~.addresses.Reach`. An async context manager."""

    def __init__(self, reach: Reach) -> None:
        self._reach = reach
        self._zeroconf: AsyncZeroconf | None = None

    async def __aenter__(self) -> Lan:
        """Open the sockets. Raises :class:`LanUnavailable`."""
        try:
            self._zeroconf = AsyncZeroconf(
                interfaces=list(self._reach.v4 or self._reach.v6) or InterfaceChoice.Default,
                ip_version=IPVersion.V4Only if self._reach.v4 else IPVersion.V6Only,
            )
        except (OSError, RuntimeError) as error:
            raise LanUnavailable(getattr(error, "strerror", None) or str(error)) from None
        # A start that is cancelled half-way would leave sockets open, so it is always finished.
        starting = asyncio.ensure_future(self._zeroconf.zeroconf.async_wait_for_start())
        try:
            await asyncio.shield(starting)
        except BaseException as error:
            with anyio.CancelScope(shield=True):
                await asyncio.wait([starting])
                await self._zeroconf.async_close()
            if isinstance(error, NotRunningException):
                raise LanUnavailable("it did not start") from None
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Withdraw what was announced and close the sockets."""
        if self._zeroconf is not None:
            # A search that lost the race is cancelled: its sockets are closed all the same.
            with anyio.CancelScope(shield=True):
                await self._zeroconf.async_close()

    def _opened(self) -> AsyncZeroconf:
        if self._zeroconf is None:
            raise RuntimeError("Lan is used outside its context")
        return self._zeroconf

    async def announce(self, peer_id: str, port_v4: int | None, port_v6: int | None) -> None:
        """Answer for ``peer_id`` until the context ends. Takes about a second to be complete.

        The service record holds one port, so IPv6 addresses are announced only where they
        share it. Raises :class:`LanUnavailable`.
        """
        await self._register(SERVICE, peer_id, port_v4, port_v6)

    async def announce_node(self, port: int) -> None:
        """Say until the context ends that there is a node of the DHT at ``port``, not whose.

        Raises :class:`LanUnavailable`.
        """
        await self._register(NODE_SERVICE, secrets.token_hex(8), port, port)

    async def _register(
        self, service: str, name: str, port_v4: int | None, port_v6: int | None
    ) -> None:
        addresses = list(self._reach.v4) if port_v4 else []
        if not addresses or port_v6 == port_v4:
            addresses += self._reach.v6
        info = AsyncServiceInfo(
            service,
            f"{name}.{service}",
            port=(port_v4 if port_v4 and self._reach.v4 else port_v6) or 0,
            server=f"{name.lower()}.local.",
            parsed_addresses=addresses,
        )
        try:
            announcing = await self._opened().async_register_service(info)
            await announcing
        except NonUniqueNameException:
            raise LanUnavailable("another machine announces this identity") from None
        except OSError as error:
            raise LanUnavailable(error.strerror or str(error)) from None

    async def find(self, peer_id: str) -> tuple[str, ...]:
        """Where ``peer_id`` says it is, as ``IP:PORT``; asks until somebody answers."""
        while True:
            found = await self._ask(SERVICE, f"{peer_id}.{SERVICE}")
            if found:
                return found
            await asyncio.sleep(0.05)

    async def nodes(self) -> AsyncGenerator[tuple[str, ...], None]:
        """Where nodes of the DHT say that they are, as ``IP:PORT``, as they come; without end."""
        names: asyncio.Queue[str] = asyncio.Queue(maxsize=_MOST_NODES)

        def seen(
            zeroconf: Zeroconf,  # noqa: ARG001  (the library calls by these names)
            service_type: str,  # noqa: ARG001
            name: str,
            state_change: ServiceStateChange,
        ) -> None:
            if state_change is not ServiceStateChange.Removed and not names.full():
                names.put_nowait(name)

        browser = AsyncServiceBrowser(self._opened().zeroconf, NODE_SERVICE, handlers=[seen])
        try:
            while True:
                found = await self._ask(NODE_SERVICE, await names.get())
                if found:
                    yield found
        finally:
            with anyio.CancelScope(shield=True):
                await browser.async_cancel()

    async def _ask(self, service: str, name: str) -> tuple[str, ...]:
        """Where a service is, nothing if nobody answers in time."""
        info = AsyncServiceInfo(service, name)
        if not await info.async_request(self._opened().zeroconf, _ROUND_MS) or not info.port:
            return ()
        found = info.parsed_addresses()[:8]
        return tuple(f"[{ip}]:{info.port}" if ":" in ip else f"{ip}:{info.port}" for ip in found)
