"""One guest's connection: greeting, then requests, until either side has had enough.

Whatever arrives is hostile until the greeting is verified, and bounded in size, number and time
after that. Who speaks is known from the connection alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass

import anyio

from .. import __version__
from ..errors import (
    Busy,
    GenerationFailed,
    MembershipEnded,
    ProtocolViolation,
    QmtError,
    VersionMismatch,
)
from ..mesh.channel import Channel
from ..mesh.endpoint import CLOSE_PROTOCOL, CLOSE_REFUSED, Connection, TransportError
from ..providers.base import looks_every
from ..wire import exchange, frames, messages
from ..wire.frames import FrameError
from .membership import Member
from .offers import Telling
from .standing import MAX_STREAMS, limits, standing

WRITE_PAUSE = 0.125
# Who answers, and as what, goes out with the first words where they come within so many seconds:
# a write of its own would hold them up.
_FIRST_WORDS = 0.01
_READING_AT_ONCE = 8
_ASK_DEADLINE = 20.0
_GOODBYE = 2.0
_READER_PATIENCE = 30.0

log = logging.getLogger(__name__)

# A greeting and the endpoint key that the connection proved, to a member; raises a QmtError.
Admit = Callable[[messages.Greeting, bytes], Awaitable[Member]]
Answer = Callable[[Member, messages.Asked, int], AsyncGenerator[messages.Reply, None]]
# The port of the host's node of the DHT (0: none), and other nodes as IP:PORT.
Nodes = Callable[[], tuple[int, Sequence[str]]]
Offer = Callable[[Member], list[messages.ModelOffer]]


class _Unread(Exception):
    """The guest leaves its answer unread, and would hold a slot for ever."""


@dataclass(eq=False)
class _Running:
    channel: Channel
    writer: exchange.ReplyWriter
    task: asyncio.Task[None] | None = None


class Session:
    """Serves one connection; :meth:`serve` returns when it has ended."""

    def __init__(
        self,
        connection: Connection,
        admit: Admit,
        offer: Offer,
        answer: Answer,
        nodes: Nodes = lambda: (0, ()),
        turned_away: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._connection = connection
        self._admit = admit
        self._offer = offer
        self._answer = answer
        self._nodes = nodes
        self._turned_away = turned_away
        self._running: set[_Running] = set()
        self._reading = asyncio.Semaphore(_READING_AT_ONCE)
        self._heard = time.monotonic()
        self._control: Channel | None = None
        self._told: messages.Standing | None = None
        self._telling: Telling | None = None
        self.began = time.monotonic()
        self.member: Member | None = None
        self.greeted = asyncio.Event()

    async def serve(self) -> None:
        """Greet, then answer requests until the connection ends. Raises nothing."""
        self._connection.allow_streams(MAX_STREAMS)
        try:
            admitted = await self._greet()
            self.greeted.set()
            if admitted:
                async with anyio.create_task_group() as tasks:
                    for part in (self._read_control, self._keep_beating, self._take_requests):
                        tasks.start_soon(self._until_lost, part)
                    await self._connection.wait_closed()
                    tasks.cancel_scope.cancel()
        except (TransportError, FrameError) as error:
            log.debug("a guest's connection ended: %s", error)
        finally:
            self.greeted.set()
            with anyio.CancelScope(shield=True):
                await self._cancel_running()
            self._connection.close(CLOSE_PROTOCOL)

    async def _until_lost(self, part: Callable[[], Awaitable[None]]) -> None:
        """Run a part of the session; when it ends, for whatever reason, so does the connection."""
        try:
            await part()
        except (TransportError, FrameError) as error:
            log.debug("a guest's connection ended: %s", error)
        finally:
            self._connection.close(CLOSE_PROTOCOL)

    # Control stream --------------------------------------------------------------------------

    async def _greet(self) -> bool:
        with anyio.move_on_after(exchange.GREETING_DEADLINE):
            stream = await self._connection.accept_stream()
            self._control = Channel(stream, frames.GREETING_LIMIT)
            payload = await self._control.receive()
            if payload is None:
                return False
            try:
                self.member = member = await self._admit(
                    self._greeting(payload), self._connection.peer_key
                )
                member.require_live(time.time())
            except QmtError as error:
                self._turned_away(error.code)
                await self._refuse(error)
                return False
            self._told = standing(member, time.time())
            offers = self._offer(member)
            self._telling = Telling(offers, time.monotonic())
            dht_port, nodes = self._nodes()
            self._control.post(
                messages.encode(
                    messages.Welcome(
                        version=messages.VERSION,
                        membership=member.membership.membership_id,
                        models=offers,
                        limits=limits(member),
                        standing=self._told,
                        software=f"qmt-jupyter/{__version__}",
                        dht_port=dht_port,
                        nodes=list(nodes),
                    )
                )
            )
            return True
        return False

    @staticmethod
    def _greeting(payload: bytes) -> messages.Greeting:
        try:
            theirs = messages.peer_version(payload)
            if theirs != messages.VERSION:
                raise VersionMismatch(
                    exchange.version_sentence(ours=messages.VERSION, theirs=theirs, we_are="host")
                )
            greeting = messages.decode_from_guest(payload)
        except FrameError:
            raise ProtocolViolation("The guest's greeting cannot be read.") from None
        if not isinstance(greeting, messages.Greeting):
            raise ProtocolViolation("The guest did not greet.")
        return greeting

    async def _refuse(self, error: QmtError) -> None:
        """Say why, and leave the guest a moment to read it before the connection closes."""
        if self._control is None:
            return
        self._control.post(
            messages.encode(
                messages.Refusal(
                    code=error.code, sentence=_sendable(error), retry_after=error.retry_after
                )
            )
        )
        with anyio.move_on_after(_GOODBYE, shield=True):
            await self._control.finish()
            await self._connection.wait_closed()
        self._connection.close(CLOSE_REFUSED, error.code)

    async def _read_control(self) -> None:
        assert self._control is not None
        while (payload := await self._control.receive()) is not None:
            if not isinstance(messages.decode_from_guest(payload), messages.Present):
                raise FrameError("greeted twice")
            self._heard = time.monotonic()

    async def _keep_beating(self) -> None:
        while True:
            await asyncio.sleep(exchange.BEAT_INTERVAL / 2)
            now = time.monotonic()
            self._tell_standing()
            self._tell_models(now)
            if self.member is not None and (error := self.member.ended(time.time())) is not None:
                await self.end(error)
                return
            for running in tuple(self._running):
                beat = running.writer.beat_if_due(now)
                if beat is not None:
                    running.channel.post(beat)
            if self._running and now - self._heard > exchange.ABSENCE_LIMIT:
                log.info("a guest with running requests has gone silent")
                self._connection.close(CLOSE_PROTOCOL, "silent")

    def _tell_standing(self) -> None:
        """Tell the guest what it has used and what remains, when that has changed."""
        if self.member is None or self._control is None:
            return
        now = standing(self.member, time.time())
        if now != self._told:
            self._told = now
            self._control.post(messages.encode(now))

    def _tell_models(self, now: float) -> None:
        """Tell the guest the models and how busy they are, when that has changed."""
        if self.member is None or self._control is None or self._telling is None:
            return
        offers = self._offer(self.member)
        if self._telling.due(offers, now):
            self._control.post(messages.encode(messages.Models(models=offers)))

    async def stop_requests(self, error: QmtError) -> None:
        """End the guest's requests with a reason; the connection goes on."""
        await self._cancel_running(error)

    async def end(self, error: QmtError) -> None:
        """End the guest's requests and connection with a reason. Safe after it has ended."""
        await self._cancel_running(error)
        await self._refuse(error)

    # Request streams -------------------------------------------------------------------------

    async def _take_requests(self) -> None:
        while True:
            stream = await self._connection.accept_stream()
            now = time.monotonic()
            self._heard = now
            running = _Running(
                Channel(stream, frames.ASK_LIMIT, pause=WRITE_PAUSE), exchange.ReplyWriter(now)
            )
            running.task = asyncio.ensure_future(self._run(running))
            self._running.add(running)
            await asyncio.sleep(0)  # it begins to read before another one is waited for

    async def _run(self, running: _Running) -> None:
        channel, writer = running.channel, running.writer
        looks_every.set(WRITE_PAUSE)
        try:
            read = await self._read_ask(channel)
            if read is None:
                return
            ask, size = read
            watcher = asyncio.ensure_future(self._watch(channel, asyncio.current_task()))
            try:
                await self._reply(ask, size, channel, writer)
            finally:
                watcher.cancel()
                await asyncio.wait([watcher])
        except QmtError as error:
            self._fail(running, error)
        except _Unread:
            log.info("a guest does not read its answer: its slot is freed")
        except (TransportError, FrameError) as error:
            log.debug("a request's stream ended: %s", error)
        except asyncio.CancelledError:
            # The guest went, or the session ends; both have been told all there is to tell.
            pass
        except Exception:
            log.exception("a request failed unexpectedly")
            self._fail(running, GenerationFailed("The host failed while answering."))
        finally:
            self._running.discard(running)
            if writer.ended:
                await channel.finish()
            else:
                await channel.abort()

    async def _read_ask(self, channel: Channel) -> tuple[messages.Asked, int] | None:
        with anyio.move_on_after(_ASK_DEADLINE):
            async with self._reading:
                payload = await channel.receive()
                if payload is None:
                    return None
                try:
                    frames.require_modest_shape(payload)
                    return messages.decode_asked(payload), len(payload)
                except FrameError as error:
                    raise ProtocolViolation(f"The request cannot be read ({error}).") from None
        raise Busy(f"The request did not arrive within {_ASK_DEADLINE:g} s.", retry_after=5.0)

    async def _watch(self, channel: Channel, request: asyncio.Task[None] | None) -> None:
        """Cancel the request when its guest ends the stream, or says anything more on it."""
        with contextlib.suppress(TransportError, FrameError):
            await channel.receive()
        if request is not None:
            request.cancel()

    async def _reply(
        self, ask: messages.Asked, size: int, channel: Channel, writer: exchange.ReplyWriter
    ) -> None:
        if self.member is None:
            raise MembershipEnded("The host does not know this membership.")
        self.member.require_live(time.time())
        has_begun = False
        async with contextlib.aclosing(self._answer(self.member, ask, size)) as replies:
            async for reply in replies:
                frame = self._frame(reply, writer)
                if len(frame) > frames.REPLY_LIMIT:
                    raise GenerationFailed("The model gave a piece that is too large to send.")
                begins = not has_begun and _says_something(reply)
                if not has_begun and not begins:
                    channel.gather(_FIRST_WORDS)
                channel.post(frame)
                if begins:
                    # The first words leave before more are made, however many are ready, and
                    # whatever was said before them.
                    has_begun = True
                    channel.hurry()
                    await asyncio.sleep(0)
                if channel.is_full:
                    with anyio.move_on_after(_READER_PATIENCE) as patience:
                        await channel.drain()
                    if patience.cancelled_caught:
                        raise _Unread

    @staticmethod
    def _frame(reply: messages.Reply, writer: exchange.ReplyWriter) -> bytes:
        now = time.monotonic()
        try:
            if isinstance(reply, messages.Delta):
                return writer.delta(reply.choices, now)
            if isinstance(reply, messages.Vector):
                return writer.vector(reply.index, reply.values, now)
            return writer.frame(reply, now)
        except messages.UnsendableError:
            raise GenerationFailed("The model gave something that cannot be sent.") from None

    def _fail(self, running: _Running, error: QmtError) -> None:
        if running.writer.ended:
            return
        failed = messages.Failed(
            code=error.code, sentence=_sendable(error), retry_after=error.retry_after
        )
        running.channel.post(running.writer.frame(failed, time.monotonic()))

    async def _cancel_running(self, error: QmtError | None = None) -> None:
        running = tuple(self._running)
        for each in running:
            if error is not None:
                self._fail(each, error)
            if each.task is not None:
                each.task.cancel()
        tasks = [each.task for each in running if each.task is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=_GOODBYE)


def _sendable(error: QmtError) -> str:
    """Its sentence, cut where it lists more than a guest reads: models, hours of the week."""
    said, most = error.sentence, messages.LONGEST_SENTENCE
    return said if len(said) <= most else f"{said[: most - 1]}…"


def _says_something(reply: messages.Reply) -> bool:
    """Whether a reply has anything of the answer, and not just the role."""
    return isinstance(reply, messages.Vector) or (
        isinstance(reply, messages.Delta)
        and any(
            value
            for choice in reply.choices
            for name, value in (choice.get("delta") or {}).items()
            if name != "role"
        )
    )
