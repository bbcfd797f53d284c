"""Any OpenAI-compatible server as a provider: a cloud API, vLLM, llama-server, Ollama and so on.

The key stays in here. Nothing of an upstream's own words reaches a guest before every part of the
key has been taken out of them, and errors leave without the frames and causes that saw it.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import anyio

from ..errors import (
    GenerationFailed,
    ModelUnknown,
    OptionInvalid,
    QmtError,
    RequestInvalid,
    UpstreamUnreachable,
)
from ..harmless import printable
from .base import Chunk, Embedding, Model, Provider
from .secret import Scrubbing, Secret
from .upstream_events import Lines, UpstreamError, chunk_of, error_text, vectors_of
from .upstream_models import models_of, shared
from .upstream_refusals import Status, is_connection_problem, refusal, retry_after, unwilling

_CONNECT_SECONDS = 10.0
_SILENCE_SECONDS = 300.0
_TRIES = 4
_FIRST_PAUSE = 0.5
# An upstream that asks for more patience than this is a failure that says when to come back.
_LONGEST_WAIT = 120.0
_TEXTS_AT_ONCE = 64
_LONGEST_VECTORS = 16 * 1024 * 1024
_MOST_ERROR_BYTES = 64 * 1024
_HEADERS = {
    "Content-Type": "application/json",
    "Accept": "text/event-stream",
    "Accept-Encoding": "identity",  # nothing is held back to be compressed
}

# What the client is made of, and logs by itself.
_LOGGING = ("openai", "httpx", "httpcore", "h11", "h2", "hpack")
_LOCAL = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class _TryAgain:
    """The upstream did not take the request this time; ``after`` seconds make sense to wait."""

    error: QmtError
    after: float | None


class Upstream(Provider):
    """One OpenAI-compatible server and the models of it that are shared. Made by :meth:`open`."""

    def __init__(
        self,
        url: str,
        client: Any,
        models: tuple[Model, ...],
        slots: int,
        key: Secret | None,
        scrubbing: Scrubbing | None = None,
        http: Any = None,
    ) -> None:
        self._scrubbing = scrubbing
        self._address = f"{url.rstrip('/')}/chat/completions"
        self._http = http
        self._host = urlsplit(url).hostname or ""
        self._plain = url.startswith("http://") and self._host not in _LOCAL
        self._client = client
        self._models = models
        self._slots = slots
        self._key = key
        self._not_before = 0.0
        self._learned: set[str] = set()
        self._closed = False

    def __repr__(self) -> str:
        return f"Upstream({self._host!r}, {len(self._models)} models, slots={self._slots})"

    @classmethod
    async def open(
        cls, url: str, *, patterns: Sequence[str] = (), slots: int = 4, key: Secret | None = None
    ) -> Upstream:
        """Ask the server at ``url`` (ending in ``/v1`` mostly) for its models and share some.

        ``patterns`` name them, with ``*`` and ``?``; without any the server must have just one.
        Raises :class:`~qmt_jupyter.errors.OptionInvalid`,
        :class:`~qmt_jupyter.errors.UpstreamUnreachable`,
        :class:`~qmt_jupyter.errors.UpstreamRefused` or
        :class:`~qmt_jupyter.errors.EngineMissing`.
        """
        _require_url(url)
        http = _http_client(key)
        client = _client(url, http)
        scrubbing = Scrubbing(key) if key else None
        if scrubbing is not None:
            scrubbing.install(_LOGGING)
        try:
            offered = await models_of(client, url, key)
            return cls(url, client, shared(offered, patterns), slots, key, scrubbing, http)
        except BaseException:
            if scrubbing is not None:
                scrubbing.remove()
            with anyio.CancelScope(shield=True):
                await client.close()
            raise

    @property
    def models(self) -> tuple[Model, ...]:
        return self._models

    @property
    def slots(self) -> int:
        return self._slots

    @property
    def label(self) -> str:
        return self._host

    @property
    def device(self) -> str:
        return f"the upstream {self._host}"

    @property
    def notices(self) -> tuple[str, ...]:
        if self._plain and self._key is not None:
            return (f"The key travels to {self._host} unencrypted: use https if it can.",)
        return ()

    async def chat(self, model: str, request: Mapping[str, Any]) -> AsyncGenerator[Chunk, None]:
        self._require(model)
        async with aclosing(self._tried(request, lambda: self._chunks(model, request))) as chunks:
            async for chunk in chunks:
                yield chunk

    async def embed(
        self, model: str, request: Mapping[str, Any]
    ) -> AsyncGenerator[Embedding | Chunk, None]:
        self._require(model)
        texts = request["input"]
        tokens: int | None = 0
        for begin in range(0, len(texts), _TEXTS_AT_ONCE):
            batch = {**request, "input": texts[begin : begin + _TEXTS_AT_ONCE]}
            async with aclosing(
                self._tried(batch, partial(self._vectors, model, batch))
            ) as answers:
                async for answer in answers:
                    if "vectors" not in answer:
                        # All of a batch is asked for at once.
                        more = {"texts": begin + len(batch["input"])} if "sent" in answer else {}
                        yield {**answer, **more}
                        continue
                    vectors, counted = answer["vectors"], answer["prompt_tokens"]
                    # From the first batch on that is not counted, the sum is not known.
                    tokens = None if tokens is None or counted is None else tokens + counted
                    for index, vector in enumerate(vectors, begin):
                        # What a part of a batch took is not known.
                        last = index == begin + len(vectors) - 1
                        yield Embedding(index, vector, tokens if last else None)

    def _require(self, model: str) -> None:
        if model not in [each.name for each in self._models]:
            raise ModelUnknown(f"There is no model {printable(model, 80)!r} here.")

    async def _tried(
        self, request: Mapping[str, Any], attempt: Callable[[], AsyncGenerator[Chunk, None]]
    ) -> AsyncGenerator[Chunk, None]:
        """What an attempt yields; one that failed before it did is made again."""
        for number in range(_TRIES):
            async for waiting in self._until_it_may():
                yield waiting
            problem: QmtError | _TryAgain
            began = False
            # From here on it costs, whether the asker waits for it or not.
            yield {"choices": [], "sent": True}
            try:
                async with aclosing(attempt()) as chunks:
                    async for chunk in chunks:
                        began = True
                        yield chunk
                return
            except QmtError as error:
                problem = error
            except Exception as error:
                problem = self._problem(error, began, request)
            # Raised out here without a past: none of the frames that saw the upstream's words or
            # the key hang on to it, nor does an earlier try.
            reason = problem.error if isinstance(problem, _TryAgain) else problem
            reason.__context__ = None
            after = problem.after if isinstance(problem, _TryAgain) else None
            final = not isinstance(problem, _TryAgain) or number == _TRIES - 1
            if final or (after or 0) > _LONGEST_WAIT:
                raise reason.with_traceback(None)
            pause = after or _FIRST_PAUSE * 2**number * random.uniform(0.75, 1.25)  # noqa: S311
            self._not_before = max(self._not_before, time.monotonic() + pause)

    async def _until_it_may(self) -> AsyncGenerator[Chunk, None]:
        """Wait out what the upstream asked for, and say for how long."""
        while (left := self._not_before - time.monotonic()) > 0:
            yield {"choices": [], "wait": left}
            await asyncio.sleep(min(left, 1.0))

    async def _chunks(self, model: str, request: Mapping[str, Any]) -> AsyncGenerator[Chunk, None]:
        body = {**request, "model": model, "stream": True}
        if "max_completion_tokens" in self._learned and "max_tokens" in body:
            body["max_completion_tokens"] = body.pop("max_tokens")
        if "stream_options" not in self._learned:
            body["stream_options"] = {"include_usage": True}
        # Straight to the HTTP client under the OpenAI one, which takes longer to look through a
        # request that has been checked already than all else here.
        async with self._http.stream(
            "POST", self._address, content=json.dumps(body), headers=_HEADERS
        ) as response:
            if response.status_code != 200:
                raise Status(response, await _error_body(response))
            lines = Lines()
            async for data in response.aiter_bytes():
                for line in lines.feed(data):
                    chunk = chunk_of(line)
                    if chunk is not None:
                        yield chunk

    async def _vectors(self, model: str, request: Mapping[str, Any]) -> AsyncGenerator[Chunk, None]:
        """One batch's ``vectors``, and its ``prompt_tokens`` where the upstream counts."""
        data = bytearray()
        async with self._client.embeddings.with_streaming_response.create(
            model=model, input=[], encoding_format="float", extra_body=dict(request)
        ) as response:
            async for piece in response.iter_bytes():
                data += piece
                if len(data) > _LONGEST_VECTORS:
                    raise GenerationFailed("The upstream sent embeddings that are too large.")
        count = len(request["input"])
        vectors, tokens = await asyncio.to_thread(vectors_of, bytes(data), count)
        yield {"vectors": vectors, "prompt_tokens": tokens}

    def _problem(
        self, error: Exception, began: bool, request: Mapping[str, Any]
    ) -> QmtError | _TryAgain:
        """What went wrong, in our words and without the key."""
        if self._closed:
            return GenerationFailed("The host has closed this upstream.")
        if isinstance(error, UpstreamError):
            return GenerationFailed(f"The upstream failed{self._said(str(error))}.")
        status = getattr(error, "status_code", None)
        if began or (status is None and not is_connection_problem(error)):
            return GenerationFailed("The upstream broke off the answer.")
        if status is None:
            return _TryAgain(UpstreamUnreachable(f"{self._host} could not be reached."), None)
        said = self._said(error_text(getattr(error, "body", None)))
        # Where the request has the word in it, the upstream may only repeat it.
        if status in (400, 422) and (word := self._lesson(said)) and word not in str(request):
            self._learned.add(word)
            return _TryAgain(RequestInvalid(f"The upstream refused the request{said}."), 0.01)
        if status == 429 or status >= 500:
            wait = retry_after(error)
            return _TryAgain(unwilling(self._host, status, wait), wait)
        return refusal(self._host, status, said)

    def _lesson(self, said: str) -> str:
        """What an upstream wants otherwise, if that is what it complains of."""
        if "stream_options" in said and "stream_options" not in self._learned:
            return "stream_options"
        if "'max_tokens'" in said and "max_completion_tokens" in said:
            # OpenAI's newer models take the newer name only.
            return "" if "max_completion_tokens" in self._learned else "max_completion_tokens"
        return ""

    def _said(self, text: str) -> str:
        cleaned = printable(self._key.scrub(text) if self._key else text, 200)
        return f": {cleaned.rstrip('.')}" if cleaned else ""

    async def aclose(self) -> None:
        if not self._closed:
            self._closed = True
            await self._client.close()
            if self._scrubbing is not None:
                self._scrubbing.remove()


