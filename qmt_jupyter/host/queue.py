"""The queue in front of a provider: as many requests run as it has slots, the rest wait in turn.

Deficit round robin over guests, by tokens. Each guest has a line of its own and an allowance: a
free slot goes to the next line that has no debt, and where all are in debt, everybody's allowance
is raised by the least that lets somebody go. A request is charged what it is expected to cost and
corrected when it has ended, so guests that contend get equally many tokens, whoever asks more.
Who has a weight is charged that much less, and of those who are equally near goes first; then it
has to wait for the others to catch up, so nobody waits for ever.

What a guest takes while nobody waits is not held against it. Pure but for the event that a
waiting request listens to; the time is an argument.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from typing import TYPE_CHECKING

from ..errors import Busy

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_WAITING = 512
MAX_WAITING_BYTES = 64 * 1024 * 1024
_LEARNING = 0.1
# Past this many waiting requests, positions are told this often, in seconds.
_MANY = 64
_TELL_EVERY = 0.2


class Ticket:
    """One request's place, from :meth:`FairQueue.enter` to :meth:`FairQueue.leave`.

    ``position`` requests are served before it. ``has_slot``: it may run. ``pushed_out``: it lost
    its place to a guest who waits with fewer.
    """

    def __init__(self, guest: str, cost: int, size: int, weight: int = 1) -> None:
        self.guest = guest
        self.cost = cost
        self.weight = weight
        self.size = size
        self.position = 0
        self.has_slot = False
        self.pushed_out = False
        self._charged: int | None = None
        self._since = 0.0
        self._changed = asyncio.Event()

    async def changed(self) -> None:
        """Wait until anything about the place has changed."""
        await self._changed.wait()
        self._changed.clear()


class _Line:
    """One guest: its waiting requests, and its allowance relative to everybody's level."""

    def __init__(self, level: float) -> None:
        self.waiting: deque[Ticket] = deque()
        self.allowance = -level
        self.running = 0
        self.turn = 0
        self.size = 0
        self.weight = 1

    def needs(self) -> float:
        """The level at which it is out of debt and its next request may go."""
        return -self.allowance


