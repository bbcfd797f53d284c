"""The way through a JupyterHub's own proxy, where no UDP gets from a notebook to the host.

The datagrams of the QUIC connection travel as messages of a WebSocket to the service: encryption,
keys and the exchange stay between guest and host, and whoever carries them can read nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import socket
import ssl
from collections.abc import AsyncGenerator, Callable
from typing import Any

import anyio
from tornado.httpclient import HTTPClientError, HTTPRequest
from tornado.websocket import WebSocketClientConnection, websocket_connect

from ...errors import QmtError
from ...harmless import printable
from ...mesh.addresses import Reach
from ...mesh.ending import end
from ...mesh.locate import Attempt, Place, Source

NAME = "JupyterHub tunnel"
MAX_DATAGRAM = 2048  # bytes; QUIC's have up to 1452
PING_EVERY = 20.0  # seconds; proxies cut what has been quiet for a minute
RIGHT_GONE = 4403  # the service's last word: do not come back

_CONNECT_WITHIN = 10.0
_LARGEST_REFUSAL = 16 * 1024  # bytes
_MOST_UNSENT = 128 * 1024  # bytes; what is more is dropped, as a network would
_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 2.0
_HEARD_WITHIN = 0.5
_CLOSED_WITHIN = 1.0

log = logging.getLogger(__name__)


class HubTunnel:
    """How to get to one service's host by its tunnel, opened anew for each search.

    ``url`` is the service's base (``http`` or ``https``, with a slash at its end), ``token`` gives
    the notebook server's own token, which is kept nowhere, and ``reach`` this machine's addresses
    now; both may raise a :class:`~qmt_jupyter.errors.QmtError`.
    """

    def __init__(self, url: str, token: Callable[[], str], reach: Callable[[], Reach]) -> None:
        scheme, _, rest = url.partition("://")
        self._url = f"{'wss' if scheme == 'https' else 'ws'}://{rest}tunnel"
        self._token = token
        self._reach = reach

    def source(self) -> Source:
        """The way as one of those that are raced."""
        return Source(NAME, self._search, last_resort=True)

    async def _search(self, attempt: Attempt) -> AsyncGenerator[Place, None]:
        attempt.outcome = "no answer from the service"
        try:
            tunnel = await _Tunnel.open(self._url, self._token, self._reach())
        except _Unusable as error:
            attempt.outcome = str(error)
            return
        try:
            tunnel.begin(attempt)
            await tunnel.connected.wait()
            if not tunnel.is_over:
                yield Place(tunnel.at, carrier=tunnel)
                await tunnel.over()
        finally:
            if not tunnel.kept:
                with anyio.CancelScope(shield=True):
                    await tunnel.close()


class _Unusable(Exception):
    """There can be no tunnel; the message says why."""


class _Tunnel(asyncio.DatagramProtocol):
    """One socket for the endpoint, and one WebSocket, which is opened again when it is lost.

    A :class:`~qmt_jupyter.mesh.path.Carrier`. What comes while there is no WebSocket is dropped,
    and so is what comes from anybody but the endpoint.
    """

    def __init__(self, url: str, token: Callable[[], str]) -> None:
        self._url = url
        self._token = token
        self._udp: asyncio.DatagramTransport | None = None
        self._own: tuple[str, int] = ("", 0)
        self._endpoint: tuple[str, int] | None = None
        self._web: WebSocketClientConnection | None = None
        self._unsent = 0
        self._refusal = bytearray()  # what was answered in place of the last WebSocket
        self._carrying: asyncio.Task[None] | None = None
        self._heard_itself = asyncio.Event()
        self.connected = asyncio.Event()
        self.kept = False

    @classmethod
    async def open(cls, url: str, token: Callable[[], str], reach: Reach) -> _Tunnel:
        """Open the socket, where the endpoint of this ``reach`` can send to it."""
        tunnel = cls(url, token)
        bound = reach.binds[0]
        # An endpoint that is bound to one address sends from that one.
        for address in ("127.0.0.1" if bound == "0.0.0.0" else bound, "::1"):  # noqa: S104  (compared)
            with contextlib.suppress(OSError):
                await asyncio.get_running_loop().create_datagram_endpoint(
                    lambda: tunnel, local_addr=(address, 0)
                )
                break
        if tunnel._udp is None:
            raise _Unusable("no socket could be opened on this machine")
        tunnel._own = tunnel._udp.get_extra_info("sockname")[:2]
        try:
            await tunnel._hear_itself()
        except BaseException:
            tunnel._udp.close()
            raise
        return tunnel

    async def _hear_itself(self) -> None:
        """A firewall may refuse UDP even within the machine."""
        assert self._udp is not None
        self._udp.sendto(b"\0", self._own)
        with anyio.move_on_after(_HEARD_WITHIN):
            await self._heard_itself.wait()
        if not self._heard_itself.is_set():
            raise _Unusable("this machine's firewall lets no UDP through even to itself")

    # What a carrier does -----------------------------------------------------------------------

    @property
    def at(self) -> str:
        """The socket's address, as ``IP:PORT``."""
        ip, port = self._own
        return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"

    def serve(self, ports: tuple[int | None, int | None]) -> None:
        """Take datagrams from the endpoint with these ports alone."""
        port = ports[1] if ":" in self._own[0] else ports[0]
        self._endpoint = None if port is None else (self._own[0], port)

    def keep(self) -> None:
        """From now on it is the endpoint's."""
        self.kept = True

    async def close(self) -> None:
        """Close both sockets; safe to call twice."""
        carrying, self._carrying = self._carrying, None
        try:
            if carrying is not None:
                await end([carrying])
        finally:
            if self._udp is not None:
                self._udp.close()

    # The socket --------------------------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        """The loop's call: the socket is open."""
        self._udp = transport

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        """The loop's call: on its way to the host."""
        if addr[:2] == self._own:
            self._heard_itself.set()
        if addr[:2] != self._endpoint or self._web is None:
            return
        if len(data) > MAX_DATAGRAM or self._unsent + len(data) > _MOST_UNSENT:
            return
        # One that is just being closed raises; the task that reads it notices by itself.
        with contextlib.suppress(Exception):
            sent = self._web.write_message(data, binary=True)
            self._unsent += len(data)
            sent.add_done_callback(lambda done: self._sent(len(data), done))

    def _sent(self, size: int, done: asyncio.Future[None]) -> None:
        self._unsent -= size
        if not done.cancelled():
            done.exception()

    def error_received(self, exc: Exception) -> None:
        """The loop's call: nobody listens at the endpoint's port any more, or not yet."""

    # The WebSocket -----------------------------------------------------------------------------

    def begin(self, attempt: Attempt) -> None:
        """Connect, and stay so until it is closed or the service says no."""
        self._carrying = asyncio.ensure_future(self._carry(attempt))
        self._carrying.add_done_callback(lambda _: self.connected.set())

    @property
    def is_over(self) -> bool:
        """Whether the service has said no."""
        return self._carrying is None or self._carrying.done()

    async def over(self) -> None:
        """Return when the service has said no."""
        if self._carrying is not None:
            await asyncio.wait([self._carrying])

    async def _carry(self, attempt: Attempt) -> None:
        pause = _FIRST_PAUSE
        while True:
            try:
                web = await self._connect()
            except Exception as error:
                attempt.outcome, final = _outcome(error, self._refusal)
                log.debug("the tunnel is not open: %s", attempt.outcome)
                if final:
                    return
            else:
                attempt.outcome = "the service answered, its host did not"
                pause = _FIRST_PAUSE
                if await self._carry_by(web) == RIGHT_GONE:
                    attempt.outcome = "the service has closed it for this user"
                    return
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _take_refusal(self, part: bytes) -> None:
        self._refusal += part[: _LARGEST_REFUSAL - len(self._refusal)]

    async def _connect(self) -> WebSocketClientConnection:
        self._refusal.clear()
        request = HTTPRequest(
            self._url,
            headers={"Authorization": f"token {self._token()}"},
            follow_redirects=False,  # the token would go along
            decompress_response=False,
            connect_timeout=_CONNECT_WITHIN,
            request_timeout=_CONNECT_WITHIN,
            streaming_callback=self._take_refusal,  # else all of it would be kept, up to 100 MB
        )
        connecting = asyncio.ensure_future(
            websocket_connect(request, ping_interval=PING_EVERY, max_message_size=MAX_DATAGRAM)
        )
        try:
            web = await asyncio.shield(connecting)
        except asyncio.CancelledError:
            connecting.add_done_callback(_close_late)
            raise
        if web.protocol is not None:
            web.protocol.set_nodelay(True)
        return web

    async def _carry_by(self, web: WebSocketClientConnection) -> int | None:
        """Hand over what comes until the WebSocket ends; the code that it ended with."""
        self._web = web
        self.connected.set()
        try:
            while (message := await web.read_message()) is not None:
                if isinstance(message, bytes) and self._endpoint and self._udp:
                    self._udp.sendto(message, self._endpoint)
        finally:
            self._web = None
            with anyio.CancelScope(shield=True):
                await _close(web)
        return web.close_code


