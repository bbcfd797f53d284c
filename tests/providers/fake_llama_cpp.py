"""Behaves like the package llama_cpp 0.3.36 where our provider touches it, without computing.

A token is a word, or one of the ids below. What the real library does around its computing is kept:
the loops that call each other, the errors and their texts, the fields that it fills in, and that a
grammar that cannot be read is a null pointer.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from types import SimpleNamespace

LLAMA_POOLING_TYPE_MEAN = 1
END = 2
VOCABULARY = 1000

loaded: list[Llama] = []
computes_on_a_gpu = False


def llama_supports_gpu_offload():
    return computes_on_a_gpu


def llama_sampler_init_grammar(vocab, grammar, root):
    assert isinstance(grammar, bytes)
    return None if b"unreadable" in grammar else object()


def llama_sampler_free(sampler):
    assert sampler is not None


def json_schema_to_gbnf(schema):
    schema = json.loads(schema)
    if "$ref" in schema:
        raise KeyError(schema["$ref"])
    return f"root ::= {json.dumps(schema)}"


class LlamaGrammar:
    def __init__(self, text):
        self.text = text

    @classmethod
    def from_string(cls, text, verbose=True):
        return cls(text)

    @classmethod
    def from_json_schema(cls, text, verbose=True):
        return cls(json_schema_to_gbnf(text))


llama_grammar = SimpleNamespace(
    JSON_GBNF="root ::= object", LlamaGrammar=LlamaGrammar, json_schema_to_gbnf=json_schema_to_gbnf
)


class Llama:
    """``words`` is what it answers, over and over; ``ends_after`` so many tokens it has said all.

    ``evaluated`` lists the sizes of its steps, ``asked`` the arguments of its chats.
    """

    words = ("one ", "two ", "three ")
    ends_after = 6
    fails_after = None
    seconds_a_step = 0.0

    def __init__(self, model_path, *, n_ctx=512, n_batch=512, n_gpu_layers=0, n_threads=None,
                 embedding=False, verbose=True, **options):  # fmt: skip
        if "broken" in model_path:
            raise ValueError(f"Failed to load model from file: {model_path}")
        logging.getLogger("llama-cpp-python").setLevel(logging.ERROR)
        self.options = {"n_gpu_layers": n_gpu_layers, "embedding": embedding, **options}
        self.model_path = model_path
        self.n_threads = n_threads or 1
        self.n_batch = n_batch
        self.embedding = embedding
        self.evaluated = []
        self.asked = []
        self.go_on = threading.Event()
        self.go_on.set()
        self._n_ctx = n_ctx
        self._model = SimpleNamespace(vocab="vocabulary")
        self._busy = threading.Lock()
        loaded.append(self)

    def n_vocab(self):
        return VOCABULARY

    def eval(self, tokens):
        for start in range(0, len(tokens), self.n_batch):
            self.go_on.wait(20)
            time.sleep(self.seconds_a_step)
            self.evaluated.append(len(tokens[start : start + self.n_batch]))

    def generate(self, tokens, **sampling):
        said = 0
        while True:
            self.eval(tokens)
            if self.fails_after is not None and said >= self.fails_after:
                raise RuntimeError("llama_decode returned -3")
            if said >= self.ends_after:
                yield END
                return
            yield 100 + said % len(self.words)
            said += 1
            tokens = [said]

    def embed(self, text, normalize=False, truncate=True, return_count=False):
        assert self.embedding
        assert normalize
        assert return_count
        tokens = text.split()
        if len(tokens) > self.n_batch and not truncate:
            raise ValueError(
                f"Requested tokens ({len(tokens)}) exceed batch size of {self.n_batch}"
            )
        return [1.0, 0.0], len(tokens)

    def create_chat_completion(self, messages, *, tools=None, tool_choice=None, grammar=None,
                               stream=False, **arguments):  # fmt: skip
        assert stream
        self.asked.append(
            {"messages": messages, "tools": tools, "tool_choice": tool_choice, "grammar": grammar,
             **arguments}
        )  # fmt: skip
        for message in messages:
            if message["role"] == "stranger":
                raise ValueError("Conversation roles must alternate user/assistant/…")
            assert isinstance(message["content"], str), "templates join texts"
        words = " ".join(f"{m['role']} {m['content']}" for m in messages).split()
        forced = None
        if isinstance(tool_choice, dict) and tools is not None:
            name = tool_choice["function"]["name"]
            forced = next(tool for tool in tools if tool["function"]["name"] == name)
            grammar = LlamaGrammar.from_json_schema(json.dumps(forced["function"]["parameters"]))
        pieces = self._completion(words, grammar, **arguments)
        return self._calls(pieces, forced) if forced else self._chat(pieces)

    def _completion(self, words, grammar, *, max_tokens, stop, seed, **sampling):
        assert grammar is None or b"unreadable" not in grammar.text.encode(), "the engine crashes"
        if len(words) >= self._n_ctx:
            raise ValueError(
                f"Requested tokens ({len(words)}) exceed context window of {self._n_ctx}"
            )
        assert self._busy.acquire(blocking=False), "one at a time"
        try:
            finish = "length"
            tokens = self.generate(words, temp=sampling["temperature"])
            for count, token in enumerate(tokens, 1):
                if token == END:
                    finish = "stop"
                    break
                if (text := self.words[token - 100]).strip() in stop:
                    finish = "stop"
                    break
                yield text, None
                if count >= min(max_tokens, self._n_ctx - len(words)):
                    break
            yield "", finish
        finally:
            self._busy.release()

    def _chunk(self, delta, finish):
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return {"id": "chatcmpl-1", "model": self.model_path, "created": 1,
                "object": "chat.completion.chunk", "choices": [choice]}  # fmt: skip

    def _chat(self, pieces):
        for number, (text, finish) in enumerate(pieces):
            if number == 0:
                yield self._chunk({"role": "assistant"}, None)
            yield self._chunk({} if finish else {"content": text}, finish)

    def _calls(self, pieces, tool):
        name = tool["function"]["name"]
        empty = {"role": None, "content": None, "function_call": None, "tool_calls": None}
        for number, (text, finish) in enumerate(pieces):
            if number == 0:
                yield self._chunk({**empty, "role": "assistant"}, None)
            call = {"name": name, "arguments": text}
            calls = [{"index": 0, "id": "call__0_1", "type": "function", "function": call}]
            given = {**empty, "function_call": call, "tool_calls": calls}
            yield self._chunk(empty if finish else given, "tool_calls" if finish else None)

    def close(self):
        if self in loaded:
            loaded.remove(self)
