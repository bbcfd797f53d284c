"""A host: one identity, one endpoint, one provider, and the sessions of its guests."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import anyio

from ..errors import Busy, QmtError, Stopped
from ..identity import keys, link
from ..mesh import addresses, lan
from ..mesh.endpoint import CLOSE_REFUSED, CLOSE_STOPPED, Connection, Endpoint
from ..providers.base import Provider
from ..settings import Settings
from ..wire import messages
from .dispatch import Dispatcher
from .granting import ReachFile, Terms, sign_invite
from .membership import Memberships
from .session import Session
from .usage import OWNER, UsageBook

MAX_CONNECTIONS = 1024
MAX_UNGREETED = 128
_STOP_DEADLINE = 3.0

log = logging.getLogger(__name__)


class HostService:
    """A running host. Everything here happens in one event loop."""

    def __init__(
        self, provider: Provider, identity: keys.Identity, lock: keys.HostLock, directory: Path
    ) -> None:
        self._provider = provider
        self._identity = identity
        self._lock = lock
        self._memberships = Memberships(identity.public_key)
        self._usage = UsageBook()
        self._dispatcher = Dispatcher(provider, self._usage)
        self._sessions: dict[Session, asyncio.Task[None]] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._endpoint: Endpoint | None = None
        self._reach = addresses.Reach((), (), restricted=False)
        self._lan_state = "starting"
        self._reach_file = ReachFile(directory)
        self._stopped = False

    @classmethod
    async def start(cls, provider: Provider, settings: Settings, *, port: int = 0) -> HostService:
        """Lock the identity, open the endpoint and announce it.

        Raises a :class:`~qmt_jupyter.errors.ConfigurationError`; the provider stays the
        caller's to close then.
        """
        reach = addresses.reach(settings.interfaces)
        lock = keys.HostLock(settings.host_dir)
        lock.acquire()
        try:
            identity = keys.load_or_create(settings.host_dir / "identity.key")
            service = cls(provider, identity, lock, settings.host_dir)
            service._reach = reach
            service._endpoint = await Endpoint.bind(
                identity.seed, reach, port=port, alpns=(messages.ALPN,)
            )
            service._reach_file.write(service.addresses)
        except BaseException:
            lock.release()
            raise
        service._tasks = [
            asyncio.ensure_future(service._accept()),
            asyncio.ensure_future(service._announce()),
        ]
        return service

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
    def provider(self) -> Provider:
        """What produces the tokens."""
        return self._provider

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where it can be reached now, as ``IP:PORT``."""
        if self._endpoint is None:
            return ()
        v4_port, v6_port = self._endpoint.ports
        v4 = [f"{address}:{v4_port}" for address in self._reach.v4]
        v6 = [f"[{address}]:{v6_port}" for address in self._reach.v6] if v6_port else []
        return tuple(v4 + v6)

    @property
    def loopback_only(self) -> bool:
        """Whether only this machine itself can come in."""
        return self._reach.loopback_only

    @property
    def lan_state(self) -> str:
        """``announced``, ``starting``, or why multicast DNS does not work."""
        return self._lan_state

    def status(self) -> dict[str, Any]:
        """What runs now, as plain values."""
        return {
            "peer_id": self.peer_id,
            "models": [model.name for model in self._provider.models],
            "slots": self._provider.slots,
            "device": self._provider.device,
            "guests": sum(1 for session in self._sessions if session.membership),
            "waiting": self._dispatcher.waiting,
            "addresses": list(self.addresses),
            "lan": self._lan_state,
        }

    def usage(self) -> dict[str, Any]:
        """The invites, each with its guests and what they used, as plain values."""
        invites = []
        for granted in self._memberships.invites:
            guests = [
                {
                    "membership": member.membership_id,
                    "peer_id": member.guest_id,
                    "claimed_name": member.claimed_name,
                    "joined_at": member.joined_at,
                    **self._usage.of(member.membership_id).as_dict(),
                }
                for member in self._memberships.members_of(granted.invite_id)
            ]
            invites.append(
                {
                    "invite_id": granted.invite_id,
                    "name": granted.name,
                    "expires_at": granted.expires_at or None,
                    "max_uses": granted.max_uses,
                    "uses": len(guests),
                    "guests": guests,
                }
            )
        return {"peer_id": self.peer_id, "invites": invites, "own": self._usage.of(OWNER).as_dict()}

    # Invites ---------------------------------------------------------------------------------

    def invite(self, terms: Terms) -> link.Link:
        """Sign a new invite; the link carries where the host is now as hints."""
        made = sign_invite(self._identity, terms, time.time())
        self._memberships.record(made)
        return link.Link(made, link.Hints(addresses=self.addresses[: link.MAX_ADDRESSES]))

    # Requests --------------------------------------------------------------------------------

    def answer(self, body: messages.JsonObject) -> AsyncGenerator[messages.Reply, None]:
        """The owner's own request, through the same checks and the same queue as any guest's."""
        if self._stopped:
            raise Stopped("This host has been stopped.", next_step="Run %qmt_host again.")
        return self._dispatcher.answer(OWNER, body)

    def _offer(self) -> list[messages.ModelOffer]:
        return [
            messages.ModelOffer(name=model.name, context=model.context)
            for model in self._provider.models
        ]

    # Connections -----------------------------------------------------------------------------

    async def _accept(self) -> None:
        assert self._endpoint is not None
        async for connection in self._endpoint.connections():
            ungreeted = sum(1 for session in self._sessions if not session.greeted.is_set())
            if len(self._sessions) >= MAX_CONNECTIONS or ungreeted >= MAX_UNGREETED:
                connection.close(CLOSE_REFUSED, Busy.code)
                continue
            session = Session(connection, self._memberships, self._offer, self._dispatcher.answer)
            task = asyncio.ensure_future(self._serve(session, connection))
            self._sessions[session] = task

    async def _serve(self, session: Session, connection: Connection) -> None:
        try:
            await session.serve()
        except Exception:
            log.exception("a session failed unexpectedly")
            connection.close(CLOSE_STOPPED)
        finally:
            self._sessions.pop(session, None)

    async def _announce(self) -> None:
        assert self._endpoint is not None
        try:
            async with lan.Lan(self._reach) as network:
                await network.announce(self.peer_id, *self._endpoint.ports)
                self._lan_state = "announced"
                await asyncio.Event().wait()
        except lan.LanUnavailable as error:
            self._lan_state = str(error)
            log.warning("multicast DNS does not work here: %s", error)

    # The end ---------------------------------------------------------------------------------

    async def close(self, reason: QmtError | None = None) -> None:
        """Tell the guests, close everything and free the identity; safe to call twice."""
        if self._stopped:
            return
        self._stopped = True
        error = reason or Stopped("The host has stopped hosting.")
        with anyio.CancelScope(shield=True):
            with anyio.move_on_after(_STOP_DEADLINE):
                async with anyio.create_task_group() as goodbyes:
                    for session in tuple(self._sessions):
                        goodbyes.start_soon(session.end, error)
            tasks = [*self._tasks, *self._sessions.values()]
            for task in tasks:
                task.cancel()
            if tasks:
                await asyncio.wait(tasks, timeout=_STOP_DEADLINE)
            if self._endpoint is not None:
                await self._endpoint.close()
            await self._provider.aclose()
            self._reach_file.remove()
            self._lock.release()
