"""The link to one host: found, greeted, asked, and watched for silence."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import logging
import time
import uuid
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any

import anyio

from .. import __version__, errors
from ..errors import (
    HostGone,
    HostNotFound,
    MeshError,
    ProtocolViolation,
    QmtError,
    RequestInvalid,
    VersionMismatch,
)
from ..harmless import printable
from ..identity import keys, statement
from ..identity.link import Link
from ..identity.peer_id import short
from ..mesh.channel import Channel
from ..mesh.endpoint import CLOSE_NORMAL, CLOSE_PROTOCOL, Connection, Endpoint, TransportError
from ..mesh.locate import DEADLINE
from ..wire import exchange, frames, messages
from ..wire.frames import FrameError
from .finding import Finder
from .refusal import from_remote

_TICK = 0.25

log = logging.getLogger(__name__)


@dataclass(eq=False)
class _Live:
    """What belongs to one connection, and goes with it."""

    endpoint: Endpoint
    connection: Connection
    control: Channel
    welcome: messages.Welcome
    flows: set[exchange.RequestFlow] = field(default_factory=set)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    ended: QmtError | None = None
    place: str = ""


class HostLink:
    """One host, by one invite. Connects when it has to, and again after a loss."""

    def __init__(
        self, identity: keys.Identity, granted: Link, finder: Finder, name: str = ""
    ) -> None:
        self._identity = identity
        self._name = name
        self._link = granted
        self._finder = finder
        self._live: _Live | None = None
        self._connecting = asyncio.Lock()
        self._models: list[messages.ModelOffer] = []
        self._limits = messages.Limits()
        self._standing = messages.Standing()
        self._positions: dict[exchange.RequestFlow, int] = {}
        self._closed = False
        self._looking = asyncio.Lock()
        self._failed: tuple[float, MeshError] | None = None  # when the last look ended, and how

    # What is known -------------------------------------------------------------------------

    @property
    def host_id(self) -> str:
        """The host's peer id."""
        return self._link.invite.peer_id

    @property
    def mesh_name(self) -> str:
        """The mesh's name as the invite gives it, made printable."""
        return printable(self._link.invite.name, 100)

    @property
    def models(self) -> tuple[messages.ModelOffer, ...]:
        """The models that the host offered last."""
        return tuple(self._models)

    @property
    def is_connected(self) -> bool:
        """Whether a request could be sent this moment."""
        return self._live is not None and not self._live.connection.is_closed

    def status(self) -> dict[str, Any]:
        """The link as plain values; round trip in milliseconds."""
        path = self._live.connection.path if self._live and self.is_connected else None
        return {
            "mesh": self.mesh_name,
            "host": self.host_id,
            "connected": self.is_connected,
            "path": None if path is None else "direct" if path.direct else "relayed",
            "rtt_ms": None if path is None else path.rtt_ms,
            "models": [offer.name for offer in self._models],
            "running": len(self._live.flows) if self._live else 0,
            "waiting": sorted(self._positions.values()),
            "expires_at": self._link.invite.expires_at or None,
            "invite_id": self._link.invite.invite_id,
            "limits": messages.as_dict(self._limits),
            "used": {
                "requests": self._standing.requests,
                "prompt_tokens": self._standing.prompt_tokens,
                "completion_tokens": self._standing.completion_tokens,
            },
            "left": {
                "requests": self._standing.requests_left,
                "tokens": self._standing.tokens_left,
            },
        }

    # Connecting ----------------------------------------------------------------------------

    async def connect(self, deadline: float = DEADLINE) -> None:
        """Be connected and admitted within ``deadline`` seconds.

        The invite's expiry is checked before anything leaves this machine. Raises an
        :class:`~qmt_jupyter.errors.InviteError`, a :class:`~qmt_jupyter.errors.MeshError` or a
        :class:`~qmt_jupyter.errors.Refused`.
        """
        asked = time.monotonic()
        async with self._looking:
            if self._failed is not None and self._failed[0] > asked and not self.is_connected:
                # Somebody has looked meanwhile: the next in line need not look as long again.
                raise copy.copy(self._failed[1])
            try:
                await self._connect(deadline)
            except MeshError as error:
                self._failed = (time.monotonic(), error)
                raise

    async def _connect(self, deadline: float) -> None:
        async with self._connecting:
            if self.is_connected:
                return
            await self._drop()
            if self._closed:
                raise errors.NotJoined("This mesh has been left.")
            self._link.invite.require_unexpired(time.time())
            started = time.monotonic()
            endpoint, connection = await self._finder.find(self._link, deadline)
            try:
                remaining = max(1.0, deadline - (time.monotonic() - started))
                with anyio.fail_after(remaining):
                    self._live = await self._greet(endpoint, connection)
            except BaseException as error:
                with anyio.CancelScope(shield=True):
                    await endpoint.close()
                if isinstance(error, TimeoutError):
                    raise HostNotFound(
                        f"The host {short(self.host_id)} answered but did not greet in time."
                    ) from None
                raise
            if self._closed:
                # Left while this was under way.
                await self._drop()
                raise errors.NotJoined("This mesh has been left.")

    async def _greet(self, endpoint: Endpoint, connection: Connection) -> _Live:
        try:
            control = Channel(await connection.open_stream(), frames.CONTROL_LIMIT)
            control.post(
                messages.encode(
                    messages.Greeting(
                        version=messages.VERSION,
                        token=self._link.invite.token,
                        statement=statement.create(
                            self._identity,
                            endpoint.public_key,
                            self._link.invite.host_key,
                            time.time(),
                        ),
                        software=f"qmt-jupyter/{__version__}",
                        name=self._name,
                    )
                )
            )
            payload = await control.receive()
            if payload is None:
                raise HostGone("The host closed the connection instead of greeting.")
            theirs = messages.peer_version(payload)
            if theirs != messages.VERSION:
                raise VersionMismatch(
                    exchange.version_sentence(ours=messages.VERSION, theirs=theirs, we_are="guest")
                )
            answer = messages.decode_to_guest(payload)
        except FrameError as error:
            raise ProtocolViolation(f"The host's greeting cannot be read ({error}).") from None
        except TransportError:
            raise HostGone("The connection to the host was lost while greeting.") from None
        if isinstance(answer, messages.Refusal):
            raise from_remote(answer.code, answer.sentence, answer.retry_after)
        if not isinstance(answer, messages.Welcome):
            raise ProtocolViolation("The host did not greet.")
        live = _Live(endpoint, connection, control, answer)
        self._take_models(answer.models)
        self._limits, self._standing = answer.limits, answer.standing
        live.tasks = [
            asyncio.ensure_future(self._read_control(live)),
            asyncio.ensure_future(self._watch(live)),
        ]
        return live

    def _take_models(self, offered: list[messages.ModelOffer]) -> None:
        # These names are shown to people and asked for by name, so they cannot be cleaned.
        self._models = [offer for offer in offered if offer.name.isprintable()]

    async def _read_control(self, live: _Live) -> None:
        try:
            while (payload := await live.control.receive()) is not None:
                message = messages.decode_to_guest(payload)
                if isinstance(message, messages.Models):
                    self._take_models(message.models)
                elif isinstance(message, messages.Standing):
                    self._standing = message
                elif isinstance(message, messages.Refusal):
                    live.ended = from_remote(message.code, message.sentence, message.retry_after)
                    break
                else:
                    raise FrameError("greeted twice")
        except (FrameError, TransportError) as error:
            log.debug("the control stream ended: %s", error)
        finally:
            # A request that is still running reads its own last reply first.
            if live.flows and not live.connection.is_closed:
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.sleep(0.2)
            live.connection.close(CLOSE_NORMAL)

    async def _watch(self, live: _Live) -> None:
        """Notice a host that has died, and tell it that this guest has not."""
        last = time.monotonic()
        said = 0.0
        while not live.connection.is_closed:
            await asyncio.sleep(_TICK)
            now = time.monotonic()
            if now - last > 4 * _TICK:
                # This process itself was held up: what the host said meanwhile is unread.
                for flow in live.flows:
                    flow.excuse(now)
            last = now
            path = live.connection.path
            if path is not None and path.direct and path.address != live.place:
                live.place = path.address
                self._finder.found(self._link, path.address)
            if any(flow.is_silent(now) for flow in live.flows):
                live.ended = HostGone(f"The host {short(self.host_id)} has stopped answering.")
                live.connection.close(CLOSE_PROTOCOL, "silent")
            elif live.flows and now - said > exchange.PRESENCE_INTERVAL:
                said = now
                live.control.post(messages.encode(messages.Present()))

    # Asking ----------------------------------------------------------------------------------

    async def ask(
        self, body: messages.JsonObject, kind: type[messages.Asked] = messages.Ask
    ) -> AsyncGenerator[messages.Reply, None]:
        """One request's replies, without beats. Closing the generator cancels it.

        ``kind`` says what ``body`` asks for: :class:`~.messages.Ask` or :class:`~.messages.Embed`.

        Raises a :class:`~qmt_jupyter.errors.Refused`, a
        :class:`~qmt_jupyter.errors.ProviderError` or a :class:`~qmt_jupyter.errors.MeshError`.
        """
        frame = self._ask_frame(body, kind)
        await self.connect()
        live = self._live
        assert live is not None
        flow = exchange.RequestFlow(time.monotonic())
        channel: Channel | None = None
        live.flows.add(flow)
        try:
            channel = Channel(await live.connection.open_stream(), frames.REPLY_LIMIT)
            channel.post(frame)
            while flow.state is not exchange.RequestState.ENDED:
                payload = await channel.receive()
                if payload is None:
                    raise ProtocolViolation("The host ended the answer without a last word.")
                reply = messages.decode_reply(payload)
                if not flow.receive(reply, time.monotonic()) or isinstance(reply, messages.Beat):
                    continue
                if isinstance(reply, messages.Failed):
                    raise from_remote(reply.code, reply.sentence, reply.retry_after)
                if isinstance(reply, messages.Queued):
                    self._positions[flow] = reply.position
                else:
                    self._positions.pop(flow, None)
                # Whoever takes the replies may be slow; the host is not silent meanwhile.
                flow.listening = False
                yield reply
                flow.excuse(time.monotonic())
                flow.listening = True
        except TransportError:
            raise await self._why(live) from None
        except (FrameError, exchange.ExchangeError) as error:
            raise ProtocolViolation(f"The host broke the exchange ({error}).") from None
        finally:
            live.flows.discard(flow)
            self._positions.pop(flow, None)
            if channel is not None:
                with anyio.CancelScope(shield=True):
                    if flow.state is exchange.RequestState.ENDED:
                        await channel.finish()
                    else:
                        await channel.abort()

    @staticmethod
    def _ask_frame(body: messages.JsonObject, kind: type[messages.Asked]) -> bytes:
        try:
            frame = messages.encode(kind(id=uuid.uuid4().hex, body=body))
        except messages.UnsendableError:
            raise RequestInvalid(
                "The request holds something that JSON cannot.",
                next_step="Leave out what is not text, and numbers beyond 64 bits.",
            ) from None
        if len(frame) > frames.ASK_LIMIT:
            raise RequestInvalid(
                f"The request has {len(frame)} bytes; {frames.ASK_LIMIT} are allowed.",
                next_step="Shorten the conversation or use smaller images.",
            )
        return frame

    async def _why(self, live: _Live) -> QmtError:
        """The reason a connection ended; the control stream may just be about to tell."""
        if live.ended is None:
            with anyio.move_on_after(0.3):
                await asyncio.wait([live.tasks[0]])
        return live.ended or HostGone(f"The connection to host {short(self.host_id)} was lost.")

    # Leaving ---------------------------------------------------------------------------------

    async def _drop(self) -> None:
        live, self._live = self._live, None
        if live is None:
            return
        live.connection.close(CLOSE_NORMAL)
        for task in live.tasks:
            task.cancel()
        await asyncio.wait(live.tasks)
        # A task that was cancelled holds on to all that it was doing, the sockets included.
        live.tasks.clear()
        await live.endpoint.close()

    async def close(self) -> None:
        """Leave: end what runs and close the connection; safe to call twice."""
        self._closed = True
        await self._drop()
