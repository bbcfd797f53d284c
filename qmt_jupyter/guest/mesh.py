"""A guest: the links to the hosts whose invites it holds, and requests on their way to one."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import anyio

from ..errors import HostGone, HostNotFound, ModelUnknown, NotJoined, QmtError
from ..identity import keys
from ..identity.link import Link
from ..mesh.ending import end
from ..mesh.locate import DEADLINE
from ..settings import Settings
from ..wire import messages
from .asking import embedded
from .candidates import asked, candidates
from .finding import Finder
from .hub.keeping import Seats
from .joining import first_to_join, try_to_reach
from .link import HostLink, Refresh
from .returning import Away
from .routing import (
    Attempts,
    Candidate,
    Route,
    begins,
    is_at_fault,
    most_useful,
    of_host,
)

if TYPE_CHECKING:
    from .hub.services import Service

__all__ = ["GuestMesh", "Route"]

# Whoever gives up on a host that has not begun after so long asks others first for a while.
_PATIENCE = 5.0
_MOST_HELD = 16

log = logging.getLogger(__name__)


class GuestMesh:
    """The hosts that this process may ask. Everything here happens in one event loop."""

    def __init__(self, identity: keys.Identity, finder: Finder) -> None:
        self._identity = identity
        self._finder = finder
        self._links: list[HostLink] = []
        self._problems: dict[HostLink, QmtError] = {}
        self._coming: dict[HostLink, asyncio.Task[None]] = {}
        self._adding: set[HostLink] = set()
        self.seats = Seats(self, finder, identity.peer_id)
        self._closed = False
        self._leaving: asyncio.Task[None] | None = None

    @classmethod
    async def join(
        cls, granted: Link, settings: Settings, *, name: str = "", deadline: float = DEADLINE
    ) -> GuestMesh:
        """Find the invite's host and be admitted, under ``name`` if one is given.

        Endpoint keys are fresh for this process; the guest's identity vouches for them. Raises
        an :class:`~qmt_jupyter.errors.InviteError`, :class:`~qmt_jupyter.errors.MeshError`,
        :class:`~qmt_jupyter.errors.Refused` or :class:`~qmt_jupyter.errors.ConfigurationError`.
        """
        mesh = cls._empty(settings)
        try:
            await mesh.add(granted, name=name, deadline=deadline)
        except BaseException:
            with anyio.CancelScope(shield=True):
                await mesh.close()
            raise
        return mesh

    @classmethod
    async def join_all(
        cls,
        granted: Sequence[Link],
        settings: Settings,
        *,
        name: str = "",
        deadline: float = DEADLINE,
        services: Sequence[Service] = (),
    ) -> GuestMesh:
        """Join several hosts side by side, by invites and by seats; one that admits is enough.

        Two seconds after the first the mesh is there; who is later comes in by and by, and why
        one does not stands in :meth:`status`. Where nobody admits, raises the most useful of the
        errors, as :meth:`join` and :meth:`.Seats.take` do.
        """
        mesh = cls._empty(settings)
        by_host = {each.invite.peer_id: each for each in granted}
        mesh._links = [mesh._link(each, name) for each in by_host.values()]
        mesh._coming = {
            link: asyncio.ensure_future(mesh._bring(link, deadline)) for link in mesh._links
        }
        try:
            seats = await mesh.seats.begin(services, name, deadline)
            await first_to_join([*mesh._coming.values(), *seats], mesh._is_connected)
        except BaseException:
            with anyio.CancelScope(shield=True):
                await mesh.close()
            raise
        if not mesh._is_connected():
            failed = [*mesh._problems.items(), *mesh.seats.problems]
            await mesh.close()
            raise most_useful(failed) if failed else NotJoined("There is no invite to join with.")
        return mesh

    @classmethod
    def _empty(cls, settings: Settings) -> GuestMesh:
        finder = Finder(settings)
        return cls(keys.load_or_create(settings.guest_dir / "identity.key"), finder)

    def _link(self, granted: Link, name: str, refresh: Refresh | None = None) -> HostLink:
        return HostLink(self._identity, granted, self._finder, name, refresh)

    def _is_connected(self) -> bool:
        return any(link.is_connected for link in self._links)

    async def _bring(self, link: HostLink, deadline: float) -> None:
        try:
            await link.connect(deadline)
        except QmtError as error:
            if link in self._links:
                self._problems[link] = error
        except Exception:
            log.exception("joining the host %s failed unexpectedly", link.host_id)
            self._problems[link] = HostGone("Joining this host failed; the log says why.")
        finally:
            self._coming.pop(link, None)

    async def add(self, granted: Link, *, name: str = "", deadline: float = DEADLINE) -> HostLink:
        """Join one more host, as :meth:`join` does.

        The same host again takes the former link's place, which is left only then. Raises like
        :meth:`join`, and :class:`~qmt_jupyter.errors.NotJoined` once the mesh has been left.
        """
        link = self._link(granted, name)
        self._adding.add(link)
        try:
            await link.connect(deadline)
        finally:
            self._adding.discard(link)
        if self._closed:
            await link.close()
            raise NotJoined("This mesh has been left.")
        former = next((each for each in self._links if each.host_id == link.host_id), None)
        if former is None:
            self._links.append(link)
        else:
            self._links[self._links.index(former)] = link
            await self.drop(former)
            await self.seats.left(former)
        return link

    def adopt(
        self, granted: Link, name: str, refresh: Refresh, former: HostLink | None
    ) -> HostLink:
        """A link that a seat has led to; it takes the place of ``former``, or of its own host's.

        What runs on that one may end first. It is not connected yet.
        """
        link = self._link(granted, name, refresh)
        same = next((each for each in self._links if each.host_id == link.host_id), former)
        if same in self._links:
            self._links[self._links.index(same)] = link
            self._problems.pop(same, None)
            self.seats.retire(same)
        else:
            self._links.append(link)
        return link

    # What is known ---------------------------------------------------------------------------

    @property
    def links(self) -> tuple[HostLink, ...]:
        """The hosts, in the order they were joined."""
        return tuple(self._links)

    def models(self) -> list[dict[str, Any]]:
        """Every model that every host offers, with how busy it is and how far away.

        ``context`` in tokens; ``slots`` requests run side by side and ``busy`` run or wait;
        ``load`` is their ratio; ``rtt_ms`` is the round trip. None where it is not known.
        """
        return [
            {
                "name": offer.name,
                "context": offer.context,
                "chats": offer.chats,
                "embeds": offer.embeds,
                "mesh": link.mesh_name,
                "host": link.host_id,
                "slots": offer.slots,
                "busy": link.load.busy(offer.name),
                "load": link.load.load(offer.name),
                "rtt_ms": link.rtt_ms,
            }
            for link in self._links
            for offer in link.models
        ]

    def status(self) -> list[dict[str, Any]]:
        """One entry a host, as plain values. ``load`` is that of its busiest model."""
        return [self._status(link) for link in self._links]

    def _status(self, link: HostLink) -> dict[str, Any]:
        loads = [link.load.load(offer.name) for offer in link.models]
        if link.is_connected or link.is_returning:
            self._problems.pop(link, None)  # what was true when it was joined is not any more
        error = link.over or self._problems.get(link) or self.seats.problem_of(link)
        if link in self._coming:
            error = HostNotFound("The host has not answered yet.")
        if link.is_connected:
            error = None
        return {
            **link.status(),
            "seat": self.seats.facts(link),
            "load": max((load for load in loads if load is not None), default=None),
            "problem": None if error is None else error.sentence,
        }

    async def refresh(self) -> None:
        """Reach the hosts whose connection was lost: what they offer may have changed since.

        Those that cannot be reached stay as they were.
        """
        await try_to_reach([link for link in self._links if not link.is_connected])

    # Asking ----------------------------------------------------------------------------------

    async def answer(
        self, body: messages.JsonObject, host: str | None = None, *, patience: float = 0.0
    ) -> AsyncGenerator[messages.Reply | Route | Away, None]:
        """One chat completion: the host that was chosen, then its replies.

        ``host`` names the only host that may be asked (see :func:`~.routing.of_host`). Otherwise
        the least loaded one that has the model is, and the next where that one refuses or
        vanishes before the first token: the route, and the start, come anew then. The last that
        is left is waited for where it is away, for up to ``patience`` seconds (0: it is looked for
        once). Raises what
        :meth:`HostLink.ask` does, and :class:`~qmt_jupyter.errors.ModelUnknown`,
        :class:`~qmt_jupyter.errors.NotJoined` or :class:`~qmt_jupyter.errors.OptionInvalid`.
        """
        named = await self._named(host)
        attempts: Attempts[HostLink] = Attempts(named)
        if named is None and patience and self._all_away:
            yield Away(self._links[0].host_id, patience)
            patience = await self._one_back(patience)
        while True:
            chosen, left = self._next(attempts, body.get("model"))
            link, began, asked_at = chosen.host, False, time.monotonic()
            held: list[messages.Reply] = []
            yield Route(link.host_id, link.mesh_name, attempts.passed)
            try:
                with link.load.asking(chosen.model):
                    request = asked(body, chosen, "chats")
                    # Who was told no by a host that is there is not kept waiting for another.
                    wait = 0.0 if left or attempts.was_answered else patience
                    async with aclosing(link.ask(request, patience=wait)) as replies:
                        async for reply in replies:
                            if not began:
                                began = begins(reply) or len(held) == _MOST_HELD
                                if not began and isinstance(reply, messages.Delta):
                                    # Comes with the first token, or never.
                                    held.append(reply)
                                    continue
                                if began:
                                    link.load.answered()
                                    for each in held:
                                        yield each
                            yield reply
                return
            except QmtError as error:
                if began:
                    raise
                _note(chosen, error, attempts)
            except (GeneratorExit, asyncio.CancelledError):
                if not began and time.monotonic() - asked_at > _PATIENCE:
                    link.load.failed(time.monotonic())
                raise

    async def embed(
        self, body: messages.JsonObject, host: str | None = None, *, patience: float = 0.0
    ) -> messages.JsonObject:
        """Embeddings: an OpenAI request in, an OpenAI response out.

        The host is chosen as for :meth:`answer`, and the next is asked as long as one fails: there
        is nothing of the response before all of it is. Raises like a chat.
        """
        named = await self._named(host)
        attempts: Attempts[HostLink] = Attempts(named)
        if named is None and patience and self._all_away:
            patience = await self._one_back(patience)
        while True:
            chosen, left = self._next(attempts, body.get("model"), "embeds")
            try:
                with chosen.host.load.asking(chosen.model):
                    request = asked(body, chosen, "embeds")
                    wait = 0.0 if left or attempts.was_answered else patience
                    result = await embedded(chosen.host, request, wait)
                chosen.host.load.answered()
                return result
            except QmtError as error:
                _note(chosen, error, attempts)

    async def _named(self, host: str | None) -> HostLink | None:
        if not self._links:
            raise NotJoined("This mesh has been left.")
        if host is None:
            return None
        link = of_host(self._links, host)
        if not link.is_connected and not link.models:
            # What it offers was never told.
            await link.connect()
        return link

    @property
    def _all_away(self) -> bool:
        return len(self._links) > 1 and not any(link.is_connected for link in self._links)

    async def _one_back(self, patience: float) -> float:
        """Wait for whichever host comes back first; what is left of the patience (none may)."""
        until = time.monotonic() + patience
        coming = {asyncio.ensure_future(link.be_back(until)) for link in self._links}
        try:
            pending = coming
            while pending and self._all_away:
                _, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in coming:
                task.cancel()
            with anyio.CancelScope(shield=True):
                await asyncio.gather(*coming, return_exceptions=True)
        return max(until - time.monotonic(), 0.0)

    def _next(
        self, attempts: Attempts[HostLink], model: object, purpose: str = "chats"
    ) -> tuple[Candidate[HostLink], int]:
        """Whom to ask now, and how many more could be asked after it."""
        if not self._links:
            # Left meanwhile: nobody else is to read the prompt.
            raise NotJoined("This mesh has been left.")
        offering = candidates(self._links, model, purpose, time.monotonic())
        chosen = attempts.next(offering)
        if chosen is None:
            offered = ", ".join(dict.fromkeys(each["name"] for each in self.models())) or "none"
            meant = "" if model is None else f" {str(model)[:80]!r}"
            if purpose == "embeds":
                meant += " that makes embeddings" if model is None else " for embeddings"
            raise ModelUnknown(f"No host offers a model{meant}; offered: {offered}.")
        return chosen, attempts.left(offering) - 1

    # Leaving ---------------------------------------------------------------------------------

    async def leave(self, host: str) -> str:
        """Leave one host and return its peer id. Raises OptionInvalid where it is not one."""
        link = of_host(self._links, host)
        await self.drop(link)
        await self.seats.left(link)
        return link.host_id

    async def drop(self, link: HostLink) -> None:
        """Leave a host, and tell no service."""
        self._links = [each for each in self._links if each is not link]
        self._problems.pop(link, None)
        await link.close()

    async def close(self) -> None:
        """Leave every host; safe to call twice, and carried through once it has begun."""
        if self._leaving is None:
            self._leaving = asyncio.ensure_future(self._close())
        with anyio.CancelScope(shield=True):
            await asyncio.shield(self._leaving)

    async def _close(self) -> None:
        self._closed = True
        await self.seats.stop()
        links, self._links = self._links, []
        await end(list(self._coming.values()))
        for link in [*links, *self._adding]:
            await self.drop(link)
        await self.seats.give_up()
        await self._finder.close()


def _note(chosen: Candidate[HostLink], error: QmtError, attempts: Attempts[HostLink]) -> None:
    """A host did not take a request. Raises ``error`` where no other may be asked."""
    if is_at_fault(error):
        chosen.host.load.failed(time.monotonic(), error.retry_after)
    attempts.refused(chosen, error)
