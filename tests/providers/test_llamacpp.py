"""The real engine with the demo's model."""

from __future__ import annotations

import asyncio
import json
import secrets
import sys
import threading
import time
import urllib.error
import urllib.request
from operator import mul

import pytest

from qmt_jupyter.errors import (
    EngineMissing,
    ModelFileMissing,
    ModelNotLoaded,
    ModelUnknown,
    OptionInvalid,
    OutOfMemory,
    PromptTooLong,
    RequestInvalid,
    Stopped,
)
from qmt_jupyter.providers import llamacpp
from qmt_jupyter.providers.base import Embedding, Model
from qmt_jupyter.providers.gguf import read_head
from qmt_jupyter.providers.llamacpp import LlamaCpp
from qmt_jupyter.providers.model_files import ModelFile

from .conftest import model_head

KEY = "a-key-that-a-test-knows"
LONG = "word " * 1500
ENDLESS = {"logit_bias": {"2": -100}, "max_tokens": 1900}  # token 2 ends an answer


def ask(content, **parameters):
    return {"messages": [{"role": "user", "content": content}], **parameters}


async def whole(provider, request):
    return [chunk async for chunk in provider.chat("smollm2", request)]


def said(chunks):
    return "".join(
        choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"]
    )


def generation_threads():
    return [t for t in threading.enumerate() if t.name.startswith("qmt-generation-")]


async def settle():
    """Wait until no generation runs; a thread lives a moment longer than its last word."""
    deadline = time.monotonic() + 5
    while generation_threads() and time.monotonic() < deadline:
        await asyncio.sleep(0.01)
    assert generation_threads() == []


async def idle(seconds=0.5):
    """CPU time that this process takes while nothing is asked of it."""
    await settle()
    await asyncio.sleep(1)  # the engine finishes the step that it is in
    before = time.process_time()
    await asyncio.sleep(seconds)
    return time.process_time() - before


@pytest.fixture(scope="module")
def engine(run, smollm2):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(secrets, "token_urlsafe", lambda _: KEY)
        provider = run(LlamaCpp.load(smollm2, slots=2, context=2048))
    yield provider
    run(provider.aclose())
    run(settle())


@pytest.fixture(scope="module")
def single(run, smollm2):
    provider = run(LlamaCpp.load(smollm2, slots=1, context=2048))
    yield provider
    run(provider.aclose())


# What it says of itself


def test_it_says_what_it_offers_and_where_it_computes(engine):
    (model,) = engine.models
    assert (model.name, model.context) == ("smollm2", 2048)
    assert engine.slots == 2
    assert "thread" in engine.device or "layers" in engine.device
    assert all(isinstance(notice, str) for notice in engine.notices)


# Answers


def test_an_answer_streams_in_openai_chunks(run, engine):
    first, *chunks = run(whole(engine, ask("Why is the sky blue?", max_tokens=12, seed=1)))
    assert first["prompt_tokens"] == chunks[-1]["usage"]["prompt_tokens"]
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert len(said(chunks).split()) > 3
    assert len(chunks) > 8
    finishes = [chunk["choices"][0]["finish_reason"] for chunk in chunks[:-1]]
    assert finishes == [None] * (len(chunks) - 2) + ["length"]
    last = chunks[-1]
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] == 12
    assert last["usage"]["prompt_tokens"] > 5
    total = last["usage"]["prompt_tokens"] + last["usage"]["completion_tokens"]
    assert last["usage"]["total_tokens"] == total
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert len({chunk["id"] for chunk in chunks}) == 1


def test_a_chunk_tells_nothing_about_the_host_or_other_guests(run, engine, smollm2):
    prompt = ask("What is a heron? Answer in one sentence.", max_tokens=3)
    run(whole(engine, prompt))
    chunks = run(whole(engine, prompt))
    text = json.dumps(chunks)
    assert {chunk["model"] for chunk in chunks} == {"smollm2"}
    assert smollm2.path.name not in text
    assert str(smollm2.path.parent) not in text
    # That the prompt was known already would tell that someone has asked it.
    for word in ("system_fingerprint", "cached", "cache_n", "prompt_n", "prompt_progress"):
        assert word not in text
    assert chunks[-1]["timings"]["predicted_n"] == 3


def test_an_answer_ends_by_itself(run, engine):
    chunks = run(whole(engine, ask("Say only: yes", temperature=0, max_tokens=200)))
    assert chunks[-2]["choices"][0]["finish_reason"] == "stop"
    assert chunks[-1]["usage"]["completion_tokens"] < 200


def test_the_same_seed_gives_the_same_answer(run, engine):
    request = ask("Invent a name for a boat.", seed=7, temperature=0.9, max_tokens=12)
    run(whole(engine, request))
    first, second = (said(run(whole(engine, request))) for _ in range(2))
    other = said(run(whole(engine, {**request, "seed": 8})))
    assert first == second
    assert first != other


