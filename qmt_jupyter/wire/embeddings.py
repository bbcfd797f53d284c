"""Embeddings as they travel, and an OpenAI response put together from them."""

from __future__ import annotations

import math
import sys
from array import array
from collections.abc import Iterable, Sequence
from typing import Any

from .exchange import ExchangeError
from .messages import MOST_DIMENSIONS, JsonObject, Reply, Started, Usage, Vector

# Of all vectors of one request together: 2048 texts of 4096 numbers each.
_MOST_NUMBERS = 2048 * 4096


def pack(values: Iterable[float]) -> bytes:
    """Numbers as little-endian 32-bit floats.

    Raises ValueError for what is no vector: none or too many numbers, or one that is not finite
    as such a float.
    """
    try:
        floats = array("f", values)
    except (TypeError, OverflowError):
        raise ValueError("a vector has something else than numbers") from None
    if not 0 < len(floats) <= MOST_DIMENSIONS or not all(map(math.isfinite, floats)):
        raise ValueError("a vector needs some numbers, and finite ones")
    if sys.byteorder == "big":
        floats.byteswap()
    return floats.tobytes()


def unpack(packed: bytes) -> list[float]:
    """The numbers behind :func:`pack`. Raises ValueError like it."""
    if len(packed) % 4:
        raise ValueError("a vector was cut off")
    floats = array("f", packed)
    if sys.byteorder == "big":
        floats.byteswap()
    if not floats or not all(map(math.isfinite, floats)):
        raise ValueError("a vector needs some numbers, and finite ones")
    return floats.tolist()


def texts_of(body: JsonObject) -> int:
    """How many texts an embeddings request has."""
    given = body.get("input")
    return len(given) if isinstance(given, (list, tuple)) else 1


class EmbeddingList:
    """Takes one request's replies; :meth:`result` is the whole in OpenAI's shape.

    ``count`` texts were sent. Raises :class:`~.exchange.ExchangeError` for vectors that answer no
    text, or one twice, or differ in length, and where some are missing in the end.
    """

    def __init__(self, count: int) -> None:
        self._vectors: list[Sequence[float] | None] = [None] * count
        self._most_each = min(MOST_DIMENSIONS, _MOST_NUMBERS // max(1, count))
        self._started: Started | None = None
        self._usage: JsonObject = {}
        self._dimensions: int | None = None

    def add(self, reply: Reply) -> None:
        """Take a reply."""
        if isinstance(reply, Started):
            self._started = reply
        elif isinstance(reply, Usage):
            self._usage = reply.usage
        elif isinstance(reply, Vector):
            if reply.index >= len(self._vectors) or self._vectors[reply.index] is not None:
                raise ExchangeError(f"an embedding of text {reply.index}")
            try:
                vector = unpack(reply.values)
            except ValueError as error:
                raise ExchangeError(str(error)) from None
            if len(vector) > self._most_each:
                raise ExchangeError("embeddings that are too long for so many texts")
            if self._dimensions not in (None, len(vector)):
                raise ExchangeError("embeddings of different lengths")
            self._dimensions = len(vector)
            self._vectors[reply.index] = vector

    def result(self) -> JsonObject:
        """OpenAI's ``list`` of ``embedding`` objects, in the order of the texts."""
        data: list[dict[str, Any]] = []
        for index, vector in enumerate(self._vectors):
            if vector is None:
                raise ExchangeError(f"no embedding of text {index}")
            data.append({"object": "embedding", "index": index, "embedding": vector})
        model = self._started.model if self._started else ""
        return {"object": "list", "data": data, "model": model, "usage": self._usage}
