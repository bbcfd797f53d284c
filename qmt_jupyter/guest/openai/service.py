"""What the guest's endpoint is in front of, and who may use it."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import Any, Protocol

import anyio

from ...errors import ModelUnknown, NotJoined, Stopped
from ...providers.secret import Secret
from ...wire.messages import JsonObject, Reply
from ..mesh import Route
from ..returning import Away

# A connection to a host takes 127 requests at once; the mesh's other users need some too.
MOST_AT_ONCE = 112
# Seconds for hosts that were out of reach, before what they offered last counts.
_REFRESH = 2.0


class Answering(Protocol):
    """A mesh, or a host of this process."""

    def models(self) -> list[dict[str, Any]]:
        """The models offered: ``name``, ``context`` in tokens, ``mesh``, ``chats``, ``embeds``."""

    async def refresh(self) -> None:
        """Reach again whoever is out of reach; what is offered may have changed."""

    def answer(self, body: JsonObject) -> AsyncGenerator[Reply | Route | Away, None]:
        """One chat completion's replies."""

    async def embed(self, body: JsonObject) -> JsonObject:
        """Embeddings, in OpenAI's shapes."""


class Service:
    """The answering parts, the key, and what runs. ``look`` says who answers at the moment."""

    def __init__(
        self,
        look: Callable[[], Sequence[Answering]],
        key: Secret,
        origins: frozenset[str],
        created: int,
    ) -> None:
        self._look = look
        self._key = key
        self.origins = origins
        self.created = created
        self.addresses: frozenset[str] = frozenset()
        self.running: set[asyncio.Future[None]] = set()
        self.closing = False
        self._turns = asyncio.Semaphore(MOST_AT_ONCE)

    def __repr__(self) -> str:
        return f"<Service at {', '.join(sorted(self.addresses)) or 'no address'}>"

    def is_key(self, given: str) -> bool:
        """Whether ``given`` is the key, in a time that does not depend on how much of it fits."""
        return hmac.compare_digest(given.encode("utf-8", "replace"), self._key.reveal().encode())

    def models(self) -> list[dict[str, Any]]:
        """What is offered now; of two models with one name the one that is asked."""
        found: dict[str, dict[str, Any]] = {}
        for each in self._look():
            for model in each.models():
                found.setdefault(model["name"], model)
        return list(found.values())

    async def refresh(self, model: str | None = None) -> None:
        """Have models that are today's, within two seconds; none is waited for that is known."""
        if model is not None and any(each["name"] == model for each in self.models()):
            return
        with anyio.move_on_after(_REFRESH):
            await asyncio.gather(*(each.refresh() for each in self._look()))

    async def answer(self, body: JsonObject) -> AsyncGenerator[Reply | Route | Away, None]:
        """One chat completion's replies; waits for its turn where very many run."""
        async with self._turns:
            if body.get("model") is not None:
                await self.refresh(body["model"])
            async with aclosing(self._who(body.get("model")).answer(body)) as replies:
                async for reply in replies:
                    yield reply

    async def embed(self, body: JsonObject) -> JsonObject:
        """Embeddings; waits for its turn where very many run."""
        async with self._turns:
            if body.get("model") is not None:
                await self.refresh(body["model"])
            return await self._who(body.get("model")).embed(body)

    def _who(self, model: str | None) -> Answering:
        if self.closing:
            raise self.closed()
        answering = self._look()
        if not answering:
            raise NotJoined("No mesh is joined at the moment.")
        if model is None or len(answering) == 1:
            # The own host stands first, and what names no model is read by nobody else. Its own
            # sentence says more, and its models may have changed while it was away.
            return answering[0]
        for each in answering:
            names = [offer["name"] for offer in each.models()]
            # Who has the bare name behind a label knows whether it will do.
            if model in names or sum(name.endswith(f"/{model}") for name in names) == 1:
                return each
        offered = ", ".join(each["name"] for each in self.models()) or "none"
        raise ModelUnknown(f"No host offers a model {str(model)[:80]!r}; offered: {offered}.")

    @staticmethod
    def closed() -> Stopped:
        """What a client hears whose endpoint has been closed."""
        return Stopped(
            "This endpoint has been closed.",
            next_step="Start another one with %qmt_serve (or qmt serve).",
        )
