"""llama-cpp-python as the engine: on a stand-in for the library, and on itself where it is here."""

from __future__ import annotations

import asyncio
import gc
import importlib.util
import json
import sys
import threading
import time
import weakref

import pytest

from qmt_jupyter.errors import (
    EngineMissing,
    GenerationFailed,
    ModelNotLoaded,
    ModelUnknown,
    OptionInvalid,
    PromptTooLong,
    RequestInvalid,
    Stopped,
)
from qmt_jupyter.providers import select
from qmt_jupyter.providers.base import Embedding
from qmt_jupyter.providers.llamacpp_python import LlamaCppPython
from qmt_jupyter.providers.model_files import ModelFile
from qmt_jupyter.settings import Settings

from . import fake_llama_cpp

FAKE, REAL = "stand-in", "the library"
needs_the_library = pytest.mark.skipif(
    importlib.util.find_spec("llama_cpp") is None,
    reason="llama-cpp-python is not installed (it compiles for minutes)",
)
BOTH = [FAKE, pytest.param(REAL, marks=needs_the_library)]
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 12}},
            "required": ["city"],
        },
    },
}


def ask(content, **parameters):
    return {"messages": [{"role": "user", "content": content}], **parameters}


async def whole(provider, request):
    return [chunk async for chunk in provider.chat("smollm2", request)]


def said(chunks):
    return "".join(
        choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"]
    )


@pytest.fixture
def fake(monkeypatch):
    monkeypatch.setitem(sys.modules, "llama_cpp", fake_llama_cpp)
    monkeypatch.setattr(fake_llama_cpp, "computes_on_a_gpu", False)
    fake_llama_cpp.loaded.clear()
    return fake_llama_cpp


@pytest.fixture
def load(run, smollm2, monkeypatch):
    """Loads a model by one of the two; what is loaded is closed at the end."""
    made = []

    def load(which=FAKE, **options):
        if which == FAKE:
            monkeypatch.setitem(sys.modules, "llama_cpp", fake_llama_cpp)
        made.append(run(LlamaCppPython.load(smollm2, **{"context": 1024, **options})))
        return made[-1]

    yield load
    for provider in made:
        run(provider.aclose())


# The contract, on both ---------------------------------------------------------------------------


@pytest.mark.parametrize("which", BOTH)
def test_it_has_one_slot_and_says_so(load, which):
    provider = load(which, slots=8, threads=2)
    assert provider.slots == 1
    assert provider.label == "llama-cpp-python"
    assert (provider.models[0].name, provider.models[0].context) == ("smollm2", 1024)
    assert any("one answer at a time" in notice for notice in provider.notices)
    assert "thread" in provider.device or "GPU" in provider.device


@pytest.mark.parametrize("which", BOTH)
def test_an_answer_streams_in_openai_chunks_and_is_counted(run, load, smollm2, which):
    provider = load(which)
    first, *chunks = run(whole(provider, ask("Why is the sky blue?", max_tokens=5, seed=1)))
    assert first["prompt_tokens"] == chunks[-1]["usage"]["prompt_tokens"] > 4
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant"}
    assert said(chunks)
    assert [c["choices"][0]["finish_reason"] for c in chunks[:-1]] == [None] * (len(chunks) - 2) + ["length"]  # fmt: skip
    last = chunks[-1]
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] == last["timings"]["predicted_n"] == 5
    assert last["usage"]["total_tokens"] == last["usage"]["prompt_tokens"] + 5
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert len({chunk["id"] for chunk in chunks}) == 1
    counts = [chunk["tokens"] for chunk in chunks if "tokens" in chunk]
    assert counts == sorted(counts)
    assert counts[-1] == 5
    text = json.dumps(chunks)
    assert {chunk["model"] for chunk in chunks} == {"smollm2"}
    assert smollm2.path.name not in text


