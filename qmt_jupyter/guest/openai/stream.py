"""One answer on its way to an HTTP client as server-sent events.

Events that are ready in the same turn of the loop are written together, and a client that does not
read stops the answer's source, not the process: what waits for it is bounded.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import anyio
from tornado.http1connection import HTTP1Connection
from tornado.web import RequestHandler

from ...errors import ProtocolViolation

# Bytes waiting for a client before its answer's source has to wait too.
_HIGH_WATER = 64 * 1024
# Seconds without a byte after which a comment shows that the connection is alive. Until then a
# queued request has no status yet, so that an early refusal has its own.
QUIET = 15.0
# Seconds for a client to take what is waiting for it.
READER_PATIENCE = 60.0

_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode

DONE = b"data: [DONE]\n\n"


class NotRead(Exception):
    """The client has not taken what was sent to it."""


def encode_json(value: dict[str, Any]) -> bytes:
    """``value`` in one line.

    Raises :class:`~qmt_jupyter.errors.ProtocolViolation`: what JSON cannot hold is from a host.
    """
    try:
        return _encode(value).encode("utf-8")
    except (TypeError, ValueError, RecursionError):
        raise ProtocolViolation("The host's answer holds something that JSON cannot.") from None


def event(value: dict[str, Any]) -> bytes:
    """One server-sent event."""
    return b"data: " + encode_json(value) + b"\n\n"


def close_connection(handler: RequestHandler) -> None:
    """End the client's connection now, whatever was still to be written."""
    connection = handler.request.connection
    if isinstance(connection, HTTP1Connection):
        connection.close()


async def _patiently(event: asyncio.Event) -> None:
    with anyio.move_on_after(READER_PATIENCE) as patience:
        await event.wait()
    if patience.cancelled_caught:
        raise NotRead


class EventStream:
    """The events of one response. Its head goes out with the first of them."""

    def __init__(self, handler: RequestHandler) -> None:
        self._handler = handler
        self._loop = asyncio.get_running_loop()
        self._pieces: list[bytes] = []
        self._size = 0
        self._soon: asyncio.Handle | None = None
        self._writing = False
        self._room = asyncio.Event()
        self._room.set()
        self._idle = asyncio.Event()
        self._idle.set()
        self._quiet: asyncio.TimerHandle | None = None
        self._wrote_at = self._loop.time()
        self.has_begun = False
        self.broken = False
        connection = handler.request.connection
        if isinstance(connection, HTTP1Connection):
            # A word at a time is what Nagle's algorithm waits with, for up to 40 ms each.
            connection.stream.set_nodelay(True)
        self.position: int | None = None  # how many requests are served before this one
        self._watch()

    def post(self, data: bytes) -> None:
        """Send soon, in order. Never waits; on a broken connection it is dropped."""
        if self.broken:
            return
        self.has_begun = True
        self._idle.clear()
        self._pieces.append(data)
        self._size += len(data)
        if self._size > _HIGH_WATER:
            self._room.clear()
        if self._soon is None and not self._writing:
            self._soon = self._loop.call_soon(self._write)

    def _write(self) -> None:
        self._soon = None
        data = b"".join(self._pieces)
        self._pieces.clear()
        self._size = 0
        self._writing = True
        self._wrote_at = self._loop.time()
        self._handler.write(data)
        self._handler.flush().add_done_callback(self._written)

    def _written(self, done: asyncio.Future[None]) -> None:
        self._writing = False
        if done.cancelled() or done.exception() is not None:
            self.broken = True
            self._pieces.clear()
        if self._pieces:
            self._write()
        else:
            self._idle.set()
        if self._size <= _HIGH_WATER:
            self._room.set()

    async def ready(self) -> None:
        """Wait while too much is unread. Raises :class:`NotRead` after a minute."""
        if not self._room.is_set():
            await _patiently(self._room)

    async def flush(self) -> None:
        """Wait until all is handed to the system. Raises :class:`NotRead` after a minute."""
        await _patiently(self._idle)

    def _watch(self) -> None:
        left = self._wrote_at + QUIET - self._loop.time()
        if left <= 0 and not self._writing:
            waiting = "" if self.position is None else f" waiting, {self.position} before you"
            self.post(f":{waiting}\n\n".encode())
            left = QUIET
        self._quiet = self._loop.call_later(max(left, 0.1), self._watch)

    def close(self) -> None:
        """Write nothing any more of its own accord."""
        self.broken = True
        for timer in (self._quiet, self._soon):
            if timer is not None:
                timer.cancel()
        self._pieces.clear()
        self._room.set()
        self._idle.set()
