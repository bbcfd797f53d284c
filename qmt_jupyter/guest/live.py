"""One live connection to a host: what goes with it, and whether it still lives."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

from ..errors import HostGone, QmtError
from ..identity.link import Link
from ..identity.peer_id import short
from ..mesh.channel import Channel
from ..mesh.endpoint import CLOSE_PROTOCOL, Connection, Endpoint
from ..wire import exchange, messages
from .finding import Finder
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
    _place: str = ""

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
