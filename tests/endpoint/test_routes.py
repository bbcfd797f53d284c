"""OpenAI's routes at the endpoint, from a real host over a real mesh."""

from __future__ import annotations

import asyncio
import base64
import struct

import openai
import pytest

import qmt_jupyter as qmt
from qmt_jupyter import aio
from qmt_jupyter.errors import OptionInvalid, PortInUse
from tests.conftest import MODELS
from tests.endpoint.conftest import Client, events, question, until


def test_a_whole_answer_has_openais_shape(client):
    answer = client.chat("one two")
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    whole = answer.json
    assert whole["object"] == "chat.completion"
    assert whole["model"] == "echo"
    assert whole["choices"][0]["message"] == {"role": "assistant", "content": "one two"}
    assert whole["choices"][0]["finish_reason"] == "stop"
    assert whole["usage"] == {"prompt_tokens": 2, "completion_tokens": 2, "total_tokens": 4}


def test_a_stream_has_chunks_usage_when_asked_and_a_last_word(client):
    answer = client.chat("one two", stream=True, stream_options={"include_usage": True})
    assert answer.headers["content-type"].startswith("text/event-stream")
    *chunks, usage, done = events(answer.text)
    assert done == "[DONE]"
    assert "".join(each["choices"][0]["delta"].get("content", "") for each in chunks) == "one two"
    assert {each["object"] for each in chunks} == {"chat.completion.chunk"}
    assert all(each["usage"] is None for each in chunks)
    assert (usage["choices"], usage["usage"]["total_tokens"]) == ([], 4)
    plain = events(client.chat("one two", stream=True).text)
    assert not any("usage" in each for each in plain[:-1])


def test_models_are_listed_and_found_by_name(client):
    listed = client.send("GET", "/v1/models").json
    assert listed["object"] == "list"
    (model,) = listed["data"]
    assert (model["id"], model["object"], model["owned_by"]) == ("echo", "model", "Team")
    assert client.send("GET", "/v1/models/echo").json == model
    missing = client.send("GET", "/v1/models/some%2Fother")
    assert (missing.status, missing.error["code"]) == (404, "model_not_found")
    assert "some/other" in missing.error["message"]


def test_what_clients_probe_is_answered(client):
    for key in (None, f"Bearer {client.key}"):
        root = client.send("GET", "/", Authorization=key)
        assert root.status == 200
        assert client.endpoint.base_url in root.text
        head = client.send("HEAD", "/", Authorization=key)
        assert (head.status, head.text) == (200, "")
    nothing = client.send("GET", "/api/tags")
    assert (nothing.status, nothing.error["code"]) == (404, "unknown_url")
    assert client.send("POST", "/v1/responses", {}).status == 404
    wrong = client.send("GET", "/v1/chat/completions")
    assert (wrong.status, wrong.headers["allow"]) == (405, "POST")
    assert wrong.error["code"] == "method_not_supported"
    assert client.send("DELETE", "/v1/models").status == 405
    assert client.send("BREW", "/v1/models").status == 405


def test_what_real_clients_send_beside_their_question_is_no_obstacle(client):
    answer = client.send(
        "POST",
        "/v1/chat/completions",
        {
            "model": "echo",
            "messages": [
                {"role": "user", "content": "first"},
                {"role": "assistant", "content": "x", "refusal": None, "audio": None,
                 "function_call": None, "annotations": [], "tool_calls": None},
                {"role": "user", "content": [
                    {"type": "text", "text": "one two", "cache_control": {"type": "ephemeral"}}]},
            ],
            "n": 1, "temperature": None, "stream": False, "stream_options": None,
            "user": "me", "metadata": {"a": "b"}, "store": False, "service_tier": "auto",
            "safety_identifier": "x", "prompt_cache_key": "y", "modalities": ["text"],
            "logit_bias": {}, "response_format": {"type": "text"}, "parallel_tool_calls": None,
        },
    )  # fmt: skip
    assert answer.status == 200, answer.text
    assert answer.json["choices"][0]["message"]["content"] == "one two"


@pytest.mark.parametrize(
    ("parameter", "value"),
    [("n", 2), ("store", True), ("service_tier", "flex"), ("audio", {}), ("base_url", "http://x"),
     ("web_search_options", {}), ("modalities", ["audio"]), ("functions", [{"name": "f"}])],
)  # fmt: skip
def test_what_would_change_the_answer_is_not_dropped_but_refused_by_name(client, parameter, value):
    answer = client.chat(**{parameter: value})
    assert answer.status == 400
    assert answer.error["param"] == parameter
    assert parameter in answer.error["message"]


def test_the_openai_client_works_unchanged(endpoint):
    with openai.OpenAI(base_url=endpoint.base_url, api_key=endpoint.api_key) as client:
        assert [model.id for model in client.models.list()] == ["echo"]
        whole = client.chat.completions.create(**question("one two"))
        assert whole.choices[0].message.content == "one two"
        pieces = client.chat.completions.create(**question("one two"), stream=True)
        assert "".join(each.choices[0].delta.content or "" for each in pieces) == "one two"
        with pytest.raises(openai.NotFoundError):
            client.chat.completions.create(**{**question(), "model": "other"})
        with pytest.raises(openai.BadRequestError):
            client.chat.completions.create(**question(), temperature=9)
    with (
        openai.OpenAI(base_url=endpoint.base_url, api_key="wrong") as stranger,
        pytest.raises(openai.AuthenticationError),
    ):
        stranger.models.list()


