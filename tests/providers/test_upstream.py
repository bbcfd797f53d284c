"""An OpenAI-compatible server as a provider: what passes through, what fails, and how."""

from __future__ import annotations

import asyncio
import copy
import pickle
import traceback

import pytest

from qmt_jupyter.errors import (
    Busy,
    EngineMissing,
    GenerationFailed,
    KeyUnavailable,
    ModelUnknown,
    OptionInvalid,
    PromptTooLong,
    RequestInvalid,
    UpstreamRefused,
    UpstreamUnreachable,
)
from qmt_jupyter.providers import upstream as upstreams
from qmt_jupyter.providers.secret import Secret, read_key
from qmt_jupyter.providers.upstream import Upstream

from .mock_upstream import MODELS, MockUpstream

KEY = "sk-test-Zq8vXw3RtY6uIoP1aSdF5gHj"


@pytest.fixture
def mock():
    server = MockUpstream(KEY)
    yield server
    server.close()


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(upstreams, "_FIRST_PAUSE", 0.01)


def ask(content="hi", **parameters):
    return {"messages": [{"role": "user", "content": content}], **parameters}


async def opened(mock, key=KEY, patterns=("*",), **options):
    secret = Secret(key) if key else None
    return await Upstream.open(mock.url, patterns=patterns, key=secret, **options)


def answered(run, mock, model, **parameters):
    async def main():
        provider = await opened(mock)
        try:
            chunks = provider.chat(model, ask(**parameters))
            return [chunk async for chunk in chunks if "sent" not in chunk]
        finally:
            await provider.aclose()

    return run(main())


def said(chunks):
    return "".join(c["delta"].get("content") or "" for chunk in chunks for c in chunk["choices"])


def test_an_answer_streams_with_the_upstreams_own_count(run, mock):
    chunks = answered(run, mock, "plain", temperature=0.5, seed=3)
    assert said(chunks) == "one two three"
    assert chunks[-1]["usage"] == {"prompt_tokens": 7, "completion_tokens": 3}
    body = mock.bodies("plain")[0]
    assert body == {
        "messages": [{"role": "user", "content": "hi"}],
        "model": "plain", "temperature": 0.5, "seed": 3,
        "stream": True, "stream_options": {"include_usage": True},
    }  # fmt: skip
    assert set(chunks[0]) == {"choices"}, "ids and names of the upstream's go no further"


def test_tool_calls_logprobs_and_reasoning_pass_through(run, mock):
    chunks = answered(run, mock, "tools", tools=[{"type": "function", "function": {"name": "f"}}])
    arguments = [
        call["function"]["arguments"]
        for chunk in chunks for c in chunk["choices"] for call in c["delta"].get("tool_calls", [])
    ]  # fmt: skip
    assert "".join(arguments) == '{"a": 1}'
    assert chunks[2]["choices"][0]["logprobs"]["content"][0]["token"] == "x"
    assert mock.bodies("tools")[0]["tools"][0]["function"] == {"name": "f"}
    assert answered(run, mock, "reasoning")[0]["choices"][0]["delta"] == {
        "reasoning_content": "hmm"
    }


def test_an_upstream_that_does_not_know_stream_options_is_asked_without_from_then_on(run, mock):
    async def main():
        provider = await opened(mock)
        for _ in range(2):
            chunks = [chunk async for chunk in provider.chat("no-stream-options", ask())]
            assert said(chunks) == "one two three"
        await provider.aclose()

    run(main())
    assert ["stream_options" in body for body in mock.bodies("no-stream-options")] == [
        True, False, False,
    ]  # fmt: skip


def test_a_rate_limit_becomes_a_wait_that_is_told_and_holds_for_others_too(run, mock):
    chunks = answered(run, mock, "busy-once")
    assert 0 < chunks[0]["wait"] <= 1
    assert said(chunks) == "one two three"
    assert len(mock.bodies("busy-once")) == 2

    async def main():
        provider = await opened(mock)
        mock.asked.clear()
        first = [c async for c in provider.chat("busy-once", ask()) if "sent" not in c]
        provider._not_before = asyncio.get_running_loop().time() + 0.2
        second = [chunk async for chunk in provider.chat("plain", ask())]
        assert "wait" in first[0]
        assert "wait" in second[0]
        await provider.aclose()

    run(main())