class FairQueue:
    """Hands out ``slots`` slots; at most ``room`` requests of ``room_bytes`` in all wait."""

    def __init__(
        self, slots: int, room: int = MAX_WAITING, room_bytes: int = MAX_WAITING_BYTES
    ) -> None:
        self._slots = slots
        self._free = slots
        self._room = room
        self._room_bytes = room_bytes
        self._lines: dict[str, _Line] = {}
        self._waiting = 0
        self._waiting_bytes = 0
        self._level = 0.0
        self._turns = 0
        self._epoch = 0  # counts how often all debts were forgotten
        self._seconds = 1.0  # how long a request holds its slot, learned
        self._told = float("-inf")

    @property
    def waiting(self) -> int:
        """How many requests wait."""
        return self._waiting

    @property
    def busy(self) -> int:
        """How many requests run or wait."""
        return self._slots - self._free + self._waiting

    def enter(self, guest: str, cost: int, size: int, now: float, weight: int = 1) -> Ticket:
        """Take a slot, or a place in the guest's line.

        ``cost`` is the tokens that the request is expected to take, ``size`` its bytes. A guest
        gets ``weight`` times the share of one with weight 1 while both wait. When the
        queue is full the newest request of the guest with the longest line is pushed out, unless
        the newcomer's own is as long: then it is :class:`~qmt_jupyter.errors.Busy`.
        """
        ticket = Ticket(guest, max(1, cost), size, weight)
        line = self._lines.get(guest) or _Line(self._level)
        line.weight = weight
        if self._free and not self._waiting:
            self._lines[guest] = line
            self._take_slot(ticket, line, now)
            return ticket
        for victim in self._victims(line, size):
            self._remove(victim, self._lines[victim.guest])
            victim.pushed_out = True
            victim._changed.set()
        self._lines[guest] = line
        if not line.waiting:
            # A debt stays; what others were given meanwhile is not saved up.
            line.allowance = min(line.allowance, -self._level)
            self._turns += 1
            line.turn = self._turns
        line.waiting.append(ticket)
        line.size += size
        self._waiting += 1
        self._waiting_bytes += size
        self._serve(now)
        self._tell(now, ticket)
        return ticket

    def leave(self, ticket: Ticket, now: float, tokens: int | None = None) -> None:
        """Give up the slot or the place. Every ticket leaves exactly once.

        ``tokens`` is what the request really took; None for what it was expected to.
        """
        line = self._lines.get(ticket.guest)
        if ticket.has_slot and line is not None:
            self._free += 1
            line.running -= 1
            self._seconds += _LEARNING * (now - ticket._since - self._seconds)
            # Since the debts were last forgotten there is nothing to correct.
            if ticket._charged == self._epoch and tokens is not None:
                line.allowance += (ticket.cost - tokens) / ticket.weight
        elif line is not None and not ticket.pushed_out:
            self._remove(ticket, line)
        self._serve(now)
        self._forget()
        self._tell(now)

    def _take_slot(self, ticket: Ticket, line: _Line, now: float) -> None:
        self._free -= 1
        line.running += 1
        ticket.has_slot = True
        ticket._since = now
        ticket._changed.set()

    def _remove(self, ticket: Ticket, line: _Line) -> None:
        line.waiting.remove(ticket)
        line.size -= ticket.size
        self._waiting -= 1
        self._waiting_bytes -= ticket.size

    def _serve(self, now: float) -> None:
        while self._free and self._waiting:
            line = min(
                (line for line in self._lines.values() if line.waiting),
                key=lambda line: (max(line.needs(), self._level), -line.weight, line.turn),
            )
            self._level = max(self._level, line.needs())
            ticket = line.waiting[0]
            self._remove(ticket, line)
            line.allowance -= ticket.cost / ticket.weight
            ticket._charged = self._epoch
            self._turns += 1
            line.turn = self._turns
            self._take_slot(ticket, line, now)

    def _forget(self) -> None:
        """Drop the lines of guests who are gone; a debt stays while others wait."""
        if not self._waiting:
            self._level = 0.0
            self._epoch += 1
            self._lines = {name: line for name, line in self._lines.items() if line.running}
            for line in self._lines.values():
                line.allowance = 0.0
            return
        gone = [
            name
            for name, line in self._lines.items()
            if not line.waiting and not line.running and line.allowance + self._level >= 0
        ]
        for name in gone:
            del self._lines[name]

    def _victims(self, newcomer: _Line, size: int) -> list[Ticket]:
        """Whom to push out so that a newcomer finds room, the newest first; all or nobody."""
        victims: list[Ticket] = []
        left = {line: list(line.waiting) for line in self._lines.values() if line.waiting}
        own = left.get(newcomer, [])
        number, total = self._waiting, self._waiting_bytes
        while number >= self._room or total + size > self._room_bytes:
            if number >= self._room:
                longest = max(left.values(), key=len, default=own)
                fair = len(longest) > len(own) + 1
            else:
                longest = max(left.values(), key=_bytes_of, default=own)
                fair = _bytes_of(longest) > _bytes_of(own) + size
            if not fair:
                raise self._busy()
            victims.append(longest.pop())
            number, total = number - 1, total - victims[-1].size
        return victims

    def _busy(self) -> Busy:
        seconds = min(600.0, max(1.0, self._waiting * self._seconds / self._slots))
        return Busy(
            f"{self._waiting} requests wait already; a place is free in about {seconds:.0f} s.",
            retry_after=seconds,
        )

    # Positions -------------------------------------------------------------------------------

    def _tell(self, now: float, newcomer: Ticket | None = None) -> None:
        if not self._waiting:
            return
        if newcomer is None and self._waiting > _MANY and now - self._told < _TELL_EVERY:
            return
        if newcomer is None or self._waiting <= _MANY or now - self._told >= _TELL_EVERY:
            self._told = now
            for position, ticket in enumerate(self._order()):
                if ticket.position != position or ticket is newcomer:
                    ticket.position = position
                    ticket._changed.set()
        else:
            # As if all requests cost the same: near enough until the next telling.
            own = len(self._lines[newcomer.guest].waiting)
            newcomer.position = (
                sum(min(len(line.waiting), own) for line in self._lines.values()) - 1
            )
            newcomer._changed.set()

    def _order(self) -> Iterator[Ticket]:
        """The waiting requests in the order in which they will be served, as it looks now."""
        level, turns = self._level, self._turns
        ahead: list[tuple[float, int, int, str, int, float]] = []
        for name, line in self._lines.items():
            if line.waiting:
                needs = max(line.needs(), level)
                ahead.append((needs, -line.weight, line.turn, name, 0, line.allowance))
        heapq.heapify(ahead)
        while ahead:
            needs, weight, _, name, index, allowance = heapq.heappop(ahead)
            level = max(level, needs)
            waiting = self._lines[name].waiting
            yield waiting[index]
            turns += 1
            allowance -= waiting[index].cost / waiting[index].weight
            if index + 1 < len(waiting):
                entry = (max(-allowance, level), weight, turns, name, index + 1, allowance)
                heapq.heappush(ahead, entry)


def _bytes_of(waiting: list[Ticket]) -> int:
    return sum(ticket.size for ticket in waiting)
