"""A host: one identity, one endpoint, one provider, and the sessions of its guests."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections import Counter
from collections.abc import AsyncGenerator, Coroutine, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

import anyio

from ..errors import Busy, QmtError, RecordsUnwritable, Revoked, Stopped
from ..harmless import printable
from ..identity import keys, link
from ..mesh import addresses
from ..mesh.endpoint import CLOSE_REFUSED, CLOSE_STOPPED, Connection
from ..mesh.relay import NO_RELAY, Relays
from ..providers.base import Model, Provider
from ..settings import Settings
from ..wire import messages
from ..wire.embeddings import EmbeddingList, texts_of
from . import aliases, records
from .dispatch import Dispatcher
from .figures import Figures
from .granting import Terms, sign_invite
from .ledger import LOOK_EVERY, LOOK_SELDOM, Ledger
from .limits import UNLIMITED
from .membership import Member, Register, verify
from .offers import Offers
from .presence import Presence
from .report import activity_report, usage_report
from .rows import Membership
from .seating import Seating
from .session import Session
from .usage import UsageBook

MAX_CONNECTIONS = 1024
MAX_CONNECTIONS_OF_ONE = 32
MAX_UNGREETED = 128
_FLUSH_EVERY = 0.5
_STOP_DEADLINE = 3.0

log = logging.getLogger(__name__)


class HostService(Figures):
    """A running host. Everything here happens in one event loop."""

    def __init__(
        self,
        providers: Sequence[Provider],
        identity: keys.Identity,
        lock: keys.HostLock,
    ) -> None:
        self._providers = tuple(providers)
        self._identity = identity
        self._lock = lock
        self._register = Register()
        self._sessions: dict[Session, asyncio.Task[None]] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._endings: set[asyncio.Task[None]] = set()
        self._own: set[asyncio.Task[Any]] = set()
        self._presence: Presence | None = None
        self._ledger: Ledger | None = None
        self._stopped = False

    @classmethod
    async def start(
        cls, providers: Sequence[Provider], settings: Settings, *,
        port: int = 0, named: Sequence[aliases.Alias] = (), relays: Relays = NO_RELAY,
    ) -> HostService:  # fmt: skip
        """Lock the identity, open the endpoint, announce it. ``named``: what models are called.

        Raises a :class:`~qmt_jupyter.errors.ConfigurationError`; the providers stay the
        caller's to close then.
        """
        addresses.reach(settings.interfaces)  # what cannot be is said before anything is locked
        lock = keys.HostLock(settings.host_dir)
        lock.acquire()
        service: HostService | None = None
        try:
            identity = keys.load_or_create(settings.host_dir / "identity.key")
            service = cls(providers, identity, lock)
            await service._open_ledger(settings.host_dir, named)
            service._presence = await Presence.open(identity, settings, port=port, relays=relays)
        except BaseException:
            with anyio.CancelScope(shield=True):
                if service is not None and service._ledger is not None:
                    await service._ledger.close()
            lock.release()
            raise
        service._tasks = [
            asyncio.ensure_future(service._accept()),
            asyncio.ensure_future(service._presence.keep_known()),
            asyncio.ensure_future(service._keep_books()),
        ]
        return service

    async def _open_ledger(self, directory: Path, named: Sequence[aliases.Alias]) -> None:
        now = time.time()
        self._ledger, snapshot = await Ledger.open(directory, self._take_changes, now)
        self._register = Register.from_snapshot(snapshot, wall=now, clock=time.monotonic())
        ledger = self._ledger
        self._usage = UsageBook(
            snapshot.next_request_id,
            write=lambda rows: ledger.write(lambda db: records.put_requests(db, rows)),
            post=lambda rows: ledger.post(lambda db: records.put_requests(db, rows)),
        )
        self._dispatcher = Dispatcher(self._providers, self._register, self._usage, named)
        self._offers = Offers(self._dispatcher.offered, self._dispatcher.loads)
        self.seating = Seating(
            self._identity,
            self._register,
            writer=lambda: self._writer,
            hints=lambda: self.presence.hints,
            sessions=lambda: tuple(self._sessions),
            begin=self._carry_out,
        )

    # What it is ------------------------------------------------------------------------------

    @property
    def peer_id(self) -> str:
        """The host's peer id."""
        return self._identity.peer_id

    @property
    def is_running(self) -> bool:
        """Whether it has not been closed."""
        return not self._stopped

    @property
    def providers(self) -> tuple[Provider, ...]:
        """What produces the tokens."""
        return self._providers

    @property
    def offers(self) -> tuple[Model, ...]:
        """The models offered."""
        return self._dispatcher.offered(UNLIMITED)

    @property
    def models(self) -> tuple[str, ...]:
        """The names of the models offered."""
        return tuple(model.name for model in self.offers)

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where it can be reached now, as ``IP:PORT``."""
        return self.presence.hints.addresses

    @property
    def presence(self) -> Presence:
        """Where it is on the network."""
        assert self._presence is not None
        return self._presence

    def status(self) -> dict[str, Any]:
        """What runs now, as plain values."""
        return {
            "peer_id": self.peer_id,
            "models": list(self.models),
            "slots": sum(each.slots for each in self._providers),
            "device": " and ".join(each.device for each in self._providers),
            "guests": sum(1 for session in self._sessions if session.member),
            "busy": self._dispatcher.busy,
            "waiting": self._dispatcher.waiting,
            **self.presence.status(),
        }

    def usage(self) -> dict[str, Any]:
        """The invites, each with its guests and what they used, as plain values."""
        return usage_report(self._register, self.peer_id, time.time())

    def activity(self) -> dict[str, Any]:
        """What goes on now, as plain values."""
        here = Counter(
            session.member.membership.membership_id for session in self._sessions if session.member
        )
        return activity_report(self._usage, here, self._dispatcher.loads(), time.monotonic())

    @property
    def revocable(self) -> tuple[str, ...]:
        """The ids of invites and memberships that hold. May be read from another thread."""
        return self._register.revocable

    # Invites ---------------------------------------------------------------------------------

    async def invite(self, terms: Terms) -> link.Link:
        """Sign a new invite and record it; the link carries where the host is now as hints."""
        made = sign_invite(self._identity, terms, time.time())
        record = terms.record(made, time.time())
        await self._writer.write(lambda db: records.add_invite(db, record), durable=True)
        self._register.add_invite(record)
        return link.Link(made, self.presence.hints)

    async def revoke(self, text: str) -> dict[str, Any]:
        """Revoke the invite or the guest whose id begins with ``text``, at once and for good.

        Returns its ``id``, whether it is an ``invite`` or a ``guest``, and how many ``guests`` it
        stops. Raises :class:`~qmt_jupyter.errors.OptionInvalid`.
        """
        target, now = self._register.find(text), time.time()
        kind, guests = self._register.describe(target)
        self._take_changes(records.Changes(revoked={target: now}))
        try:
            await self._writer.write(lambda db: records.revoke(db, target, now), durable=True)
        except RecordsUnwritable:
            self._writer.post(lambda db: records.revoke(db, target, now))
            raise RecordsUnwritable(
                "The revocation holds now, but could not be recorded yet.",
                next_step="Free some disk space before the host stops; it is tried again.",
            ) from None
        return {"id": target, "kind": kind, "guests": guests}

    def _take_changes(self, changes: records.Changes) -> None:
        """Know what was added or revoked, here or by another process; who is revoked stops."""
        stopped = set(self._register.apply(changes))
        now = time.time()
        for session in tuple(self._sessions):
            member = session.member
            if member in stopped and member is not None:
                error = member.ended(now) or Revoked("The host has revoked this membership.")
                self._carry_out(session.end(error))

    def _carry_out(self, ending: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(ending)
        self._endings.add(task)
        task.add_done_callback(self._endings.discard)

    @property
    def _writer(self) -> Ledger:
        if self._ledger is None or self._stopped:
            raise Stopped("This host has been stopped.", next_step="Run %qmt_host again.")
        return self._ledger

    async def _admit(self, greeting: messages.Greeting, endpoint_key: bytes) -> Member:
        now = time.time()
        # From here on somebody may have to be stopped at once.
        self._writer.look_every = LOOK_EVERY
        shown = verify(
            greeting.token,
            greeting.statement,
            endpoint_key=endpoint_key,
            host_key=self._identity.public_key,
            now=now,
        )
        wanted = Membership(
            membership_id=str(uuid.uuid4()),
            invite_id=shown.invite.invite_id,
            guest_id=shown.guest_id,
            claimed_name=printable(greeting.name, 64),
            joined_at=now,
        )
        # Once begun it is carried through: the ledger and the host must know the same guests.
        member = await asyncio.shield(asyncio.ensure_future(self._enter(wanted)))
        # All seats of a user count as one guest, with however many identities.
        theirs = sum(each.member.line == member.line for each in self._sessions if each.member)
        if theirs >= MAX_CONNECTIONS_OF_ONE:
            raise Busy(f"This guest has {theirs} connections already.", retry_after=5.0)
        return member

    async def _enter(self, wanted: Membership) -> Member:
        membership = await self._writer.write(lambda db: records.admit(db, wanted), durable=True)
        if not self._register.knows(membership.invite_id):
            # Made by another process a moment ago and not noticed yet, or a seat that a clock which
            # was wrong for a while made look long over.
            made = await self._writer.write(lambda db: records.invite(db, membership.invite_id))
            self._register.add_invite(made)
        return self._register.add_member(membership)

    async def _keep_books(self) -> None:
        """Have running requests written down, and revocations looked for while guests are here."""
        while True:
            await asyncio.sleep(_FLUSH_EVERY)
            self._usage.flush()
            self._usage.look(time.time(), time.monotonic())
            self.seating.forget(time.time())
            if self._ledger is not None:
                self._ledger.look_every = LOOK_EVERY if self._sessions else LOOK_SELDOM

    # Requests --------------------------------------------------------------------------------

    def _respond(
        self, member: Member, asked: messages.Asked, size: int
    ) -> AsyncGenerator[messages.Reply, None]:
        if isinstance(asked, messages.Embed):
            return self._dispatcher.embed(member, asked.body, size)
        return self._dispatcher.answer(member, asked.body, size)

    def answer(self, body: messages.JsonObject) -> AsyncGenerator[messages.Reply, None]:
        """The owner's own request, through the same checks and the same queue as any guest's."""
        return self._owners(self._dispatcher.answer(None, body))

    async def embed(self, body: messages.JsonObject) -> messages.JsonObject:
        """The owner's own embeddings, as an OpenAI response."""
        vectors = EmbeddingList(texts_of(body))
        async with aclosing(self._owners(self._dispatcher.embed(None, body))) as replies:
            async for reply in replies:
                vectors.add(reply)
        return vectors.result()

    async def _owners(
        self, replies: AsyncGenerator[messages.Reply, None]
    ) -> AsyncGenerator[messages.Reply, None]:
        stopped = Stopped("This host has been stopped.", next_step="Run %qmt_host again.")
        task = asyncio.current_task()
        if self._stopped or task is None:
            raise stopped
        self._own.add(task)
        try:
            async with aclosing(replies):
                async for reply in replies:
                    yield reply
        except asyncio.CancelledError:
            if self._stopped:
                raise stopped from None
            raise
        finally:
            self._own.discard(task)

    def _offer(self, member: Member) -> list[messages.ModelOffer]:
        return self._offers.to(member.account.limits, time.monotonic())

    # Connections -----------------------------------------------------------------------------

    async def _accept(self) -> None:
        async for connection in self.presence.endpoint.connections():
            self._show_out_who_does_not_greet()
            if len(self._sessions) >= MAX_CONNECTIONS:
                connection.close(CLOSE_REFUSED, Busy.code)
                continue
            session = Session(
                connection, self._admit, self._offer, self._respond, self.presence.nodes,
                self._usage.meters.not_admitted,
            )  # fmt: skip
            task = asyncio.ensure_future(self._serve(session, connection))
            self._sessions[session] = task

    def _show_out_who_does_not_greet(self) -> None:
        """Keep room for a newcomer: the one that has been silent longest goes first."""
        ungreeted = [session for session in self._sessions if not session.greeted.is_set()]
        if len(ungreeted) >= MAX_UNGREETED or len(self._sessions) >= MAX_CONNECTIONS:
            for session in sorted(ungreeted, key=lambda each: each.began)[:1]:
                self._sessions.pop(session).cancel()

    async def _serve(self, session: Session, connection: Connection) -> None:
        try:
            await session.serve()
        except Exception:
            log.exception("a session failed unexpectedly")
            connection.close(CLOSE_STOPPED)
        finally:
            self._sessions.pop(session, None)

    # The end ---------------------------------------------------------------------------------

    async def close(self, reason: QmtError | None = None) -> None:
        """Tell the guests, close everything and free the identity; safe to call twice."""
        if self._stopped:
            return
        self._stopped = True
        self._dispatcher.stopping = True
        error = reason or Stopped("The host has stopped hosting.")
        with anyio.CancelScope(shield=True):
            with anyio.move_on_after(_STOP_DEADLINE):
                async with anyio.create_task_group() as goodbyes:
                    for session in tuple(self._sessions):
                        goodbyes.start_soon(session.end, error)
            try:
                await self._close_parts()
            finally:
                self._lock.release()

    async def _close_parts(self) -> None:
        tasks = [*self._tasks, *self._endings, *self._sessions.values(), *self._own]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_STOP_DEADLINE)
        # A task that was cancelled holds on to all that it was doing, the sockets included.
        tasks.clear()
        self._tasks.clear()
        self._endings.clear()
        self._own.clear()
        self._sessions.clear()
        if self._presence is not None:
            await self._presence.close()
        for provider in self._providers:
            await provider.aclose()
        if self._ledger is not None:
            await self._ledger.close()