async def _close(web: WebSocketClientConnection) -> None:
    """Close it, and wait for the other side to have done the same, but not for long."""
    web.close()
    with anyio.move_on_after(_CLOSED_WITHIN):
        while await web.read_message() is not None:
            continue


def _close_late(connecting: asyncio.Future[WebSocketClientConnection]) -> None:
    """Close one that came when nobody wanted it any more."""
    if not connecting.cancelled() and connecting.exception() is None:
        connecting.result().close()


def _outcome(error: Exception, body: bytes | bytearray) -> tuple[str, bool]:
    """What went wrong in opening it, in words, and whether to leave it at that."""
    if isinstance(error, QmtError):
        return error.sentence.rstrip("."), False
    if isinstance(error, HTTPClientError) and error.response is not None:
        return f"refused ({_said(error, body)})", error.code in (401, 403)
    if isinstance(error, HTTPClientError):
        return "no answer from the JupyterHub's proxy", False
    reason = ""
    if isinstance(error, (socket.gaierror, ssl.SSLError)):
        reason = printable(error.strerror or "", 100)  # their numbers are no system's
    elif isinstance(error, OSError) and error.errno:
        reason = os.strerror(error.errno)
    return f"the service cannot be reached{f' ({reason})' if reason else ''}", False


def _said(error: HTTPClientError, body: bytes | bytearray) -> str:
    """The sentence that the service gave, or the number where it is not the service's."""
    try:
        return printable(str(json.loads(body)["sentence"]).rstrip("."), 200)
    except (ValueError, KeyError, TypeError, RecursionError):
        return f"HTTP {error.code}"
