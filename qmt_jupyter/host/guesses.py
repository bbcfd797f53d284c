"""How many tokens a request's prompt may have, before the engine has counted it. Pure."""

from __future__ import annotations

from typing import Any

from ..wire.messages import encoded_size

# A careful guess: English takes four bytes a token, Chinese three, and each message a few more.
_BYTES_PER_TOKEN = 3
_TOKENS_PER_MESSAGE = 8
_TOKENS_PER_IMAGE = 1000
_TOKENS_PER_TEXT = 2
# Texts of a message beside its content; a template may put any of them into the prompt.
_TEXTS = ("name", "tool_call_id", "refusal", "reasoning_content")


def guessed_tokens(request: dict[str, Any]) -> int:
    """How many tokens a chat's prompt may have: rather too many than too few."""
    size = images = 0
    for message in request["messages"]:
        content = message.get("content")
        if isinstance(content, str):
            size += _bytes(content)
        elif isinstance(content, list):
            for part in content:
                if part["type"] == "text":
                    size += _bytes(part["text"])
                else:
                    images += 1
        size += sum(_bytes(message[name]) for name in _TEXTS if message.get(name))
        if message.get("tool_calls"):
            size += encoded_size(message)
    for name in ("tools", "response_format"):
        if name in request:
            size += encoded_size({name: request[name]})
    messages = len(request["messages"]) + 2
    return size // _BYTES_PER_TOKEN + messages * _TOKENS_PER_MESSAGE + images * _TOKENS_PER_IMAGE


def guessed_tokens_of_texts(texts: list[str]) -> int:
    """How many tokens some texts may have together: rather too many than too few."""
    return sum(_bytes(text) // _BYTES_PER_TOKEN + _TOKENS_PER_TEXT for text in texts)


def _bytes(text: str) -> int:
    return len(text.encode("utf-8", "replace"))
