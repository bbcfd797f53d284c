"""The transport: QUIC connections between Ed25519 keys, through iroh.

With :mod:`.binding` the only module that knows iroh. An endpoint's key is its identity: whoever
answers a connection holds the key that was asked for, and :attr:`Connection.peer_key` is
authenticated by TLS. All calls belong to one event loop.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncIterator
from typing import Any

import anyio

from ..errors import ConfigurationError, PortInUse
from .addresses import Reach
from .binding import iroh, use_loop
from .path import Carrier
from .path import Path as Path
from .relay import NO_RELAY, Relays

CLOSE_NORMAL = 0
CLOSE_REFUSED = 1
CLOSE_PROTOCOL = 2
CLOSE_STOPPED = 3

HANDSHAKE_DEADLINE = 5.0
CLOSE_DEADLINE = 1.0
MAX_HANDSHAKES = 64


class TransportError(Exception):
    """A connection or stream failed; the message is for logs, not for users."""


class AlpnMismatch(TransportError):
    """The peer is there but does not speak this exchange."""


class Stream:
    """One bidirectional QUIC stream."""

    def __init__(self, stream: iroh.BiStream) -> None:
        self._send: Any = stream.send()
        self._receive: Any = stream.recv()

    async def read(self, limit: int = 64 * 1024) -> bytes:
        """Up to ``limit`` bytes, ``b""`` at the end. One reader, never cancelled in mid-frame."""
        try:
            return bytes(await _held(self._receive).read(limit))
        except iroh.IrohError as error:
            raise TransportError(error.message()) from None

    async def write(self, data: bytes) -> None:
        """Send all of ``data``; waits while the peer takes no more."""
        try:
            await _held(self._send).write_all(data)
        except iroh.IrohError as error:
            raise TransportError(error.message()) from None

    async def finish(self) -> None:
        """Say that nothing more will be sent; a stream that is already gone is fine."""
        try:
            await _held(self._send).finish()
        except (iroh.IrohError, TransportError):
            return

    async def abort(self, code: int = CLOSE_NORMAL) -> None:
        """Give up both directions at once; a stream that is already gone is fine."""
        for part, action in ((self._send, "reset"), (self._receive, "stop")):
            try:
                await getattr(_held(part), action)(code)
            except (iroh.IrohError, TransportError):
                continue

    def release(self) -> None:
        """Let go of the library's objects; the stream is over."""
        self._send = self._receive = None


def _held(part: Any) -> Any:
    if part is None:
        raise TransportError("the endpoint has been closed")
    return part


class Connection:
    """An encrypted connection to the holder of ``peer_key``."""

    def __init__(self, connection: iroh.Connection) -> None:
        self._connection: Any = connection
        self._streams: weakref.WeakSet[Stream] = weakref.WeakSet()
        self._tunnel = ""
        self.peer_key: bytes = bytes(connection.remote_id().to_bytes())

    async def open_stream(self) -> Stream:
        """A new stream to the peer."""
        try:
            return self._known(Stream(await _held(self._connection).open_bi()))
        except iroh.IrohError as error:
            raise TransportError(error.message()) from None

    async def accept_stream(self) -> Stream:
        """The next stream that the peer opens."""
        try:
            return self._known(Stream(await _held(self._connection).accept_bi()))
        except iroh.IrohError as error:
            raise TransportError(error.message()) from None

    def _known(self, stream: Stream) -> Stream:
        self._streams.add(stream)
        return stream

    def allow_streams(self, count: int) -> None:
        """How many streams the peer may have open at once."""
        _held(self._connection).set_max_concurrent_bi_streams(count)
        _held(self._connection).set_max_concurrent_uni_streams(0)

    def close(self, code: int = CLOSE_NORMAL, reason: str = "") -> None:
        """Close at once; both sides' streams end. Closing again is nothing."""
        if self._connection is not None:
            self._connection.close(code, reason.encode()[:200])

    @property
    def is_closed(self) -> bool:
        """Whether the connection has ended, for whatever reason."""
        return self._connection is None or self._connection.close_reason() is not None

    @property
    def received(self) -> int:
        """How many datagrams have come from the peer."""
        if self._connection is None:
            return 0
        return int(self._connection.stats().udp_rx_datagrams)

    async def wait_closed(self) -> None:
        """Return when the connection has ended, for whatever reason."""
        if self._connection is not None:
            await self._connection.closed()

    @property
    def path(self) -> Path | None:
        """The path in use, or None before there is one."""
        for each in [] if self._connection is None else self._connection.paths():
            if each.is_selected:
                by_tunnel = each.remote_addr == self._tunnel
                way = "relayed" if each.is_relay else "tunnel" if by_tunnel else "direct"
                rtt_ms = float(self._connection.rtt() or each.rtt_ms)
                return Path(way, each.remote_addr, rtt_ms)
        return None

    def is_carried(self, tunnel: str) -> None:
        """What goes to ``tunnel`` (``IP:PORT``), an address here, does not go directly."""
        self._tunnel = tunnel

    def release(self) -> None:
        """Let go of the library's objects, the streams' included; the connection is over."""
        for stream in tuple(self._streams):
            stream.release()
        self._connection = None


