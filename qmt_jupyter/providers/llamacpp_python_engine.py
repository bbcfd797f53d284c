"""llama-cpp-python's model, asked in the way that xllamacpp's server is asked.

What the library does differently is dealt with here: it reports no usage and takes no notice of a
reader who left (so the tokens are counted, and the reader asked about, in its own loop), turns a
schema or a tool that it cannot take into plain JSON without a word, and crashes on a grammar that
it cannot read (so they are tried before).
"""

from __future__ import annotations

import contextlib
import json
import re
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ..errors import GenerationFailed
from ..harmless import printable

# llama.cpp's own defaults; the library has others, and its seed repeats itself after each start.
_DEFAULTS = {
    "temperature": 0.8,
    "top_p": 0.95,
    "top_k": 40,
    "min_p": 0.05,
    "typical_p": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "repeat_penalty": 1.0,
}
_ANYTHING = {"type": "object"}

Callback = Callable[[bytes], bool]


class _Stopped(Exception):
    """The reader is gone. Raised in the library's loop, to get out of it."""


class _Refused(Exception):
    """The request asks for what this engine cannot do; the text says what."""


class Engine:
    """The library's model, asked like xllamacpp's server: see :data:`.generation.Ask`."""

    def __init__(self, library: Any, llama: Any, step: int) -> None:
        self._library = library
        self._llama = llama
        self._step = step

    def handle_chat_completions(self, body: bytes, callback: Callback) -> None:
        """Answer one request; one at a time. Blocks until the answer is over.

        ``callback`` gets chunks, progress and refusals in llama.cpp's shapes, as JSON.
        """
        run = _Run(callback)
        try:
            arguments = self._arguments(json.loads(body))
            with _watched(self._llama, run, self._step):
                self._stream(arguments, run)
        except _Stopped:
            pass
        except Exception as error:
            if run.began:
                raise GenerationFailed("The engine gave up.") from error
            with contextlib.suppress(_Stopped):  # after an error nothing more is wanted
                run.say({"error": _refusal(error)})

    def handle_embeddings(self, body: str) -> str:
        """The vector of one text, of length 1, in OpenAI's shape; or llama.cpp's error object."""
        text = json.loads(body)["input"]
        try:
            vector, tokens = self._llama.embed(
                text, normalize=True, truncate=False, return_count=True
            )
        except ValueError as error:
            return json.dumps({"error": _refusal(error)})
        answer = {"data": [{"embedding": vector}], "usage": {"prompt_tokens": tokens}}
        return json.dumps(answer)

    def _stream(self, arguments: dict[str, Any], run: _Run) -> None:
        chunks = self._llama.create_chat_completion(stream=True, **arguments)
        last: dict[str, Any] = {}
        try:
            for chunk in chunks:
                for choice in chunk["choices"]:
                    # In forced tool calls the library fills in a field of old, and empty ones.
                    choice["delta"] = {
                        key: value
                        for key, value in choice["delta"].items()
                        if value is not None and key != "function_call"
                    }
                run.say({**chunk, "timings": {"predicted_n": run.tokens}})
                last = chunk
        finally:
            chunks.close()  # or the library goes on holding what it computes with
        run.say({**last, "choices": [], **run.summary()})

    def _arguments(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """The library's arguments, from nothing but what is known of it."""
        arguments: dict[str, Any] = {
            name: request.get(name, default) for name, default in _DEFAULTS.items()
        }
        arguments["messages"] = [_plain(message) for message in request["messages"]]
        arguments["max_tokens"] = request["max_tokens"]
        seed = request.get("seed")
        arguments["seed"] = secrets.randbelow(2**32) if seed is None else seed
        stop = request.get("stop") or []
        arguments["stop"] = [stop] if isinstance(stop, str) else list(stop)
        if request.get("logprobs"):
            raise _Refused("this engine gives no logprobs")
        if request.get("logit_bias"):
            arguments["logit_bias"] = self._bias(request["logit_bias"])
        arguments.update(self._tools(request))
        form = request.get("response_format") or {}
        if form.get("type") in ("json_object", "json_schema"):
            schema = form.get("schema") or (form.get("json_schema") or {}).get("schema")
            arguments["grammar"] = self._grammar(schema)
        elif form.get("type", "text") != "text":
            raise _Refused("response_format must be text, json_object or json_schema")
        return arguments

    def _bias(self, bias: Mapping[str, float]) -> dict[int, float]:
        # An id beyond the vocabulary would be an error inside a callback of the engine's.
        tokens = {int(token): value for token, value in bias.items()}
        if max(tokens) >= self._llama.n_vocab() or min(tokens) < 0:
            raise _Refused("logit_bias names a token that the model does not have")
        return tokens

    def _tools(self, request: Mapping[str, Any]) -> dict[str, Any]:
        tools, choice = request.get("tools") or [], request.get("tool_choice")
        if not tools or choice == "none":
            return {}
        named = []
        for tool in tools:
            function = tool.get("function")
            if not isinstance(function, dict) or not isinstance(function.get("name"), str):
                raise _Refused("every tool must be a function with a name")
            named.append({**tool, "function": {"parameters": _ANYTHING, **function}})
        if choice == "required":
            if len(named) > 1:
                raise _Refused("this engine can be made to call one tool: name it in tool_choice")
            choice = {"type": "function", "function": {"name": named[0]["function"]["name"]}}
        if isinstance(choice, dict):
            wanted = (choice.get("function") or {}).get("name")
            chosen = [each for each in named if each["function"]["name"] == wanted]
            if not chosen:
                raise _Refused("tool_choice names none of the tools")
            self._grammar(chosen[0]["function"]["parameters"])
            return {"tools": named, "tool_choice": choice}
        return {"tools": named}

    def _grammar(self, schema: Any) -> Any:
        """The grammar of a schema (None: of JSON), tried out: the library does not look."""
        grammars = self._library.llama_grammar
        try:
            text = (
                grammars.JSON_GBNF
                if schema is None
                else grammars.json_schema_to_gbnf(json.dumps(schema))
            )
        except Exception:
            raise _Refused("the JSON schema cannot be made into a grammar") from None
        made = self._library.llama_sampler_init_grammar(
            self._llama._model.vocab, text.encode(), b"root"
        )
        if not made:
            raise _Refused("the JSON schema cannot be made into a grammar")
        self._library.llama_sampler_free(made)
        return grammars.LlamaGrammar.from_string(text, verbose=False)


class _Run:
    """One answer in the library's loop: what it has taken, and whether anybody still reads."""

    def __init__(self, callback: Callback) -> None:
        self._callback = callback
        self._started = time.perf_counter()
        self._first = 0.0
        self.began = False
        self.prompt = 0
        self.tokens = 0

    def say(self, chunk: Mapping[str, Any]) -> None:
        """Hand a chunk on. Raises :class:`_Stopped` where nobody reads any more."""
        if self._callback(json.dumps(chunk).encode()):
            raise _Stopped

    def begin(self, prompt: int) -> None:
        """The prompt is accepted: from here on, what fails is the engine."""
        self.began, self.prompt = True, prompt
        self.look()

    def token(self) -> None:
        """One more token of the answer is there."""
        self._first = self._first or time.perf_counter()
        self.tokens += 1
        self.look()

    def look(self) -> None:
        """Raise :class:`_Stopped` where nobody reads any more; says how long the prompt is."""
        self.say({"prompt_progress": {"total": self.prompt}})

    def summary(self) -> dict[str, Any]:
        """Usage and timings in llama.cpp's shapes."""
        now = time.perf_counter()
        first = self._first or now
        spent = (now - first) * 1000
        return {
            "usage": {
                "prompt_tokens": self.prompt,
                "completion_tokens": self.tokens,
                "total_tokens": self.prompt + self.tokens,
            },
            "timings": {
                "prompt_ms": round((first - self._started) * 1000, 3),
                "predicted_n": self.tokens,
                "predicted_ms": round(spent, 3),
                "predicted_per_second": round(self.tokens / spent * 1000, 3) if spent else 0.0,
            },
        }


class _watched:  # noqa: N801  (used like a function)
    """While open, the library's loop counts into ``run`` and asks it whether to go on."""

    def __init__(self, llama: Any, run: _Run, step: int) -> None:
        self._llama, self._run, self._step = llama, run, step

    def __enter__(self) -> None:
        llama, run, step = self._llama, self._run, self._step
        evaluate, generate = llama.eval, llama.generate

        def eval_in_steps(tokens: Sequence[int]) -> None:
            evaluate(tokens[:step])
            for start in range(step, len(tokens), step):
                run.look()
                evaluate(tokens[start : start + step])

        def counted(tokens: Sequence[int], *more: Any, **options: Any) -> Iterator[int]:
            run.begin(len(tokens))
            for token in generate(tokens, *more, **options):
                run.token()
                yield token

        # On the object and not the class: other models of this process are left alone.
        llama.eval, llama.generate = eval_in_steps, counted

    def __exit__(self, *_: object) -> None:
        del self._llama.eval, self._llama.generate


def _plain(message: Mapping[str, Any]) -> dict[str, Any]:
    """A message as chat templates take it: its content one text."""
    content = message.get("content")
    if isinstance(content, list):
        if any(part["type"] != "text" for part in content):
            raise _Refused("this model does not take images")
        content = "\n".join(part["text"] for part in content)
    return {**message, "content": content or ""}


_TOO_LONG = re.compile(r"Requested tokens \((\d+)\) exceed (?:context window|batch size) of (\d+)")


def _refusal(error: Exception) -> dict[str, Any]:
    """llama.cpp's error object for what the library raised before it began."""
    said = str(error)
    if (numbers := _TOO_LONG.search(said)) is not None:
        return {
            "type": "exceed_context_size_error",
            "n_prompt_tokens": int(numbers[1]),
            "n_ctx": int(numbers[2]),
        }
    if not isinstance(error, _Refused):
        # Chat templates raise what they like when messages do not fit them.
        said = f"its chat template does not take these messages ({printable(said, 120)})"
    return {"type": "invalid_request_error", "message": said}
