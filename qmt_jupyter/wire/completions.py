"""OpenAI shapes: chunks from replies, and a whole completion from its chunks."""

from __future__ import annotations

from typing import Any

from .messages import Delta, Done, JsonObject, Reply, Started, Usage


class ChunkBuilder:
    """Turns one request's replies back into ``chat.completion.chunk`` objects."""

    def __init__(self) -> None:
        self._common: JsonObject = {"object": "chat.completion.chunk"}

    def chunk(self, reply: object) -> JsonObject | None:
        """The chunk that a reply stands for, or None for what carries no part of the answer."""
        if isinstance(reply, Started):
            self._common.update(id=reply.id, model=reply.model, created=reply.created)
            return None
        if isinstance(reply, Delta):
            return {**self._common, "choices": reply.choices}
        if isinstance(reply, Usage):
            chunk: JsonObject = {**self._common, "choices": [], "usage": reply.usage}
            if reply.timings is not None:
                chunk["timings"] = reply.timings
            return chunk
        return None


class Completion:
    """Puts an answer together as its replies arrive.

    ``text`` is the first choice's content so far; :meth:`result` is the whole in OpenAI's
    ``chat.completion`` shape.
    """

    def __init__(self) -> None:
        self.started: Started | None = None
        self.usage: JsonObject | None = None
        self.timings: JsonObject | None = None
        self.finish_reason: str | None = None
        self._choices: dict[int, JsonObject] = {}
        self._pieces: list[str] = []

    @property
    def text(self) -> str:
        """The first choice's content so far."""
        # Kept joined: who looks at every piece would otherwise join all of them each time.
        if len(self._pieces) > 1:
            self._pieces = ["".join(self._pieces)]
        return self._pieces[0] if self._pieces else ""

    def add(self, reply: Reply) -> str:
        """Take a reply and return the text that it adds to the first choice (often none)."""
        if isinstance(reply, Started):
            self.started = reply
        elif isinstance(reply, Usage):
            self.usage, self.timings = reply.usage, reply.timings
        elif isinstance(reply, Done):
            self.finish_reason = reply.finish_reason
        elif isinstance(reply, Delta):
            return "".join([self._add_choice(choice) for choice in reply.choices])
        return ""

    def _add_choice(self, choice: JsonObject) -> str:
        index = choice.get("index", 0)
        if not isinstance(index, int):
            return ""
        whole = self._choices.setdefault(index, {"index": index, "message": {}, "pieces": {}})
        if choice.get("finish_reason"):
            whole["finish_reason"] = choice["finish_reason"]
        logprobs = choice.get("logprobs")
        if isinstance(logprobs, dict):
            for key, value in logprobs.items():
                if isinstance(value, list):
                    whole.setdefault("logprobs", {}).setdefault(key, []).extend(value)
        delta = choice.get("delta")
        if not isinstance(delta, dict):
            return ""
        for key, value in delta.items():
            if key == "tool_calls" and isinstance(value, list):
                _merge_tool_calls(whole["message"], value)
            elif key in ("role", "name"):
                whole["message"][key] = value
            elif isinstance(value, str):
                whole["pieces"].setdefault(key, []).append(value)
            elif value is not None and key != "tool_calls":
                whole["message"][key] = value
        text = delta.get("content") if index == 0 else None
        if isinstance(text, str) and text:
            self._pieces.append(text)
            return text
        return ""

    def result(self) -> JsonObject:
        """The answer so far as a ``chat.completion`` object."""
        started = self.started
        return {
            "id": started.id if started else "",
            "object": "chat.completion",
            "created": started.created if started else 0,
            "model": started.model if started else "",
            "choices": [self._finished(self._choices[index]) for index in sorted(self._choices)],
            "usage": self.usage,
        }

    def _finished(self, choice: JsonObject) -> JsonObject:
        message: JsonObject = {"role": "assistant", "content": None, **choice["message"]}
        for key, pieces in choice["pieces"].items():
            message[key] = "".join(pieces)
        return {
            "index": choice["index"],
            "message": message,
            "logprobs": choice.get("logprobs"),
            "finish_reason": choice.get("finish_reason") or self.finish_reason,
        }


def _merge_tool_calls(message: JsonObject, calls: list[Any]) -> None:
    whole = message.get("tool_calls")
    if not isinstance(whole, list):
        whole = message["tool_calls"] = []
    for call in calls:
        if not isinstance(call, dict):
            continue
        function = call.get("function")
        function = function if isinstance(function, dict) else {}
        index = call.get("index", 0)
        known = next((each for each in whole if each.get("index") == index), None)
        if known is None:
            whole.append({**call, "function": dict(function)})
            continue
        arguments = function.get("arguments")
        if isinstance(arguments, str) and arguments:
            held = known["function"].get("arguments")
            known["function"]["arguments"] = (held if isinstance(held, str) else "") + arguments
