"""One request on its way through the host: checked, queued, generated, counted."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

from ..errors import (
    Busy,
    GenerationFailed,
    ModelNotAllowed,
    ModelUnknown,
    RecordsUnwritable,
    Revoked,
)
from ..providers.base import Chunk, Model, Provider
from ..wire.messages import Delta, Done, JsonObject, Queued, Reply, Started, Usage, encoded_size
from . import allowlist
from .account import Account, Grant
from .lanes import Lanes
from .limits import UNLIMITED, Limits
from .membership import Member, Register
from .queue import Ticket
from .rows import CANCELLED, COMPLETED, EXPIRED, FAILED, REFUSED, REVOKED, STOPPED
from .usage import OWNER, RequestUsage, UsageBook, whole_count

# Where a model does not say its context, a budget reserves this for an answer without a limit.
_UNKNOWN_CONTEXT = 4096
# A careful guess: English takes four bytes a token, Chinese three, and each message a few more.
_BYTES_PER_TOKEN = 3
_TOKENS_PER_MESSAGE = 8
_TOKENS_PER_IMAGE = 1000
_LEARNING = 0.1


class Dispatcher:
    """Runs requests on providers. Who asks has been checked before it gets here."""

    def __init__(self, providers: Sequence[Provider], register: Register, usage: UsageBook) -> None:
        self._lanes = Lanes(providers)
        self._register = register
        self._usage = usage
        self._own = Account()
        self._typical = 128.0  # tokens of an answer, learned
        self.stopping = False

    @property
    def waiting(self) -> int:
        """How many requests wait for a slot."""
        return self._lanes.waiting

    def offered(self, limits: Limits) -> tuple[Model, ...]:
        """The models that these limits leave."""
        return tuple(model for model in self._lanes.models if limits.allows(model.name))

    async def answer(
        self, member: Member | None, body: JsonObject, size: int = 0
    ) -> AsyncGenerator[Reply, None]:
        """Replies in the exchange's order, deltas without their numbers (they are all 0).

        ``member`` asks (None: the owner), with a request of ``size`` bytes. Closing the generator
        stops the engine and frees the slot. Raises a :class:`~qmt_jupyter.errors.QmtError`, or
        what the provider did.
        """
        request = allowlist.checked(body)
        limits = member.granted.record.limits if member else UNLIMITED
        name = self._model(request.pop("model", None), limits)
        lane, model = self._lanes.find(name)
        clock, prompt, wanted = time.monotonic(), guessed_tokens(request), _wanted(request)
        account = member.account if member else self._own
        grant = account.begin(
            prompt=prompt,
            wanted=wanted,
            longest=model.context or max(wanted or 0, _UNKNOWN_CONTEXT),
            now=clock,
        )
        guest = member.membership.guest_id if member else OWNER
        expected = int(min(grant.answer_limit or self._typical, self._typical))
        try:
            ticket = lane.queue.enter(guest, prompt + expected, size, clock)
        except Busy:
            grant.withdraw(clock)
            raise
        counted = self._usage.begin(
            member.membership.membership_id if member else None,
            member.usage if member else self._register.owner,
            grant,
            name,
            time.time(),
            clock,
        )
        how = CANCELLED
        try:
            if grant.answer_limit is not None:
                request.pop("max_completion_tokens", None)
                request["max_tokens"] = grant.answer_limit
            try:
                async for queued in _waited_for(ticket):
                    yield queued
                # Nobody is served who is not in the books.
                await counted.recorded
                started = Started(
                    id=f"chatcmpl-{uuid.uuid4().hex}", model=name, created=int(time.time())
                )
                chunks = lane.provider.chat(model.name, request)
                async with aclosing(_replies(chunks, started, grant, counted)) as replies:
                    async for reply in replies:
                        yield reply
            finally:
                lane.queue.leave(ticket, time.monotonic(), counted.tokens)
            how = COMPLETED
            self._typical += _LEARNING * (grant.streamed - self._typical)
        except (Busy, RecordsUnwritable):
            how = FAILED if counted.has_begun else REFUSED
            raise
        except Exception:
            how = FAILED
            raise
        finally:
            if how == CANCELLED:
                how = self._why_cancelled(member)
            if how == REFUSED:
                grant.withdraw(time.monotonic())
            counted.end(how, time.time(), time.monotonic())

    def _why_cancelled(self, member: Member | None) -> str:
        ended = member.ended(time.time()) if member else None
        if ended is not None:
            return REVOKED if isinstance(ended, Revoked) else EXPIRED
        return STOPPED if self.stopping else CANCELLED

    def _model(self, wanted: str | None, limits: Limits) -> str:
        offered = [model.name for model in self.offered(limits)]
        if wanted is None and offered:
            return offered[0]
        if wanted in offered:
            return str(wanted)
        listed = ", ".join(offered) or "none"
        if limits.models:
            raise ModelNotAllowed(
                f"The invite does not include a model {str(wanted)[:80]!r}; it includes {listed}."
            )
        raise ModelUnknown(f"The host has no model {str(wanted)[:80]!r}; it offers {listed}.")


async def _replies(
    chunks: AsyncGenerator[Chunk, None], started: Started, grant: Grant, counted: RequestUsage
) -> AsyncGenerator[Reply, None]:
    """What a provider yields as replies, counted; the answer starts with its first sign of life."""
    finish_reason = ""
    settled: Usage | None = None
    async with aclosing(chunks):
        async for chunk in chunks:
            if (wait := chunk.get("wait")) is not None:
                yield Queued(position=0, wait=round(wait, 1))
                continue
            known = whole_count(chunk.get("prompt_tokens"))
            if known is not None:
                grant.know_prompt(known, time.monotonic())
            if not counted.has_begun:
                counted.started(time.monotonic())
                yield started
            if known is not None:
                counted.prompt(known)
            choices = chunk.get("choices")
            if choices:
                if any(_carries(each.get("delta")) for each in choices):
                    if grant.answer_limit is not None and grant.streamed >= grant.answer_limit:
                        finish_reason = grant.cut_by
                        yield Delta(seq=0, choices=[_cut(grant.cut_by)])
                        break
                    counted.piece(time.monotonic(), whole_count(chunk.get("tokens")))
                finish_reason = choices[0].get("finish_reason") or finish_reason
                if finish_reason == "length" and grant.cut_by != "length":
                    finish_reason = choices[0]["finish_reason"] = grant.cut_by
                yield Delta(seq=0, choices=choices)
            if chunk.get("usage"):
                settled = Usage(usage=chunk["usage"], timings=chunk.get("timings"))
    if settled is not None:
        counted.settle(settled.usage)
        yield settled
    elif finish_reason:
        yield Usage(usage=counted.as_openai())
    if not finish_reason:
        raise GenerationFailed("The engine ended the answer without saying why.")
    yield Done(finish_reason=finish_reason)


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


def _carries(delta: Any) -> bool:
    """Whether a delta has anything of the answer, and not just the role."""
    return bool(delta) and any(value for key, value in delta.items() if key != "role")


def _cut(reason: str) -> JsonObject:
    return {"index": 0, "delta": {}, "finish_reason": reason}


def _wanted(request: dict[str, Any]) -> int | None:
    asked = [request[k] for k in ("max_completion_tokens", "max_tokens") if k in request]
    return min(asked) if asked else None


def guessed_tokens(request: dict[str, Any]) -> int:
    """How many tokens a request's prompt may have: rather too many than too few."""
    size = images = 0
    for message in request["messages"]:
        content = message.get("content")
        if isinstance(content, str):
            size += len(content.encode("utf-8", "replace"))
        elif isinstance(content, list):
            for part in content:
                if part["type"] == "text":
                    size += len(part["text"].encode("utf-8", "replace"))
                else:
                    images += 1
        if message.get("tool_calls"):
            size += encoded_size(message)
    for name in ("tools", "response_format"):
        if name in request:
            size += encoded_size({name: request[name]})
    messages = len(request["messages"]) + 2
    return size // _BYTES_PER_TOKEN + messages * _TOKENS_PER_MESSAGE + images * _TOKENS_PER_IMAGE
