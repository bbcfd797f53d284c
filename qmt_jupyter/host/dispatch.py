"""One request on its way through the host: checked, queued, generated, counted."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from ..errors import GenerationFailed, ModelUnknown
from ..providers.base import Provider
from ..wire.messages import Delta, Done, JsonObject, Queued, Reply, Started, Usage
from . import allowlist
from .queue import SlotQueue
from .usage import RequestUsage, UsageBook


class Dispatcher:
    """Runs requests on a provider. Who asks has been checked before it gets here."""

    def __init__(self, provider: Provider, usage: UsageBook) -> None:
        self._provider = provider
        self._usage = usage
        self._queue = SlotQueue(provider.slots)

    @property
    def waiting(self) -> int:
        """How many requests wait for a slot."""
        return self._queue.waiting

    async def answer(self, member: str, body: JsonObject) -> AsyncGenerator[Reply, None]:
        """Replies in the exchange's order, deltas without their numbers (they are all 0).

        ``member`` is whom the usage is counted for. Closing the generator stops the engine and
        frees the slot. Raises a :class:`~qmt_jupyter.errors.QmtError`, or what the provider did.
        """
        request = allowlist.checked(body)
        model = self._model(request.pop("model", None))
        counted = self._usage.begin(member, time.time())
        how = "cancelled"
        try:
            ticket = self._queue.enter()
            try:
                if not ticket.has_slot:
                    yield Queued(position=ticket.position)
                    while not ticket.has_slot:
                        await ticket.changed()
                        if not ticket.has_slot:
                            yield Queued(position=ticket.position)
                yield Started(
                    id=f"chatcmpl-{uuid.uuid4().hex}", model=model, created=int(time.time())
                )
                async with aclosing(self._generate(model, request, counted)) as replies:
                    async for reply in replies:
                        yield reply
            finally:
                self._queue.leave(ticket)
            how = "completed"
        except Exception:
            how = "failed"
            raise
        finally:
            counted.end(how, time.time())

    async def _generate(
        self, model: str, request: dict[str, Any], counted: RequestUsage
    ) -> AsyncGenerator[Reply, None]:
        finish_reason = ""
        settled: Usage | None = None
        async with aclosing(self._provider.chat(model, request)) as chunks:
            async for chunk in chunks:
                choices = chunk.get("choices")
                if choices:
                    if any(each.get("delta") for each in choices):
                        counted.piece()
                    finish_reason = choices[0].get("finish_reason") or finish_reason
                    yield Delta(seq=0, choices=choices)
                if chunk.get("usage"):
                    settled = Usage(usage=chunk["usage"], timings=chunk.get("timings"))
        if settled is not None:
            counted.settle(settled.usage)
            yield settled
        if not finish_reason:
            raise GenerationFailed("The engine ended the answer without saying why.")
        yield Done(finish_reason=finish_reason)

    def _model(self, wanted: str | None) -> str:
        offered = [model.name for model in self._provider.models]
        if wanted is None and offered:
            return offered[0]
        if wanted not in offered:
            listed = ", ".join(offered) or "none"
            raise ModelUnknown(f"The host has no model {str(wanted)[:80]!r}; it offers {listed}.")
        return wanted
