"""What a provider yields, as counted replies of the exchange."""

from __future__ import annotations

import asyncio
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

# A piece of more bytes is several tokens, even where it does not say so.
_LONGEST_TOKEN, _BYTES_PER_TOKEN = 32, 4


async def chat_replies(
    chunks: AsyncGenerator[Chunk, None], started: Started, grant: Grant, counted: RequestUsage
) -> AsyncGenerator[Reply, None]:
    """An answer's chunks as replies; it starts with the provider's first sign of life."""
    finish_reason = ""
    settled: Usage | None = None
    async with aclosing(_as_it_costs(chunks, counted)) as costly:
        async for chunk in costly:
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
                    so_far = whole_count(chunk.get("tokens"))
                    if so_far is None and (length := _length(choices)) > _LONGEST_TOKEN:
                        so_far = grant.streamed + length // _BYTES_PER_TOKEN
                    counted.piece(time.monotonic(), so_far)
                finish_reason = choices[0].get("finish_reason") or finish_reason
                if finish_reason == "length" and grant.cut_by != "length":
                    finish_reason = choices[0]["finish_reason"] = grant.cut_by
                yield Delta(seq=0, choices=choices)
            if chunk.get("usage") and _is_counted(chunk["usage"], grant.streamed):
                settled = Usage(usage=chunk["usage"], timings=chunk.get("timings"))
    if settled is not None:
        counted.settle(settled.usage)
        yield settled
    elif finish_reason:
        yield Usage(usage=counted.as_openai())
    if not finish_reason:
        raise GenerationFailed("The engine ended the answer without saying why.")
    yield Done(finish_reason=finish_reason)


async def _as_it_costs(
    given: AsyncGenerator[Any, None], counted: RequestUsage
) -> AsyncGenerator[Any, None]:
    """What a provider yields. Who leaves after the request was sent on has caused its prompt."""
    sent = False
    async with aclosing(given):
        try:
            async for each in given:
                if isinstance(each, dict):
                    sent = "wait" not in each and (sent or "sent" in each)
                    if "sent" in each and "texts" not in each:
                        continue
                yield each
        except (asyncio.CancelledError, GeneratorExit):
            if sent and not counted.has_begun:
                counted.started(time.monotonic())
            raise


def _length(choices: list[JsonObject]) -> int:
    """Bytes of text in a piece."""
    texts = (v for each in choices for v in (each.get("delta") or {}).values())
    return sum(len(text.encode("utf-8", "replace")) for text in texts if isinstance(text, str))


def _is_counted(usage: Any, streamed: int) -> bool:
    """Whether an engine's counts can be: zeros are what a server gives that does not count."""
    prompt, answer = usage.get("prompt_tokens"), usage.get("completion_tokens")
    return prompt != 0 and (answer != 0 or not streamed)


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
    known_to = 0  # how many of the texts that is for
    async with aclosing(_as_it_costs(embeddings, counted)) as costly:
        async for each in costly:
            if not isinstance(each, Embedding) and "wait" in each:
                if not counted.has_begun:
                    yield Queued(position=0, wait=round(each["wait"], 1))
                continue
            if isinstance(each, dict) and "sent" in each:
                if known is not None and counted.has_begun:
                    asked = guessed_tokens_of_texts(texts[known_to : each["texts"]])
                    counted.prompt(known + asked)
                continue
            if not counted.has_begun:
                counted.started(time.monotonic())
                yield started
            if not isinstance(each, Embedding):
                continue
            if (tokens := whole_count(each.prompt_tokens)) is not None:
                known, known_to = tokens, each.index + 1
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
        rest = guessed_tokens_of_texts(texts[known_to:])
        usage = {"prompt_tokens": known + rest, "total_tokens": known + rest}
        if rest:
            usage["estimated"] = True
            counted.prompt(known + rest)
        else:
            counted.settle({**usage, "completion_tokens": 0})
    usage.pop("completion_tokens", None)
    yield Usage(usage=usage)
    yield Done(finish_reason="stop")