async def _error_body(response: Any) -> Any:
    """What an error says of itself: JSON, a text, or as much as there is of either."""
    data = b""
    async for block in response.aiter_bytes():
        data += block
        if len(data) > _MOST_ERROR_BYTES:
            break
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return data[:_MOST_ERROR_BYTES].decode("utf-8", "replace")


def _require_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname)
        bare = parts.username is None and parts.password is None and not parts.query
    except ValueError:
        usable = bare = False
    if not usable:
        raise OptionInvalid(
            "The upstream's address is not an http:// or https:// URL.",
            next_step="Give it as the server's documentation has it, e.g. http://127.0.0.1:8000/v1.",
        )
    if not bare:
        raise OptionInvalid(
            "The upstream's address must hold no name, password or query.",
            next_step="Give the key by its source: env:NAME, keyring:SERVICE or prompt.",
        )


def _http_client(key: Secret | None) -> Any:
    openai = _openai()

    def authorize(request: Any) -> Any:
        # The last thing before the request goes out, and nowhere else.
        if key is None:
            request.headers.pop("Authorization", None)
        else:
            request.headers["Authorization"] = f"Bearer {key.reveal()}"
        return request

    return openai.DefaultAsyncHttpxClient(
        auth=authorize,
        # A redirect could lead the key elsewhere.
        follow_redirects=False,
        timeout=openai.Timeout(_SILENCE_SECONDS, connect=_CONNECT_SECONDS),
    )


def _client(url: str, http: Any) -> Any:
    openai = _openai()
    return openai.AsyncOpenAI(
        api_key="unused",
        base_url=url,
        max_retries=0,
        organization=None,
        project=None,
        timeout=openai.Timeout(_SILENCE_SECONDS, connect=_CONNECT_SECONDS),
        http_client=http,
    )


def _openai() -> Any:
    from ..errors import EngineMissing

    try:
        import openai
    except ImportError:
        raise EngineMissing(
            "Sharing an upstream needs the package openai.",
            next_step="Install it with: pip install 'qmt-jupyter[upstream]'",
        ) from None
    return openai
