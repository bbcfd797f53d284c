"""The awaitable twin of :mod:`qmt_jupyter.api`, for callers with an event loop of their own.

The node still lives in the runtime's loop and thread; these calls wait for it without blocking.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from types import TracebackType
from typing import Any

from . import nodes, runtime
from .answers import AnswerState, Event
from .endpoints import AwaitableEndpoint as Endpoint
from .endpoints import Serving
from .facade import Invite, MeshFacts
from .host.aliases import Aliases, parse
from .host.limits import UNLIMITED, Limits
from .host.report import usage_rows
from .mesh.locate import DEADLINE
from .metering import AwaitableMetering
from .nodes import DEFAULT_RELAY, DEFAULT_TTL, DEFAULT_USES, HostOptions
from .providers.assemble import wanted
from .providers.base import Provider
from .providers.select import AUTO
from .seats import AwaitableSeats
from .wire.completions import ChunkBuilder

__all__ = ["Answer", "Endpoint", "Host", "Invite", "Mesh", "detect", "host", "join"]


class Answer(AnswerState):
    """An answer that streams in: iterate with ``async for`` over its pieces of text."""

    async def __aiter__(self) -> AsyncIterator[str]:
        """Pieces of text, as they come."""
        async for piece in self.updates():
            if piece:
                yield piece

    async def updates(self) -> AsyncIterator[str]:
        """Like iterating, with an empty piece whenever something else has changed."""
        async for event in self._events:
            yield self._take(event)

    async def read(self) -> str:
        """Wait for the whole answer and return its text."""
        async for _ in self.updates():
            pass
        return self.text


class _Askable(Serving):
    def _events(self, body: dict[str, Any], host: str | None) -> runtime.Pieces[Event]:
        # Given by the class that this is mixed with: it knows who answers.
        raise NotImplementedError

    async def _embed(self, body: dict[str, Any], host: str | None) -> dict[str, Any]:
        # Given by that class, too.
        raise NotImplementedError

    def chat(
        self,
        prompt: str | Sequence[Mapping[str, Any]],
        *,
        model: str | None = None,
        system: str | None = None,
        host: str | None = None,
        **parameters: Any,
    ) -> Answer:
        """Ask, and stream the answer; like :meth:`qmt_jupyter.Mesh.chat`. Not a coroutine."""
        body = nodes.chat_body(prompt, system, {"model": model, **parameters})
        return Answer(self._events(body, host))

    async def complete(
        self,
        *,
        messages: Sequence[Mapping[str, Any]],
        model: str | None = None,
        host: str | None = None,
        stream: bool = False,
        **parameters: Any,
    ) -> Any:
        """One chat completion in OpenAI's shapes; with ``stream`` an asynchronous iterator."""
        body = nodes.request_body(messages, {"model": model, **parameters})
        if stream:
            return _chunks(self._events(body, host))
        answer = Answer(self._events(body, host))
        await answer.read()
        return answer.result()

    async def embed(
        self,
        texts: str | Sequence[str],
        *,
        model: str | None = None,
        host: str | None = None,
        **parameters: Any,
    ) -> dict[str, Any]:
        """Turn texts into vectors; like :meth:`qmt_jupyter.Mesh.embed`."""
        body = nodes.embedding_body(texts, {"model": model, **parameters})
        return await runtime.call_async(self._embed, body, host)

    async def serve(self, *, port: int = 0, allow_origins: Sequence[str] = ()) -> Endpoint:
        """Open an OpenAI-compatible server on 127.0.0.1; like :meth:`qmt_jupyter.Mesh.serve`."""
        return Endpoint(await runtime.call_async(self._open_endpoint, port, allow_origins))


async def _chunks(events: runtime.Pieces[Event]) -> AsyncIterator[dict[str, Any]]:
    builder = ChunkBuilder()
    async for event in events:
        chunk = builder.chunk(event)
        if chunk is not None:
            yield chunk