def test_the_real_engine_streams_and_stops_with_its_client(endpoint_of):
    client = endpoint_of("smollm2")
    whole = client.chat("Say hello.", model="smollm2", max_tokens=8, temperature=0)
    assert whole.status == 200, whole.text
    assert whole.json["usage"]["completion_tokens"] >= 1
    body = question("Tell a long story.", model="smollm2", max_tokens=2000, stream=True)
    connection, answer = client.open("POST", "/v1/chat/completions", body)
    assert answer.readline().startswith(b"data: ")
    assert client.running() == 1
    answer.close()
    connection.close()
    until(lambda: client.running() == 0)


@pytest.fixture
def endpoint_of(monkeypatch):
    """A client of an endpoint in front of a host with a model; all end afterwards."""
    monkeypatch.setenv("QMT_MODELS", str(MODELS))
    opened = []

    def start(model):
        host = qmt.host(model, uses=0)
        mesh = qmt.join(host.invite.url)
        opened.extend((host, mesh))
        client = Client(mesh.serve())
        client.running = lambda: sum(
            guest["running"] for invite in host.usage()["invites"] for guest in invite["guests"]
        )
        return client

    yield start
    for host, mesh in zip(opened[::2], opened[1::2], strict=True):
        mesh.leave()
        host.close()


def test_a_host_serves_its_owner_without_a_mesh(host):
    with host.serve() as endpoint:
        client = Client(endpoint)
        assert client.chat("mine").json["choices"][0]["message"]["content"] == "mine"
        assert client.send("GET", "/v1/models").json["data"][0]["id"] == "echo"
    assert host.usage()["own"]["requests"] == 1
    left_open = host.serve()
    host.close()
    assert not left_open.is_open


def test_the_awaitable_twin_serves_too(host):
    async def main():
        async with await aio.join(host.invite.url) as mesh, await mesh.serve() as endpoint:
            client = Client(endpoint)
            answer = await asyncio.to_thread(client.chat, "from a foreign loop")
        return answer, endpoint

    answer, endpoint = asyncio.run(main())
    assert answer.json["choices"][0]["message"]["content"] == "from a foreign loop"
    assert not endpoint.is_open


def test_it_closes_with_its_mesh_and_only_once(host):
    mesh = qmt.join(host.invite.url)
    first, second = mesh.serve(), mesh.serve()
    assert first.api_key != second.api_key
    first.close()
    first.close()
    mesh.leave()
    assert (first.is_open, second.is_open) == (False, False)
    assert repr(second) == "<Endpoint closed>"
    with pytest.raises(OSError):
        Client(second).send("GET", "/")


def test_a_port_that_is_taken_and_options_that_are_none_are_said(mesh, endpoint):
    port = Client(endpoint).port
    with pytest.raises(PortInUse, match=str(port)):
        mesh.serve(port=port)
    with pytest.raises(OptionInvalid, match="port"):
        mesh.serve(port=70_000)
    for origin in ("*", "null", "http://a/path", "localhost:3000", ""):
        with pytest.raises(OptionInvalid, match="origin"):
            mesh.serve(allow_origins=[origin])


def test_a_chosen_port_is_free_again_after_it(host):
    with qmt.join(host.invite.url) as mesh:
        with mesh.serve() as first:
            port = Client(first).port
            assert Client(first).chat().status == 200
        with mesh.serve(port=port) as second:
            assert Client(second).chat().status == 200


def test_embeddings_come_as_numbers_or_in_base64(client):
    body = {"model": "echo", "input": ["abba", "c"], "user": "me"}
    answer = client.send("POST", "/v1/embeddings", body)
    assert answer.status == 200, answer.text
    assert (answer.json["object"], answer.json["model"]) == ("list", "echo")
    first, second = answer.json["data"]
    assert (first["index"], first["object"], first["embedding"][:3]) == (0, "embedding", [2, 2, 0])
    assert second["embedding"][:3] == [0, 0, 1]
    assert answer.json["usage"]["prompt_tokens"] == 2
    packed = client.send("POST", "/v1/embeddings", {**body, "encoding_format": "base64"}).json
    numbers = struct.unpack("<26f", base64.b64decode(packed["data"][0]["embedding"]))
    assert list(numbers) == first["embedding"]


def test_embeddings_by_the_openai_client_and_what_they_refuse(endpoint, client):
    with openai.OpenAI(base_url=endpoint.base_url, api_key=endpoint.api_key) as sdk:
        made = sdk.embeddings.create(model="echo", input="abba")
        assert made.data[0].embedding[:3] == [2.0, 2.0, 0.0]
    for body, parameter in (
        ({"input": "x", "encoding_format": "int8"}, "encoding_format"),
        ({}, "input"),
        ({"input": [1, 2]}, "input"),
        ({"input": "x", "task": "y"}, "task"),
        ({"input": "x", "dimensions": 0}, "dimensions"),
    ):
        answer = client.send("POST", "/v1/embeddings", {"model": "echo", **body})
        assert (answer.status, answer.error["param"]) == (400, parameter), answer.text
    unknown = client.send("POST", "/v1/embeddings", {"model": "other", "input": "x"})
    assert (unknown.status, unknown.error["code"]) == (404, "model_not_found")
