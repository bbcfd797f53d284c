"""What a guest's request may contain. Pure.

A request reaches a provider only with parameters named here, of the right type and in range.
Nothing that names a URL, header, key, file or engine setting is among them: images come as
``data:`` URLs, schema references stay within the schema.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..errors import RequestInvalid

MAX_TOKENS = 1_000_000
_MAX_DEPTH = 32
_ROLES = ("system", "developer", "user", "assistant", "tool", "function")

Check = Callable[[Any], bool]


def _number(low: float, high: float) -> Check:
    return lambda value: (
        isinstance(value, (int, float)) and not isinstance(value, bool) and low <= value <= high
    )


def _integer(low: int, high: int) -> Check:
    return lambda value: (
        isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
    )


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool)


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


def _is_stop(value: Any) -> bool:
    texts = value if isinstance(value, list) else [value]
    return len(texts) <= 16 and all(isinstance(t, str) and 0 < len(t) <= 500 for t in texts)


def _is_logit_bias(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and len(value) <= 1024
        and all(isinstance(k, str) and k.isascii() and k.isdigit() for k in value)
        # One that is forced can be half a letter: then the engine says nothing, and cannot be
        # stopped or counted meanwhile.
        and all(_number(-100, 0)(bias) for bias in value.values())
    )


def _has_only(value: Any, **checks: Check) -> bool:
    """Whether a value is an object with no other fields, each None or as its check says."""
    return isinstance(value, dict) and all(
        name in checks and (each is None or checks[name](each)) for name, each in value.items()
    )


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_tools(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) <= 128
        and all(
            _has_only(tool, type=_is_text, function=_is_function)
            and tool.get("type") == "function"
            and isinstance(tool.get("function"), dict)
            for tool in value
        )
    )


def _is_function(value: Any) -> bool:
    return _has_only(
        value, name=_is_text, description=_is_text, parameters=_is_object, strict=_is_bool
    )


def _is_tool_choice(value: Any) -> bool:
    return value in ("none", "auto", "required") or _has_only(
        value,
        type=lambda kind: kind == "function",
        function=lambda function: _has_only(function, name=_is_text),
    )


def _is_tool_calls(value: Any) -> bool:
    def is_call(call: Any) -> bool:
        return _has_only(
            call, id=_is_text, index=_integer(0, 1000), type=_is_text, function=is_called
        )

    def is_called(function: Any) -> bool:
        return _has_only(function, name=_is_text, arguments=_is_text)

    return isinstance(value, list) and all(is_call(call) for call in value)


def _is_response_format(value: Any) -> bool:
    return _has_only(
        value,
        type=lambda kind: kind in ("text", "json_object", "json_schema"),
        schema=_is_object,  # llama.cpp's own place for one
        json_schema=lambda form: _has_only(
            form, name=_is_text, description=_is_text, schema=_is_object, strict=_is_bool
        ),
    ) and bool(value.get("type"))


PARAMETERS: Mapping[str, Check] = {
    "messages": lambda value: isinstance(value, list) and 0 < len(value) <= 4096,
    "model": lambda value: isinstance(value, str) and len(value) <= 200,
    "temperature": _number(0, 5),
    "top_p": _number(0, 1),
    "top_k": _integer(0, 100_000),
    "min_p": _number(0, 1),
    "max_tokens": _integer(1, MAX_TOKENS),
    "max_completion_tokens": _integer(1, MAX_TOKENS),
    "seed": _integer(0, 2**32 - 1),
    "stop": _is_stop,
    "n": _integer(1, 1),
    "presence_penalty": _number(-2, 2),
    "frequency_penalty": _number(-2, 2),
    "repeat_penalty": _number(0, 5),
    "logit_bias": _is_logit_bias,
    "logprobs": _is_bool,
    "top_logprobs": _integer(0, 20),
    "response_format": _is_response_format,
    "tools": _is_tools,
    "tool_choice": _is_tool_choice,
    "parallel_tool_calls": _is_bool,
    "reasoning_effort": lambda value: value in ("minimal", "low", "medium", "high"),
}
# Asked for by clients as a matter of course; the exchange always streams and counts.
_IGNORED = ("stream", "stream_options")

MAX_TEXTS = 2048
EMBEDDING_PARAMETERS: Mapping[str, Check] = {
    "input": lambda value: isinstance(value, (str, list)),
    "model": PARAMETERS["model"],
    "dimensions": _integer(1, 16_384),
}
# Vectors travel as 32-bit floats; the guest's side writes them as it was asked to.
_EMBEDDING_IGNORED = ("encoding_format",)


def checked(body: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of ``body`` with the parameters that a provider may see.

    Parameters that are None count as left out. Raises
    :class:`~qmt_jupyter.errors.RequestInvalid` and names the parameter.
    """
    request = _allowed(body, PARAMETERS, _IGNORED)
    if "messages" not in request:
        raise RequestInvalid("The request has no messages.")
    for message in request["messages"]:
        _check_message(message)
    for key in ("tools", "response_format"):
        _require_local_references(request.get(key))
    return request


