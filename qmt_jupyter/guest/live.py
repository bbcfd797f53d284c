"""One live connection to a host: what goes with it, what is asked, whether it still lives."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field

import anyio

from ..errors import HostGone, ProtocolViolation, QmtError
from ..identity.link import Link
from ..identity.peer_id import short
from ..mesh.channel import Channel
from ..mesh.endpoint import CLOSE_PROTOCOL, Connection, Endpoint, TransportError
from ..wire import exchange, frames, messages
from ..wire.frames import FrameError
from .finding import Finder
from .refusal import from_remote
from .returning import Pulse

LOOK_EVERY = 2.0  # seconds, for a change of this machine's addresses
_TICK = 0.25
_SLEPT = 5.0


class Clocks:
    """Tells when the machine has slept: the clock on the wall has run on, the process's has not."""

    def __init__(self) -> None:
        self._ahead = time.time() - time.monotonic()

    def have_slept(self) -> bool:
        """Whether it has, since the last look."""
        before, self._ahead = self._ahead, time.time() - time.monotonic()
        return self._ahead > before + _SLEPT


@dataclass(eq=False)
class Live:
    """What belongs to one connection, and goes with it."""

    endpoint: Endpoint
    connection: Connection
    control: Channel
    flows: set[exchange.RequestFlow] = field(default_factory=set)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    ended: QmtError | None = None
    positions: dict[exchange.RequestFlow, int] = field(default_factory=dict)
    _place: str = ""

    # Asking ----------------------------------------------------------------------------------

    async def ask(self, frame: bytes, host_id: str) -> AsyncGenerator[messages.Reply, None]:
        """The replies to one request, without beats. Closing the generator cancels it.

        Raises a :class:`~qmt_jupyter.errors.Refused`, a
        :class:`~qmt_jupyter.errors.ProviderError` or a :class:`~qmt_jupyter.errors.MeshError`.
        """
        flow = exchange.RequestFlow(time.monotonic())
        channel: Channel | None = None
        self.flows.add(flow)
        try:
            channel = Channel(await self.connection.open_stream(), frames.REPLY_LIMIT)
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
                    self.positions[flow] = reply.position
                else:
                    self.positions.pop(flow, None)
                # Whoever takes the replies may be slow; the host is not silent meanwhile.
                flow.listening = False
                yield reply
                flow.excuse(time.monotonic())
                flow.listening = True
        except TransportError:
            raise await self._why(host_id) from None
        except (FrameError, exchange.ExchangeError) as error:
            raise ProtocolViolation(f"The host broke the exchange ({error}).") from None
        finally:
            self.flows.discard(flow)
            self.positions.pop(flow, None)
            if channel is not None:
                with anyio.CancelScope(shield=True):
                    if flow.state is exchange.RequestState.ENDED:
                        await channel.finish()
                    else:
                        await channel.abort()

    async def _why(self, host_id: str) -> QmtError:
        """The reason the connection ended; the control stream may just be about to tell."""
        # Once this side has left there is nobody who listens.
        if self.ended is None and self.tasks:
            with anyio.move_on_after(0.3):
                await asyncio.wait([self.tasks[0]])
        return self.ended or HostGone(f"The connection to host {short(host_id)} was lost.")

    # Watching --------------------------------------------------------------------------------

    async def watch(self, finder: Finder, link: Link) -> None:
        """Notice a host that has died, and tell it that this guest has not; until it is closed."""
        last = looked = time.monotonic()
        said = 0.0
        pulse, here, clocks = Pulse(last), finder.here(), Clocks()
        while not self.connection.is_closed:
            await asyncio.sleep(_TICK)
            now = time.monotonic()
            if now - last > 4 * _TICK:
                # This process itself was held up: what the host said meanwhile is unread.
                for flow in self.flows:
                    flow.excuse(now)
            pulse.hear(self.connection.received, now)
            # Where the process's clock runs on during a sleep, the pause itself tells.
            if clocks.have_slept() or now - last > _SLEPT:
                pulse.doubt()
            last = now
            if now - looked > LOOK_EVERY:
                looked, before, here = now, here, finder.here()
                if here != before:
                    pulse.doubt()
                self._note_place(finder, link)
            if pulse.is_lost(now) or any(flow.is_silent(now) for flow in self.flows):
                host = short(link.invite.peer_id)
                self.ended = HostGone(f"The host {host} has stopped answering.")
                self.connection.close(CLOSE_PROTOCOL, "silent")
            elif pulse.wants_to_ask(now) or (
                self.flows and now - said > exchange.PRESENCE_INTERVAL
            ):
                said = now
                self.control.post(messages.encode(messages.Present()))

    def _note_place(self, finder: Finder, link: Link) -> None:
        path = self.connection.path
        if path is not None and path.direct and path.address != self._place:
            self._place = path.address
            finder.found(link, path.address)