@pytest.mark.parametrize("which", BOTH)
def test_a_stop_word_ends_the_answer(run, load, which):
    provider = load(which)
    word = "three" if which == FAKE else said(run(whole(provider, ask("Hi", temperature=0, max_tokens=9)))).split()[2]  # fmt: skip
    chunks = run(whole(provider, ask("Hi", temperature=0, max_tokens=60, stop=word)))
    assert word not in said(chunks)
    assert chunks[-2]["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize("which", BOTH)
@pytest.mark.parametrize(
    ("request_", "said_"),
    [
        ({"messages": []}, "no messages"),
        (ask("x", logprobs=True, top_logprobs=2), "no logprobs"),
        (ask("x", logit_bias={"4000000000": -5}), "token that the model does not have"),
        (ask("x", response_format={"type": "poem"}), "response_format"),
        (ask("x", response_format={"type": "json_object", "schema": {"$ref": "#/no"}}), "grammar"),
        (ask("x", tools=[{}]), "function with a name"),
        (ask("x", tools=[TOOL, TOOL], tool_choice="required"), "name it in tool_choice"),
        (ask("x", tools=[TOOL], tool_choice={"type": "function", "function": {"name": "y"}}),
         "none of the tools"),
        (ask([{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}]), "images"),
    ],
)  # fmt: skip
def test_what_it_cannot_do_is_refused_and_it_goes_on(run, load, which, request_, said_):
    provider = load(which)
    with pytest.raises(RequestInvalid, match=said_):
        run(whole(provider, request_))
    assert said(run(whole(provider, ask("Hi", max_tokens=3))))


@pytest.mark.parametrize("which", BOTH)
def test_a_prompt_that_is_too_long_is_refused_with_both_numbers(run, load, which):
    provider = load(which, context=256)
    with pytest.raises(PromptTooLong, match=r"has 3\d\d tokens, and the context holds 256"):
        run(whole(provider, ask("word " * 320)))


@pytest.mark.parametrize("which", BOTH)
def test_a_forced_tool_is_called_in_openai_shapes(run, load, which):
    provider = load(which)
    for choice in ("required", {"type": "function", "function": {"name": "weather"}}):
        request = ask("Weather in Paris?", tools=[TOOL], tool_choice=choice, max_tokens=30)
        chunks = run(whole(provider, request))
        calls = [c["choices"][0]["delta"]["tool_calls"][0] for c in chunks if c["choices"] and "tool_calls" in c["choices"][0]["delta"]]  # fmt: skip
        assert {call["function"]["name"] for call in calls} == {"weather"}
        assert chunks[-2]["choices"][0]["finish_reason"] == "tool_calls"
        assert "function_call" not in json.dumps(chunks)


@pytest.mark.parametrize("which", BOTH)
def test_closing_the_stream_stops_the_engine_at_its_next_token(run, load, which, monkeypatch):
    provider = load(which)
    monkeypatch.setattr(fake_llama_cpp.Llama, "ends_after", 10**9)
    monkeypatch.setattr(fake_llama_cpp.Llama, "seconds_a_step", 0.01)

    async def main():
        stream = provider.chat("smollm2", ask("Count to a million.", max_tokens=900))
        for _ in range(4):
            await anext(stream)
        await stream.aclose()
        deadline = time.monotonic() + 10  # a thread lives a moment longer than its last word
        while [t for t in threading.enumerate() if t.name.startswith("qmt-generation-")]:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)
        return await whole(provider, ask("Hi", max_tokens=3))

    assert said(run(main()))


@pytest.mark.parametrize("which", BOTH)
def test_two_requests_are_answered_one_after_the_other(run, load, which):
    provider = load(which)
    order = []

    async def one(name):
        async for _ in provider.chat("smollm2", ask(f"Say {name}.", max_tokens=5)):
            order.append(name)

    async def main():
        await asyncio.gather(one("a"), one("b"))

    run(main())
    assert order == sorted(order)


@pytest.mark.parametrize("which", BOTH)
def test_embeddings_are_made_beside_chats(run, load, which):
    provider = load(which, embeddings=True)

    async def main():
        vectors = provider.embed("smollm2", {"input": ["one two", "three"]})
        return [each async for each in vectors if isinstance(each, Embedding)]

    first, second = run(main())
    assert (first.index, second.index) == (0, 1)
    assert len(first.vector) == len(second.vector) > 1
    assert sum(x * x for x in first.vector) == pytest.approx(1)
    assert 0 < first.prompt_tokens < second.prompt_tokens
    assert said(run(whole(provider, ask("Hi", max_tokens=3))))
    with pytest.raises(PromptTooLong, match="context holds 1024"):
        run(anext(_vectors(provider, "word " * 1500)))


async def _vectors(provider, text):
    async for each in provider.embed("smollm2", {"input": [text]}):
        if isinstance(each, Embedding):
            yield each


@pytest.mark.parametrize("which", BOTH)
def test_closing_ends_what_runs_and_frees_the_model(run, load, which, monkeypatch):
    provider = load(which)
    monkeypatch.setattr(fake_llama_cpp.Llama, "ends_after", 10**9)
    monkeypatch.setattr(fake_llama_cpp.Llama, "seconds_a_step", 0.01)

    async def main():
        model = weakref.ref(provider._server._llama)
        stream = provider.chat("smollm2", ask("Count to a million.", max_tokens=900))
        await anext(stream)

        async def drain():
            async for _ in stream:
                pass

        reading = asyncio.create_task(drain())
        await asyncio.sleep(0.05)
        await provider.aclose()
        with pytest.raises(Stopped):
            await reading
        with pytest.raises(Stopped):
            await whole(provider, ask("x"))
        return model

    model = run(main())
    fake_llama_cpp.loaded.clear()
    gc.collect()
    assert model() is None


