"""Any OpenAI-compatible server as a provider: a cloud API, vLLM, llama-server, Ollama and so on.

The key stays in here. Nothing of an upstream's own words reaches a guest before every part of the
key has been taken out of them, and errors leave without the frames and causes that saw it.
"""

from __future__ import annotations

import asyncio
import fnmatch
import random
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any
from urllib.parse import urlsplit

import anyio

from ..errors import (
    Busy,
    GenerationFailed,
    ModelUnknown,
    OptionInvalid,
    PromptTooLong,
    QmtError,
    RequestInvalid,
    UpstreamRefused,
    UpstreamUnreachable,
)
from ..harmless import printable
from .base import Chunk, Model, Provider
from .secret import Scrubbing, Secret
from .upstream_events import UpstreamError, chunk_of, error_text

_CONNECT_SECONDS = 10.0
_SILENCE_SECONDS = 300.0
_TRIES = 4
_FIRST_PAUSE = 0.5
# An upstream that asks for more patience than this is a failure that says when to come back.
_LONGEST_WAIT = 120.0
_MOST_MODELS = 256

# What the client is made of, and logs by itself.
_LOGGING = ("openai", "httpx", "httpcore", "h11", "h2", "hpack")
_LOCAL = ("localhost", "127.0.0.1", "::1")


class _TryAgain(Exception):
    """The upstream did not take the request this time; ``after`` seconds make sense to wait."""

    def __init__(self, error: QmtError, after: float | None) -> None:
        super().__init__(error.sentence)
        self.error = error
        self.after = after


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
    ) -> None:
        self._scrubbing = scrubbing
        self._host = urlsplit(url).hostname or ""
        self._plain = url.startswith("http://") and self._host not in _LOCAL
        self._client = client
        self._models = models
        self._slots = slots
        self._key = key
        self._not_before = 0.0
        self._takes_stream_options = True
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
        client = _client(url, key)
        scrubbing = Scrubbing(key) if key else None
        if scrubbing is not None:
            scrubbing.install(_LOGGING)
        try:
            offered = await _models_of(client, url, key)
            return cls(url, client, _shared(offered, patterns), slots, key, scrubbing)
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
        if model not in [each.name for each in self._models]:
            raise ModelUnknown(f"There is no model {printable(model, 80)!r} here.")
        for attempt in range(_TRIES):
            async for waiting in self._until_it_may():
                yield waiting
            try:
                async with aclosing(self._stream(model, request)) as chunks:
                    async for chunk in chunks:
                        yield chunk
                return
            except _TryAgain as failed:
                reason, after = failed.error, failed.after
            if attempt == _TRIES - 1 or (after or 0) > _LONGEST_WAIT:
                # The last try is no part of the error's past.
                reason.__context__ = None
                raise reason
            pause = after or _FIRST_PAUSE * 2**attempt * random.uniform(0.75, 1.25)  # noqa: S311
            self._not_before = max(self._not_before, time.monotonic() + pause)

    async def _until_it_may(self) -> AsyncGenerator[Chunk, None]:
        """Wait out what the upstream asked for, and say for how long."""
        while (left := self._not_before - time.monotonic()) > 0:
            yield {"choices": [], "wait": left}
            await asyncio.sleep(min(left, 1.0))

    async def _stream(self, model: str, request: Mapping[str, Any]) -> AsyncGenerator[Chunk, None]:
        """One try. Raises :class:`_TryAgain`, or a :class:`~qmt_jupyter.errors.QmtError`."""
        body = {**request, "model": model, "stream": True}
        if self._takes_stream_options:
            body["stream_options"] = {"include_usage": True}
        problem: Exception | None = None
        began = False
        try:
            async with (
                self._client.chat.completions.with_streaming_response.create(
                    model=model, messages=[], stream=True, extra_body=body
                ) as response,
                aclosing(_chunks(response)) as chunks,
            ):
                async for chunk in chunks:
                    began = True
                    yield chunk
        except QmtError as error:
            problem = error
        except Exception as error:
            problem = self._problem(error, began)
        # Raised out here without a past: none of the frames that saw the upstream's words or the
        # key hang on to it.
        if problem is not None:
            problem.__context__ = None
            raise problem.with_traceback(None)

    def _problem(self, error: Exception, began: bool) -> Exception:
        """What went wrong, in our words and without the key."""
        if self._closed:
            return GenerationFailed("The host has closed this upstream.")
        if isinstance(error, UpstreamError):
            return GenerationFailed(f"The upstream failed{self._said(str(error))}.")
        status = getattr(error, "status_code", None)
        if began or (status is None and not _is_connection_problem(error)):
            return GenerationFailed("The upstream broke off the answer.")
        if status is None:
            return _TryAgain(UpstreamUnreachable(f"{self._host} could not be reached."), None)
        said = self._said(error_text(getattr(error, "body", None)))
        if status in (400, 422) and self._takes_stream_options and "stream_options" in said:
            self._takes_stream_options = False
            return _TryAgain(RequestInvalid(f"The upstream refused the request{said}."), 0.01)
        if status == 429 or status >= 500:
            wait = _retry_after(error)
            return _TryAgain(_unwilling(self._host, status, wait), wait)
        return refusal(self._host, status, said)

    def _said(self, text: str) -> str:
        cleaned = printable(self._key.scrub(text) if self._key else text, 200)
        return f": {cleaned.rstrip('.')}" if cleaned else ""

    async def aclose(self) -> None:
        if not self._closed:
            self._closed = True
            await self._client.close()
            if self._scrubbing is not None:
                self._scrubbing.remove()


