"""What the host decides, without a network: parameters, memberships, places in the queue, counts."""

from __future__ import annotations

import pytest

from qmt_jupyter.errors import (
    OptionInvalid,
    RequestInvalid,
)
from qmt_jupyter.host.allowlist import MAX_TEXTS, PARAMETERS, checked, checked_embeddings
from qmt_jupyter.host.granting import Terms, sign_invite
from qmt_jupyter.identity import keys

USER = [{"role": "user", "content": "hi"}]
GOOD = {
    "model": "m", "temperature": 0.5, "top_p": 1, "top_k": 40, "min_p": 0.1, "max_tokens": 5,
    "max_completion_tokens": 5, "seed": 1, "stop": ["a"], "n": 1, "presence_penalty": 1,
    "frequency_penalty": -1, "repeat_penalty": 1.1, "logit_bias": {"5": -1}, "logprobs": True,
    "top_logprobs": 3, "response_format": {"type": "json_object"},
    "tools": [{"type": "function", "function": {"name": "f", "parameters": {"$ref": "#/x"}}}],
    "tool_choice": "auto", "parallel_tool_calls": False, "reasoning_effort": "low",
}  # fmt: skip


def test_every_allowed_parameter_passes_unchanged():
    assert set(GOOD) | {"messages"} == set(PARAMETERS)
    assert checked({"messages": USER, **GOOD}) == {"messages": USER, **GOOD}
    assert checked({"messages": USER, "stream": True, "stream_options": {}, "seed": None}) == {
        "messages": USER
    }


@pytest.mark.parametrize("name", sorted(GOOD))
@pytest.mark.parametrize("value", [{"x": object()}, b"bytes", [[1]], -1e308, float("nan")])
def test_a_wrong_value_is_refused_by_name(name, value):
    with pytest.raises(RequestInvalid, match=name):
        checked({"messages": USER, name: value})


@pytest.mark.parametrize(
    "name",
    ["base_url", "api_key", "extra_body", "extra_headers", "user", "slot_id", "id_slot", "cache_prompt",
     "grammar", "lora", "model_path", "n_predict", "timings_per_token", "__proto__", "", "a\nb" * 100],
)  # fmt: skip
def test_what_names_a_url_header_key_file_or_engine_setting_is_refused(name):
    with pytest.raises(RequestInvalid) as raised:
        checked({"messages": USER, name: "x"})
    assert "\n" not in str(raised.value)


def test_no_token_can_be_forced():
    """Half a letter that is forced makes an engine silent: it could not be stopped or counted."""
    with pytest.raises(RequestInvalid, match="logit_bias"):
        checked({"messages": USER, "logit_bias": {"162": 100}})


@pytest.mark.parametrize(
    ("body", "texts"),
    [
        ({"input": "a"}, ["a"]),
        ({"input": ["a", "b"], "encoding_format": "base64", "dimensions": None}, ["a", "b"]),
        ({"input": ["a"] * MAX_TEXTS}, ["a"] * MAX_TEXTS),
    ],
)
def test_an_embeddings_request_becomes_a_list_of_texts(body, texts):
    assert checked_embeddings(body) == {"input": texts}
    assert checked_embeddings({**body, "model": "m", "dimensions": 8}) == {
        "input": texts, "model": "m", "dimensions": 8,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({}, "no input"),
        ({"input": ""}, "empty"),
        ({"input": []}, "no input"),
        ({"input": ["a", ""]}, "empty"),
        ({"input": [1, 2, 3]}, "token numbers"),
        ({"input": [[1, 2], [3]]}, "token numbers"),
        ({"input": ["a", None]}, "token numbers"),
        ({"input": {"a": "b"}}, "input"),
        ({"input": ["a"] * (MAX_TEXTS + 1)}, f"{MAX_TEXTS + 1} texts"),
        ({"input": "a", "dimensions": 0}, "dimensions"),
        ({"input": "a", "dimensions": True}, "dimensions"),
        ({"input": "a", "base_url": "http://127.0.0.1:9"}, "base_url"),
        ({"input": "a", "user": "me"}, "user"),
        ({"input": "a", "messages": []}, "messages"),
    ],
)
def test_what_is_no_embeddings_request_is_refused_by_name(body, said):
    with pytest.raises(RequestInvalid, match=said):
        checked_embeddings(body)


def image(url):
    return [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]


def nested(depth):
    value = "x"
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"messages": []},
        {"messages": "hi"},
        {"messages": [{"content": "hi"}]},
        {"messages": [{"role": "root", "content": "hi"}]},
        {"messages": [{"role": "user", "content": 5}]},
        {"messages": [{"role": "user", "content": "hi", "url": "x"}]},
        {"messages": image("http://198.51.100.1/x.png")},
        {"messages": image("file:///etc/passwd")},
        {"messages": image("data:text/html,x")},
        {"messages": [{"role": "user", "content": [{"type": "file", "file": {}}]}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "x", "url": "y"}]}]},
        {"messages": [{"role": "user", "content": "x", "tool_calls": nested(40)}]},
        {"messages": USER, "tools": [{"type": "function", "function": {"parameters": {"$ref": "http://x"}}}]},
        {"messages": USER, "response_format": {"type": "json_schema", "json_schema": {"a": [{"$ref": "file:///x"}]}}},
    ],
)  # fmt: skip
def test_a_message_that_reaches_outside_or_makes_no_sense_is_refused(body):
    with pytest.raises(RequestInvalid):
        checked(body)
    assert checked({"messages": image("data:image/png;base64,AAAA")})


HOST = keys.Identity(b"\1" * 32)


@pytest.mark.parametrize("terms", [Terms("x", -1, 1), Terms("", 1, 1), Terms("a\nb", 1, 1), Terms("x" * 101, 1, 1), Terms("x", 2**32, 1)])  # fmt: skip
def test_terms_that_no_invite_can_carry_are_refused(terms):
    with pytest.raises(OptionInvalid):
        sign_invite(HOST, terms, 1000.0)