def test_an_outage_before_the_first_word_is_tried_again(run, mock):
    assert said(answered(run, mock, "down-once")) == "one two three"
    for model in ("down", "hangs-up"):
        with pytest.raises(UpstreamUnreachable):
            answered(run, mock, model)
        assert len(mock.bodies(model)) == 4


@pytest.mark.parametrize(
    ("model", "error", "words"),
    [
        ("busy-long", Busy, "takes no more requests"),
        ("echo-400", RequestInvalid, r"what is Bearer \[key\]\?"),
        ("echo-500", UpstreamUnreachable, "status 500"),
        ("forbidden", UpstreamRefused, "does not accept the host's key"),
        ("context", PromptTooLong, "does not fit"),
        ("breaks", GenerationFailed, "broke off"),
        ("fails-midway", GenerationFailed, r"failed: what is Bearer \[key\]\?"),
        ("not-json", GenerationFailed, "not JSON"),
        ("not-chunks", GenerationFailed, "not a chunk"),
        ("redirects", UpstreamRefused, "status 307"),
    ],
)
def test_what_goes_wrong_is_one_sentence_of_ours_without_the_key(run, mock, model, error, words):
    with pytest.raises(error, match=words) as raised:
        answered(run, mock, model)
    assert str(raised.value).isprintable()
    shown = "".join(traceback.format_exception(raised.value)) + repr(frames(raised.value))
    assert not leaks(shown)
    assert raised.value.__context__ is None
    assert raised.value.__cause__ is None
    if model == "busy-long":
        assert raised.value.retry_after == 3600
        assert len(mock.bodies(model)) == 1


def frames(error):
    """The local variables that a debugger would show for an error."""
    found, trace = [], error.__traceback__
    while trace is not None:
        found += [(name, repr(value)) for name, value in trace.tb_frame.f_locals.items()]
        trace = trace.tb_next
    return [each for each in found if each[0] not in ("mock", "shown", "raised", "KEY")]


def leaks(text):
    """Whether any seven characters of the key in a row stand in a text."""
    return any(KEY[at : at + 7] in text for at in range(len(KEY) - 6))


def test_a_wrong_key_is_said_without_either(run, mock):
    wrong = "sk-wrong-Yt5rEw2qAs4dFg6hJk"
    with pytest.raises(UpstreamRefused, match="does not accept") as raised:
        run(opened(mock, key=wrong))
    assert "wrong-Y" not in "".join(traceback.format_exception(raised.value))
    with pytest.raises(UpstreamRefused):
        run(opened(mock, key=None))
    assert "Authorization" not in mock.asked[-1][1]


def embedded(run, mock, model, *texts, **parameters):
    async def main():
        provider = await opened(mock)
        try:
            request = {"input": list(texts), **parameters}
            found = provider.embed(model, request)
            return [e async for e in found if not (isinstance(e, dict) and "sent" in e)]
        finally:
            await provider.aclose()

    return run(main())


def test_embeddings_come_in_batches_in_their_order_with_the_upstreams_count(run, mock):
    texts = ["x" * n for n in range(1, 151)]
    found = embedded(run, mock, "plain", *texts, dimensions=3)
    assert [each.index for each in found] == list(range(150))
    assert [each.vector[0] for each in found] == list(range(1, 151))
    assert [each.prompt_tokens for each in found if each.prompt_tokens] == [128, 256, 300]
    bodies = mock.bodies("plain")
    assert [len(body["input"]) for body in bodies] == [64, 64, 22]
    assert all(body["dimensions"] == 3 and body["encoding_format"] == "float" for body in bodies)
    assert {path for path, _, body in mock.asked if body} == {"/v1/embeddings"}
    assert [each.prompt_tokens for each in embedded(run, mock, "no-usage", "a", "b")] == [None] * 2


