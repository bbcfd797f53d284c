"""The link to one host: found, greeted, asked, watched, and found again when it is lost."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

import anyio

from .. import errors
from ..errors import HostGone, HostNotFound, MeshError, QmtError, TooManyAtOnce
from ..harmless import printable
from ..identity import keys
from ..identity.link import Link
from ..identity.peer_id import short
from ..mesh.ending import end
from ..mesh.endpoint import CLOSE_NORMAL, TransportError
from ..mesh.locate import DEADLINE
from ..mesh.path import Path
from ..wire import messages
from ..wire.frames import FrameError
from .asking import ask_frame
from .finding import Finder
from .greeting import greet
from .link_facts import link_facts, path_facts
from .live import LOOK_EVERY, Clocks, Live
from .load import HostLoad
from .refusal import from_remote
from .returning import LONGEST_PAUSE, Away, Backoff, is_worth_waiting, may_pass

Refresh = Callable[["HostLink"], Awaitable[bool]]
# Seconds for a search whose link a service would renew, but does not answer.
_WITH_AN_OLD_LINK = 3.0

log = logging.getLogger(__name__)


class HostLink:
    """One host, by one invite. Once admitted it comes back by itself after every loss.

    ``refresh``, awaited before each search, may :meth:`renew` it; it says if that is the newest.
    """

    def __init__(
        self,
        identity: keys.Identity,
        granted: Link,
        finder: Finder,
        name: str = "",
        refresh: Refresh | None = None,
    ) -> None:
        self._identity = identity
        self._name = name
        self._link = granted
        self._finder = finder
        self._live: Live | None = None
        self._models: list[messages.ModelOffer] = []
        self._limits = messages.Limits()
        self._standing = messages.Standing()
        self._keeper: asyncio.Task[None] | None = None
        self._closed = False
        self._refresh = refresh
        self._final: QmtError | None = None
        self.over: QmtError | None = None  # why it does not come back by itself
        self.load = HostLoad()
        self._looking = asyncio.Lock()
        self._search: anyio.CancelScope | None = None
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

    @property
    def is_returning(self) -> bool:
        """Whether it is lost, and looked for in the background."""
        return not self.is_connected and self._keeper is not None and not self._keeper.done()

    @property
    def rtt_ms(self) -> float | None:
        """The round trip in milliseconds; None while there is no connection."""
        return None if self._path is None else self._path.rtt_ms

    @property
    def _path(self) -> Path | None:
        return self._live.connection.path if self._live and self.is_connected else None

    def status(self) -> dict[str, Any]:
        """The link as plain values; round trip in milliseconds."""
        return {
            **link_facts(self._link.invite, self._limits, self._standing),
            "connected": self.is_connected,
            "returning": self.is_returning,
            **path_facts(self._path),
            "models": [offer.name for offer in self._models],
            "running": len(self._live.flows) if self._live else 0,
            "waiting": sorted(self._live.positions.values()) if self._live else [],
        }

    # Its invite ------------------------------------------------------------------------------

    def require_unexpired(self) -> None:
        """Raises :class:`~qmt_jupyter.errors.InviteExpired` where the invite has ended."""
        self._link.invite.require_unexpired(time.time())

    def renew(self, granted: Link) -> None:
        """Take a newer link to the same host, for the next time it is looked for.

        A connection goes on. Raises :class:`ValueError` where it is another host's.
        """
        if granted.invite.peer_id != self.host_id:
            raise ValueError("a link to another host renews nothing")
        self._link = granted

    @property
    def is_concluded(self) -> bool:
        """Whether :meth:`conclude` or :meth:`close` has ended it for good."""
        return self._closed or self._final is not None

    def conclude(self, why: QmtError) -> None:
        """End the connection, and what runs on it, with ``why``; it never comes back."""
        self._final = self.over = why
        if self._live is not None:
            self._live.ended = why
            self._live.connection.close(CLOSE_NORMAL)

    # Connecting ----------------------------------------------------------------------------

    async def connect(self, deadline: float = DEADLINE) -> None:
        """Be connected and admitted within ``deadline`` seconds, and from then on stay so.

        The invite's expiry is checked before anything leaves this machine. Raises an
        :class:`~qmt_jupyter.errors.InviteError`, a :class:`~qmt_jupyter.errors.MeshError`, a
        :class:`~qmt_jupyter.errors.Refused` or a
        :class:`~qmt_jupyter.errors.ConfigurationError`.
        """
        asked = time.monotonic()
        async with self._looking:
            if self._failed is not None and self._failed[0] > asked and not self.is_connected:
                # Somebody has looked meanwhile: the next in line need not look as long again.
                raise copy.copy(self._failed[1])
            try:
                with anyio.CancelScope() as self._search:
                    await self._connect(deadline)
            except MeshError as error:
                self._failed = (time.monotonic(), error)
                raise
            finally:
                search, self._search = self._search, None
            if search is not None and search.cancelled_caught:
                raise errors.NotJoined("This mesh has been left.")

    def _require_open(self) -> None:
        if self._closed:
            raise errors.NotJoined("This mesh has been left.")
        if self._final is not None:
            raise copy.copy(self._final)

    async def _connect(self, deadline: float) -> None:
        if self.is_connected:
            return
        await self._drop()
        self._require_open()
        started = time.monotonic()
        patience = deadline
        if self._refresh is not None:
            newest = await self._refresh(self)
            self._require_open()
            patience = max(deadline - (time.monotonic() - started), 0.1)
            patience = patience if newest else min(patience, _WITH_AN_OLD_LINK)
        self.require_unexpired()
        endpoint, connection = await self._finder.find(self._link, patience)
        try:
            remaining = max(1.0, deadline - (time.monotonic() - started))
            with anyio.fail_after(remaining):
                control, welcome = await greet(
                    self._identity, self._link, self._name, endpoint, connection
                )
        except BaseException as error:
            with anyio.CancelScope(shield=True):
                await endpoint.close()
            if isinstance(error, TimeoutError):
                raise HostNotFound(
                    f"The host {short(self.host_id)} answered but did not greet in time."
                ) from None
            raise
        self._begin(Live(endpoint, connection, control), welcome)
        try:
            self._require_open()
        except QmtError:
            # Left while this was under way.
            await self._drop()
            raise

    def _begin(self, live: Live, welcome: messages.Welcome) -> None:
        self._take_models(welcome.models)
        self._limits, self._standing = welcome.limits, welcome.standing
        path = live.connection.path
        place = path.address if path is not None and path.direct else ""
        self._finder.welcomed(self._link, welcome, place)
        live.tasks = [
            asyncio.ensure_future(self._read_control(live)),
            asyncio.ensure_future(live.watch(self._finder, self._link)),
        ]
        self._live, self.over = live, None
        if self._keeper is None or self._keeper.done():
            self._keeper = asyncio.ensure_future(self._stay())

    def _take_models(self, offered: list[messages.ModelOffer]) -> None:
        # These names are shown to people and asked for by name, so they cannot be cleaned.
        self._models = [offer for offer in offered if offer.name.isprintable()]
        self.load.told(self._models)

    async def _read_control(self, live: Live) -> None:
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

    # Coming back -----------------------------------------------------------------------------

    async def _stay(self) -> None:
        """Find the host again after every loss, until it says no or the link is left."""
        backoff = Backoff()
        while not self._closed:
            live = self._live
            if live is not None and self.is_connected:
                began = time.monotonic()
                await asyncio.wait(live.tasks[1:])
                live.connection.close(CLOSE_NORMAL)  # nobody watches it any more
                if time.monotonic() - began > LONGEST_PAUSE:
                    # It held; a host that shows its guests out at once is not asked ever faster.
                    backoff.reset()
                if live.ended is not None and not self._may_come_back(live.ended):
                    self.over = live.ended
                    return
            if self.is_connected or self._closed:
                continue
            await self._rest(backoff.pause())
            try:
                await self.connect()
            except QmtError as error:
                log.info("the host %s is not back: %s", short(self.host_id), error.sentence)
                if not self._may_come_back(error):
                    self.over = error
                    return
            except Exception:
                log.exception("looking for the host %s failed", short(self.host_id))

    def _may_come_back(self, error: QmtError) -> bool:
        return self._final is None and may_pass(error, renewed=self._refresh is not None)

    async def _rest(self, seconds: float) -> None:
        """A pause that ends early when this machine is somewhere else, or has slept."""
        before, clocks = self._finder.here(), Clocks()
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0 and not self.is_connected:
            await asyncio.sleep(min(left, LOOK_EVERY))
            if self._finder.here() != before or clocks.have_slept():
                return

    async def be_back(self, until: float) -> None:
        """Be connected before the clock says ``until``; raises why it cannot be."""
        backoff = Backoff(longest=4.0)
        while True:
            left = until - time.monotonic()
            try:
                # The lock may be held by the search in the background.
                with anyio.fail_after(max(left, 0.0)):
                    return await self.connect(max(min(left, DEADLINE), 0.1))
            except TimeoutError:
                raise HostNotFound(
                    f"The host {short(self.host_id)} did not come back in time.",
                    next_step=HostGone.default_next_step,
                ) from None
            except QmtError as error:
                pause = backoff.pause()
                worth = is_worth_waiting(error, renewed=self._refresh is not None)
                if self._final or not worth or time.monotonic() + pause > until:
                    raise
            await asyncio.sleep(pause)

    # Asking ----------------------------------------------------------------------------------

    async def ask(
        self,
        body: messages.JsonObject,
        kind: type[messages.Asked] = messages.Ask,
        *,
        patience: float = 0.0,
    ) -> AsyncGenerator[messages.Reply | Away, None]:
        """One request's replies, without beats. Closing the generator cancels it.

        ``kind`` says what ``body`` asks for: :class:`~.messages.Ask` or :class:`~.messages.Embed`.

        A host that is away is looked for once. With ``patience`` it is waited for, up to so many
        seconds in all, and asked again if it was lost before its answer had begun; an
        :class:`~.returning.Away` says so first.

        Raises a :class:`~qmt_jupyter.errors.Refused`, a
        :class:`~qmt_jupyter.errors.ProviderError` or a :class:`~qmt_jupyter.errors.MeshError`.
        """
        frame = ask_frame(body, kind)
        until = time.monotonic() + patience
        lost = False
        backoff = Backoff(longest=4.0)
        while True:
            if not self.is_connected:
                if self._closed:
                    raise errors.NotJoined("This mesh has been left.")
                if patience:
                    yield Away(self.host_id, max(until - time.monotonic(), 0.0))
                    await self.be_back(until)
                else:
                    await self.connect()
            begun = False
            try:
                async with aclosing(self._ask_once(frame)) as replies:
                    async for reply in replies:
                        begun = begun or not isinstance(reply, messages.Queued)
                        yield reply
                return
            except HostGone:
                if begun or self.is_connected or time.monotonic() >= until:
                    raise
                if lost:
                    # A host that loses every request is not come back to ever faster.
                    await asyncio.sleep(min(backoff.pause(), until - time.monotonic()))
                lost = True
            except TooManyAtOnce:
                # The host has not noticed yet that the request before the loss has nobody left.
                if not lost or time.monotonic() >= until:
                    raise
                await asyncio.sleep(1.0)

    def _ask_once(self, frame: bytes) -> AsyncGenerator[messages.Reply, None]:
        assert self._live is not None
        return self._live.ask(frame, self.host_id)

    # Leaving ---------------------------------------------------------------------------------

    async def _drop(self) -> None:
        live, self._live = self._live, None
        if live is None:
            return
        live.connection.close(CLOSE_NORMAL)
        await end(live.tasks)
        # A task that was cancelled holds on to all that it was doing, the sockets included.
        live.tasks.clear()
        await live.endpoint.close()

    async def close(self) -> None:
        """Leave: end what runs and close the connection; safe to call twice."""
        self._closed = True
        if self._search is not None:
            self._search.cancel()
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            await end([keeper])
        await self._drop()