class _Bind(iroh.Preset):  # type: ignore[misc]  # iroh ships no types
    """Binds exactly the addresses asked for, with the relays asked for and no lookup.

    The library also asks the network's router to map the port (UPnP, PCP, NAT-PMP), whatever
    addresses are bound, and its Python side has no switch for that.
    """

    def __init__(self, addresses: list[str], relay_mode: iroh.RelayMode) -> None:
        self._addresses = addresses
        self._relay_mode = relay_mode

    def apply(self, builder: iroh.EndpointBuilder) -> None:
        builder.apply_minimal()
        builder.relay_mode(self._relay_mode)
        for address in self._addresses:
            builder.bind_addr(address)


def _relay_mode(relays: Relays) -> iroh.RelayMode:
    if relays.public:
        return iroh.RelayMode.default_mode()
    if relays.url is None:
        return iroh.RelayMode.disabled()
    try:
        return iroh.RelayMode.custom_from_urls([relays.url])
    except iroh.IrohError:
        raise ConfigurationError(
            f"{relays.url} cannot be a relay's address.", next_step="Give another --relay."
        ) from None


_closing: set[asyncio.Future[None]] = set()


class Endpoint:
    """This process's end of all its connections."""

    def __init__(self, endpoint: iroh.Endpoint) -> None:
        self._endpoint: Any = endpoint
        self._connections: weakref.WeakSet[Connection] = weakref.WeakSet()
        self._outside: set[str] = set()
        self._carrier: Carrier | None = None
        self.public_key: bytes = bytes(endpoint.id().to_bytes())

    @classmethod
    async def bind(
        cls,
        seed: bytes,
        reach: Reach,
        *,
        port: int = 0,
        alpns: tuple[bytes, ...] = (),
        relays: Relays = NO_RELAY,
    ) -> Endpoint:
        """Open UDP sockets for the key of ``seed`` (32 bytes) within ``reach``.

        ``port`` 0 takes a free one; with ``alpns`` the endpoint takes connections; of ``relays``
        it keeps a connection to one, over TCP. Raises a
        :class:`~qmt_jupyter.errors.ConfigurationError`.
        """
        use_loop(asyncio.get_running_loop())
        wanted = [
            f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
            for address in reach.binds
        ]
        try:
            return cls(await cls._bind(seed, wanted, alpns, relays))
        except iroh.IrohError as error:
            if "in use" in error.message():
                raise PortInUse(f"UDP port {port} is already in use.") from None
        # A machine without IPv6 cannot bind its half.
        try:
            return cls(await cls._bind(seed, wanted[:1], alpns, relays))
        except iroh.IrohError as error:
            reason = error.message().strip().splitlines()[-1].strip()
            raise ConfigurationError(
                f"The network could not be opened on {wanted[0]} ({reason}).",
                next_step="Check QMT_INTERFACES and --port.",
            ) from None

    @staticmethod
    async def _bind(
        seed: bytes, addresses: list[str], alpns: tuple[bytes, ...], relays: Relays
    ) -> iroh.Endpoint:
        preset = _Bind(addresses, _relay_mode(relays))
        return await iroh.Endpoint.bind(
            iroh.EndpointOptions(preset=preset, secret_key=seed, alpns=list(alpns))
        )

    @property
    def ports(self) -> tuple[int | None, int | None]:
        """The UDP ports of IPv4 and of IPv6, None where it is not bound."""
        v4: int | None = None
        v6: int | None = None
        for text in [] if self._endpoint is None else self._endpoint.bound_sockets():
            host, _, port = text.rpartition(":")
            if host.startswith("["):
                v6 = int(port)
            else:
                v4 = int(port)
        return v4, v6

    @property
    def relay(self) -> str | None:
        """The URL of the relay that this endpoint listens at; None where there is none now."""
        return None if self._endpoint is None else self._endpoint.addr().relay_url()

    async def online(self) -> None:
        """Return when a relay is connected; for ever where none is."""
        await _held(self._endpoint).online()

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where the transport believes to be reachable, as ``IP:PORT``, any interface's."""
        return () if self._endpoint is None else tuple(self._endpoint.addr().direct_addresses())

    async def set_outside(self, addresses: tuple[str, ...]) -> None:
        """Tell peers of these addresses (``IP:PORT``) too, at which others see this machine."""
        wanted = set(addresses)
        for each in self._outside - wanted:
            await _held(self._endpoint).remove_external_addr(each)
        for each in wanted - self._outside:
            await _held(self._endpoint).add_external_addr(each)
        self._outside = wanted

    async def connections(self) -> AsyncIterator[Connection]:
        """Connections that peers make, until the endpoint closes.

        Handshakes run side by side, each within its deadline; beyond :data:`MAX_HANDSHAKES` at
        once a newcomer must first prove that its address is its own, and is refused after that.
        """
        arrived: asyncio.Queue[Connection | None] = asyncio.Queue()
        handshakes: set[asyncio.Task[None]] = set()

        async def shake(incoming: iroh.Incoming) -> None:
            try:
                if len(handshakes) > MAX_HANDSHAKES:
                    await incoming.refuse()
                    return
                with anyio.fail_after(HANDSHAKE_DEADLINE):
                    accepting = await incoming.accept()
                    connection = await accepting.connect()
                arrived.put_nowait(self._known(Connection(connection)))
            except (iroh.IrohError, TimeoutError):
                return

        async def listen() -> None:
            try:
                while (incoming := await _held(self._endpoint).accept_next()) is not None:
                    task = asyncio.ensure_future(shake(incoming))
                    handshakes.add(task)
                    task.add_done_callback(handshakes.discard)
            finally:
                arrived.put_nowait(None)

        listener = asyncio.ensure_future(listen())
        try:
            while (connection := await arrived.get()) is not None:
                yield connection
        finally:
            for task in (listener, *handshakes):
                task.cancel()
            await asyncio.gather(listener, *handshakes, return_exceptions=True)

    async def connect(
        self, peer_key: bytes, addresses: tuple[str, ...], alpn: bytes, relay: str | None = None
    ) -> Connection:
        """Connect to the holder of ``peer_key`` at any of ``addresses`` (``IP:PORT``) or a relay.

        Has no deadline of its own (a dead address takes half a minute): cancel it. Raises
        :class:`TransportError`, or :class:`AlpnMismatch` where the peer speaks another version.
        """
        try:
            target = iroh.EndpointAddr(iroh.EndpointId.from_bytes(peer_key), relay, list(addresses))
            return self._known(Connection(await _held(self._endpoint).connect(target, alpn)))
        except asyncio.CancelledError as cancelled:
            # Whoever keeps the exception would keep the library's frames, and so the sockets.
            raise cancelled.with_traceback(None) from None
        except iroh.IrohError as error:
            message = error.message()
            if "known protocol" in message:
                raise AlpnMismatch(message) from None
            raise TransportError(message) from None

    def carried_by(self, carrier: Carrier) -> None:
        """Close ``carrier`` with this endpoint, whose connection it carries."""
        carrier.keep()
        self._carrier = carrier
        for connection in self._connections:
            connection.is_carried(carrier.at)

    def _known(self, connection: Connection) -> Connection:
        self._connections.add(connection)
        return connection

    async def close(self) -> None:
        """Close every connection and the sockets; peers that do not answer are not waited for.

        The library frees the sockets with its last object, so all are let go of here, whoever
        still holds ours. Its own close takes three seconds in mid-handshake, and given up
        half-way it keeps the sockets; so it goes on by itself after a second. Safe to call twice.
        """
        if self._endpoint is None:
            return
        closing = asyncio.ensure_future(self._endpoint.close())
        _closing.add(closing)
        closing.add_done_callback(_closing.discard)
        try:
            with anyio.move_on_after(CLOSE_DEADLINE):
                await asyncio.shield(closing)
        finally:
            # An interrupt ends the waiting, and what was begun is done all the same.
            for connection in tuple(self._connections):
                connection.release()
            self._endpoint = None
            if self._carrier is not None:
                with anyio.CancelScope(shield=True):
                    await self._carrier.close()
