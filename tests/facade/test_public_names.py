"""The public face: its names, its twins, and that nothing of it blocks, hangs or leaks."""

from __future__ import annotations

import asyncio
import inspect
import os
import signal
import subprocess
import sys
import threading
import time
import traceback

import pytest

import qmt_jupyter as qmt
from qmt_jupyter import aio, api, flags, nodes, runtime
from qmt_jupyter.errors import HostNotFound, InviteMalformed, OptionInvalid, Stopped
from qmt_jupyter.mesh import locate
from qmt_jupyter.providers import select
from qmt_jupyter.providers.echo import Echo


def members(cls):
    return {name for name in dir(cls) if not name.startswith("_")}


def test_the_public_names_are_these():
    assert qmt.__all__ == [
        "host", "join", "detect", "Host", "Mesh", "Invite", "Limits", "Allowance", "Answer", "QmtError",
        "aio", "config", "errors",
        "load_ipython_extension", "unload_ipython_extension",
    ]  # fmt: skip
    assert all(hasattr(qmt, name) for name in qmt.__all__)
    assert members(qmt.Host) == {
        "activity", "allow", "chat", "close", "complete", "embed", "end_seat", "hours", "invite",
        "invites", "is_running", "metrics", "models", "new_invite", "notices", "peer_id",
        "revoke", "seat", "seats", "serve", "status", "usage", "usage_rows", "used_elsewhere",
    }  # fmt: skip
    assert members(qmt.Mesh) == {
        "chat", "complete", "embed", "join", "leave", "models", "serve", "status",
    }  # fmt: skip
    assert members(qmt.Invite) == {
        "expires_at", "invite_id", "limits", "max_uses", "name", "qr", "svg", "url",
    }  # fmt: skip


def test_host_stays_the_function_after_its_folder_was_imported():

    assert qmt.host is api.host
    assert inspect.isfunction(qmt.host)


@pytest.mark.parametrize("name", ["Host", "Mesh", "Answer", "Endpoint", "detect", "host", "join"])
def test_the_awaitable_twin_has_the_same_names(name):
    blocking, awaitable = getattr(api, name), getattr(aio, name)
    if inspect.isclass(blocking):
        assert members(blocking) == members(awaitable)
        return
    assert inspect.iscoroutinefunction(awaitable)
    assert list(inspect.signature(blocking).parameters) == list(
        inspect.signature(awaitable).parameters
    )


def test_the_flags_say_the_same_defaults_as_the_facade():
    assert flags.DEFAULT_MODEL == select.DEFAULT_MODEL
    assert flags.ENGINES == select.ENGINES
    assert nodes.HostOptions.model is None
    assert (flags.DEFAULT_USES, flags.DEFAULT_TTL) == (nodes.DEFAULT_USES, nodes.DEFAULT_TTL)
    assert nodes.HostOptions.slots == flags.DEFAULT_SLOTS
    assert nodes.HostOptions.relay == flags.DEFAULT_RELAY
    assert flags.DEFAULT_DEADLINE == locate.DEADLINE


@pytest.fixture
def provider():
    return Echo(slots=4)


@pytest.fixture
def host(provider):
    with qmt.host(provider, name="Team", uses=0) as running:
        yield running


@pytest.fixture
def mesh(host):
    with qmt.join(host.invite.url) as joined:
        yield joined


def test_chat_streams_text_and_knows_what_it_took(mesh, host):
    answer = mesh.chat("one two three", system="Repeat.")
    assert list(answer) == ["one ", "two ", "three"]
    assert (answer.text, answer.model, answer.host) == ("one two three", "echo", host.peer_id)
    assert (answer.finish_reason, answer.usage["completion_tokens"]) == ("stop", 3)
    assert answer.is_complete


def test_complete_gives_openai_shapes(mesh):
    asked = {"messages": [{"role": "user", "content": "one two"}]}
    whole = mesh.complete(**asked, temperature=None)
    assert whole["object"] == "chat.completion"
    assert whole["choices"][0]["message"] == {"role": "assistant", "content": "one two"}
    assert whole["choices"][0]["finish_reason"] == "stop"
    chunks = list(mesh.complete(**asked, stream=True))
    assert all(chunk["object"] == "chat.completion.chunk" for chunk in chunks)
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert chunks[-1]["usage"]["total_tokens"] == 4


def test_a_host_answers_its_owner_without_a_mesh(host):
    answer = host.chat("mine")
    assert answer.read() == "mine"
    assert answer.host == host.peer_id
    assert host.usage()["own"]["requests"] == 1


def test_an_interrupt_while_reading_stops_the_work_and_comes_through(mesh, provider, monkeypatch):
    monkeypatch.setattr(provider, "_delay", 0.02)
    monkeypatch.setattr(provider, "_repeat", True)
    answer = mesh.chat("for ever", max_tokens=100_000)
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        answer.read()
    assert answer.text.startswith("for ever")
    deadline = time.monotonic() + 10
    while provider.running and time.monotonic() < deadline:
        time.sleep(0.01)
    assert (provider.running, provider.cancelled) == (0, 1)
    assert mesh.chat("good as new", max_tokens=3).read().startswith("good as new")


def test_dropping_an_answer_stops_it(mesh, provider, monkeypatch):
    monkeypatch.setattr(provider, "_delay", 0.02)
    monkeypatch.setattr(provider, "_repeat", True)
    answer = mesh.chat("for ever", max_tokens=100_000)
    next(iter(answer))
    del answer
    deadline = time.monotonic() + 10
    while provider.running and time.monotonic() < deadline:
        time.sleep(0.01)
    assert provider.running == 0


