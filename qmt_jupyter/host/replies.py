"""What a provider yields, as counted replies of the exchange."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from ..errors import GenerationFailed
from ..providers.base import Chunk, Embedding
from ..wire.embeddings import pack
from ..wire.messages import Delta, Done, JsonObject, Queued, Reply, Started, Usage, Vector
from .account import Grant
from .guesses import guessed_tokens_of_texts
from .usage import RequestUsage, whole_count


async def chat_replies(
    chunks: AsyncGenerator[Chunk, None], started: Started, grant: Grant, counted: RequestUsage
) -> AsyncGenerator[Reply, None]:
    """An answer's chunks as replies; it starts with the provider's first sign of life."""
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


def _carries(delta: Any) -> bool:
    """Whether a delta has anything of the answer, and not just the role."""
    return bool(delta) and any(value for key, value in delta.items() if key != "role")


def _cut(reason: str) -> JsonObject:
    return {"index": 0, "delta": {}, "finish_reason": reason}


async def embedding_replies(
    embeddings: AsyncGenerator[Embedding | Chunk, None],
    texts: list[str],
    started: Started,
    grant: Grant,
    counted: RequestUsage,
) -> AsyncGenerator[Reply, None]:
    """The vectors of ``texts`` as replies, each once.

    Where the provider counts, what it has done counts, and the text that it is at by a guess; until
    it does, the guess for all of them.
    """
    missing = set(range(len(texts)))
    known: int | None = None
    async with aclosing(embeddings):
        async for each in embeddings:
            if not isinstance(each, Embedding) and "wait" in each:
                if not counted.has_begun:
                    yield Queued(position=0, wait=round(each["wait"], 1))
                continue
            if not counted.has_begun:
                counted.started(time.monotonic())
                yield started
            if not isinstance(each, Embedding):
                continue
            if (tokens := whole_count(each.prompt_tokens)) is not None:
                known = tokens
                tokens += guessed_tokens_of_texts(texts[each.index + 1 : each.index + 2])
                if tokens > grant.prompt:
                    grant.know_prompt(tokens, time.monotonic())
                counted.prompt(tokens)
            if each.index not in missing:
                raise GenerationFailed("The engine gave an embedding that was not asked for.")
            missing.discard(each.index)
            try:
                values = pack(each.vector)
            except ValueError:
                raise GenerationFailed("The engine gave an embedding that is none.") from None
            yield Vector(seq=0, index=each.index, values=values)
    if missing:
        raise GenerationFailed("The engine left out some of the embeddings.")
    if known is None:
        usage: JsonObject = counted.as_openai()
    else:
        usage = {"prompt_tokens": known, "total_tokens": known}
        counted.settle({**usage, "completion_tokens": 0})
    usage.pop("completion_tokens", None)
    yield Usage(usage=usage)
    yield Done(finish_reason="stop")
