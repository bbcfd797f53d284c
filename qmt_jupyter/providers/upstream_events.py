"""What an OpenAI-compatible server sends: events whose data are chunks, and vectors. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ..errors import GenerationFailed
from .base import Chunk

LONGEST_LINE = 4 * 1024 * 1024


class Lines:
    """Lines from bytes as they come; a line may be cut anywhere.

    Only CR and LF end one. What else counts as a line's end in text (U+2028, form feed…) may stand
    within a JSON string.
    """

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[str]:
        """The lines that ``data`` completes.

        Raises :class:`~qmt_jupyter.errors.GenerationFailed` for a line that does not end.
        """
        lines = (self._rest + data).splitlines(keepends=True)
        self._rest = lines.pop() if lines and not lines[-1].endswith((b"\n", b"\r")) else b""
        if len(self._rest) > LONGEST_LINE:
            raise GenerationFailed("The upstream sent a piece that is too large.")
        return [line.decode("utf-8", "replace").rstrip("\r\n") for line in lines]


class UpstreamError(Exception):
    """The upstream said within the stream that it failed; the message is its own, unscrubbed."""


def chunk_of(line: str) -> Chunk | None:
    """The chunk that one line of the stream holds; None for lines that hold none.

    Only ``choices`` and ``usage`` go on: whatever else an upstream adds is its own affair.
    Raises :class:`UpstreamError` and :class:`~qmt_jupyter.errors.GenerationFailed`.
    """
    if not line.startswith("data:"):
        return None  # comments that keep the connection open, names and numbers of events
    data = line[5:].strip()
    if not data or data == "[DONE]":
        return None
    try:
        event = json.loads(data)
    except (ValueError, RecursionError):
        raise GenerationFailed("The upstream sent what is not JSON.") from None
    if not isinstance(event, dict):
        raise GenerationFailed("The upstream sent what is not a chunk.")
    if event.get("error"):
        raise UpstreamError(error_text(event))
    choices = event.get("choices")
    kept: Chunk = {"choices": []}
    if isinstance(choices, list):
        kept["choices"] = [each for each in choices if _is_choice(each)]
    if isinstance(usage := event.get("usage"), dict):
        kept["usage"] = usage
    return kept if kept["choices"] or "usage" in kept else None


def _is_choice(choice: Any) -> bool:
    return (
        isinstance(choice, dict)
        and isinstance(choice.get("delta", {}), dict)
        and isinstance(choice.get("finish_reason"), (str, type(None)))
    )


def error_text(body: Any) -> str:
    """The message in an error body of whatever shape, or nothing."""
    for _ in range(3):
        if isinstance(body, Mapping):
            body = body.get("error") or body.get("message") or body.get("detail")
        elif isinstance(body, list) and body:
            body = body[0]
    return body if isinstance(body, str) else ""


def vectors_of(data: bytes, count: int) -> tuple[list[list[float]], int | None]:
    """The vectors of ``count`` texts in their order, and how many tokens these had, if it says so.

    Raises :class:`~qmt_jupyter.errors.GenerationFailed`.
    """
    try:
        answer = json.loads(data)
        found = {each["index"]: each["embedding"] for each in answer["data"]}
        vectors = [found[index] for index in range(count)]
    except (ValueError, RecursionError, TypeError, KeyError):
        raise GenerationFailed("The upstream sent what are no embeddings.") from None
    usage = answer.get("usage")
    tokens = usage.get("prompt_tokens") if isinstance(usage, dict) else None
    # No text is empty, so 0 says that the server does not count (LM Studio).
    is_count = isinstance(tokens, int) and not isinstance(tokens, bool) and tokens > 0
    return vectors, tokens if is_count else None
