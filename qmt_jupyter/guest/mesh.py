"""A guest: the links to the hosts whose invites it holds."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import anyio

from ..errors import ModelUnknown, NotJoined, ProtocolViolation, QmtError
from ..identity import keys
from ..identity.link import Link
from ..mesh.locate import DEADLINE
from ..settings import Settings
from ..wire import messages
from ..wire.embeddings import EmbeddingList, texts_of
from ..wire.exchange import ExchangeError
from .finding import Finder
from .link import HostLink
from .returning import Away


@dataclass(frozen=True)
class Route:
    """Which host a request goes to; comes before its replies."""

    host_id: str


class GuestMesh:
    """The hosts that this process may ask. Everything here happens in one event loop."""

    def __init__(self, links: list[HostLink], finder: Finder) -> None:
        self._links = links
        self._finder = finder

    @classmethod
    async def join(
        cls, granted: Link, settings: Settings, *, name: str = "", deadline: float = DEADLINE
    ) -> GuestMesh:
        """Find the invite's host and be admitted, under ``name`` if one is given.

        Endpoint keys are fresh for this process; the guest's identity vouches for them. Raises
        an :class:`~qmt_jupyter.errors.InviteError`, :class:`~qmt_jupyter.errors.MeshError`,
        :class:`~qmt_jupyter.errors.Refused` or :class:`~qmt_jupyter.errors.ConfigurationError`.
        """
        finder = Finder(settings)
        identity = keys.load_or_create(settings.guest_dir / "identity.key")
        first = HostLink(identity, granted, finder, name)
        try:
            await first.connect(deadline)
        except BaseException:
            with anyio.CancelScope(shield=True):
                await finder.close()
            raise
        return cls([first], finder)

    @property
    def links(self) -> tuple[HostLink, ...]:
        """The hosts, in the order they were joined."""
        return tuple(self._links)

    def models(self) -> list[dict[str, Any]]:
        """Every model offered: name, context in tokens, and who offers it."""
        return [
            {
                "name": offer.name,
                "context": offer.context,
                "chats": offer.chats,
                "embeds": offer.embeds,
                "mesh": link.mesh_name,
                "host": link.host_id,
            }
            for link in self._links
            for offer in link.models
        ]

    def status(self) -> list[dict[str, Any]]:
        """One entry a host, as plain values."""
        return [link.status() for link in self._links]

    def choose(self, model: str | None, purpose: str = "chats") -> HostLink:
        """The host to ask for ``model`` (None: whatever is offered first for the ``purpose``).

        Raises :class:`~qmt_jupyter.errors.ModelUnknown` or
        :class:`~qmt_jupyter.errors.NotJoined`.
        """
        if not self._links:
            raise NotJoined("This mesh has been left.")
        for link in self._links:
            fitting = [offer.name for offer in link.models if getattr(offer, purpose)]
            if model in fitting or (model is None and (fitting or purpose == "chats")):
                return link
        for link in self._links if model is not None else ():
            # A bare name will do where one model of a host has it; the host knows its labels.
            names = [offer.name for offer in link.models if getattr(offer, purpose)]
            if len([name for name in names if name.endswith(f"/{model}")]) == 1:
                return link
        offered = ", ".join(dict.fromkeys(entry["name"] for entry in self.models())) or "none"
        if purpose == "embeds":
            meant = "that makes embeddings" if model is None else f"{model!r} for embeddings"
            raise ModelUnknown(f"No host offers a model {meant}; offered: {offered}.")
        raise ModelUnknown(f"No host offers a model {model!r}; offered: {offered}.")

    async def answer(
        self, body: messages.JsonObject
    ) -> AsyncGenerator[messages.Reply | Route | Away, None]:
        """One chat completion: the host that was chosen, then its replies."""
        link = self.choose(body.get("model"))
        yield Route(link.host_id)
        async with aclosing(link.ask(body)) as replies:
            async for reply in replies:
                yield reply

    async def embed(self, body: messages.JsonObject) -> messages.JsonObject:
        """Embeddings: an OpenAI request in, an OpenAI response out. Raises like a chat."""
        link = self.choose(body.get("model"), "embeds")
        vectors = EmbeddingList(texts_of(body))
        try:
            async with aclosing(link.ask(body, messages.Embed)) as replies:
                async for reply in replies:
                    if not isinstance(reply, Away):
                        vectors.add(reply)
            return vectors.result()
        except ExchangeError as error:
            raise ProtocolViolation(f"The host broke the exchange ({error}).") from None

    async def refresh(self) -> None:
        """Reach the hosts whose connection was lost: what they offer may have changed since.

        Those that cannot be reached stay as they were.
        """
        for link in tuple(self._links):
            if not link.is_connected:
                with contextlib.suppress(QmtError):
                    await link.connect()

    async def close(self) -> None:
        """Leave every host; safe to call twice."""
        links, self._links = self._links, []
        for link in links:
            await link.close()
        await self._finder.close()
