"""A stream as a sequence of frames, in and out.

Outgoing frames that are ready together travel together: while one write is under way the next
ones gather, and go out as one. On a stream that has said a lot they gather for up to ``pause``
seconds more, because each write costs both ends a fixed share of a processor that the model could
use.
"""

from __future__ import annotations

import asyncio
from collections import deque

from ..wire.frames import FrameDecoder, FrameError
from .endpoint import Stream, TransportError

HIGH_WATER = 256 * 1024
EAGER_WRITES = 2


class Channel:
    """Frames over one stream. Owned by one task for reading; any task may post."""

    def __init__(self, stream: Stream, limit: int, *, pause: float = 0.0) -> None:
        self._stream = stream
        self._decoder = FrameDecoder(limit)
        self._arrived: deque[bytes] = deque()
        self._outgoing: list[bytes] = []
        self._outgoing_size = 0
        self._pause = pause
        self._writes = 0
        self._quiet_until = 0.0  # by the loop's clock
        self._at_beat: asyncio.TimerHandle | None = None
        self._hurries = False
        self._pump: asyncio.Task[None] | None = None
        self._drained = asyncio.Event()
        self._drained.set()
        self.broken = False

    # In ------------------------------------------------------------------------------------

    async def receive(self) -> bytes | None:
        """The next frame's payload, or None when the peer has ended the stream.

        Raises :class:`~qmt_jupyter.wire.frames.FrameError` for bytes that are no frames and
        :class:`~.endpoint.TransportError` when the stream was reset or the connection lost.
        """
        while not self._arrived:
            data = await self._stream.read()
            if not data:
                if self._decoder.mid_frame:
                    raise FrameError("the stream ended within a frame")
                return None
            self._arrived.extend(self._decoder.feed(data))
        return self._arrived.popleft()

    def set_limit(self, limit: int) -> None:
        """Another limit for frames from here on."""
        self._decoder.limit = limit

    # Out -----------------------------------------------------------------------------------

    def post(self, frame: bytes) -> None:
        """Send a frame soon, in order. Never waits; on a broken stream it is dropped."""
        if self.broken:
            return
        self._outgoing.append(frame)
        self._outgoing_size += len(frame)
        if self._outgoing_size > HIGH_WATER:
            self._drained.clear()
        self._write_soon()

    def _write_soon(self) -> None:
        """Write what is there: now, or where this beat has had its write at the next one."""
        if self._pump is not None or self._at_beat is not None or not self._outgoing:
            return
        loop = asyncio.get_running_loop()
        if self._hurries or loop.time() >= self._quiet_until:
            self._begin_writing()
        else:
            self._at_beat = loop.call_at(self._quiet_until, self._begin_writing)

    def _begin_writing(self) -> None:
        self._at_beat = None
        self._pump = asyncio.ensure_future(self._write_all())

    async def _write_all(self) -> None:
        try:
            while self._outgoing:
                data = self._outgoing[0] if len(self._outgoing) == 1 else b"".join(self._outgoing)
                self._outgoing.clear()
                self._outgoing_size = 0
                self._drained.set()
                await self._stream.write(data)
                self._writes += 1
                if self._pause and self._writes > EAGER_WRITES and not self._hurries:
                    # To the next beat of one clock for all streams, so that they are written,
                    # packed, sent and read together.
                    now = asyncio.get_running_loop().time()
                    self._quiet_until = now + self._pause - now % self._pause
                    break
        except TransportError:
            self._break()
        finally:
            self._pump = None
        self._write_soon()  # not where this task was cancelled: nobody would end the next one

    def _break(self) -> None:
        self.broken = True
        self._outgoing.clear()
        self._drained.set()
        if self._at_beat is not None:
            self._at_beat.cancel()
            self._at_beat = None

    @property
    def is_full(self) -> bool:
        """Whether the peer is slower than what was posted: then :meth:`drain` waits."""
        return not self._drained.is_set()

    async def drain(self) -> None:
        """Wait while the peer is slower than what was posted."""
        await self._drained.wait()

    def gather(self, seconds: float) -> None:
        """Keep what is posted from now on for up to ``seconds``, or until :meth:`hurry`.

        For what says little alone, and is better read together with what follows.
        """
        now = asyncio.get_running_loop().time()
        self._quiet_until = max(self._quiet_until, now + seconds)

    def hurry(self) -> None:
        """Have what was posted, and the next few writes, wait for no beat; as at the beginning."""
        self._writes = 0
        self._quiet_until = 0.0
        if self._at_beat is not None:
            self._at_beat.cancel()
            self._begin_writing()

    async def flush(self) -> None:
        """Send what was posted without gathering more, and wait until the transport has it."""
        self._hurries = True
        if self._at_beat is not None:
            self._at_beat.cancel()
            self._begin_writing()
        while self._pump is not None:
            await asyncio.wait([self._pump])
        self._hurries = False

    async def finish(self) -> None:
        """Flush, then say that nothing more will be sent."""
        await self.flush()
        await self._stream.finish()

    async def abort(self, code: int = 0) -> None:
        """Drop what is unsent and give up both directions."""
        self._break()
        if self._pump is not None:
            self._pump.cancel()
            await asyncio.wait([self._pump])
            self._pump = None  # one that had not begun does not say so itself
        await self._stream.abort(code)
