"""``tunnel``: a WebSocket that carries a guest's datagrams to this service's own host and back.

For notebook servers from which no UDP gets here. The host sees a connection like any other, and
nothing that it checks is checked here: this side cannot read what it carries. What is slow or too
much is slowed down or dropped, as by a network, and never kept.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections import Counter
from collections.abc import Awaitable
from typing import Any
from weakref import WeakValueDictionary

from tornado import iostream, web, websocket

from ..errors import Busy, HubNotFound, QmtError, RequestInvalid, TooManyAtOnce
from ..settings import Settings
from .desk import Desk
from .person import Person
from .requests import JsonHandler

MOST_OF_A_USER = 8
MOST_IN_ALL = 400
"""Each takes two files; a thousand is what many systems allow a process."""
MAX_DATAGRAM = 2048
"""Bytes; QUIC's have up to 1452."""
MOST_A_SECOND = 4000
"""Messages from one user, some 45 Mbit/s; who sends more is read more slowly."""
PING_EVERY = 20.0
"""Seconds; proxies cut what has been quiet for a minute."""
IDLE_AFTER = 60.0
"""Seconds without a word from the host; a connection has one every five."""

TEXT, RIGHT_GONE, IDLE = 1003, 4403, 4408

_MOST_UNSENT = 128 * 1024
_MOST_WRITTEN = 512 * 1024
_LAST_WORDS = 3.0
_TURN = 32

log = logging.getLogger(__name__)


def routes(desk: Desk) -> list[tuple[str, type[web.RequestHandler], dict[str, Any]]]:
    """What this part answers."""
    return [(r"tunnel", TunnelHandler, {"desk": desk, "tunnels": Tunnels()})]


class Pace:
    """What one user may send: so many messages a second, and as many at once."""

    def __init__(self) -> None:
        self._left = float(MOST_A_SECOND)
        self._at = time.monotonic()

    def take(self) -> float:
        """Count one message; how many seconds to wait before the next is read."""
        now = time.monotonic()
        gained = (now - self._at) * MOST_A_SECOND
        self._left, self._at = min(self._left + gained, MOST_A_SECOND) - 1, now
        return max(-self._left / MOST_A_SECOND, 0.0)


class Tunnels:
    """How many there are, and what each user may send through all of its own."""

    def __init__(self) -> None:
        self._open: Counter[str] = Counter()
        self._paces: WeakValueDictionary[str, Pace] = WeakValueDictionary()

    def enter(self, user: str) -> Pace:
        """One more. Raises :class:`~qmt_jupyter.errors.TooManyAtOnce` or
        :class:`~qmt_jupyter.errors.Busy`."""
        if self._open[user] >= MOST_OF_A_USER:
            raise TooManyAtOnce(
                f"{MOST_OF_A_USER} tunnels of this user are open, and no more are allowed.",
                next_step="Shut down notebooks that are not needed.",
            )
        if self.count >= MOST_IN_ALL:
            raise Busy("The service has as many tunnels open as it can.", retry_after=5)
        self._open[user] += 1
        pace = self._paces.get(user)
        if pace is None:
            pace = self._paces[user] = Pace()
        return pace

    def leave(self, user: str) -> None:
        """One less."""
        self._open[user] -= 1
        if not self._open[user]:
            del self._open[user]

    @property
    def count(self) -> int:
        """How many are open."""
        return self._open.total()