# The library's ways ------------------------------------------------------------------------------


def engine(provider):
    return provider._server._llama


def test_only_what_is_known_reaches_the_library(run, load):
    provider = load()
    request = ask(
        [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}],
        temperature=0.5, top_p=0.9, top_k=7, min_p=0.1, seed=9, stop=["x"], max_tokens=4,
        presence_penalty=0.1, frequency_penalty=0.2, repeat_penalty=1.2, logit_bias={"5": -1},
        model_path="/etc/passwd", grammar="x", functions=[], logits_processor="x", draft=1,
    )  # fmt: skip
    request["messages"] += [{"role": "assistant", "content": None, "tool_calls": []}]
    run(whole(provider, request))
    (asked,) = engine(provider).asked
    assert asked == {
        "messages": [
            {"role": "user", "content": "one\ntwo"},
            {"role": "assistant", "content": "", "tool_calls": []},
        ],
        "temperature": 0.5, "top_p": 0.9, "top_k": 7, "min_p": 0.1, "typical_p": 1.0, "seed": 9,
        "stop": ["x"], "max_tokens": 4, "presence_penalty": 0.1, "frequency_penalty": 0.2,
        "repeat_penalty": 1.2, "logit_bias": {5: -1}, "tools": None, "tool_choice": None,
        "grammar": None,
    }  # fmt: skip


def test_without_a_seed_each_answer_has_another(run, load):
    provider = load()
    for _ in range(3):
        run(whole(provider, ask("Hi")))
    assert len({asked["seed"] for asked in engine(provider).asked}) == 3