def test_an_answer_without_a_limit_ends_with_the_context(run, smollm2):
    async def main() -> None:
        provider = await LlamaCpp.load(smollm2, slots=1, context=256)
        request = ask("Count: 1 2 3 4 5 6 7 8 9", temperature=0, logit_bias=ENDLESS["logit_bias"])
        chunks = await whole(provider, request)
        assert chunks[-2]["choices"][0]["finish_reason"] == "length"
        assert chunks[-1]["usage"]["total_tokens"] <= 256
        await provider.aclose()

    run(main())


def test_a_json_schema_holds(run, engine):
    schema = {
        "type": "object",
        "properties": {"answer": {"type": "string", "enum": ["yes", "no"]}},
        "required": ["answer"],
        "additionalProperties": False,
    }
    form = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
    request = ask("Is water wet?", response_format=form, max_tokens=60, temperature=0)
    answer = json.loads(said(run(whole(engine, request))))
    assert answer["answer"] in ("yes", "no")


def test_tools_are_passed_on_even_to_a_model_that_has_none(run, engine):
    function = {
        "name": "weather",
        "description": "The weather of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 20}},
            "required": ["city"],
        },
    }
    call = {"id": "1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    request = {
        "messages": [
            {"role": "user", "content": "What is the weather in Paris?"},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "1", "content": "rain"},
        ],
        "tools": [{"type": "function", "function": function}],
        "tool_choice": "auto",
        "max_tokens": 5,
    }
    chunks = run(whole(engine, request))
    assert chunks[-2]["choices"][0]["finish_reason"] in ("stop", "length", "tool_calls")


def test_logprobs_pass_through(run, engine):
    request = ask("Hi", max_tokens=2, logprobs=True, top_logprobs=3)
    chunks = run(whole(engine, request))
    listed = [choice.get("logprobs") for chunk in chunks for choice in chunk["choices"]]
    tops = [entry["top_logprobs"] for lp in listed if lp for entry in lp["content"]]
    assert len(tops) == 2
    assert all(len(top) == 3 for top in tops)


# Side by side