async def _chunks(response: Any) -> AsyncGenerator[Chunk, None]:
    async for line in response.iter_lines():
        chunk = chunk_of(line)
        if chunk is not None:
            yield chunk


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


def _client(url: str, key: Secret | None) -> Any:
    openai = _openai()

    def authorize(request: Any) -> Any:
        # The last thing before the request goes out, and nowhere else.
        if key is None:
            request.headers.pop("Authorization", None)
        else:
            request.headers["Authorization"] = f"Bearer {key.reveal()}"
        return request

    return openai.AsyncOpenAI(
        api_key="unused",
        base_url=url,
        max_retries=0,
        organization=None,
        project=None,
        timeout=openai.Timeout(_SILENCE_SECONDS, connect=_CONNECT_SECONDS),
        http_client=openai.DefaultAsyncHttpxClient(
            auth=authorize,
            # A redirect could lead the key elsewhere.
            follow_redirects=False,
            timeout=openai.Timeout(_SILENCE_SECONDS, connect=_CONNECT_SECONDS),
        ),
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


async def _models_of(client: Any, url: str, key: Secret | None) -> list[Model]:
    host = urlsplit(url).hostname or ""
    problem: QmtError | None = None
    found: list[Any] = []
    try:
        page = await client.models.list()
        found = list(page.data)
    except Exception as error:
        status = getattr(error, "status_code", None)
        if status is None:
            problem = UpstreamUnreachable(f"{host} could not be reached.")
        else:
            said = error_text(getattr(error, "body", None))
            said = printable(key.scrub(said) if key else said, 200)
            problem = refusal(host, status, f": {said.rstrip('.')}" if said else "")
    if problem is not None:
        raise problem
    models = []
    for each in found[:_MOST_MODELS]:
        name = getattr(each, "id", None)
        if isinstance(name, str) and 0 < len(name) <= 200 and name.isprintable():
            context = getattr(each, "max_model_len", None) or getattr(each, "context_length", None)
            models.append(Model(name, context if isinstance(context, int) else None))
    return models


def _shared(offered: list[Model], patterns: Sequence[str]) -> tuple[Model, ...]:
    listed = ", ".join(model.name for model in offered[:20]) or "none"
    if not patterns:
        if len(offered) == 1:
            return tuple(offered)
        raise OptionInvalid(
            f"The upstream has {len(offered)} models: {listed}.",
            next_step="Say which to share with --upstream-model NAME (* and ? stand for more).",
        )
    chosen = [m for m in offered if any(fnmatch.fnmatchcase(m.name, each) for each in patterns)]
    if not chosen:
        raise OptionInvalid(
            f"The upstream has no model like {', '.join(patterns)}; it has {listed}.",
            next_step="Correct --upstream-model.",
        )
    return tuple(chosen)


def _is_connection_problem(error: Exception) -> bool:
    # The client's own kind, and that of the HTTP library below it.
    kinds = {"APIConnectionError", "TransportError"}
    return any(cls.__name__ in kinds for cls in type(error).__mro__)


def _retry_after(error: Exception) -> float | None:
    headers = getattr(getattr(error, "response", None), "headers", {})
    try:
        seconds = float(headers.get("retry-after", ""))
    except ValueError:
        return None
    return seconds if 0 <= seconds < 1e6 else None


def _unwilling(host: str, status: int, wait: float | None) -> QmtError:
    if status == 429:
        return Busy(f"The upstream {host} takes no more requests now.", retry_after=wait or 30.0)
    return UpstreamUnreachable(f"The upstream {host} failed (status {status}).", retry_after=wait)


def refusal(host: str, status: int, said: str) -> QmtError:
    """What a refusal by the upstream means to who asked; ``said`` is scrubbed already."""
    if status in (401, 403):
        return UpstreamRefused(f"The upstream {host} does not accept the host's key.")
    if status in (400, 413, 422):
        if "context" in said and ("length" in said or "maximum" in said):
            return PromptTooLong("The prompt does not fit the upstream model's context.")
        return RequestInvalid(f"The upstream cannot take this request{said}.")
    return UpstreamRefused(f"The upstream {host} refused (status {status}){said}.")