def test_a_rate_limit_of_embeddings_is_waited_out(run, mock):
    first, *_, last = embedded(run, mock, "busy-once", "a")
    assert first["wait"] > 0
    assert last.vector == [1, 0, 0.5]


@pytest.mark.parametrize(
    ("model", "error"),
    [
        ("busy-long", Busy),
        ("down", UpstreamUnreachable),
        ("echo-400", RequestInvalid),
        ("context", PromptTooLong),
        ("hangs-up", UpstreamUnreachable),
        ("redirects", UpstreamRefused),
        ("not-json", GenerationFailed),
        ("not-chunks", GenerationFailed),
        ("breaks", GenerationFailed),
    ],
)
def test_embeddings_that_go_wrong_are_one_sentence_without_the_key(run, mock, model, error):
    with pytest.raises(error) as raised:
        embedded(run, mock, model, "a", "b")
    said = "".join(traceback.format_exception(raised.value))
    assert not any(KEY[n : n + 7] in said for n in range(len(KEY) - 6))


def test_embeddings_that_have_no_end_are_cut_off(run, mock, monkeypatch):
    monkeypatch.setattr(upstreams, "_LONGEST_VECTORS", 100)
    with pytest.raises(GenerationFailed, match="too large"):
        embedded(run, mock, "plain", *["a"] * 20)


def test_leaving_an_answer_hangs_up(run, mock):
    async def main():
        provider = await opened(mock)
        stream = provider.chat("endless", ask())
        for _ in range(3):
            await anext(stream)
        await stream.aclose()
        assert await asyncio.to_thread(mock.hung_up.wait, 5)
        assert said([chunk async for chunk in provider.chat("plain", ask())]) == "one two three"
        await provider.aclose()

    run(main())


def test_patterns_say_what_is_shared(run, mock):
    async def names(*patterns):
        provider = await opened(mock, patterns=patterns)
        try:
            return [model.name for model in provider.models]
        finally:
            await provider.aclose()

    assert run(names("no-*", "plain")) == ["plain", "no-usage", "no-stream-options", "no-end"]
    assert run(names("*")) == MODELS
    with pytest.raises(OptionInvalid, match="--upstream-model"):
        run(names())
    with pytest.raises(OptionInvalid, match="no model like gpt-9"):
        run(names("gpt-9"))
    mock.models = ["only"]
    assert run(names()) == ["only"]


def test_a_model_that_is_not_shared_cannot_be_asked(run, mock):
    async def main():
        provider = await opened(mock, patterns=("plain",))
        for name in ("tools", "../plain", "plain?x", ""):
            with pytest.raises(ModelUnknown):
                await anext(provider.chat(name, ask()))
        await provider.aclose()

    run(main())
    assert mock.bodies("tools") == []


@pytest.mark.parametrize(
    ("url", "said_"),
    [
        ("127.0.0.1:8000", "not an http"),
        ("file:///etc/passwd", "not an http"),
        ("http://user:secret-password@127.0.0.1/v1", "no name, password"),
        ("http://127.0.0.1/v1?key=secret-password", "no name, password"),
        ("http://[::1", "not an http"),
    ],
)
def test_an_address_that_is_none_or_holds_a_secret_is_refused_unrepeated(run, url, said_):
    with pytest.raises(OptionInvalid, match=said_) as raised:
        run(Upstream.open(url))
    assert "secret-password" not in str(raised.value)


def test_an_upstream_that_is_not_there_is_said_at_once(run, closed_port):
    with pytest.raises(UpstreamUnreachable, match="could not be reached"):
        run(Upstream.open(f"{closed_port}/v1"))


def test_a_key_that_would_travel_in_the_clear_is_noticed(run, mock):
    provider = run(opened(mock))
    assert provider.notices == ()
    plain = Upstream("http://gpu.example/v1", None, (), 1, Secret(KEY))
    assert "unencrypted" in plain.notices[0]
    assert Upstream("https://gpu.example/v1", None, (), 1, Secret(KEY)).notices == ()
    assert not leaks(repr(provider) + str(vars(provider)))
    run(provider.aclose())


