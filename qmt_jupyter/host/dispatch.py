"""One request on its way through the host: checked, queued, generated, counted."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from ..errors import (
    Busy,
    GenerationFailed,
    ModelNotAllowed,
    ModelUnknown,
    QmtError,
    RecordsUnwritable,
    Revoked,
)
from ..providers.base import Model, Provider
from ..wire.messages import JsonObject, Queued, Reply, Started
from . import allowlist
from .account import Account, Grant
from .aliases import Alias
from .guesses import guessed_tokens, guessed_tokens_of_texts
from .lanes import Lane, Lanes
from .limits import UNLIMITED, Limits
from .membership import Member, Register
from .queue import Ticket
from .replies import chat_replies, embedding_replies
from .rows import CANCELLED, COMPLETED, EXPIRED, FAILED, PAUSED, REFUSED, REVOKED, STOPPED
from .usage import OWNER, RequestUsage, UsageBook

# Where a model does not say its context, a budget reserves this for an answer without a limit.
_UNKNOWN_CONTEXT = 4096
_LEARNING = 0.1

Replies = Callable[[Started, Grant, RequestUsage], AsyncGenerator[Reply, None]]


@dataclass(frozen=True)
class _Work:
    """A request whose parameters are checked, for the model ``name`` of a lane.

    ``prompt`` tokens are guessed, ``wanted`` asked for in the answer (None: not said), ``longest``
    can be given (0: there is no answer of tokens). ``replies`` has the provider begin.
    """

    name: str
    own: str
    lane: Lane
    prompt: int
    wanted: int | None
    longest: int
    replies: Replies


class Dispatcher:
    """Runs requests on providers. Who asks has been checked before it gets here."""

    def __init__(
        self,
        providers: Sequence[Provider],
        register: Register,
        usage: UsageBook,
        aliases: Sequence[Alias] = (),
    ) -> None:
        self._lanes = Lanes(providers, aliases)
        self._register = register
        self._usage = usage
        self._own = Account()
        self._typical = 128.0  # tokens of an answer, learned
        self.stopping = False

    @property
    def waiting(self) -> int:
        """How many requests wait for a slot."""
        return self._lanes.waiting

    @property
    def busy(self) -> int:
        """How many requests run or wait."""
        return self._lanes.busy

    def loads(self) -> dict[str, tuple[int, int]]:
        """Of each model: how many requests run side by side, and how many run or wait now."""
        return self._lanes.loads()

    def offered(self, limits: Limits) -> tuple[Model, ...]:
        """The models that these limits leave."""
        return tuple(model for model in self._lanes.models if limits.allows(model.name))

    def answer(
        self, member: Member | None, body: JsonObject, size: int = 0
    ) -> AsyncGenerator[Reply, None]:
        """One chat's replies in the exchange's order, numbers left at 0.

        ``member`` asks (None: the owner), with a request of ``size`` bytes. Closing the generator
        stops the engine and frees the slot. Raises a :class:`~qmt_jupyter.errors.QmtError`, or
        what the provider did.
        """
        return self._serve(member, size, lambda: self._chat(member, body))

    def embed(
        self, member: Member | None, body: JsonObject, size: int = 0
    ) -> AsyncGenerator[Reply, None]:
        """The same for embeddings: vectors instead of deltas."""
        return self._serve(member, size, lambda: self._embedding(member, body))

    def _chat(self, member: Member | None, body: JsonObject) -> _Work:
        request = allowlist.checked(body)
        name, lane, model = self._model(request.pop("model", None), member, "chats")
        wanted = _wanted(request)

        def replies(
            started: Started, grant: Grant, counted: RequestUsage
        ) -> AsyncGenerator[Reply, None]:
            if grant.answer_limit is not None:
                request.pop("max_completion_tokens", None)
                request["max_tokens"] = grant.answer_limit
            return chat_replies(lane.provider.chat(model.name, request), started, grant, counted)

        longest = model.context or max(wanted or 0, _UNKNOWN_CONTEXT)
        return _Work(name, model.name, lane, guessed_tokens(request), wanted, longest, replies)

    def _embedding(self, member: Member | None, body: JsonObject) -> _Work:
        request = allowlist.checked_embeddings(body)
        name, lane, model = self._model(request.pop("model", None), member, "embeds")
        texts = request["input"]

        def replies(
            started: Started, grant: Grant, counted: RequestUsage
        ) -> AsyncGenerator[Reply, None]:
            vectors = lane.provider.embed(model.name, request)
            return embedding_replies(vectors, texts, started, grant, counted)

        return _Work(name, model.name, lane, guessed_tokens_of_texts(texts), 0, 0, replies)

    async def _serve(
        self, member: Member | None, size: int, checked: Callable[[], _Work]
    ) -> AsyncGenerator[Reply, None]:
        model = ""
        try:
            work = checked()
            model, lane = work.name, work.lane
            clock, wall = time.monotonic(), time.time()
            account = member.account if member else self._own
            grant = account.begin(
                prompt=work.prompt, wanted=work.wanted, longest=work.longest, now=clock, wall=wall
            )
            line = member.line if member else OWNER
            expected = 0
            if work.longest:
                expected = int(min(grant.answer_limit or self._typical, self._typical))
            try:
                ticket = lane.queue.enter(
                    line, work.prompt + expected, size, clock, weight=account.weight
                )
            except Busy:
                grant.withdraw(clock)
                raise
        except QmtError as error:
            self._usage.meters.refused(model, error.code)
            raise
        counted = self._usage.begin(
            member.membership.membership_id if member else None,
            member.usage if member else self._register.owner,
            grant,
            work.name,
            wall,
            clock,
        )
        how, code = CANCELLED, ""
        try:
            try:
                async for queued in _waited_for(ticket):
                    yield queued
                counted.has_slot(time.monotonic())
                # Nobody is served who is not in the books.
                await counted.recorded
                started = Started(
                    id=f"chatcmpl-{uuid.uuid4().hex}", model=work.name, created=int(time.time())
                )
                async with aclosing(work.replies(started, grant, counted)) as replies:
                    async for reply in replies:
                        yield reply
            finally:
                lane.queue.leave(ticket, time.monotonic(), counted.tokens)
            how = COMPLETED
            if work.longest:
                self._typical += _LEARNING * (grant.streamed - self._typical)
        except (Busy, RecordsUnwritable) as error:
            how, code = FAILED if counted.has_begun else REFUSED, error.code
            raise
        except QmtError as error:
            how, code = FAILED, error.code
            own = work.own
            if own == work.name or own not in error.sentence:
                raise
            # An upstream's words may name the model as it is called there.
            raise type(error)(
                error.sentence.replace(own, work.name),
                next_step=error.next_step,
                retry_after=error.retry_after,
            ) from None
        except Exception:
            how, code = FAILED, GenerationFailed.code
            raise
        finally:
            if how == CANCELLED:
                how = self._why_cancelled(member)
            if how == REFUSED:
                grant.withdraw(time.monotonic())
            counted.end(how, time.time(), time.monotonic(), code)

    def _why_cancelled(self, member: Member | None) -> str:
        ended = member.ended(time.time()) if member else None
        if ended is not None:
            return REVOKED if isinstance(ended, Revoked) else EXPIRED
        if member is not None and member.account.is_paused:
            return PAUSED
        return STOPPED if self.stopping else CANCELLED

    def _model(
        self, wanted: str | None, member: Member | None, purpose: str
    ) -> tuple[str, Lane, Model]:
        """What answers to a name (None: the first that is for this ``purpose``)."""
        limits = member.account.limits if member else UNLIMITED
        offered = [model for model in self.offered(limits) if getattr(model, purpose)]
        names = [model.name for model in offered]
        if wanted is None and names:
            return (names[0], *self._lanes.find(names[0]))
        if wanted is not None and (meant := self._lanes.meant(wanted, names)) is not None:
            return (meant, *self._lanes.find(meant))
        listed, what = ", ".join(names) or "none", repr(str(wanted)[:80])
        if purpose == "embeds":
            raise ModelUnknown(
                "The host offers no model that makes embeddings."
                if wanted is None
                else f"The host has no model {what} that makes embeddings; it offers {listed}."
            )
        if limits.models:
            raise ModelNotAllowed(
                f"The invite does not include a model {what}; it includes {listed}."
            )
        raise ModelUnknown(f"The host has no model {what}; it offers {listed}.")


async def _waited_for(ticket: Ticket) -> AsyncGenerator[Queued, None]:
    """Positions, until the ticket has its slot. Raises :class:`~qmt_jupyter.errors.Busy`."""
    told: int | None = None
    while not ticket.has_slot:
        if ticket.pushed_out:
            raise Busy(
                "The host's queue is full, and most of what waits there is this guest's.",
                retry_after=5.0,
            )
        if ticket.position != told:
            told = ticket.position
            yield Queued(position=told)
        await ticket.changed()


def _wanted(request: dict[str, Any]) -> int | None:
    asked = [request[k] for k in ("max_completion_tokens", "max_tokens") if k in request]
    return min(asked) if asked else None