def checked_embeddings(body: Mapping[str, Any]) -> dict[str, Any]:
    """The same for an embeddings request, whose ``input`` becomes a list of texts."""
    request = _allowed(body, EMBEDDING_PARAMETERS, _EMBEDDING_IGNORED)
    given = request.get("input")
    texts = [given] if isinstance(given, str) else given
    if not texts:
        raise RequestInvalid("The request has no input.", next_step="Give a text, or a list.")
    if len(texts) > MAX_TEXTS:
        raise RequestInvalid(
            f"The request has {len(texts)} texts; {MAX_TEXTS} are allowed.",
            next_step="Send them in several requests.",
        )
    for text in texts:
        if not isinstance(text, str):
            # Another model's token numbers would give vectors that mean nothing.
            raise RequestInvalid(
                "The input must be text, not token numbers.",
                next_step="With LangChain: OpenAIEmbeddings(check_embedding_ctx_length=False).",
            )
        if not text:
            raise RequestInvalid("A text of the input is empty.", next_step="Leave it out.")
    request["input"] = texts
    return request


def _allowed(
    body: Mapping[str, Any], parameters: Mapping[str, Check], ignored: tuple[str, ...]
) -> dict[str, Any]:
    request: dict[str, Any] = {}
    for key, value in body.items():
        if value is None or key in ignored:
            continue
        check = parameters.get(key)
        if check is None:
            raise RequestInvalid(
                f"The parameter {_shown(key)} is not allowed in a request.",
                next_step=f"Leave it out; allowed are {', '.join(sorted(parameters))}.",
            )
        if not check(value):
            raise RequestInvalid(f"The parameter {_shown(key)} has a value that is not allowed.")
        _require_json(value, key, _MAX_DEPTH)
        request[key] = value
    return request


def _shown(key: object) -> str:
    return repr(str(key)[:60])


def _require_json(value: Any, key: str, depth: int) -> None:
    if depth == 0:
        raise RequestInvalid(f"The parameter {_shown(key)} is nested too deeply.")
    if isinstance(value, dict):
        for name, each in value.items():
            if not isinstance(name, str):
                raise RequestInvalid(f"The parameter {_shown(key)} is not JSON.")
            _require_json(each, key, depth - 1)
    elif isinstance(value, list):
        for each in value:
            _require_json(each, key, depth - 1)
    elif isinstance(value, float):
        if value != value or value in (float("inf"), float("-inf")):
            raise RequestInvalid(f"The parameter {_shown(key)} is not JSON.")
    elif value is not None and not isinstance(value, (str, int, bool)):
        raise RequestInvalid(f"The parameter {_shown(key)} is not JSON.")


_MESSAGE_FIELDS: Mapping[str, Check] = {
    "role": lambda value: value in _ROLES,
    "content": lambda value: isinstance(value, (str, list)),
    "name": _is_text,
    "tool_calls": _is_tool_calls,
    "tool_call_id": _is_text,
    "refusal": _is_text,
    "reasoning_content": _is_text,
}


def _check_message(message: Any) -> None:
    if not isinstance(message, dict) or message.get("role") not in _ROLES:
        raise RequestInvalid("A message needs a role: system, user, assistant or tool.")
    for key, value in message.items():
        if key not in _MESSAGE_FIELDS:
            raise RequestInvalid(f"A message cannot have the field {_shown(key)}.")
        if value is not None and not _MESSAGE_FIELDS[key](value):
            if key == "content":
                raise RequestInvalid("A message's content is a text or a list of parts.")
            raise RequestInvalid(f"A message's {key} has a value that is not allowed.")
    content = message.get("content")
    if isinstance(content, list):
        for part in content:
            _check_part(part)


def _check_part(part: Any) -> None:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind == "text" and set(part) == {"type", "text"} and isinstance(part["text"], str):
        return
    if kind == "image_url" and set(part) == {"type", "image_url"}:
        image = part["image_url"]
        if (
            isinstance(image, dict)
            and set(image) <= {"url", "detail"}
            and isinstance(image.get("url"), str)
            and image["url"].startswith("data:image/")
            and image.get("detail") in (None, "auto", "low", "high")
        ):
            return
        raise RequestInvalid(
            "An image must come with the request.",
            next_step="Send it as a data:image/… URL; the host fetches nothing.",
        )
    raise RequestInvalid("A part of a message is a text or an image_url.")


def _require_local_references(schema: Any) -> None:
    waiting = [schema]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            for name in ("$ref", "$dynamicRef", "$recursiveRef"):
                reference = value.get(name)
                if isinstance(reference, str) and not reference.startswith("#"):
                    raise RequestInvalid(
                        "A schema may refer only to itself.", next_step="Begin $ref with #."
                    )
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)
