"""This process's node of the DHT: looks hosts up, publishes records, answers others.

It says nothing while it knows nobody: not one packet leaves until somebody is named to it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ..identity import whereabouts
from ..identity.whereabouts import Whereabouts, WhereaboutsInvalid
from .addresses import Reach
from .contact import Contact
from .dht import Protocol
from .lookup import Outcome, Walk
from .record_store import RecordStore


@dataclass(frozen=True)
class Published:
    """How many nodes keep a record now, and the newest of the same host that was met."""

    nodes: int
    newest: Whereabouts | None


class DhtNode:
    """A node; open it, tell it of others with :meth:`enter`, close it. Of one event loop."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._store = RecordStore(clock=clock)
        self._protocol = Protocol(self._store)

    @classmethod
    async def open(
        cls, reach: Reach, *, port: int = 0, clock: Callable[[], float] = time.time
    ) -> DhtNode:
        """Bind the sockets. Raises :class:`~qmt_jupyter.errors.PortInUse` and other
        :class:`~qmt_jupyter.errors.ConfigurationError`.
        """
        node = cls(clock)
        await node._protocol.open(reach, port)
        return node

    # What it is ------------------------------------------------------------------------------

    @property
    def port(self) -> int:
        """The UDP port that it listens at."""
        return self._protocol.port

    @property
    def contacts(self) -> tuple[Contact, ...]:
        """The nodes that it knows and that have answered."""
        return self._protocol.contacts

    @property
    def records(self) -> int:
        """How many records it keeps."""
        return len(self._store)

    @property
    def packets(self) -> tuple[int, int]:
        """Requests sent, and packets received, so far."""
        return self._protocol.sent, self._protocol.received

    # Others ----------------------------------------------------------------------------------

    async def check(self, contacts: Iterable[Contact]) -> int:
        """Ask all of them whether they are there; how many are."""
        return sum(await asyncio.gather(*(self._protocol.check(each) for each in contacts)))

    async def enter(self, contacts: Iterable[Contact]) -> bool:
        """Become part of the network that any of ``contacts`` belongs to; False if none answers."""
        await self.check(contacts)
        return await self.look_around()

    async def look_around(self) -> bool:
        """Learn who is near this node's own place, and let those learn of it."""
        known = self.contacts
        if not known:
            return False
        own = self._protocol.own_contact(known[0])
        if own is not None:
            self._protocol.place(own)
            await self._walk(own.id, lambda _: None).run(self._start(own.id), patient=False)
        return bool(self.contacts)

    async def check_longest_silent(self, longer_than: float, count: int = 1) -> bool | None:
        """Ask the ``count`` contacts not heard of longest; None if all are fresher than that.

        False if none of them answered.
        """
        silent = self._protocol.silent(longer_than)[:count]
        return bool(await self.check(silent)) if silent else None

    # Records ---------------------------------------------------------------------------------

    async def search(
        self, host_key: bytes, newer: Callable[[Whereabouts], None] | None = None
    ) -> Outcome:
        """Look for a host's record; ``newer`` is told of each as it comes, best last."""
        key = whereabouts.key_of(host_key)
        own = self._store.get(key)
        if own is not None and newer is not None:
            newer(own)

        def take(record: Whereabouts) -> None:
            if newer is not None and (own is None or record.sequence > own.sequence):
                newer(record)

        outcome = await self._walk(key, self._reader(host_key)).run(self._start(key), take)
        if own is not None and (outcome.record is None or outcome.record.sequence <= own.sequence):
            return Outcome(own, outcome.nearest, 0, outcome.requests)
        return outcome

    async def publish(self, record: Whereabouts) -> Published:
        """Have the nodes nearest to the record's key keep it, and keep it here."""
        self._store.keep_own(record)
        walk = self._walk(record.key, self._reader(record.host_key))
        outcome = await walk.run(self._start(record.key), patient=False)
        stored = await asyncio.gather(
            *(
                self._protocol.ask_to_store(contact, token, record.key, record.data)
                for contact, token in outcome.nearest
            )
        )
        return Published(sum(stored), outcome.record)

    def _start(self, key: bytes) -> list[Contact]:
        return self._protocol.nearest(key)

    def _walk(self, key: bytes, read: Callable[[bytes], Whereabouts | None]) -> Walk:
        mine = {self._protocol.own_contact(contact) for contact in self._start(key)}
        return Walk(
            key,
            self._protocol.ask,
            read,
            clock=time.monotonic,
            exclude=[each for each in mine if each is not None],
        )

    def _reader(self, host_key: bytes) -> Callable[[bytes], Whereabouts | None]:
        def read(data: bytes) -> Whereabouts | None:
            try:
                return whereabouts.read(data, self._clock(), host_key=host_key)
            except WhereaboutsInvalid:
                return None

        return read

    async def rebind(self, reach: Reach) -> None:
        """Follow this machine's addresses where the settings name interfaces."""
        await self._protocol.rebind(reach)

    async def close(self) -> None:
        """Close the sockets; safe to call twice."""
        await self._protocol.close()
