"""The queue in front of a provider: as many requests run as it has slots, the rest wait.

First come, first served. A waiting request learns its position whenever it changes; leaving
frees the place.
"""

from __future__ import annotations

import asyncio
from collections import deque

from ..errors import Busy

MAX_WAITING = 512


class Ticket:
    """One request's place, from :meth:`SlotQueue.enter` to :meth:`SlotQueue.leave`."""

    def __init__(self) -> None:
        self.position = 0
        self.has_slot = False
        self._changed = asyncio.Event()

    def _move(self, position: int) -> None:
        self.position = position
        self._changed.set()

    def _take_slot(self) -> None:
        self.has_slot = True
        self._changed.set()

    async def changed(self) -> None:
        """Wait until the position has changed, or a slot is free."""
        await self._changed.wait()
        self._changed.clear()


class SlotQueue:
    """Hands out ``slots`` slots in order; at most ``room`` requests wait."""

    def __init__(self, slots: int, room: int = MAX_WAITING) -> None:
        self._free = slots
        self._room = room
        self._waiting: deque[Ticket] = deque()

    @property
    def waiting(self) -> int:
        """How many requests wait."""
        return len(self._waiting)

    def enter(self) -> Ticket:
        """Take a slot, or a place in the queue. Raises :class:`~qmt_jupyter.errors.Busy`."""
        ticket = Ticket()
        if self._free:
            self._free -= 1
            ticket._take_slot()
        elif len(self._waiting) >= self._room:
            raise Busy(f"{len(self._waiting)} requests wait already.", retry_after=10.0)
        else:
            self._waiting.append(ticket)
            ticket._move(len(self._waiting) - 1)
        return ticket

    def leave(self, ticket: Ticket) -> None:
        """Give up the slot or the place. Every ticket leaves exactly once."""
        if not ticket.has_slot:
            self._waiting.remove(ticket)
        elif self._waiting:
            self._waiting.popleft()._take_slot()
        else:
            self._free += 1
        for position, waiting in enumerate(self._waiting):
            if waiting.position != position:
                waiting._move(position)
