"""The seats at the services of a JupyterHub: had, renewed and, in the end, given up.

A seat lives for minutes. As long as the mesh is joined it is asked for again before it ends, and
whenever its host is lost: the service knows where the host is now. A service that says no has
the last word; one that does not answer takes nothing away.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import logging
import random
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import anyio

from ...errors import HostGone, HubNotFound, HubRefused, InviteExpired, NotJoined, QmtError
from ...mesh.ending import end
from ..finding import Finder
from ..joining import first_to_join, retire
from ..link import HostLink
from ..live import Clocks
from ..returning import Backoff
from ..routing import most_useful

if TYPE_CHECKING:
    from ...identity.link import Link
    from ..mesh import GuestMesh
    from .services import Granted, Service

_LOOK_EVERY = 5.0  # seconds, for a machine that has slept
_LONGEST_PAUSE = 60.0
_SOON = 3.0  # after a return without the service's word; a fifth of it at the soonest
_GIVE_UP_WITHIN = 2.0

log = logging.getLogger(__name__)


class Seat:
    """This guest's seat at one service, and the link to its host."""

    def __init__(self, seats: Seats, service: Service, name: str) -> None:
        self.service = service
        self.link: HostLink | None = None
        self.problem: QmtError | None = None
        self.user = ""
        self._seats = seats
        self._name = name
        self._former: HostLink | None = None  # what the next link takes the place of
        self._refused: HubRefused | None = None
        self._untried = False  # a link that no connection has been tried with
        self._asking = asyncio.Lock()
        self._stopped = False
        self._due = 0.0
        self._wake = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._chance = random.Random()  # noqa: S311  # spreads load, hides nothing

    # Having it ------------------------------------------------------------------------------

    def renamed(self, name: str) -> None:
        """Be asked for anew, under that name; a connection that serves goes on."""
        self._refused = self.problem = None
        if self.link is not None and (self.link.is_concluded or name != self._name):
            self._former, self.link = self.link, None
        self._name, self._due = name, 0.0

    def begin(self, deadline: float) -> asyncio.Task[None]:
        """Have the seat within ``deadline`` seconds, and keep it from then on.

        The task ends with the first try; :attr:`problem` says why that led to no connection.
        """
        self._stopped = False
        task = asyncio.ensure_future(self._begin(deadline))
        self._tasks.append(task)
        return task

    async def _begin(self, deadline: float) -> None:
        try:
            await self._bring(deadline)
        except QmtError as error:
            self.problem = error
        except Exception:
            log.exception("joining by the service %s failed unexpectedly", self.service.url)
            self.problem = HostGone("Joining by this service failed; the log says why.")
        if self._refused is None and not self._stopped:
            self._tasks.append(asyncio.ensure_future(self._keep()))

    async def _bring(self, deadline: float) -> None:
        until = time.monotonic() + deadline
        while True:
            try:
                link = await self._renew()
                break
            except HubNotFound as error:
                # A service that is starting says when to come again.
                pause = error.retry_after
                if pause is None or time.monotonic() + pause > until:
                    raise
            await asyncio.sleep(max(pause, 0.1))
        await link.connect(max(until - time.monotonic(), 1.0))
        self.problem = None

    async def _renew(self) -> HostLink:
        """Ask the service. Raises what :meth:`Service.seat` does."""
        async with self._asking:
            try:
                granted = await self.service.seat(self._seats.guest)
            except HubRefused as error:
                self._refused = error
                if self.link is not None:
                    self.link.conclude(error)
                raise
            self._due = time.monotonic() + granted.renew_s * (1 - self._chance.random() / 5)
            return self._take(granted)

    def _take(self, granted: Granted) -> HostLink:
        self.user, self._untried = granted.user, True
        host_id = granted.link.invite.peer_id
        if self.link is not None and self.link.host_id != host_id:
            # Another host than before gets nothing of what was the former's.
            self._former, self.link = self.link, None
            self._wake.set()
        if self.link is None:
            self.link = self._seats.link_to(granted.link, self.service, self._name, self._former)
            self._former = None
        self.link.renew(granted.link)
        return self.link

    async def refresh(self, link: HostLink) -> bool:
        """Before a host is looked for: have the newest link; whether there is one.

        Raises :class:`~qmt_jupyter.errors.HubRefused` where the user has no seat any more,
        :class:`~qmt_jupyter.errors.HubNotFound` where nobody answers and the seat has ended, and
        :class:`~qmt_jupyter.errors.HostGone` where the service has another host now.
        """
        if self._refused is not None:
            raise copy.copy(self._refused)
        if not self._untried:
            try:
                await self._renew()
            except HubNotFound:
                with contextlib.suppress(InviteExpired):
                    link.require_unexpired()
                    # A service that has begun anew lets go of seats that nobody renews.
                    soon = _SOON * (1 - 0.8 * self._chance.random())
                    self._due = min(self._due, time.monotonic() + soon)
                    self._wake.set()
                    return False
                raise
        self._untried = False
        if self.link is not link:
            moved = HostGone(f"The service {self.service.url} has another host now.")
            link.conclude(moved)
            raise moved
        return True

    # Keeping it -----------------------------------------------------------------------------

    async def _keep(self) -> None:
        backoff = Backoff(_LONGEST_PAUSE)
        while self._refused is None:
            if self.problem is None:
                backoff.reset()
                await self._rest()
            else:
                await asyncio.sleep(max(backoff.pause(), self.problem.retry_after or 0.0))
            try:
                if self.link is None or time.monotonic() >= self._due:
                    await self._renew()
                await self._be_connected()
                self.problem = None
            except QmtError as error:
                log.info("the seat at %s: %s", self.service.url, error.sentence)
                self.problem = error
            except Exception:
                log.exception("keeping the seat at %s failed", self.service.url)
                self.problem = HostGone("Keeping this seat failed; the log says why.")

    async def _be_connected(self) -> None:
        """Connect for the first time; from then on the link comes back by itself."""
        link = self.link
        if link is not None and not (link.is_connected or link.is_returning or link.over):
            await link.connect()

    async def _rest(self) -> None:
        clocks = Clocks()
        while (left := self._due - time.monotonic()) > 0:
            with anyio.move_on_after(min(left, _LOOK_EVERY)):
                await self._wake.wait()
                self._wake.clear()
                return
            if clocks.have_slept():
                self._due = time.monotonic()

    # Leaving --------------------------------------------------------------------------------

    async def stop(self) -> None:
        """Renew no more; safe to call twice."""
        self._stopped = True
        tasks, self._tasks = self._tasks, []
        await end(tasks)

    async def give_up(self) -> None:
        """Tell the service, as far as it answers within two seconds."""
        if self.link is None or self._refused is not None:
            return
        with contextlib.suppress(QmtError), anyio.move_on_after(_GIVE_UP_WITHIN):
            await self.service.give_up(self._seats.guest)


