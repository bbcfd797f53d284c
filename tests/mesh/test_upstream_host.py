"""A host that shares a server with a key: the key stays, whatever happens, and guests are served."""

from __future__ import annotations

import json
import logging
import os
import secrets
import subprocess
import sys
from pathlib import Path

import anyio
import pytest

from qmt_jupyter.errors import ModelUnknown, RequestInvalid
from qmt_jupyter.mesh.endpoint import Stream
from qmt_jupyter.providers import upstream as upstreams
from qmt_jupyter.providers.echo import Echo
from qmt_jupyter.providers.model_files import locate_model
from qmt_jupyter.providers.secret import Secret
from qmt_jupyter.providers.upstream import Upstream
from qmt_jupyter.wire import messages
from tests.conftest import MODELS as FILES
from tests.mesh.conftest import grant, only_guest, question, texts
from tests.providers.mock_upstream import MODELS, MockUpstream

pytestmark = pytest.mark.anyio


@pytest.fixture
def key():
    return "sk-" + secrets.token_hex(20)


@pytest.fixture
def mock(key, monkeypatch):
    monkeypatch.setattr(upstreams, "_FIRST_PAUSE", 0.01)
    server = MockUpstream(key)
    yield server
    server.close()


async def shared(person, mock, key, *patterns, beside=(), **limits):
    provider = await Upstream.open(mock.url, patterns=patterns or ("*",), key=Secret(key))
    service = await person("host").host([provider, *beside])
    mesh = await person("guest").join(await grant(service, **limits))
    return service, mesh


async def test_a_guest_is_answered_and_counted_by_the_upstreams_own_figures(person, mock, key):
    service, mesh = await shared(person, mock, key, "plain", "no-usage")
    assert "".join(await texts(mesh, model="plain")) == "one two three"
    guest = only_guest(service)
    assert (guest["prompt_tokens"], guest["completion_tokens"]) == (7, 3)
    replies = [reply async for reply in mesh.answer(question(model="no-usage"))]
    (usage,) = [reply.usage for reply in replies if isinstance(reply, messages.Usage)]
    assert (usage["completion_tokens"], usage["estimated"]) == (3, True)
    await mesh.close()
    await service.close()


async def test_a_waiting_upstream_is_a_queue_with_a_time(person, mock, key):
    service, mesh = await shared(person, mock, key, "busy-once")
    replies = [reply async for reply in mesh.answer(question())]
    waits = [reply.wait for reply in replies if isinstance(reply, messages.Queued)]
    assert waits
    assert all(0 <= wait <= 1 for wait in waits)
    assert isinstance(replies[len(waits) + 1], messages.Started), "the answer starts after the wait"
    await mesh.close()
    await service.close()


async def test_an_upstream_that_fails_before_it_begins_costs_the_guest_nothing(person, mock, key):
    service, mesh = await shared(person, mock, key, "down", tokens=500)
    with pytest.raises(Exception, match="status 502"):
        await texts(mesh)
    guest = only_guest(service)
    assert (guest["prompt_tokens"], guest["completion_tokens"]) == (0, 0)
    assert guest["left"] == {"requests": None, "tokens": 500}
    await mesh.close()
    await service.close()


MOVES = [
    {"base_url": "http://127.0.0.1:9/v1"},
    {"extra_headers": {"Authorization": "Bearer mine"}},
    {"extra_body": {"model": "other"}},
    {"extra_query": {"a": "b"}},
    {"user": "somebody"},
    {"api_key": "mine"},
    {"store": True},
    {"tools": [{"type": "function", "function": {"name": "f", "parameters": {"$ref": "http://127.0.0.1:9"}}}]},
]  # fmt: skip


async def test_a_guest_cannot_move_the_upstream(person, mock, key):
    service, mesh = await shared(person, mock, key, "plain")
    mock.asked.clear()
    for move in MOVES:
        with pytest.raises(RequestInvalid):
            await texts(mesh, **move)
    for model in ("../models", "plain/../../x", "http://127.0.0.1:9/plain"):
        with pytest.raises(ModelUnknown):
            async for _ in mesh.links[0].ask(question(model=model)):
                pass
    assert mock.asked == [], "the upstream has seen none of it"
    await texts(mesh, text="x", stop=["y"])
    ((path, headers, body),) = mock.asked
    assert path == "/v1/chat/completions"
    assert headers["Authorization"] == f"Bearer {key}"
    assert set(body) == {"messages", "model", "stop", "stream", "stream_options"}
    await mesh.close()
    await service.close()


