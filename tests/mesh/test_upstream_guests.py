"""Guests of a host that shares a server: what they cannot make it do, and what they wait for."""

from __future__ import annotations

import secrets

import anyio
import pytest

from qmt_jupyter.errors import GenerationFailed, ModelUnknown, RequestInvalid
from qmt_jupyter.providers import upstream as upstreams
from qmt_jupyter.providers.secret import Secret
from qmt_jupyter.providers.upstream import Upstream
from qmt_jupyter.wire import messages
from tests.mesh.conftest import grant, only_guest, question, texts
from tests.providers.mock_upstream import MockUpstream

pytestmark = pytest.mark.anyio

ELSEWHERE = "http://127.0.0.1:9/v1"
PIXEL = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk"


@pytest.fixture
def key():
    return "sk-" + secrets.token_hex(20)


@pytest.fixture
def mock(key, monkeypatch):
    monkeypatch.setattr(upstreams, "_FIRST_PAUSE", 0.01)
    server = MockUpstream(key)
    yield server
    server.close()


@pytest.fixture
async def asking(person, mock, key):
    """A guest of a host that shares all of the mock's models; the mock has seen nothing yet."""
    provider = await Upstream.open(mock.url, patterns=("*",), key=Secret(key))
    service = await person("host").host([provider])
    mesh = await person("guest").join(await grant(service))
    mock.asked.clear()
    yield service, mesh
    await mesh.close()
    await service.close()


def schema(**parts):
    function = {"name": "f", "parameters": {"type": "object", "properties": {"a": parts}}}
    return {"tools": [{"type": "function", "function": function}]}


def tool(**parts):
    return {"tools": [{"type": "function", "function": {"name": "f"}, **parts}]}


def message(**parts):
    return {"messages": [{"role": "user", "content": "x", **parts}]}


def image(url, **parts):
    return message(content=[{"type": "image_url", "image_url": {"url": url, **parts}}])


MOVES = {
    "base_url": {"base_url": ELSEWHERE},
    "api_base": {"api_base": ELSEWHERE},
    "headers": {"headers": {"Host": "elsewhere"}},
    "extra_headers": {"extra_headers": {"Authorization": "Bearer mine"}},
    "extra_body": {"extra_body": {"model": "other"}},
    "extra_query": {"extra_query": {"a": "b"}},
    "timeout": {"timeout": 0.001},
    "api_key": {"api_key": "mine"},
    "organization": {"organization": "org-mine"},
    "user": {"user": "somebody"},
    "metadata": {"metadata": {"a": "b"}},
    "safety_identifier": {"safety_identifier": "somebody"},
    "store": {"store": True},
    "service_tier": {"service_tier": "flex"},
    "several answers": {"n": 8},
    "a router's models": {"models": ["other"]},
    "a router's provider": {"provider": {"order": ["other"]}},
    "plugins": {"plugins": [{"id": "web"}]},
    "web search": {"web_search_options": {}},
    "an engine's slot": {"id_slot": 1},
    "an engine's adapter": {"lora": [{"id": 0, "scale": 1}]},
    "an engine's grammar": {"grammar": "root ::= 'a'"},
    "an engine's decoding": {"guided_json": {"$ref": ELSEWHERE}},
    "a template": {"chat_template": "{{ x }}"},
    "a tool server": {"tools": [{"type": "mcp", "server_url": ELSEWHERE}]},
    "a search tool": {"tools": [{"type": "web_search"}]},
    "a tool with an address": tool(server_url=ELSEWHERE),
    "a function with an address": tool(function={"name": "f", "url": ELSEWHERE}),
    "a tool choice with an address": {**tool(), "tool_choice": {"type": "function", "u": ELSEWHERE}},
    "a format with an address": {"response_format": {"type": "json_object", "u": ELSEWHERE}},
    "a schema elsewhere": schema(**{"$ref": ELSEWHERE}),
    "a schema in a file": schema(**{"$ref": "file:///etc/passwd"}),
    "a schema beside": schema(**{"$ref": "other.json#/x"}),
    "a dynamic schema": schema(items=[{"$dynamicRef": ELSEWHERE}]),
    "a recursive schema": schema(allOf=[{"$recursiveRef": ELSEWHERE}]),
    "a format elsewhere": {
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "f", "schema": {"anyOf": [{"$ref": ELSEWHERE}]}},
        }
    },
    "a field of a message": message(base_url=ELSEWHERE),
    "a name that is an object": message(name={"url": ELSEWHERE}),
    "a call with an address": {
        "messages": [
            {"role": "user", "content": "x"},
            {"role": "assistant", "tool_calls": [{"id": "1", "type": "function", "u": ELSEWHERE}]},
        ]
    },
    "an image elsewhere": image(ELSEWHERE),
    "an image behind TLS": image("https://127.0.0.1:9/a.png"),
    "an image in a file": image("file:///etc/passwd"),
    "an image of any kind": image("data:text/html;base64,PGI+"),
    "an image with a field": image(PIXEL, headers={"a": "b"}),
    "an image's detail": image(PIXEL, detail=ELSEWHERE),
    "a part of another kind": message(content=[{"type": "file", "file": {"file_id": "x"}}]),
    "a sound": message(content=[{"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}]),
}  # fmt: skip

NAMES = (
    "../models", "plain/../../x", "/v1/models", f"{ELSEWHERE}/plain", "plain?x=y", "plain#x",
    "plain\r\nX-Mine: 1", "plain ", "PLAIN", "pl*", "", "openai/plain", "\u0000plain",
)  # fmt: skip


async def test_no_request_moves_the_upstream_and_it_sees_none_of_those_that_try(mock, asking):
    _, mesh = asking
    taken = []
    for name, move in MOVES.items():
        body = {"model": "plain", **question(), **move}
        try:
            async for _ in mesh.links[0].ask(body):
                pass
            taken.append(name)
        except RequestInvalid:
            pass
    assert taken == []
    assert mock.asked == []


async def test_no_name_of_a_model_is_a_way_to_another_place(mock, asking):
    _, mesh = asking
    for name in NAMES:
        with pytest.raises(ModelUnknown):
            async for _ in mesh.links[0].ask(question(model=name)):
                pass
    assert mock.asked == []


async def test_what_every_client_sends_is_taken_out_and_the_rest_goes_through_as_it_is(
    mock, asking, key
):
    _, mesh = asking
    good = {
        **schema(**{"$ref": "#/$defs/city"}),
        "tool_choice": {"type": "function", "function": {"name": "f"}},
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "f", "strict": True, "schema": {"type": "object"}},
        },
        "temperature": 0.5,
    }
    idle = {
        "stream": False,
        "stream_options": {"include_usage": False, "u": ELSEWHERE},
        "seed": None,
    }
    await texts(mesh, model="plain", **good, **idle)
    ((path, headers, body),) = mock.asked
    assert path == "/v1/chat/completions"
    assert body == {
        "model": "plain",
        "messages": question()["messages"],
        "stream": True,
        "stream_options": {"include_usage": True},
        **good,
    }
    assert headers["Authorization"] == f"Bearer {key}"
    assert headers["Host"] == f"127.0.0.1:{mock.port}"
    assert not [name for name in headers if name.lower().startswith(("x-", "openai"))]