class Host(AwaitableSeats, AwaitableMetering, _Askable):
    """A host running in the background; ``async with`` closes it."""

    async def new_invite(
        self,
        *,
        name: str | None = None,
        uses: int = DEFAULT_USES,
        ttl: str = DEFAULT_TTL,
        limits: Limits = UNLIMITED,
    ) -> Invite:
        """Sign another invite; arguments as for :func:`host`."""
        granted = nodes.terms(name or self.invite.name, uses, ttl, limits)
        made = Invite(await runtime.call_async(self._service.invite, granted), limits)
        self._invites.append(made)
        return made

    async def revoke(self, which: str) -> dict[str, Any]:
        """Revoke an invite or one guest's membership; like :meth:`qmt_jupyter.Host.revoke`."""
        return await runtime.call_async(self._service.revoke, which)

    async def status(self) -> dict[str, Any]:
        """Models, slots, device, guests, waiting requests and addresses, as plain values."""
        return await runtime.read_async(self._service.status)

    async def activity(self) -> dict[str, Any]:
        """Who is connected, what runs and waits, how fast, as plain values."""
        return await runtime.read_async(self._service.activity)

    async def usage(self) -> dict[str, Any]:
        """Invites with their guests, users with their seats: what they used and what remains."""
        return await runtime.read_async(self._service.usage)

    async def usage_rows(self) -> list[dict[str, Any]]:
        """The same with one flat row a guest: ``pandas.DataFrame(await host.usage_rows())``."""
        return usage_rows(await self.usage())

    async def close(self) -> None:
        """Stop hosting; safe to call twice."""
        self._forget()
        await runtime.call_async(self._close_endpoints)
        await runtime.call_async(self._service.close)

    async def __aenter__(self) -> Host:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()


class Mesh(MeshFacts, _Askable):
    """The hosts that this process has joined; ``async with`` leaves them."""

    async def models(self) -> list[dict[str, Any]]:
        """Every model that each host offers; like :attr:`qmt_jupyter.Mesh.models`."""
        return await runtime.read_async(self._mesh.models)

    async def status(self) -> list[dict[str, Any]]:
        """One entry a host; like :meth:`qmt_jupyter.Mesh.status`."""
        return await runtime.read_async(self._mesh.status)

    async def join(self, url: str, *, name: str | None = None, timeout: float = DEADLINE) -> str:
        """Join one more host; like :meth:`qmt_jupyter.Mesh.join`."""
        return await runtime.call_async(nodes.join_another, self._mesh, url, name, timeout)

    async def leave(self, host: str | None = None) -> None:
        """Close the connection to one host, or to all; leaving all is safe to call twice."""
        if host is not None:
            await runtime.call_async(self._mesh.leave, host)
            return
        self._forget()
        await runtime.call_async(self._close_endpoints)
        await runtime.call_async(self._mesh.close)

    async def __aenter__(self) -> Mesh:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.leave()


async def host(
    model: str | Provider | Sequence[str | Provider] | None = None,
    *,
    name: str | None = None,
    uses: int = DEFAULT_USES,
    ttl: str = DEFAULT_TTL,
    slots: int = HostOptions.slots,
    context: int | None = None,
    gpu_layers: int | None = None,
    threads: int | None = None,
    port: int = 0,
    limits: Limits = UNLIMITED,
    upstream: str | Sequence[str] | None = None,
    upstream_models: Sequence[str] = (),
    upstream_key: str | Sequence[str | None] | None = None,
    embeddings: bool = False,
    engine: str = AUTO,
    aliases: Aliases = (),
    relay: str = DEFAULT_RELAY,
    progress: Callable[[int, int], None] | None = None,
) -> Host:
    """Load a model and share it; like :func:`qmt_jupyter.host`.

    ``progress`` is called from a worker thread.
    """
    shared = wanted(model, upstream, upstream_models, upstream_key, engine)
    options = HostOptions(
        shared, name, uses, ttl, slots, context, gpu_layers, threads, port, limits,
        embeddings, parse(aliases), relay,
    )  # fmt: skip
    service, first, forget = await runtime.call_async(nodes.start_host, options, progress)
    return Host(service, Invite(first, limits), forget)


async def detect() -> list[dict[str, Any]]:
    """What runs on this machine and could be shared; like :func:`qmt_jupyter.detect`."""
    return await runtime.call_async(nodes.detect_servers)


async def join(
    url: str | Sequence[str], *, name: str | None = None, timeout: float = DEADLINE
) -> Mesh:
    """Join a mesh by an invite link, by several, or by ``hub``; like :func:`qmt_jupyter.join`."""
    return Mesh(*await runtime.call_async(nodes.join_mesh, url, name, timeout))