async def test_a_server_of_the_real_engine_is_an_upstream_like_any_other(person, tmp_path):
    xllamacpp = pytest.importorskip("xllamacpp")
    params = xllamacpp.CommonParams()
    params.model.path = str(locate_model("smollm2", FILES).path)
    params.n_ctx, params.n_parallel, params.verbosity = 2048, 2, -1
    params.api_keys = [real_key := secrets.token_hex(16)]
    server = await anyio.to_thread.run_sync(xllamacpp.Server, params)
    provider = await Upstream.open(f"{server.listening_address}/v1", key=Secret(real_key), slots=2)
    service = await person("host").host([provider])
    mesh = await person("guest").join(await grant(service))
    replies = [reply async for reply in mesh.answer(question("Say hello.", max_tokens=12, seed=1))]
    assert replies[-1].finish_reason in ("length", "stop")
    (usage,) = [reply.usage for reply in replies if isinstance(reply, messages.Usage)]
    guest = only_guest(service)
    assert guest["prompt_tokens"] == usage["prompt_tokens"] > 5
    assert guest["completion_tokens"] == usage["completion_tokens"] > 1
    await mesh.close()
    await service.close()
    del server


async def test_several_providers_share_one_host_and_names_that_clash_get_a_label(person, mock, key):
    mock.models = ["plain", "echo"]
    service, mesh = await shared(person, mock, key, beside=(Echo(), Echo()))
    names = [each["name"] for each in mesh.models()]
    assert names == ["plain", "127.0.0.1/echo", "echo/echo", "echo-2/echo"]
    assert "".join(await texts(mesh, model="127.0.0.1/echo")) == "one two three"
    assert "".join(await texts(mesh, text="said", model="echo-2/echo")) == "said"
    assert mock.bodies("echo")[0]["model"] == "echo"
    assert service.providers[2].completed == 1
    status = service.status()
    assert (status["slots"], status["models"]) == (12, names)
    await mesh.close()
    await service.close()


# The hunt for the key ---------------------------------------------------------------------------

GUEST = """
import json, sys
import qmt_jupyter as qmt
link, models = json.load(sys.stdin)
mesh = qmt.join(link)
kept = []
for model in models:
    answer = mesh.chat("hello", model=model, max_tokens=20)
    try:
        for number, piece in enumerate(answer):
            if number > 5:
                answer.stop()
        kept.append(answer.result())
    except Exception as error:
        kept.append((repr(error), str(error), getattr(error, "__dict__", None)))
print(json.dumps({"answered": len(kept), "errors": [k[1] for k in kept if isinstance(k, tuple)]}), flush=True)
sys.stdin.close()
import time; time.sleep(60)
"""


def memory_of(pid):
    """Everything that a process can read of its own, as far as it lets itself be read."""
    whole = b""
    with Path(f"/proc/{pid}/mem").open("rb", 0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            span, permissions = line.split()[:2]
            if not permissions.startswith("rw"):
                continue
            start, end = (int(each, 16) for each in span.split("-"))
            try:
                memory.seek(start)
                whole += memory.read(end - start)
            except (OSError, OverflowError, ValueError):
                continue
    return whole


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="memory is read from /proc")
async def test_the_key_is_found_nowhere_but_where_it_is_used(
    person, mock, key, monkeypatch, caplog, capfd, tmp_path
):
    caplog.set_level(logging.DEBUG)
    crossed = []
    for name in ("write",):
        original = getattr(Stream, name)

        async def record(self, data, original=original):
            crossed.append(bytes(data))
            return await original(self, data)

        monkeypatch.setattr(Stream, name, record)
    provider = await Upstream.open(mock.url, patterns=("*",), key=Secret(key))
    service = await person("host").host([provider])
    granted = await grant(service)
    guest = subprocess.Popen(
        [sys.executable, "-c", GUEST],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**os.environ, "QMT_HOME": str(tmp_path / "elsewhere")},
    )  # fmt: skip
    try:
        guest.stdin.write(json.dumps([granted.url, MODELS]).encode())
        guest.stdin.close()
        with anyio.fail_after(60):
            told = json.loads(await anyio.to_thread.run_sync(guest.stdout.readline))
        image = await anyio.to_thread.run_sync(memory_of, guest.pid)
    finally:
        guest.kill()
        guest.wait()
        said = guest.stderr.read()
        guest.stdout.close()
        guest.stderr.close()
    assert told["answered"] == len(MODELS)
    assert any("[key]" in error for error in told["errors"]), "an echoed key did come this way"
    await service.close()
    places = {
        "the connection": b"".join(crossed),
        "the guest's memory": image,
        "the guest's errors": said,
        "the logs": "\n".join(
            f"{record.getMessage()} {record.args} {record.exc_text}" for record in caplog.records
        ).encode(),
        "standard output and error": "".join(capfd.readouterr()).encode(),
        "the host's files": b"".join(
            path.read_bytes() for path in (tmp_path / "host").rglob("*") if path.is_file()
        ),
        "the usage": json.dumps(service.usage()).encode(),
        "what the objects show": repr((service, provider, vars(provider))).encode(),
    }
    assert b"hello" in places["the guest's memory"]
    assert len(places["the connection"]) > 1000
    parts = [key[at : at + 7].encode() for at in range(len(key) - 6)]
    for place, found in places.items():
        assert [part for part in parts if part in found] == [], place
