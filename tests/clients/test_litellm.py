"""LiteLLM's client, unchanged, against a guest's endpoint."""

from __future__ import annotations

import pytest

from .conftest import told

pytestmark = pytest.mark.timeout(240)


def asked(served, home, *cases):
    model = served.models[0]
    return told(
        served, model, *cases, environment=".venv-clients", program="litellm_client.py", home=home
    )


@pytest.fixture(scope="module")
def script(scripted, client_home):
    return asked(scripted, client_home, "chats", "tools", "errors")


@pytest.fixture(scope="module")
def engine(smollm2, client_home):
    return asked(smollm2, client_home, "chats", "embeddings")


def test_a_real_models_answer_comes_whole_and_streamed(engine):
    assert engine["chats"]["whole"].strip()
    assert engine["chats"]["streamed"].strip()
    assert engine["chats"]["usage"] == 12


def test_an_answer_is_the_same_whole_streamed_and_awaited(script):
    chats = script["chats"]
    assert chats["whole"] == chats["streamed"] == chats["awaited"] == "one two three"
    assert chats["pieces"] >= 3
    assert chats["usage"] == 3


def test_tools_are_called(script):
    assert script["tools"] == ["weather", {"city": "Paris"}]


def test_embeddings_are_made(engine):
    assert engine["embeddings"] == [576, 576]


def test_errors_are_of_its_own_classes(script):
    assert script["errors"] == {
        "key": ["AuthenticationError", 401],
        "model": ["NotFoundError", 404],
    }