class Seats:
    """The seats of one mesh."""

    def __init__(self, mesh: GuestMesh, finder: Finder, guest: str) -> None:
        self.guest = guest  # the peer id of this guest's identity
        self._mesh = mesh
        self._finder = finder
        self._seats: dict[str, Seat] = {}
        self._retiring: set[asyncio.Task[None]] = set()
        self._stopped = False

    async def take(self, services: Sequence[Service], name: str, deadline: float) -> HostLink:
        """Have seats at services, side by side, and return the link of one that serves.

        Where none does, or who waits goes away, none that was not there before is kept on for.
        Raises :class:`~qmt_jupyter.errors.HubRefused`, :class:`~qmt_jupyter.errors.HubNotFound`,
        :class:`~qmt_jupyter.errors.NotJoined`, or what :meth:`HostLink.connect` does.
        """
        if self._stopped:
            raise NotJoined("This mesh has been left.")
        new = [each.url for each in services if each.url not in self._seats]
        try:
            tasks = await self.begin(services, name, deadline)
            await first_to_join(tasks, lambda: self.connected() is not None)
            link = self.connected()
            if link is None:
                raise most_useful(self.problems) if self.problems else NotJoined("No host is left.")
        except BaseException:
            with anyio.CancelScope(shield=True):
                await self._withdraw(new)
            raise
        return link

    async def _withdraw(self, urls: Sequence[str]) -> None:
        """Give up seats that nobody was told of, and leave the hosts that only they led to."""
        seats = [seat for url in urls if (seat := self._seats.pop(url, None)) is not None]
        for seat in seats:
            await seat.stop()
            if seat.link is not None and self._of(seat.link) is None:
                self._finder.also_by(seat.link.host_id, None)
                await self._mesh.drop(seat.link)
        await asyncio.gather(*(seat.give_up() for seat in seats))

    async def begin(
        self, services: Sequence[Service], name: str, deadline: float
    ) -> list[asyncio.Task[None]]:
        """Have a seat at each service; a task each, which ends with its first try.

        Where there is one already it is asked for anew, and its connection goes on.
        """
        tasks = []
        for service in services:
            seat = self._seats.get(service.url)
            if seat is None:
                seat = self._seats[service.url] = Seat(self, service, name)
            else:
                await seat.stop()
                seat.renamed(name)
            tasks.append(seat.begin(deadline))
        return tasks

    def connected(self) -> HostLink | None:
        """A link that a seat has led to, and that is up."""
        links = (seat.link for seat in self._seats.values())
        return next((link for link in links if link is not None and link.is_connected), None)

    @property
    def problems(self) -> list[tuple[HostLink | None, QmtError]]:
        """What stands in the way of each seat that does not serve, with its link, if it has one."""
        seats = self._seats.values()
        return [(seat.link, seat.problem) for seat in seats if seat.problem is not None]

    def facts(self, link: HostLink) -> dict[str, str] | None:
        """The seat that a link is for, as plain values; None where it is for none."""
        seat = self._of(link)
        return None if seat is None else {"service": seat.service.url, "user": seat.user}

    def problem_of(self, link: HostLink) -> QmtError | None:
        """Why a link's seat does not serve."""
        seat = self._of(link)
        return None if seat is None else seat.problem

    def link_to(
        self, granted: Link, service: Service, name: str, former: HostLink | None
    ) -> HostLink:
        """The link to a seat's host; a new one takes ``former``'s place in the mesh."""
        host_id = granted.invite.peer_id
        for seat in self._seats.values():
            if seat.link is not None and seat.link is not former and seat.link.host_id == host_id:
                return seat.link  # two services that are one
        if former is not None:
            self._finder.also_by(former.host_id, None)
        self._finder.also_by(host_id, service.tunnel(self._finder.reach))
        return self._mesh.adopt(granted, name, self._refresh, former)

    async def _refresh(self, link: HostLink) -> bool:
        seat = self._of(link)
        return True if seat is None else await seat.refresh(link)

    def _of(self, link: HostLink) -> Seat | None:
        return next((seat for seat in self._seats.values() if seat.link is link), None)

    def retire(self, link: HostLink) -> None:
        """Close a link that has been replaced, once what runs on it has ended."""
        task = asyncio.ensure_future(retire(link))
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)

    async def left(self, link: HostLink) -> None:
        """Give up the seats of a link that has been closed."""
        for url, seat in [*self._seats.items()]:
            if seat.link is link:
                del self._seats[url]
                self._finder.also_by(link.host_id, None)
                await seat.stop()
                await seat.give_up()

    async def stop(self) -> None:
        """Renew none any more; safe to call twice."""
        self._stopped = True
        await end(list(self._retiring))
        for seat in self._seats.values():
            await seat.stop()

    async def give_up(self) -> None:
        """Give all of them up, within two seconds, after their connections have been closed."""
        seats, self._seats = [*self._seats.values()], {}
        await asyncio.gather(*(seat.give_up() for seat in seats))
