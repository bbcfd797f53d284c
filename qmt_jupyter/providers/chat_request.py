"""What a chat-completion request may ask of llama.cpp, and how llama.cpp's refusals read here.

The engine knows far more fields than OpenAI's: some name files, adapters, slots or addresses. So
the request that reaches it is built from the fields listed here, and from nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ..errors import GenerationFailed, PromptTooLong, QmtError, RequestInvalid
from ..harmless import printable
from .json_schema import check_schema

_FIELDS = (
    "messages", "tools", "tool_choice", "parallel_tool_calls", "response_format",
    "temperature", "top_p", "top_k", "min_p", "typical_p", "seed", "stop", "logit_bias",
    "presence_penalty", "frequency_penalty", "repeat_penalty", "logprobs", "top_logprobs",
)  # fmt: skip

_MOST_TOP_LOGPROBS = 20  # OpenAI's limit; the engine would list the whole vocabulary per token
_DEEPEST = 64  # levels of nesting; the engine reads JSON recursively


def engine_request(request: Mapping[str, Any], *, context: int) -> bytes:
    """Build the JSON that the engine gets; ``context`` bounds the answer, in tokens.

    Raises :class:`~qmt_jupyter.errors.RequestInvalid`.
    """
    body = {name: request[name] for name in _FIELDS if request.get(name) is not None}
    _check_messages(body.get("messages"))
    if request.get("n") not in (None, 1):
        raise RequestInvalid("One answer per request is given here: n must be 1.")
    if isinstance(top := body.get("top_logprobs"), int) and top > _MOST_TOP_LOGPROBS:
        raise RequestInvalid(f"top_logprobs can be {_MOST_TOP_LOGPROBS} at most.")
    for name in ("response_format", "tools"):
        check_schema(name, body.get(name))
    body["max_tokens"] = min(_max_tokens(request) or context, context)
    body["stream"] = True
    body["stream_options"] = {"include_usage": True}
    # The engine then calls back while it reads the prompt, which is when it can be stopped.
    body["return_progress"] = True
    # A piece can be several tokens: each says how many there are by now.
    body["timings_per_token"] = True
    _check_depth(body)
    try:
        # Not escaped: half a surrogate pair then fails here and not in the engine.
        return json.dumps(body, ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError):
        raise RequestInvalid("The request is not valid JSON.") from None


def _max_tokens(request: Mapping[str, Any]) -> int | None:
    for name in ("max_completion_tokens", "max_tokens"):
        value = request.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise RequestInvalid(f"{name} must be a whole number of at least 1.")
        return value
    return None


def _check_messages(messages: Any) -> None:
    if not isinstance(messages, list) or not messages:
        # Given none, the engine makes up a text out of nothing.
        raise RequestInvalid("The request has no messages.")
    for message in messages:
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
            raise RequestInvalid("Every message must be an object with a role.")
        content = message.get("content")
        if content is None or isinstance(content, str):
            continue
        if not isinstance(content, list):
            raise RequestInvalid("A message's content must be text or a list of parts.")
        for part in content:
            _check_part(part)


def _check_part(part: Any) -> None:
    kind = part.get("type") if isinstance(part, Mapping) else None
    if kind == "text" and isinstance(part.get("text"), str):
        return
    if kind == "image_url":
        image = part.get("image_url")
        address = image.get("url") if isinstance(image, Mapping) else None
        # Anything else would make the engine fetch an address or read a file of the host's.
        if isinstance(address, str) and address.startswith("data:image/"):
            return
        raise RequestInvalid("An image must be in the request itself, as a data:image/… URL.")
    raise RequestInvalid("A message's content can have text and image parts only.")


def _check_depth(value: Any) -> None:
    level: list[Any] = [value]
    for _ in range(_DEEPEST):
        below: list[Any] = []
        for item in level:
            if isinstance(item, Mapping):
                below.extend(item.values())
            elif isinstance(item, list | tuple):
                below.extend(item)
        if not below:
            return
        level = below
    raise RequestInvalid("The request is nested too deeply.")


def refused_by_engine(refusal: Mapping[str, Any]) -> QmtError:
    """Turn the engine's error object into the error that a guest meets."""
    kind = refusal.get("type")
    said = printable(str(refusal.get("message", "")), 200)
    if kind == "exceed_context_size_error":
        tokens, context = refusal.get("n_prompt_tokens"), refusal.get("n_ctx")
        return PromptTooLong(f"The prompt has {tokens} tokens, and the context holds {context}.")
    if "too large to process" in said:
        return PromptTooLong("A text has more tokens than the model's context holds.")
    if kind in ("invalid_request_error", "not_supported_error", "not_found_error"):
        return RequestInvalid(f"The model cannot take this request: {said}")
    return GenerationFailed("The engine could not go on with the answer.")


def raised_by_engine(error: BaseException, *, began: bool) -> QmtError:
    """Turn what the engine raised into the error that a guest meets.

    ``began``: the answer had begun, so it is not the request's fault any more.
    """
    if began or not isinstance(error, (ValueError, RuntimeError)):
        return GenerationFailed("The engine could not go on with the answer.")
    said = printable(str(error), 200)
    if "image input is not supported" in said:
        return RequestInvalid("This model does not take images.")
    return RequestInvalid(f"The model cannot take this request: {said}")
