"""LangChain's OpenAI classes, unchanged, against a guest's endpoint."""

from __future__ import annotations

import pytest

from .conftest import told

pytestmark = pytest.mark.timeout(240)


def asked(served, home, *cases):
    program = "langchain_openai_client.py"
    return told(
        served, served.models[0], *cases, environment=".venv-clients", program=program, home=home
    )


@pytest.fixture(scope="module")
def engine(smollm2, client_home):
    return asked(smollm2, client_home, "chats", "structured", "embeddings")


@pytest.fixture(scope="module")
def script(scripted, client_home):
    return asked(scripted, client_home, "chats", "by_tool", "tools")


def test_a_real_models_answer_comes_whole_and_streamed(engine):
    chats = engine["chats"]
    assert chats["whole"].strip()
    assert chats["streamed"].strip()
    assert chats["pieces"] > 5
    assert len(chats["batch"]) == 3
    assert chats["awaited"].strip()


def test_answers_and_usage_are_the_same_whole_and_streamed(script):
    chats = script["chats"]
    assert chats["whole"] == chats["streamed"] == chats["awaited"] == "one two three"
    assert chats["batch"] == ["one two three"] * 3
    assert chats["usage"] == chats["streamed_usage"]
    assert (chats["usage"]["input_tokens"], chats["usage"]["output_tokens"]) == (7, 3)


def test_structured_output_by_schema_and_by_tool(engine, script):
    assert engine["structured"]["size"] in ("small", "large")
    assert script["by_tool"] == {"city": "Paris"}


def test_tools_are_called_and_their_answers_taken(script):
    assert script["tools"]["calls"] == [["weather", {"city": "Paris"}]]
    assert script["tools"]["told"] == "It is 21 degrees in Paris."


def test_embeddings_of_documents_and_queries(engine):
    assert engine["embeddings"] == {"sizes": [576, 576], "query": 576}