@pytest.mark.parametrize(
    ("form", "grammar"),
    [
        ({"type": "json_object"}, "root ::= object"),
        ({"type": "json_object", "schema": {"type": "null"}}, 'root ::= {"type": "null"}'),
        ({"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "null"}}},
         'root ::= {"type": "null"}'),
    ],
)  # fmt: skip
def test_a_response_format_becomes_a_grammar(run, load, form, grammar):
    provider = load()
    run(whole(provider, ask("Hi", response_format=form)))
    assert engine(provider).asked[0]["grammar"].text == grammar


def test_a_grammar_that_would_crash_the_engine_never_reaches_it(run, load):
    provider = load()
    bad = {"type": "object", "title": "unreadable"}
    for request in (
        ask("x", response_format={"type": "json_object", "schema": bad}),
        ask("x", tools=[{"type": "function", "function": {"name": "f", "parameters": bad}}],
            tool_choice="required"),
    ):  # fmt: skip
        with pytest.raises(RequestInvalid, match="grammar"):
            run(whole(provider, request))
    assert engine(provider).asked == []


def test_tools_without_a_choice_are_shown_to_the_model_and_none_takes_them_away(run, load):
    provider = load()
    for choice in (None, "auto", "none"):
        run(whole(provider, ask("x", tools=[TOOL], tool_choice=choice)))
    shown = [asked["tools"] for asked in engine(provider).asked]
    assert [bool(tools) for tools in shown] == [True, True, False]


def test_messages_that_the_template_refuses_are_the_requests_fault(run, load):
    request = {"messages": [{"role": "stranger", "content": "x"}]}
    with pytest.raises(RequestInvalid, match="roles must alternate"):
        run(whole(load(), request))


def test_an_engine_that_fails_in_the_middle_is_not_the_requests_fault(run, load, monkeypatch):
    provider = load()
    for after in (0, 2):
        monkeypatch.setattr(fake_llama_cpp.Llama, "fails_after", after)
        with pytest.raises(GenerationFailed) as raised:
            run(whole(provider, ask("x")))
        assert "llama_decode" not in str(raised.value)
    monkeypatch.setattr(fake_llama_cpp.Llama, "fails_after", None)
    assert run(whole(provider, ask("x")))[-1]["usage"]["completion_tokens"] == 7


def test_a_prompt_is_read_in_steps_and_left_between_two(run, load):
    provider = load(context=4096)
    model = engine(provider)
    model.go_on.clear()

    async def main():
        stream = provider.chat("smollm2", ask("word " * 2000, max_tokens=5))
        assert (await anext(stream))["prompt_tokens"] == 2001
        reading = asyncio.create_task(anext(stream))
        await asyncio.sleep(0.05)
        reading.cancel()
        threading.Timer(0.1, model.go_on.set).start()
        with pytest.raises(asyncio.CancelledError):
            await reading

    run(main())
    assert len(model.evaluated) == 1
    assert model.evaluated[0] < 600
    assert "eval" not in vars(model), "the library's own loop is back"
    assert "generate" not in vars(model)


def test_a_gpu_is_used_where_the_library_was_built_for_it(load, fake, monkeypatch):
    monkeypatch.setattr(fake, "computes_on_a_gpu", True)
    everything, some, none = load(), load(gpu_layers=3), load(gpu_layers=0)
    assert [each.device for each in (everything, some)] == [
        "GPU, all layers (llama-cpp-python)", "GPU, 3 layers (llama-cpp-python)",
    ]  # fmt: skip
    assert none.device.startswith("CPU")
    layers = [engine(each).options["n_gpu_layers"] for each in (everything, some, none)]
    assert layers == [-1, 3, 0]


@pytest.mark.parametrize("options", [{"context": 5}, {"gpu_layers": -2}, {"threads": 0}])
def test_options_out_of_range_are_refused(load, options):
    with pytest.raises(OptionInvalid, match=next(iter(options))):
        load(**options)


def test_another_model_is_unknown(run, load):
    with pytest.raises(ModelUnknown):
        run(anext(load().chat("other", ask("x"))))


@pytest.mark.parametrize("which", BOTH)
def test_a_file_that_the_engine_refuses_is_not_loaded(run, write_model, monkeypatch, which):
    if which == FAKE:
        monkeypatch.setitem(sys.modules, "llama_cpp", fake_llama_cpp)
    with pytest.raises(ModelNotLoaded, match="could not load Tiny") as raised:
        run(LlamaCppPython.load(ModelFile(write_model("broken.gguf"), "Tiny")))
    assert "/" not in str(raised.value)


# Which engine ------------------------------------------------------------------------------------


def hide(monkeypatch, *modules):
    for module in modules:
        monkeypatch.setitem(sys.modules, module, None)


def test_xllamacpp_is_taken_where_both_are_here(fake):
    pytest.importorskip("xllamacpp")
    assert select.require_engine() == "xllamacpp"
    assert select.require_engine("llama-cpp-python") == "llama-cpp-python"


def test_llama_cpp_python_is_taken_where_it_is_all_there_is(run, fake, monkeypatch, models_dir):
    hide(monkeypatch, "xllamacpp")
    assert select.require_engine() == "llama-cpp-python"
    settings = Settings(models_dir, models=models_dir)
    provider = run(select.load_provider("smollm2", select.Options(slots=4), settings))
    assert isinstance(provider, LlamaCppPython)
    run(provider.aclose())
    with pytest.raises(EngineMissing, match="xllamacpp is not installed"):
        select.require_engine("xllamacpp")


def test_without_any_engine_the_way_to_the_first_is_said(monkeypatch):
    hide(monkeypatch, "xllamacpp", "llama_cpp")
    with pytest.raises(EngineMissing, match=r"qmt-jupyter\[host\]"):
        select.require_engine()
    with pytest.raises(EngineMissing, match=r"qmt-jupyter\[llama-cpp-python\]"):
        select.require_engine("llama-cpp-python")


def test_an_engine_that_is_broken_is_said_and_not_passed_over(fake, monkeypatch, tmp_path):
    monkeypatch.delitem(sys.modules, "xllamacpp", raising=False)
    (tmp_path / "xllamacpp.py").write_text("raise ImportError('no libcuda')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(EngineMissing, match="libcuda"):
        select.require_engine()


@pytest.mark.parametrize(
    ("source", "said_"),
    [
        ("raise FileNotFoundError('Shared library with base name llama not found')", "base name"),
        ("raise RuntimeError('no libcuda.so.1')", "libcuda"),
        ("import a_module_that_is_nowhere", "a_module_that_is_nowhere is missing"),
    ],
)
def test_a_library_that_does_not_load_says_why(monkeypatch, tmp_path, source, said_):
    monkeypatch.delitem(sys.modules, "llama_cpp", raising=False)
    (tmp_path / "llama_cpp.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(EngineMissing, match=said_):
        select.require_engine("llama-cpp-python")


def test_an_engine_that_is_none_is_refused():
    with pytest.raises(OptionInvalid, match="auto, xllamacpp, llama-cpp-python"):
        select.require_engine("vllm")