def test_without_the_client_the_way_to_it_is_said(run, monkeypatch, mock):
    monkeypatch.setitem(__import__("sys").modules, "openai", None)
    with pytest.raises(EngineMissing, match=r"qmt-jupyter\[upstream\]"):
        run(opened(mock))


# The key --------------------------------------------------------------------------------------


def test_a_secret_shows_itself_to_nobody():
    secret = Secret(KEY)
    assert not leaks(repr(secret) + str(secret) + f"{secret}" + repr([secret]) + repr(dir(secret)))
    for taken in (
        lambda: pickle.dumps(secret),
        lambda: copy.copy(secret),
        lambda: copy.deepcopy(secret),
    ):
        with pytest.raises(TypeError):
            taken()
    assert secret.reveal() == KEY


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        (KEY, "[key]"),
        (f"a {KEY} b", "a [key] b"),
        (KEY[:10], "[key]"),
        (KEY[3:14] + KEY[8:20], "[key][key]"),
        (KEY[:6], KEY[:6]),
        ("nothing of it", "nothing of it"),
        ("", ""),
    ],
)
def test_scrubbing_takes_out_the_key_and_each_part_of_more_than_six(text, clean):
    assert Secret(KEY).scrub(text) == clean
    assert not leaks(Secret(KEY).scrub(text * 3))


def test_a_key_comes_from_the_environment_the_keyring_or_a_prompt(monkeypatch):
    assert read_key(None) is None
    monkeypatch.setenv("SOME_KEY", f" {KEY}\n")
    assert read_key("env:SOME_KEY").reveal() == KEY
    monkeypatch.setattr("keyring.get_password", lambda service, user: f"{KEY}{service}{user}")
    assert read_key("keyring:cloud").reveal() == f"{KEY}cloudqmt"
    monkeypatch.setattr("getpass.getpass", lambda prompt: KEY)
    assert read_key("prompt").reveal() == KEY
    for source in ("env:NOT_SET_ANYWHERE", "keyring:none"):
        monkeypatch.setattr("keyring.get_password", lambda service, user: None)
        with pytest.raises(KeyUnavailable, match="no key in"):
            read_key(source)
    monkeypatch.setenv("SOME_KEY", "two words")
    with pytest.raises(KeyUnavailable, match="not a key"):
        read_key("env:SOME_KEY")


def test_a_key_in_the_place_of_its_source_is_refused_and_not_repeated():
    for wrong in (KEY, f"env {KEY}", "", "env:", f"env:{KEY}"):
        with pytest.raises(OptionInvalid, match="replace it at its provider") as raised:
            read_key(wrong)
        assert not leaks(str(raised.value))


def test_a_model_that_takes_the_newer_name_of_a_limit_only_is_asked_with_it(run, mock):
    async def main():
        provider = await opened(mock)
        for _ in range(2):
            async for _ in provider.chat("newer", ask(max_tokens=5)):
                pass
        await provider.aclose()

    run(main())
    bodies = mock.bodies("newer")
    assert [("max_tokens" in b, b.get("max_completion_tokens")) for b in bodies] == [
        (True, None), (False, 5), (False, 5),
    ]  # fmt: skip


def test_a_guest_cannot_teach_what_an_upstream_does_not_take(run, mock):
    """An error that repeats the request's own words switched off the counts of everybody."""
    tool = {"type": "function", "function": {"name": "stream_options!"}}

    async def main():
        provider = await opened(mock)
        with pytest.raises(RequestInvalid):
            async for _ in provider.chat("quotes", ask(tools=[tool])):
                pass
        async for _ in provider.chat("quotes", ask()):
            pass
        await provider.aclose()

    run(main())
    assert all("stream_options" in body for body in mock.bodies("quotes"))


@pytest.mark.parametrize(
    ("told", "known"),
    [(-1, None), (0, None), (2**60, None), (True, None), ("x", None), (4096, 4096)],
)
def test_an_odd_context_of_an_upstream_is_none(run, mock, told, known):
    mock.contexts = {"plain": told}

    async def main():
        provider = await opened(mock, patterns=("plain",))
        await provider.aclose()
        return provider.models[0].context

    assert run(main()) == known
