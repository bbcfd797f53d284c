from __future__ import annotations

import json

import pytest

from qmt_jupyter.errors import GenerationFailed, PromptTooLong, RequestInvalid
from qmt_jupyter.providers.chat_request import (
    engine_request,
    raised_by_engine,
    refused_by_engine,
)

USER = {"role": "user", "content": "hi"}


def built(**request):
    return json.loads(engine_request({"messages": [USER], **request}, context=100))


def image(url):
    part = {"type": "image_url", "image_url": {"url": url}}
    return {"messages": [{"role": "user", "content": [{"type": "text", "text": "see"}, part]}]}


def test_nothing_but_known_fields_reaches_the_engine():
    # All of these mean something to llama.cpp.
    body = built(
        lora=[{"id": 0, "scale": 1}],
        id_slot=0,
        cache_prompt=True,
        grammar="root ::= x",
        chat_template_kwargs={},
        n_predict=-1,
        t_max_predict_ms=1,
        model="/etc/passwd",
        stream=False,
        timings_per_token="all",
        temperature=0.5,
        user=None,
    )
    assert body == {
        "messages": [USER],
        "temperature": 0.5,
        "max_tokens": 100,
        "stream": True,
        "stream_options": {"include_usage": True},
        "return_progress": True,
        "timings_per_token": True,
    }


@pytest.mark.parametrize(
    ("request_", "limit"),
    [
        ({}, 100),
        ({"max_tokens": 5}, 5),
        ({"max_completion_tokens": 6, "max_tokens": 5}, 6),
        ({"max_tokens": 10**9}, 100),
        ({"max_tokens": None}, 100),
    ],
)
def test_every_answer_has_a_bound(request_, limit):
    assert built(**request_)["max_tokens"] == limit


@pytest.mark.parametrize(
    "messages",
    [
        None,
        [],
        "hi",
        {},
        ["hi"],
        [{"content": "x"}],
        [{"role": 5, "content": "x"}],
        [{"role": "user", "content": 5}],
        [{"role": "user", "content": {"text": "x"}}],
        [{"role": "user", "content": ["x"]}],
        [{"role": "user", "content": [{"type": "text"}]}],
        [{"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": ""}}]}],
        [{"role": "user", "content": [{"type": "video_url", "video_url": {"url": "x"}}]}],
        [{"role": "user", "content": "half a pair \ud800"}],
        [{"role": "user", "content": "x", "extra": float("nan")}],
        [{"role": "user", "content": "x", "extra": b"bytes"}],
    ],
)
def test_messages_of_another_shape_are_refused(messages):
    with pytest.raises(RequestInvalid):
        engine_request({"messages": messages}, context=100)


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org/x.png",
        "https://example.org/x.png",
        "file:///etc/passwd",
        "/etc/passwd",
        "data:text/plain,x",
        " data:image/png;base64,AAAA",
        "",
        None,
        5,
    ],
)
def test_an_image_must_travel_with_the_request(url):
    with pytest.raises(RequestInvalid, match="data:image"):
        engine_request(image(url), context=100)
    with pytest.raises(RequestInvalid):
        part = {"type": "image_url", "image_url": url}
        engine_request({"messages": [{"role": "user", "content": [part]}]}, context=100)


def test_an_image_in_the_request_is_passed_on():
    body = json.loads(engine_request(image("data:image/png;base64,AAAA"), context=100))
    assert body["messages"][0]["content"][1]["image_url"]["url"].startswith("data:image/png")


@pytest.mark.parametrize(
    "request_",
    [
        {"n": 2},
        {"n": 0},
        {"top_logprobs": 21},
        {"max_tokens": 0},
        {"max_tokens": -1},
        {"max_tokens": "5"},
        {"max_tokens": True},
        {"max_completion_tokens": 1.5},
        {"temperature": float("inf")},
        {"tools": [{"type": "function", "function": {"name": "a\x1b[31m"}}]},
    ],
)
def test_parameters_that_could_do_harm_are_refused(request_):
    with pytest.raises(RequestInvalid):
        built(**request_)


def test_depth_is_bounded():
    deep: list[object] = []
    for _ in range(5000):
        deep = [deep]
    with pytest.raises(RequestInvalid, match="too deeply"):
        built(logit_bias=deep)


def test_the_engines_refusals_read_as_ours():
    long = {"type": "exceed_context_size_error", "n_prompt_tokens": 9031, "n_ctx": 2048}
    error = refused_by_engine(long)
    assert isinstance(error, PromptTooLong)
    assert "9031" in str(error)
    assert "2048" in str(error)
    error = refused_by_engine({"type": "invalid_request_error", "message": "a\x1b[31m\nb" * 200})
    assert isinstance(error, RequestInvalid)
    assert str(error).isprintable()
    assert len(str(error)) < 300
    assert isinstance(refused_by_engine({"type": "server_error", "message": "x"}), GenerationFailed)
    assert isinstance(refused_by_engine({}), GenerationFailed)


def test_what_the_engine_raises_reads_as_ours():
    images = raised_by_engine(RuntimeError("image input is not supported - hint"), began=False)
    assert isinstance(images, RequestInvalid)
    assert "images" in str(images)
    assert isinstance(raised_by_engine(ValueError("bad"), began=False), RequestInvalid)
    assert isinstance(raised_by_engine(ValueError("bad"), began=True), GenerationFailed)
    assert isinstance(raised_by_engine(MemoryError(), began=False), GenerationFailed)
