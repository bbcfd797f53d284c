"""The blocking facade: :func:`host` and :func:`join`, and what they return.

Every call may be interrupted; the node goes on in its background thread. The awaitable twin is
:mod:`qmt_jupyter.aio`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import Any, TypeVar

from . import nodes, runtime
from .answers import AnswerState, Event
from .endpoints import Endpoint, Serving, open_endpoint
from .facade import Invite, MeshFacts
from .host.aliases import Aliases, parse
from .host.limits import UNLIMITED, Limits
from .host.report import usage_rows
from .mesh.locate import DEADLINE
from .metering import Metering
from .nodes import DEFAULT_RELAY, DEFAULT_TTL, DEFAULT_USES, HostOptions
from .providers.assemble import wanted
from .providers.base import Provider
from .providers.select import AUTO
from .seats import Seats
from .wire.completions import ChunkBuilder

T = TypeVar("T")


class Answer(AnswerState):
    """An answer that streams in: iterate over it for its pieces of text.

    Leaving the loop early does not stop it; :meth:`stop`, an interrupt, or dropping the object
    does, here and on the host.
    """

    def __iter__(self) -> Iterator[str]:
        """Pieces of text, as they come."""
        return (piece for piece in self.updates() if piece)

    def updates(self, tick: Callable[[], None] | None = None) -> Iterator[str]:
        """Like iterating, with an empty piece whenever something else has changed.

        For showing :attr:`position` and the like while there is no text yet. ``tick`` is called
        in this thread, some ten times a second, while nothing comes.
        """
        self._events.tick = tick
        try:
            for event in self._events:
                yield self._take(event)
        finally:
            # What ticks often knows this answer, and would keep a dropped one alive.
            self._events.tick = None

    def read(self) -> str:
        """Wait for the whole answer and return its text."""
        for _ in self.updates():
            pass
        return self.text


class _Askable(Serving):
    """What a host and a mesh have in common: they answer."""

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
        """Ask, and stream the answer.

        Of several hosts the least loaded one with the model is asked, and the next where that one
        cannot take it. ``host`` (a mesh's name, a peer id, or its first or last characters) asks
        that one and no other.

        ``prompt`` is a text or a list of OpenAI messages; ``parameters`` are OpenAI's
        (``temperature``, ``max_tokens``, ``seed``, ``tools``, ``response_format``…). Errors are
        raised where the answer is read: :class:`~qmt_jupyter.errors.Refused`,
        :class:`~qmt_jupyter.errors.MeshError`, :class:`~qmt_jupyter.errors.ProviderError`.
        """
        body = nodes.chat_body(prompt, system, {"model": model, **parameters})
        return Answer(self._events(body, host))

    def complete(
        self,
        *,
        messages: Sequence[Mapping[str, Any]],
        model: str | None = None,
        host: str | None = None,
        stream: bool = False,
        **parameters: Any,
    ) -> Any:
        """One chat completion in OpenAI's shapes.

        Returns a ``chat.completion`` object, or with ``stream`` an iterator of
        ``chat.completion.chunk`` objects. Raises like :meth:`chat`.
        """
        body = nodes.request_body(messages, {"model": model, **parameters})
        if stream:
            return _chunks(self._events(body, host))
        answer = Answer(self._events(body, host))
        answer.read()
        return answer.result()

    def embed(
        self,
        texts: str | Sequence[str],
        *,
        model: str | None = None,
        host: str | None = None,
        **parameters: Any,
    ) -> dict[str, Any]:
        """Turn one text or several into vectors, by the first ``model`` that can or by this one.

        Returns OpenAI's embeddings response: ``[each["embedding"] for each in result["data"]]``.
        Raises like :meth:`chat`.
        """
        body = nodes.embedding_body(texts, {"model": model, **parameters})
        return runtime.call(self._embed, body, host)

    def serve(self, *, port: int = 0, allow_origins: Sequence[str] = ()) -> Endpoint:
        """Open an OpenAI-compatible server on 127.0.0.1 for other tools; closes with this object.

        ``port`` 0 takes a free one. Web pages may not use it, but for those of ``allow_origins``
        (``http://localhost:3000``). Raises :class:`~qmt_jupyter.errors.PortInUse` or
        :class:`~qmt_jupyter.errors.OptionInvalid`.
        """
        return Endpoint(runtime.call(self._open_endpoint, port, allow_origins))


def _chunks(events: runtime.Pieces[Event]) -> Iterator[dict[str, Any]]:
    builder = ChunkBuilder()
    for event in events:
        chunk = builder.chunk(event)
        if chunk is not None:
            yield chunk


class Host(Seats, Metering, _Askable):
    """A host running in the background. Also a context manager that closes it."""

    def new_invite(
        self,
        *,
        name: str | None = None,
        uses: int = DEFAULT_USES,
        ttl: str = DEFAULT_TTL,
        limits: Limits = UNLIMITED,
    ) -> Invite:
        """Sign another invite; arguments as for :func:`host`."""
        granted = nodes.terms(name or self.invite.name, uses, ttl, limits)
        made = Invite(runtime.call(self._service.invite, granted), limits)
        self._invites.append(made)
        return made

    def revoke(self, which: str) -> dict[str, Any]:
        """Revoke an invite or one guest's membership, by its id or the first characters of it.

        Answers that run end at once, connections close, and it holds after a restart. Returns
        ``id``, ``kind`` (``invite`` or ``guest``) and ``guests``, how many it stops. Raises
        :class:`~qmt_jupyter.errors.OptionInvalid` where nothing, or more than one, is meant.
        """
        return runtime.call(self._service.revoke, which)

    def status(self) -> dict[str, Any]:
        """Models, slots, device, guests, waiting requests and addresses, as plain values."""
        return runtime.read(self._service.status)

    def activity(self) -> dict[str, Any]:
        """Who is connected, what runs and waits, how fast, as plain values.

        ``models``: each with ``slots``, ``busy`` (run or wait) and ``waiting``. ``guests``, by
        membership, and ``own``: ``connections``, ``running``, ``waiting``, ``tokens_per_second``.
        ``tokens``: the last quarter of an hour as a ``series`` of ``[start, prompt, answer]``, one
        for ``every`` five seconds that had any.
        """
        return runtime.read(self._service.activity)

    def usage(self) -> dict[str, Any]:
        """Invites with their guests, users with their seats: what they used and what remains."""
        return runtime.read(self._service.usage)

    def usage_rows(self) -> list[dict[str, Any]]:
        """The same with one flat row a guest: ``pandas.DataFrame(host.usage_rows())``."""
        return usage_rows(self.usage())

    def close(self) -> None:
        """Stop hosting: tell the guests, end what runs, free the model. Safe to call twice."""
        self._forget()
        runtime.call(self._close_endpoints)
        runtime.call(self._service.close)

    def __enter__(self) -> Host:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class Mesh(MeshFacts, _Askable):
    """The hosts that this process has joined. Also a context manager that leaves them."""

    @property
    def models(self) -> list[dict[str, Any]]:
        """Every model that each host offers: ``name``, ``context`` in tokens, ``mesh``, ``host``.

        ``slots`` requests run side by side, ``busy`` run or wait, ``load`` is their ratio, and
        ``rtt_ms`` the round trip; None where it is not known.
        """
        return runtime.read(self._mesh.models)

    def status(self) -> list[dict[str, Any]]:
        """One entry a host: connected, its path, round trip in ms, load, models, expiry.

        ``problem`` says why a host is not there, ``seat`` whose seat at which service of a
        JupyterHub it is joined by (None: by an invite).
        """
        return runtime.read(self._mesh.status)

    def join(self, url: str, *, name: str | None = None, timeout: float = DEADLINE) -> str:
        """Join one more host, as :func:`join` does; returns its peer id.

        The same host again takes the former connection's place. For ``hub`` it is one of the hosts.
        """
        return runtime.call(nodes.join_another, self._mesh, url, name, timeout)

    def leave(self, host: str | None = None) -> None:
        """Close the connection to one host, or to all; leaving all is safe to call twice."""
        if host is not None:
            runtime.call(self._mesh.leave, host)
            return
        self._forget()
        runtime.call(self._close_endpoints)
        runtime.call(self._mesh.close)

    def __enter__(self) -> Mesh:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.leave()


def host(
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
    """Load a model and share it.

    ``model`` is a path to a GGUF file, ``hf:OWNER/NAME/FILE.gguf``, the alias ``smollm2`` (which
    is the default), ``NAME:REST`` for a provider plugin, a
    :class:`~qmt_jupyter.providers.base.Provider`, or a sequence of these. The first invite is
    called ``name`` (default: this machine's name), admits ``uses`` guests (0: any number) and
    lives for ``ttl`` (``90s``, ``15m``, ``24h``, ``7d``, ``none``); ``limits`` bound what its
    guests may take together, or each (:class:`qmt_jupyter.Limits`). ``slots`` requests run side
    by side, each with ``context`` tokens; ``gpu_layers`` of the model go to the GPU; ``port`` is
    the UDP port (0: a free one).

    ``upstream`` is the address of an OpenAI-compatible server whose models are shared too, or
    alone where no ``model`` is given, or a sequence of such; ``upstream_models`` say which of
    their models (``*`` and ``?`` stand for more), and ``upstream_key`` where the key is:
    ``env:NAME``, ``keyring:SERVICE`` or ``prompt``, never the key itself; with several upstreams
    one source each, in their order (``none`` or None for one without). A key stays with its
    provider. ``embeddings``: a model that chats is to make embeddings too (:meth:`Mesh.embed`);
    one that was made for them does so anyway.

    ``engine`` runs model files: ``auto``, ``xllamacpp`` or ``llama-cpp-python``. ``aliases`` map
    names, which alone guests see, to models; a name by itself is for the one model shared.
    Without one, models of one name go by ``LABEL/NAME``.

    ``relay`` is what guests on other networks come through where no direct way leads: ``none``,
    the URL of a relay of one's own, or ``public`` for the transport maker's relays, which see who
    talks to whom but nothing of what is said. The invites name it, so guests need not know.

    ``progress`` is called in this thread with bytes done and in total while a model
    is being fetched, and while it is read where that takes more than a second.

    Raises a :class:`~qmt_jupyter.errors.ConfigurationError` or a
    :class:`~qmt_jupyter.errors.ProviderError`.
    """
    shared = wanted(model, upstream, upstream_models, upstream_key, engine)
    options = HostOptions(
        shared, name, uses, ttl, slots, context, gpu_layers, threads, port, limits,
        embeddings, parse(aliases), relay,
    )  # fmt: skip
    service, first, forget = _wait_showing(
        progress, lambda report: runtime.submit(nodes.start_host, options, report)
    )
    return Host(service, Invite(first, limits), forget)


def _wait_showing(
    progress: Callable[[int, int], None] | None,
    start: Callable[[Callable[[int, int], None]], Future[T]],
) -> T:
    """Wait for what ``start`` began; its reports reach ``progress`` in the caller's thread."""
    latest: list[tuple[int, int]] = []

    def show() -> None:
        if progress is not None and latest:
            newest = latest[-1]
            latest.clear()
            progress(*newest)

    result = runtime.wait(start(lambda done, total: latest.append((done, total))), show)
    show()
    return result


def detect() -> list[dict[str, Any]]:
    """What runs on this machine and could be shared: Ollama, LM Studio, llama-server, vLLM.

    Each with ``product``, ``url`` (for ``host(upstream=…)``), ``models``, and ``needs_key``, where
    it says its models only to who has its key. Looks on loopback alone, for half a second, and
    shares nothing. Empty with ``QMT_DETECT=off``.
    """
    return runtime.call(nodes.detect_servers)


def join(url: str | Sequence[str], *, name: str | None = None, timeout: float = DEADLINE) -> Mesh:
    """Join a mesh by an invite link, or several by several links, within ``timeout`` seconds.

    Of several, one host that admits is enough: :meth:`Mesh.status` says what became of the others,
    and who is late comes in by and by. :meth:`Mesh.join` adds one more. In a server of a
    JupyterHub with a service ``hub`` stands for a link, and the seat is renewed until you leave.

    ``name`` is what the host sees you called, beside your id; nothing is sent without it.
    The link's signature and lifetime are checked before a packet leaves this machine. Raises an
    :class:`~qmt_jupyter.errors.InviteError`, a :class:`~qmt_jupyter.errors.MeshError` (such as
    :class:`~qmt_jupyter.errors.HostNotFound`) or a :class:`~qmt_jupyter.errors.Refused`.
    """
    return Mesh(*runtime.call(nodes.join_mesh, url, name, timeout))


def serve(
    look: Callable[[], Sequence[Host | Mesh]], *, port: int = 0, allow_origins: Sequence[str] = ()
) -> Endpoint:
    """An endpoint in front of whatever ``look()`` gives at each request; like :meth:`Mesh.serve`.

    ``look`` is called in the runtime's thread and must not wait.
    """

    def answering() -> list[Any]:
        return [answering for each in look() for answering in each._answering()]

    return Endpoint(runtime.call(open_endpoint, answering, port, allow_origins))


def fetch_model(model: str, progress: Callable[[int, int], None] | None = None) -> None:
    """Have a model's file on this machine, so that hosting it starts at once.

    ``progress`` is called in this thread with bytes done and in total. Raises a
    :class:`~qmt_jupyter.errors.ProviderError`.
    """
    _wait_showing(progress, lambda report: runtime.submit(nodes.fetch_model, model, report))