def test_nothing_that_is_printed_or_raised_shows_the_token(host, mesh):
    token = host.invite.url.rpartition("/")[2][:30]
    for shown in (repr(host), repr(mesh), repr(host.invite), str(host.invites), str(host.status()), str(host.usage()), str(mesh.status())):  # fmt: skip
        assert token not in shown
    cut = host.invite.url.partition("?")[0][:-5]
    with pytest.raises(InviteMalformed) as raised:
        qmt.join(cut)
    frames = traceback.format_exception(raised.value)
    assert token not in "".join(frames)
    assert raised.value._render_traceback_() == [f"InviteMalformed: {raised.value}"]


@pytest.fixture
def other_host(tmp_path, monkeypatch):
    """A host with a home of its own, whose model has another name."""
    monkeypatch.setenv("QMT_HOME", str(tmp_path / "other"))
    provider = Echo(slots=2)
    with qmt.host(provider, name="Others", uses=0) as running:
        monkeypatch.setenv("QMT_HOME", str(tmp_path / "home"))
        yield running


def test_a_mesh_has_as_many_hosts_as_were_joined(host, other_host):
    with qmt.join(host.invite.url) as mesh:
        assert mesh.join(other_host.invite.url) == other_host.peer_id
        assert [each["host"] for each in mesh.status()] == [host.peer_id, other_host.peer_id]
        assert [(each["slots"], each["busy"]) for each in mesh.models] == [(4, 0), (2, 0)]
        for named, wanted in (("Team", host), (other_host.peer_id[-8:], other_host)):
            answer = mesh.chat("hi", host=named)
            assert (answer.read(), answer.host, answer.passed) == ("hi", wanted.peer_id, ())
        assert answer.mesh == "Others"
        mesh.complete(messages=[{"role": "user", "content": "x"}], host="Others")
        assert other_host.usage()["invites"][0]["requests"] == 2
        with pytest.raises(OptionInvalid, match="has been joined"):
            mesh.chat("hi", host="Nobody").read()
        mesh.leave("Team")
        assert [each["host"] for each in mesh.status()] == [other_host.peer_id]


def test_several_links_are_joined_at_once(host, other_host):
    links = [host.invite.url, other_host.invite.url]
    with qmt.join(links) as mesh:
        assert len(mesh.status()) == 2
    with pytest.raises(InviteMalformed):
        qmt.join([*links, "nonsense"])

    async def awaitable():
        async with await aio.join(links) as mesh:
            await mesh.leave("Team")
            await mesh.join(links[0])
            answer = mesh.chat("hi", host="Others")
            await answer.read()
            return answer.host, await mesh.status()

    answered, status = asyncio.run(awaitable())
    assert answered == other_host.peer_id
    assert [each["mesh"] for each in status] == ["Others", "Team"]


def test_a_host_that_is_named_answers_itself(host, mesh):
    assert host.chat("hi", host="Team").read() == "hi"
    with pytest.raises(OptionInvalid):
        host.chat("hi", host="Others")


def test_closing_twice_and_asking_after_it_is_clear(provider):
    host = qmt.host(provider)
    mesh = qmt.join(host.invite.url)
    assert host.is_running
    host.close()
    host.close()
    assert not host.is_running
    with pytest.raises(Stopped, match="qmt_host"):
        host.chat("x").read()
    mesh.leave()
    mesh.leave()
    assert repr(mesh) == "<Mesh left>"


def test_many_streams_at_once_from_a_foreign_loop(host):
    async def main():
        async with await aio.join(host.invite.url) as mesh:
            answers = [mesh.chat(f"answer number {n}") for n in range(50)]
            texts = await asyncio.gather(*(answer.read() for answer in answers))
            whole = await mesh.complete(messages=[{"role": "user", "content": "x"}])
            models = await mesh.models()
        return texts, whole, models

    texts, whole, models = asyncio.run(main())
    assert texts == [f"answer number {n}" for n in range(50)]
    assert whole["choices"][0]["message"]["content"] == "x"
    assert models[0]["name"] == "echo"


def test_the_blocking_face_refuses_to_block_its_own_loop(host):
    async def inside():
        return host.status()

    with pytest.raises(RuntimeError, match="aio"):
        runtime.call(inside)


def test_a_timeout_is_kept(host):
    gone = host.invite.url.partition("?")[0]
    host.close()
    started = time.monotonic()
    with pytest.raises(HostNotFound):
        qmt.join(gone, timeout=0.5)
    assert time.monotonic() - started < 5


def test_a_process_that_just_ends_ends_quickly_and_silently(tmp_path):
    code = (
        "import qmt_jupyter as qmt\n"
        "from qmt_jupyter.providers.echo import Echo\n"
        "host = qmt.host(Echo(delay=0.01, repeat=True))\n"
        "mesh = qmt.join(host.invite.url)\n"
        "answer = mesh.chat('for ever', max_tokens=100000)\n"
        "next(iter(answer)); print('streaming')\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=30
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "streaming\n", "")


def test_importing_loads_nothing_heavy():
    code = "import sys, qmt_jupyter; print([m for m in ('iroh', 'zeroconf', 'nacl', 'IPython') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert done.stdout == "[]\n"


def test_the_owners_own_answer_ends_with_the_host():
    provider = Echo(delay=0.01, repeat=True)
    host = qmt.host(provider)
    answer = host.chat("on and on", max_tokens=100_000)
    next(iter(answer))
    host.close()
    with pytest.raises(Stopped):
        answer.read()
    assert provider.running == 0
    assert host.usage()["own"]["ended"] == {"stopped": 1}