class TunnelHandler(JsonHandler, websocket.WebSocketHandler):
    """One tunnel: a WebSocket, and a UDP socket that speaks to the host alone."""

    max_message_size = MAX_DATAGRAM
    ping_interval = PING_EVERY

    def initialize(self, desk: Desk, tunnels: Tunnels | None = None) -> None:
        """Tornado's own constructor."""
        super().initialize(desk)
        self._tunnels = tunnels or Tunnels()
        self._host: _HostSocket | None = None
        self._stream: iostream.IOStream | None = None
        self._ended = False
        self._unsent = 0
        self._messages = 0

    async def get(self, *args: str, **kwargs: str) -> None:
        """Open it for who may use the service, and carry until either side ends it."""
        if "Origin" in self.request.headers or "Sec-Fetch-Site" in self.request.headers:
            # Only a browser says where a page came from, and no page has business here.
            raise RequestInvalid("A page cannot open the tunnel.")
        if self.request.headers.get("Upgrade", "").lower() != "websocket":
            raise RequestInvalid("The tunnel is a WebSocket.")
        person = await self.user()
        self._pace = self._tunnels.enter(person.name)
        watching: asyncio.Task[None] | None = None
        try:
            self._host = await self._reach_host()
            watching = asyncio.ensure_future(self._watch(person, self._host))
            await websocket.WebSocketHandler.get(self, *args, **kwargs)
        except iostream.StreamBufferFullError:
            log.info("a tunnel was closed: its guest asks and does not read")
        finally:
            self._tunnels.leave(person.name)
            if watching is not None:
                watching.cancel()
            if self._host is not None:
                self._host.close()
            if self._stream is not None:
                self._stream.close()

    async def _reach_host(self) -> _HostSocket:
        address = host_address(await self.desk.host.status(), Settings.from_environment())
        try:
            _, made = await asyncio.get_running_loop().create_datagram_endpoint(
                lambda: _HostSocket(self), remote_addr=address
            )
        except OSError as error:
            raise Busy(
                f"The service cannot open a tunnel now ({error.strerror}).", retry_after=5
            ) from None
        return made

    def open(self, *args: str, **kwargs: str) -> None:  # noqa: ARG002  (the library's)
        """Tornado's call: the WebSocket is there."""
        self.set_nodelay(True)
        self._stream = getattr(self.ws_connection, "stream", None)
        if self._stream is not None:
            # Answers to a flood of pings would pile up before who does not read them.
            self._stream.max_write_buffer_size = _MOST_WRITTEN

    def check_origin(self, origin: str) -> bool:  # noqa: ARG002  (the library's)
        """No page anywhere, this service's own neither."""
        return False

    # To the host -------------------------------------------------------------------------------

    def on_message(self, message: str | bytes) -> Awaitable[None] | None:
        """A datagram on its way to the host; the next is read when what it returns is done."""
        if isinstance(message, str):
            self._end(TEXT, "binary messages only")
        elif self._host is not None and message and not self._ended:
            self._host.send(message)
        self._messages += 1
        wait = self._pace.take()
        # Others have their turn, however much has come already.
        return asyncio.sleep(wait) if wait or self._messages % _TURN == 0 else None

    def on_ping(self, data: bytes) -> None:  # noqa: ARG002  (the library's)
        """Counts too. Nobody is made to wait with it, so that a flood ends the tunnel."""
        if self._pace.take() and self._stream is not None:
            self._stream.close()

    def on_pong(self, data: bytes) -> None:
        """The same."""
        self.on_ping(data)

    # From the host -----------------------------------------------------------------------------

    def answered(self, data: bytes) -> None:
        """A datagram on its way to the guest; dropped where the guest takes too little."""
        if self._ended or self._stream is None or self._unsent + len(data) > _MOST_UNSENT:
            return
        with contextlib.suppress(websocket.WebSocketClosedError, iostream.StreamBufferFullError):
            sent = self.write_message(data, binary=True)
            self._unsent += len(data)
            sent.add_done_callback(lambda done: self._sent(len(data), done))

    def _sent(self, size: int, done: asyncio.Future[None]) -> None:
        self._unsent -= size
        if not done.cancelled():
            done.exception()

    # Its end -----------------------------------------------------------------------------------

    def _end(self, code: int, reason: str) -> None:
        if not self._ended:
            self._ended = True
            self.close(code, reason)

    async def _watch(self, person: Person, host: _HostSocket) -> None:
        """Close it when the right to it is gone, or the host has long been silent."""
        every = self.desk.options.recheck
        while True:
            # Those that came together are not asked about together.
            await asyncio.sleep(every * random.uniform(0.7, 1.0))  # noqa: S311
            if time.monotonic() - host.heard > IDLE_AFTER:
                self._end(IDLE, "idle")
                return
            if not await self._may_stay(person):
                # The seat is asked about as often, and when it ends the host says so through here.
                await asyncio.sleep(every + _LAST_WORDS)
                self._end(RIGHT_GONE, "no right to it any more")
                return

    async def _may_stay(self, person: Person) -> bool:
        try:
            now = await self.desk.rights.ask(self.token(), again=True)
            self.desk.require_user(now)
        except HubNotFound:
            return True  # no answer ends nothing
        except QmtError:
            return False
        return now.name == person.name


class _HostSocket(asyncio.DatagramProtocol):
    """The socket to the host; the kernel lets nobody else's datagrams in."""

    def __init__(self, handler: TunnelHandler) -> None:
        self._handler = handler
        self._transport: asyncio.DatagramTransport | None = None
        self._is_full = False
        self.heard = time.monotonic()

    def send(self, data: bytes) -> None:
        """To the host, or nowhere where it takes too little."""
        if self._transport is not None and not self._is_full:
            self._transport.sendto(data)

    def close(self) -> None:
        """Close it; safe to call twice."""
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:  # noqa: ARG002  (the library's)
        self.heard = time.monotonic()
        self._handler.answered(data)

    def error_received(self, exc: Exception) -> None:
        log.debug("the host's port does not take datagrams: %s", exc)

    def pause_writing(self) -> None:
        self._is_full = True

    def resume_writing(self) -> None:
        self._is_full = False


def host_address(status: dict[str, Any], settings: Settings) -> tuple[str, int]:
    """Where this process reaches its own host, from :meth:`qmt_jupyter.aio.Host.status`.

    A host on all interfaces is on loopback, however its addresses change; one that is bound to an
    address is there. Raises :class:`~qmt_jupyter.errors.Busy` where it has none now.
    """
    for address in status["addresses"]:
        ip, _, port = address.rpartition(":")
        is_everywhere = not settings.interfaces and ":" not in ip
        return ("127.0.0.1" if is_everywhere else ip.strip("[]"), int(port))
    raise Busy("The service's host has no address now.", retry_after=5)
