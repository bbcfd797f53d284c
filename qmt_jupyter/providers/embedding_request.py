"""Embeddings by the engine: one text after the other, so that it can be stopped between two."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from ..errors import RequestInvalid

EngineCall = Callable[[Any, bytes, Callable[[bytes], bool]], None]
"""Takes the engine, a request as JSON, and what is called with each piece; True from it ends it."""


def embedding_body(texts: Sequence[str]) -> bytes:
    """The texts for :func:`embed_each`. Raises RequestInvalid for half a surrogate pair."""
    try:
        return json.dumps(list(texts), ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise RequestInvalid("A text holds half a character.") from None


def embed_each(server: Any, body: bytes, on_piece: Callable[[bytes], bool]) -> None:
    """Hand over a piece for each text, with ``index``, ``vector`` and its ``prompt_tokens``.

    The first piece says that the work begins; the one with ``usage`` that all is done, and one
    with neither choices nor usage holds the engine's refusal.
    """
    if on_piece(b'{"choices": []}'):
        return
    for index, text in enumerate(json.loads(body)):
        answer = json.loads(server.handle_embeddings(json.dumps({"input": text})))
        if "data" not in answer:
            on_piece(json.dumps({"error": answer.get("error") or {}}).encode())
            return
        piece = {
            "choices": [],
            "index": index,
            "vector": answer["data"][0]["embedding"],
            "prompt_tokens": answer["usage"]["prompt_tokens"],
        }
        if on_piece(json.dumps(piece).encode()):
            return
    on_piece(b'{"choices": [], "usage": {}}')
