"""The openai SDK, unchanged, against a guest's endpoint."""

from __future__ import annotations

import pytest

from .conftest import told

pytestmark = pytest.mark.timeout(240)


def asked(served, home, *cases):
    model = served.models[0]
    return told(
        served, model, *cases, environment=".venv-clients", program="openai_sdk.py", home=home
    )


@pytest.fixture(scope="module")
def engine(smollm2, client_home):
    return asked(smollm2, client_home, "chats", "at_once", "structured", "embeddings")


def test_models_are_listed_and_looked_up(engine):
    assert engine["chats"]["models"] == [engine["chats"]["retrieved"]]


def test_a_real_models_answer_comes_whole_streamed_and_with_the_sdks_own_stream(engine):
    chats = engine["chats"]
    assert chats["whole"].strip()
    assert chats["streamed"].strip()
    assert chats["followed"] == chats["final"] != ""
    assert chats["pieces"] > 5, "it streams"


def test_an_answer_is_the_same_whole_streamed_and_with_the_sdks_own_stream(scripted, client_home):
    chats = asked(scripted, client_home, "chats")["chats"]
    assert (
        chats["whole"]
        == chats["streamed"]
        == chats["followed"]
        == chats["final"]
        == "one two three"
    )
    assert chats["usage"] == chats["streamed_usage"]


def test_usage_and_the_reason_of_the_end_are_told_either_way(engine):
    chats = engine["chats"]
    assert chats["finish"] == "length"
    for usage in (chats["usage"], chats["streamed_usage"]):
        assert usage["completion_tokens"] == 12
        assert usage["total_tokens"] == usage["prompt_tokens"] + 12


def test_many_streams_at_once_all_end(engine):
    assert len(engine["at_once"]) == 8
    assert set(engine["at_once"]) <= {"length", "stop"}


def test_structured_output_is_parsed_into_the_class(engine):
    assert engine["structured"]["size"] in ("small", "large")
    assert engine["structured"]["capital"] in (True, False)


def test_embeddings_are_the_same_in_base64_and_as_numbers(engine):
    embeddings = engine["embeddings"]
    assert embeddings["sizes"] == [576, 576]
    assert embeddings["difference"] < 1e-6
    assert embeddings["usage"]["prompt_tokens"] > 1


def test_tools_are_called_whole_and_streamed_and_their_answers_taken(scripted, client_home):
    tools = asked(scripted, client_home, "tools")["tools"]
    assert tools["finish"] == "tool_calls"
    assert (tools["name"], tools["arguments"]) == ("weather", {"city": "Paris"})
    assert tools["told"] == "It is 21 degrees."
    assert tools["streamed"] == ["weather", {"city": "Paris"}]


def test_errors_are_of_the_sdks_own_classes(scripted, client_home):
    assert asked(scripted, client_home, "errors")["errors"] == {
        "key": ["AuthenticationError", 401, "invalid_api_key", None],
        "model": ["NotFoundError", 404, "model_not_found", "model"],
        "parameter": ["BadRequestError", 400, "request-invalid", "n"],
        "image": ["BadRequestError", 400, "request-invalid", "messages"],
        "path": ["NotFoundError", 404, "unknown_url", None],
    }


def test_a_spent_budget_is_a_rate_limit_error_that_is_not_tried_again(one_request, client_home):
    name, status, code, message = asked(one_request, client_home, "spends")["spends"]
    assert (name, status, code) == ("RateLimitError", 429, "insufficient_quota")
    assert "request" in message


def test_a_host_that_has_gone_is_a_status_503(abandoned, client_home):
    name, status, code, message = asked(abandoned, client_home, "host_gone")["host_gone"]
    assert (name, status) == ("InternalServerError", 503)
    assert code in ("host-gone", "host-not-found")
    assert message
