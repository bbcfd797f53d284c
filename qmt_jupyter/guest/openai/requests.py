"""What real clients send, made into what a host takes. Pure.

Clients send more than they mean: fields of OpenAI's platform that change no answer, and nulls for
what they leave out. Those go; whatever would change the answer stays, and the host's allowlist
speaks for itself.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from ...wire.embeddings import pack
from ...wire.frames import ASK_MAX_DEPTH, ASK_MAX_ITEMS
from .errors import invalid

Body = dict[str, Any]
_LONGEST_MODEL_NAME = 200

# Parameter: when it can go, because the answer is the same without it.
_WITHOUT_EFFECT: Mapping[str, Callable[[Any], bool]] = {
    # labels and hints for OpenAI's own accounting, moderation and caches
    "user": lambda _: True,
    "metadata": lambda _: True,
    "safety_identifier": lambda _: True,
    "prompt_cache_key": lambda _: True,
    "prompt_cache_retention": lambda _: True,
    "prediction": lambda _: True,
    # what is meant by leaving them out
    "store": lambda value: value is False,
    "service_tier": lambda value: value in ("auto", "default"),
    "modalities": lambda value: value == ["text"],
    "verbosity": lambda value: value == "medium",
    "functions": lambda value: value == [],
    "tools": lambda value: value == [],
    # said by the endpoint, not by the host
    "stream": lambda _: True,
    "stream_options": lambda _: True,
}
# Fields of a message or of a part that a client sends back as it got them, or for caches.
_MESSAGE_WITHOUT_EFFECT: Mapping[str, Callable[[Any], bool]] = {
    "annotations": lambda value: value == [],
    "tool_calls": lambda value: value == [],
    "cache_control": lambda _: True,
}


@dataclass(frozen=True)
class ChatRequest:
    """One chat completion: ``body`` for the host, and how the client wants the answer."""

    body: Body
    stream: bool
    include_usage: bool


@dataclass(frozen=True)
class EmbeddingsRequest:
    """Embeddings: ``body`` for the host; ``as_base64`` is how the client wants the vectors."""

    body: Body
    as_base64: bool


def read_json(data: bytes) -> Body:
    """The body's object. Raises :class:`~.errors.NotServed` where it is none."""
    try:
        value = json.loads(data.decode("utf-8"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise invalid("The body is not JSON.", code="invalid_json") from None
    if not isinstance(value, dict):
        raise invalid("The body must be a JSON object.", code="invalid_json")
    _require_modest(value)
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _require_modest(body: Body) -> None:
    """Refuse here, by name, what the host would refuse as unreadable."""
    for key, whole in body.items():
        items = 0
        level, depth = [whole], 1
        while level:
            items += len(level)
            # The request itself and its body are two levels of the frame.
            if items > ASK_MAX_ITEMS or depth > ASK_MAX_DEPTH - 2:
                raise invalid("The request is nested too deeply or has too many values.", key[:60])
            below: list[Any] = []
            for each in level:
                if isinstance(each, dict):
                    below.extend(each.values())
                elif isinstance(each, list):
                    below.extend(each)
            level, depth = below, depth + 1


def chat_request(body: Body) -> ChatRequest:
    """Raises :class:`~.errors.NotServed` for what concerns the endpoint itself."""
    stream = body.get("stream")
    if stream is not None and not isinstance(stream, bool):
        raise invalid("stream must be true or false.", "stream")
    options = body.get("stream_options")
    if options is not None and not isinstance(options, dict):
        raise invalid("stream_options must be an object.", "stream_options")
    if options is not None and not stream:
        raise invalid("stream_options is only allowed with stream.", "stream_options")
    _require_model(body)
    if "messages" not in body:
        raise invalid("The request has no messages.", "messages", "missing_required_parameter")
    kept = _without(body, _WITHOUT_EFFECT)
    messages = kept.get("messages")
    if isinstance(messages, list):
        kept["messages"] = [_message(each) for each in messages]
    return ChatRequest(kept, bool(stream), bool((options or {}).get("include_usage")))


def embeddings_request(body: Body) -> EmbeddingsRequest:
    """Raises :class:`~.errors.NotServed` for what concerns the endpoint itself."""
    form = body.get("encoding_format")
    if form not in (None, "float", "base64"):
        raise invalid("encoding_format must be float or base64.", "encoding_format")
    _require_model(body)
    if "input" not in body:
        raise invalid("The request has no input.", "input", "missing_required_parameter")
    kept = _without(body, {**_WITHOUT_EFFECT, "encoding_format": lambda _: True})
    return EmbeddingsRequest(kept, form == "base64")


def _require_model(body: Body) -> None:
    model = body.get("model")
    if model is not None and (not isinstance(model, str) or len(model) > _LONGEST_MODEL_NAME):
        raise invalid("model must be the name of a model.", "model")


def _without(given: Body, effectless: Mapping[str, Callable[[Any], bool]]) -> Body:
    """A copy without what is null or has no effect."""
    return {
        key: value
        for key, value in given.items()
        if value is not None and not (key in effectless and effectless[key](value))
    }


def _message(message: Any) -> Any:
    if not isinstance(message, dict):
        return message
    kept = _without(message, _MESSAGE_WITHOUT_EFFECT)
    content = kept.get("content")
    if isinstance(content, list):
        kept["content"] = [
            _without(part, _MESSAGE_WITHOUT_EFFECT) if isinstance(part, dict) else part
            for part in content
        ]
    return kept


def vector_as_base64(vector: Sequence[float]) -> str:
    """Little-endian 32-bit floats in base64, as OpenAI's own clients ask for them."""
    return base64.b64encode(pack(vector)).decode("ascii")
