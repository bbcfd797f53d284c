"""A local OpenAI endpoint in front of a mesh, a host, or whatever answers at the moment.

Both facades give these out; the server itself is in :mod:`.guest.openai.server` and is imported
when the first endpoint opens.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

from . import runtime
from .wire.messages import JsonObject, Reply

if TYPE_CHECKING:
    from .guest.openai.server import OpenAIServer
    from .guest.openai.service import Answering
    from .host.service import HostService


class HostAnswers:
    """A host of this process, asked by its owner's tools without a mesh in between."""

    def __init__(self, service: HostService) -> None:
        self._service = service

    def models(self) -> list[dict[str, Any]]:
        """What the host shares."""
        host = self._service.peer_id
        return [
            {
                "name": model.name,
                "context": model.context,
                "chats": model.chats,
                "embeds": model.embeds,
                "mesh": "this host",
                "host": host,
            }
            for model in self._service.offers
        ]

    async def refresh(self) -> None:
        """Nothing to do: a host of this process is never out of reach."""

    def answer(self, body: JsonObject) -> AsyncGenerator[Reply, None]:
        """The owner's own request."""
        return self._service.answer(body)

    async def embed(self, body: JsonObject) -> JsonObject:
        """The owner's own embeddings."""
        return await self._service.embed(body)


async def open_endpoint(
    look: Callable[[], Sequence[Answering]], port: int, origins: Sequence[str]
) -> OpenAIServer:
    """Listen; ``look`` says at each request who answers. Called in the runtime's loop."""
    from .guest.openai.server import OpenAIServer, Options

    # A bare string would count as its letters.
    given = (origins,) if isinstance(origins, str) else tuple(origins)
    server = await OpenAIServer.start(look, Options(port, given))
    server.on_close(runtime.at_shutdown(server.close))
    return server


class Serving:
    """What can be served, with the endpoints that are open in front of it."""

    _endpoints: list[OpenAIServer]

    def _answering(self) -> list[Answering]:
        # Given by the class that this is mixed with: it knows who answers.
        raise NotImplementedError

    async def _open_endpoint(self, port: int, origins: Sequence[str]) -> OpenAIServer:
        server = await open_endpoint(self._answering, port, origins)
        self._endpoints.append(server)
        server.on_close(lambda: self._endpoints.remove(server))
        return server

    async def _close_endpoints(self) -> None:
        for server in tuple(self._endpoints):
            await server.close()


class EndpointFacts:
    """An endpoint that is listening on 127.0.0.1. Only :attr:`api_key` shows the key."""

    def __init__(self, server: OpenAIServer) -> None:
        self._server = server

    @property
    def base_url(self) -> str:
        """What a tool takes as OpenAI's base URL, e.g. ``http://127.0.0.1:40123/v1``."""
        return self._server.base_url

    @property
    def api_key(self) -> str:
        """The key of this endpoint; fresh each time, and of no use anywhere else."""
        return self._server.api_key

    @property
    def is_open(self) -> bool:
        """Whether it has not been closed."""
        return self._server.is_open

    def __repr__(self) -> str:
        return f"<Endpoint {self.base_url if self.is_open else 'closed'}>"


class Endpoint(EndpointFacts):
    """An endpoint for blocking callers. Also a context manager that closes it."""

    def close(self) -> None:
        """Stop listening and end what runs through it. Safe to call twice."""
        runtime.call(self._server.close)

    def __enter__(self) -> Endpoint:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class AwaitableEndpoint(EndpointFacts):
    """The same for callers with an event loop of their own; ``async with`` closes it."""

    async def close(self) -> None:
        """Stop listening and end what runs through it. Safe to call twice."""
        await runtime.call_async(self._server.close)

    async def __aenter__(self) -> AwaitableEndpoint:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()