def test_two_answers_are_computed_at_once(run, engine):
    async def main() -> None:
        order: list[str] = []

        async def one(name: str) -> None:
            async for _ in engine.chat(
                "smollm2", ask(f"Tell of {name}.", **{**ENDLESS, "max_tokens": 60})
            ):
                order.append(name)

        await asyncio.gather(one("rivers"), one("stars"))
        half = order[: len(order) // 2]
        assert min(half.count("rivers"), half.count("stars")) > 10, order

    run(main())


def test_more_requests_than_slots_wait_and_all_are_served(run, engine, monkeypatch):
    # Counted in the engine: a thread lives a moment longer than its slot is taken.
    asked, lock = llamacpp._chat, threading.Lock()
    at_work = most = 0

    def chat(*arguments) -> None:
        nonlocal at_work, most
        with lock:
            at_work += 1
            most = max(most, at_work)
        try:
            asked(*arguments)
        finally:
            with lock:
                at_work -= 1

    async def main() -> None:
        answers = await asyncio.gather(
            *(
                whole(engine, ask(f"Number {number}?", **{**ENDLESS, "max_tokens": 10}))
                for number in range(4)
            )
        )
        assert [chunks[-1]["usage"]["completion_tokens"] for chunks in answers] == [10] * 4
        assert (at_work, most) == (0, 2)

    monkeypatch.setattr(llamacpp, "_chat", chat)
    run(main())


# Cancelling


def test_closing_the_stream_stops_the_engine(run, single):
    async def main() -> None:
        stream = single.chat("smollm2", ask("Count to a million.", **ENDLESS))
        for _ in range(5):
            await anext(stream)
        await stream.aclose()
        assert await idle() < 0.25
        assert said(await whole(single, ask("Hi", max_tokens=3)))

    run(main())


def test_cancelling_the_task_stops_the_engine(run, single):
    async def main() -> None:
        began = asyncio.Event()

        async def read() -> None:
            async for _ in single.chat("smollm2", ask("Count to a million.", **ENDLESS)):
                began.set()

        task = asyncio.create_task(read())
        await began.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await idle() < 0.25

    run(main())


def test_cancelling_while_the_prompt_is_read_stops_the_engine(run, single):
    async def main() -> None:
        stream = single.chat("smollm2", ask(LONG + secrets.token_hex(4), max_tokens=5))
        assert (await anext(stream))["prompt_tokens"] > 1000, "said before it has been read"
        task = asyncio.create_task(anext(stream))
        await asyncio.sleep(0.2)
        assert not task.done()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await idle() < 0.25
        assert said(await whole(single, ask("Hi", max_tokens=3)))

    run(main())


def test_cancelling_one_that_waits_for_a_slot_leaves_the_slot_alone(run, single):
    async def main() -> None:
        first = single.chat("smollm2", ask("Count to a million.", **ENDLESS))
        await anext(first)
        waiting = asyncio.create_task(whole(single, ask("Hi", max_tokens=3)))
        await asyncio.sleep(0.05)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert said([await anext(first) for _ in range(5)])
        await first.aclose()
        assert said(await whole(single, ask("Hi", max_tokens=3)))

    run(main())


# Refusals


@pytest.mark.parametrize(
    "request_",
    [
        {},
        {"messages": []},
        ask("x", temperature="hot"),
        ask("x", response_format={"type": "poem"}),
        ask("x", tools=[{}]),
        ask([{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]),
        ask([{"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}]),
        ask("x", response_format={"type": "json_object", "schema": {"minItems": 5, "maxItems": 1}}),
    ],
)
def test_a_request_that_makes_no_sense_is_refused_and_the_engine_goes_on(run, engine, request_):
    with pytest.raises(RequestInvalid):
        run(whole(engine, request_))
    assert said(run(whole(engine, ask("Hi", max_tokens=3))))


def test_a_prompt_that_is_too_long_is_refused_with_both_numbers(run, engine):
    with pytest.raises(PromptTooLong) as caught:
        run(whole(engine, ask("word " * 3000)))
    assert "2048" in str(caught.value)
    assert "30" in str(caught.value)


def test_another_model_is_unknown(run, engine):
    async def main() -> None:
        with pytest.raises(ModelUnknown):
            await anext(engine.chat("m.gguf", ask("x")))

    run(main())


# The loopback port


PATHS = [
    "/v1/chat/completions", "/chat/completions", "/completion", "/v1/completions", "/infill",
    "/v1/models", "/models", "/slots", "/slots/0?action=save", "/props", "/metrics", "/tokenize",
    "/apply-template", "/lora-adapters", "/v1/messages", "/v1/responses", "/embedding", "/rerank",
]  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
def test_the_engines_port_is_closed_to_who_has_no_key(engine, path):
    def status(headers, body):
        request = urllib.request.Request(
            engine._server.listening_address + path, data=body, headers=headers
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            with error:
                return error.code

    body = json.dumps(ask("x", max_tokens=1)).encode()
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"X-Api-Key": ""}):
        assert status(headers, None) == 401
        assert status(headers, body) == 401
    # With the key it is another answer: it was the key that was missed.
    assert status({"Authorization": f"Bearer {KEY}"}, body) != 401


def test_the_key_is_in_nothing_that_can_be_shown(engine):
    shown = repr(engine) + repr(vars(engine)) + repr(dir(engine._server))
    assert KEY not in shown
    assert not any(KEY in repr(value) for value in vars(engine).values())


# Loading


def load(run, file, **options):
    async def main() -> None:
        await (await LlamaCpp.load(file, **options)).aclose()

    run(main())


@pytest.mark.parametrize(
    "options", [{"slots": 0}, {"slots": 1000}, {"context": 5}, {"gpu_layers": -2}, {"threads": 0}]
)
def test_options_out_of_range_are_refused(run, smollm2, options):
    with pytest.raises(OptionInvalid, match=next(iter(options))):
        load(run, smollm2, **options)


def test_a_file_that_vanished_is_missing(run, tmp_path):
    with pytest.raises(ModelFileMissing):
        load(run, ModelFile(tmp_path / "gone.gguf", "gone"))


def test_a_file_that_the_engine_refuses_is_not_loaded(run, write_model):
    with pytest.raises(ModelNotLoaded, match="could not load Tiny") as caught:
        load(run, ModelFile(write_model(), "Tiny"))
    assert "llama" in str(caught.value)
    assert "/" not in str(caught.value)


def test_what_cannot_fit_is_refused_before_loading(run, write_model):
    huge = model_head(
        **{
            "block_count": 1000,
            "embedding_length": 2**20,
            "attention.head_count": 64,
            "attention.head_count_kv": 64,
            "context_length": 2**20,
        }
    )
    with pytest.raises(OutOfMemory, match="Huge needs about"):
        load(run, ModelFile(write_model(data=huge), "Huge"), context=2**20)


def test_all_parts_of_a_split_model_have_to_fit(run, write_model):
    first = write_model("Big-00001-of-00002.gguf")
    with write_model("Big-00002-of-00002.gguf", b"").open("r+b") as second:
        second.truncate(10**12)  # a hole, which takes no place on the disk
    with pytest.raises(OutOfMemory, match="Big needs about 1,000"):
        load(run, ModelFile(first, "Big"))


def test_a_context_beyond_the_models_own_is_reduced_and_said(run, smollm2):
    async def main() -> None:
        provider = await LlamaCpp.load(smollm2, slots=1, context=100_000)
        assert provider.models[0].context == 8192
        assert any("8192" in notice for notice in provider.notices)
        await provider.aclose()

    run(main())


@pytest.mark.parametrize(
    ("module", "said_"),
    [(None, "qmt-jupyter[host]"), ("raise ImportError('no libcuda')", "libcuda")],
)
def test_without_the_engine_the_way_to_it_is_said(
    run, smollm2, monkeypatch, tmp_path, module, said_
):
    monkeypatch.delitem(sys.modules, "xllamacpp", raising=False)
    if module is None:
        monkeypatch.setitem(sys.modules, "xllamacpp", None)
    else:
        (tmp_path / "xllamacpp.py").write_text(module)
        monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(EngineMissing) as caught:
        load(run, smollm2)
    assert said_ in str(caught.value)


# Closing


def test_closing_ends_running_streams_and_the_port(run, smollm2):
    async def main() -> None:
        provider = await LlamaCpp.load(smollm2, slots=1, context=1024)
        address = provider._server.listening_address
        stream = provider.chat("smollm2", ask("Count to a million.", **ENDLESS))
        await anext(stream)
        waiting = asyncio.create_task(whole(provider, ask("x")))
        await asyncio.sleep(0.05)

        async def drain() -> None:
            async for _ in stream:
                pass

        reading = asyncio.create_task(drain())
        await provider.aclose()
        for task in (reading, waiting):
            with pytest.raises(Stopped):
                await task
        with pytest.raises(urllib.error.URLError):
            await asyncio.to_thread(urllib.request.urlopen, address + "/health", None, 5)
        with pytest.raises(Stopped):
            await whole(provider, ask("x"))
        await provider.aclose()
        await settle()

    run(main())


# Embeddings


@pytest.fixture(scope="module")
def embedder(run, smollm2):
    provider = run(LlamaCpp.load(smollm2, slots=2, context=512, embeddings=True))
    yield provider
    run(provider.aclose())
    run(settle())


async def vectors(provider, *texts, **parameters):
    request = {"input": list(texts), **parameters}
    return [e async for e in provider.embed("smollm2", request) if isinstance(e, Embedding)]


def test_like_texts_have_like_vectors(run, embedder):
    assert embedder.models == (Model("smollm2", 512, chats=True, embeds=True),)
    texts = ("The cat sleeps on the sofa.", "A cat is asleep on the couch.", "import numpy as np")
    found = run(vectors(embedder, *texts))
    assert [each.index for each in found] == [0, 1, 2]
    assert {len(each.vector) for each in found} == {576}
    near, cat, far = (each.vector for each in found)
    assert sum(a * a for a in near) == pytest.approx(1, abs=1e-3)
    assert sum(map(mul, near, cat)) > sum(map(mul, near, far)) + 0.05
    counts = [each.prompt_tokens for each in found]
    assert counts == sorted(counts)
    assert counts[0] >= 6
    again = run(vectors(embedder, texts[2]))
    assert again[0].vector == pytest.approx(far, abs=1e-3)


def test_a_model_that_embeds_chats_as_well(run, embedder):
    assert said(run(whole(embedder, ask("Say hello.", max_tokens=5))))


@pytest.mark.parametrize(
    ("texts", "parameters", "error"),
    [
        ((LONG,), {}, PromptTooLong),
        (("a", LONG), {}, PromptTooLong),
        (("a",), {"dimensions": 10}, RequestInvalid),
        (("\ud83d",), {}, RequestInvalid),
    ],
)
def test_what_cannot_be_embedded_is_said_and_harms_nothing(run, embedder, texts, parameters, error):
    with pytest.raises(error):
        run(vectors(embedder, *texts, **parameters))
    assert len(run(vectors(embedder, "still here"))) == 1


def test_a_closed_stream_stops_at_the_next_text(run, embedder):
    async def main():
        stream = embedder.embed("smollm2", {"input": ["word " * 200] * 200})
        async for each in stream:
            if isinstance(each, Embedding):
                break
        await stream.aclose()
        await settle()

    run(main())
    assert len(run(vectors(embedder, "still here"))) == 1


def test_a_model_that_only_chats_names_the_flag(run, engine):
    with pytest.raises(RequestInvalid, match="no embeddings") as raised:
        run(vectors(engine, "a"))
    assert "--embeddings" in raised.value.next_step


def test_a_model_made_for_embeddings_is_known_by_its_file(tmp_path):
    path = tmp_path / "bert.gguf"
    path.write_bytes(model_head(pooling_type=2))
    assert read_head(path).is_embedding
    path.write_bytes(model_head(pooling_type=0))
    assert not read_head(path).is_embedding
