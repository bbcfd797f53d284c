"""The DHT's UDP sockets: one for each address that may be bound, all of them one sender.

Only what a :class:`~.addresses.Reach` allows is bound, and nothing is sent to an address that
cannot be reached from there. A socket that fails is opened again on its port: on Windows an
answer of "port unreachable" can leave one deaf.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import logging
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from ..errors import ConfigurationError, PortInUse
from .addresses import Reach

MAX_DATAGRAM = 1400
_TRIES = 5
_LONGEST_RENEWAL_PAUSE = 5.0
_ROUTES_LAST = 10.0  # seconds that an answer about the machine's own address is believed
# Windows says so in two ways of its own.
_IN_USE = (errno.EADDRINUSE, 10048, 10013)

Address = tuple[str, int]
Receive = Callable[[bytes, Address], None]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Bound:
    ip: str
    transport: asyncio.DatagramTransport


class _Socket(asyncio.DatagramProtocol):
    """One socket's callbacks; addresses come out as ``(ip, port)`` for both families."""

    def __init__(self, receive: Receive, failed: Callable[[], None]) -> None:
        self._receive = receive
        self._failed = failed

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        if len(data) <= MAX_DATAGRAM:
            self._receive(data, (str(addr[0]), int(addr[1])))

    def error_received(self, exc: Exception) -> None:
        log.debug("a datagram could not be sent or received: %s", exc)
        if sys.platform == "win32":
            self._failed()

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None:
            self._failed()


class Datagrams:
    """The sockets as one: looks like an asyncio transport to whoever sends through it."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._bound: list[_Bound] = []
        self._renewals: dict[str, asyncio.Task[None]] = {}
        self._closed = False
        self.port = 0

    @classmethod
    async def open(cls, reach: Reach, receive: Receive, *, port: int = 0) -> Datagrams:
        """Bind ``port`` (0: a free one) on all that ``reach`` allows.

        Raises :class:`~qmt_jupyter.errors.PortInUse`, or
        :class:`~qmt_jupyter.errors.ConfigurationError` where nothing can be bound.
        """
        self = cls(receive)
        wanted = _wanted(reach)
        try:
            for tries_left in reversed(range(_TRIES)):
                try:
                    await self._open_all(wanted, port)
                    return self
                except PortInUse:
                    # A free port of one family may be taken in the other one.
                    if port or not tries_left:
                        raise
                    self._close_all()
        except BaseException:
            self._close_all()
            raise
        raise AssertionError("not reached")

    async def _open_all(self, wanted: list[str], port: int) -> None:
        self.port = port
        reason = "no address"
        for ip in wanted:
            try:
                await self._open_one(ip)
            except OSError as error:
                if error.errno in _IN_USE:
                    raise PortInUse(f"UDP port {self.port} is already in use.") from None
                # A machine without IPv6 cannot bind its half.
                reason = error.strerror or str(error)
        if not self._bound:
            raise ConfigurationError(
                f"No UDP socket could be opened ({reason}).", next_step="Check QMT_INTERFACES."
            )

    async def _open_one(self, ip: str) -> None:
        family = socket.AF_INET6 if ":" in ip else socket.AF_INET
        opened = socket.socket(family, socket.SOCK_DGRAM)
        try:
            opened.setblocking(False)
            if family == socket.AF_INET6:
                opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            opened.bind((ip, self.port))
            transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
                lambda: _Socket(self._receive, lambda: self._renew(ip)), sock=opened
            )
        except BaseException:
            opened.close()
            raise
        self.port = opened.getsockname()[1]
        self._bound.append(_Bound(ip, transport))

    async def rebind(self, reach: Reach) -> None:
        """Follow this machine's addresses, as far as they are named in the settings."""
        wanted = _wanted(reach)
        gone = [each for each in self._bound if each.ip not in wanted]
        self._bound = [each for each in self._bound if each.ip in wanted]
        for each in gone:
            each.transport.abort()
        bound = {each.ip for each in self._bound}
        for ip in wanted:
            if ip not in bound and reach.restricted and not self._closed:
                # Gone again, or taken there: the next look may find it better.
                with contextlib.suppress(OSError):
                    await self._open_one(ip)

    # Sending ---------------------------------------------------------------------------------

    def sendto(self, data: bytes, address: Address) -> None:
        """Send, or drop what cannot go out; never raises, never waits."""
        bound = self._for(address[0])
        if bound is not None:
            with contextlib.suppress(OSError, RuntimeError):
                bound.transport.sendto(data, address)

    def reaches(self, ip: str) -> bool:
        """Whether a packet to ``ip`` can leave from what is bound here."""
        return self._for(ip) is not None

    def _for(self, ip: str) -> _Bound | None:
        family, loopback = _kind(ip)
        for bound in self._bound:
            own_family, own_loopback = _kind(bound.ip)
            if own_family == family and (_is_any(bound.ip) or own_loopback == loopback):
                return bound
        return None

    def source_for(self, ip: str) -> str | None:
        """The own address that ``ip`` would see if nothing translates it on the way."""
        bound = self._for(ip)
        if bound is None:
            return None
        if not _is_any(bound.ip):
            return bound.ip
        return _source_for(ip, int(time.monotonic() / _ROUTES_LAST))

    # Failing and closing ----------------------------------------------------------------------

    def _renew(self, ip: str) -> None:
        """Open the socket of ``ip`` anew, unless that is under way."""
        if not self._closed and ip not in self._renewals:
            task = asyncio.ensure_future(self._renewed(ip))
            self._renewals[ip] = task
            task.add_done_callback(lambda _: self._renewals.pop(ip, None))

    async def _renewed(self, ip: str) -> None:
        pause = 0.02
        while True:
            for bound in [each for each in self._bound if each.ip == ip]:
                self._bound.remove(bound)
                bound.transport.abort()
            # Also keeps a flood of failures from becoming a flood of sockets.
            await asyncio.sleep(pause)
            try:
                await self._open_one(ip)
                return
            except OSError as error:
                log.debug("the socket of %s could not be opened again: %s", ip, error)
                pause = min(_LONGEST_RENEWAL_PAUSE, 2 * pause)

    def _close_all(self) -> None:
        bound, self._bound = self._bound, []
        for each in bound:
            each.transport.abort()

    async def close(self) -> None:
        """Close the sockets; safe to call twice."""
        self._closed = True
        renewals = list(self._renewals.values())
        for task in renewals:
            task.cancel()
        await asyncio.gather(*renewals, return_exceptions=True)
        self._close_all()
        # The loop closes a socket in its next turn.
        await asyncio.sleep(0)


def _wanted(reach: Reach) -> list[str]:
    return [*reach.v4, *reach.v6] if reach.restricted else ["0.0.0.0", "::"]  # noqa: S104


def _is_any(ip: str) -> bool:
    return ip in ("0.0.0.0", "::")  # noqa: S104


@lru_cache(maxsize=8192)
def _kind(ip: str) -> tuple[int, bool]:
    address = ipaddress.ip_address(ip)
    return address.version, address.is_loopback


@lru_cache(maxsize=1024)
def _source_for(ip: str, _period: int) -> str | None:
    """The own address that a packet to ``ip`` would carry; asks the system, sends nothing."""
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect((ip, 9))
        return str(probe.getsockname()[0])
    return None