async def test_an_image_that_comes_with_the_request_goes_through(mock, asking):
    _, mesh = asking
    parts = [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": PIXEL, "detail": "low"}},
    ]
    body = {"model": "plain", **message(content=parts)}
    replies = [reply async for reply in mesh.answer(body)]
    assert isinstance(replies[-1], messages.Done)
    (sent,) = mock.bodies("plain")
    assert sent["messages"] == body["messages"]


async def test_all_guests_of_a_busy_upstream_wait_for_the_same_time_and_are_served(mock, asking):
    service, mesh = asking
    waits: dict[str, list[float]] = {"busy-once": [], "plain": []}
    answers = {}

    async def ask(model):
        said = ""
        async for reply in mesh.answer(question(model=model)):
            if isinstance(reply, messages.Queued) and reply.wait is not None:
                waits[model].append(reply.wait)
            if isinstance(reply, messages.Delta):
                said += reply.choices[0]["delta"].get("content") or ""
        answers[model] = said

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask, "busy-once")
        while not waits["busy-once"]:
            await anyio.sleep(0.01)
        tasks.start_soon(ask, "plain")
    assert answers == {"busy-once": "one two three", "plain": "one two three"}
    assert all(0 <= wait <= 1 for each in waits.values() for wait in each)
    assert waits["plain"], "who comes meanwhile is told the time as well"
    assert len(mock.bodies("busy-once")) == 2
    assert only_guest(service)["completion_tokens"] == 6


async def test_an_outage_is_tried_again_before_the_first_word_and_never_after(mock, asking):
    service, mesh = asking
    assert "".join(await texts(mesh, model="down-once")) == "one two three"
    assert len(mock.bodies("down-once")) == 2
    heard = []
    for model in ("breaks", "fails-midway"):
        with pytest.raises(GenerationFailed):
            async for reply in mesh.answer(question(model=model)):
                if isinstance(reply, messages.Delta):
                    heard.append(reply.choices[0]["delta"].get("content") or "")
        assert len(mock.bodies(model)) == 1, "what has begun is not begun again"
    assert "".join(heard) == "one two three" * 2, "what had come has been told, once"
    ended = only_guest(service)["ended"]
    assert ended == {"completed": 1, "failed": 2}
