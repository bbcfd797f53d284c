"""A provider that repeats what it is told, so that everything around a model can be tested.

Deterministic and cheap: it shows what the exchange, the queue and the ledger cost by themselves.
"""

from __future__ import annotations

import asyncio
import itertools
import re
import time
from collections.abc import AsyncGenerator, Iterator, Mapping
from typing import Any

from ..errors import ModelUnknown, RequestInvalid
from .base import Chunk, Embedding, Model, Provider

MODEL = "echo"
_ALPHABET = "abcdefghijklmnopqrstuvwxyz"

# Without a delay the loop gets a turn after this many pieces, or nothing else would run.
_PIECES_PER_TURN = 16

_PIECE = re.compile(r"\S+\s*|\s+")


class Echo(Provider):
    """Yields the last user message back, one word a piece; a word counts as a token.

    ``slots`` is what it tells the host. ``delay`` is the time in seconds before each piece.
    ``max_tokens`` cuts the answer; with ``repeat`` the text is repeated until it is reached.

    ``running``, ``completed`` and ``cancelled`` count its streams.
    """

    def __init__(self, *, slots: int = 4, delay: float = 0.0, repeat: bool = False) -> None:
        self._slots = slots
        self._delay = delay
        self._repeat = repeat
        self._answers = itertools.count(1)
        self.running = 0
        self.completed = 0
        self.cancelled = 0

    @property
    def models(self) -> tuple[Model, ...]:
        return (Model(MODEL, embeds=True),)

    @property
    def slots(self) -> int:
        return self._slots

    @property
    def device(self) -> str:
        return "echo"

    async def chat(self, model: str, request: Mapping[str, Any]) -> AsyncGenerator[Chunk, None]:
        if model != MODEL:
            raise ModelUnknown(f"There is no model {model!r} here.")
        messages = request.get("messages")
        if not isinstance(messages, list) or not messages:
            raise RequestInvalid("The request has no messages.")
        words = _PIECE.findall(_last_user_text(messages))
        pieces, finish_reason = self._pieces(words, _limit(request))
        prompt_tokens = sum(len(_PIECE.findall(_text(message))) for message in messages)
        answer_id, created = f"chatcmpl-echo-{next(self._answers)}", int(time.time())

        def chunk(delta: dict[str, Any], finish: str | None = None) -> Chunk:
            return {
                "id": answer_id,
                "object": "chat.completion.chunk",
                "created": created,
                "model": MODEL,
                "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
            }

        self.running += 1
        count = 0
        ended = False
        try:
            yield {"choices": [], "prompt_tokens": prompt_tokens}
            yield chunk({"role": "assistant", "content": ""})
            for piece in pieces:
                if self._delay:
                    await asyncio.sleep(self._delay)
                elif count % _PIECES_PER_TURN == 0:
                    await asyncio.sleep(0)
                count += 1
                yield chunk({"content": piece})
            yield chunk({}, finish_reason)
            last = chunk({})
            last["choices"] = []
            last["usage"] = {
                "prompt_tokens": prompt_tokens,
                "completion_tokens": count,
                "total_tokens": prompt_tokens + count,
            }
            ended = True
            yield last
        finally:
            self.running -= 1
            if ended:
                self.completed += 1
            else:
                self.cancelled += 1

    async def embed(
        self, model: str, request: Mapping[str, Any]
    ) -> AsyncGenerator[Embedding | Chunk, None]:
        """The vector of a text: how often it has each letter, by the 26 of the alphabet."""
        if model != MODEL:
            raise ModelUnknown(f"There is no model {model!r} here.")
        tokens = 0
        self.running += 1
        ended = False
        try:
            yield {"choices": []}
            for index, text in enumerate(request["input"]):
                await asyncio.sleep(self._delay)
                tokens += len(_PIECE.findall(text))
                lower = text.lower()
                yield Embedding(index, [lower.count(letter) for letter in _ALPHABET], tokens)
            ended = True
        finally:
            self.running -= 1
            self.completed += ended
            self.cancelled += not ended

    def _pieces(self, words: list[str], limit: int | None) -> tuple[Iterator[str], str]:
        if self._repeat and limit is not None and words:
            spaced = [*words[:-1], words[-1].rstrip() + " "]
            return itertools.islice(itertools.cycle(spaced), limit), "length"
        if limit is not None and limit < len(words):
            return iter(words[:limit]), "length"
        return iter(words), "stop"


def _limit(request: Mapping[str, Any]) -> int | None:
    limit = request.get("max_completion_tokens") or request.get("max_tokens")
    if limit is None:
        return None
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
        raise RequestInvalid("max_tokens must be a whole number of at least 1.")
    return limit


def _last_user_text(messages: list[Any]) -> str:
    for message in reversed(messages):
        if isinstance(message, Mapping) and message.get("role") == "user":
            return _text(message)
    raise RequestInvalid("The request has no user message.")


def _text(message: Any) -> str:
    content = message.get("content") if isinstance(message, Mapping) else None
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content if isinstance(part, Mapping))
    return content if isinstance(content, str) else ""
