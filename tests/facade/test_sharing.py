"""Several models at once, under names that the host chooses, from Python."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

import qmt_jupyter as qmt
from qmt_jupyter import aio
from qmt_jupyter.errors import (
    EngineMissing,
    ModelNotAllowed,
    ModelNotLoaded,
    ModelUnknown,
    OptionInvalid,
)
from qmt_jupyter.providers import detect
from qmt_jupyter.providers.base import Model
from qmt_jupyter.providers.echo import Echo
from tests.providers.local_servers import LocalServer, ollama
from tests.providers.mock_upstream import MockUpstream

ASK = {"messages": [{"role": "user", "content": "one two"}]}


class Remembering(Echo):
    """An echo that keeps the names it is asked by."""

    def __init__(self):
        super().__init__()
        self.asked = []

    async def chat(self, model, request):
        self.asked.append(model)
        async for chunk in super().chat(model, request):
            yield chunk


@pytest.fixture
def upstreams():
    servers = [MockUpstream("sk-first-key-1", ["plain", "echo"]), MockUpstream(None, ["plain"])]
    yield servers
    for server in servers:
        server.close()


def test_guests_see_an_alias_and_nothing_of_the_models_own_name(home):
    provider = Remembering()
    with (
        qmt.host(provider, aliases="team-model", uses=0) as host,
        qmt.join(host.invite.url) as mesh,
    ):
        assert host.models == [each["name"] for each in mesh.models] == ["team-model"]
        whole = mesh.complete(**ASK, model="team-model")
        chunks = list(mesh.complete(**ASK, stream=True))
        assert {whole["model"], *(chunk["model"] for chunk in chunks)} == {"team-model"}
        assert mesh.chat("x").read() == "x"
        assert provider.asked == ["echo"] * 3, "the provider goes on with its own name"
        for old in ("echo", "echo/echo"):
            with pytest.raises(ModelUnknown):
                mesh.chat("x", model=old).read()
            with pytest.raises(ModelUnknown, match="it offers team-model"):
                host.chat("x", model=old).read()
        assert "'echo'" not in str(mesh.status()) + str(mesh.models)
    with closing(sqlite3.connect(home / "host" / "ledger.db")) as ledger:
        assert ledger.execute("SELECT DISTINCT model FROM requests").fetchall() == [("team-model",)]


def test_an_invites_models_are_those_that_guests_see():
    first, second = Remembering(), Remembering()
    given = [first, second]
    only = qmt.Limits(models=("slow",))
    with qmt.host(given, aliases={"slow": "remembering-2/echo"}, limits=only, uses=0) as host:
        assert host.models == ["echo", "slow"]
        with qmt.join(host.invite.url) as mesh:
            assert [each["name"] for each in mesh.models] == ["slow"]
            assert mesh.chat("x").read() == "x"
        with qmt.join(host.new_invite(limits=qmt.Limits(models=("echo",))).url) as mesh:
            assert mesh.chat("x").read() == "x"
            with pytest.raises((ModelNotAllowed, ModelUnknown)):
                mesh.chat("x", model="slow").read()
    assert (first.asked, second.asked) == (["echo"], ["echo"])


def test_the_bare_name_will_do_where_an_invite_leaves_one_model_of_it():
    first, second = Remembering(), Remembering()
    only = qmt.Limits(models=("remembering-2/echo",))
    with qmt.host([first, second], limits=only) as host, qmt.join(host.invite.url) as mesh:
        assert mesh.complete(**ASK, model="echo")["model"] == "remembering-2/echo"
    assert (first.asked, second.asked) == ([], ["echo"])


def test_several_servers_and_models_are_shared_at_once(upstreams, monkeypatch):
    monkeypatch.setenv("FIRST_KEY", "sk-first-key-1")
    first, second = upstreams
    shared = {
        "model": ["echo"],
        "upstream": [first.url, second.url],
        "upstream_models": ["*"],
        "upstream_key": ["env:FIRST_KEY", None],
        "aliases": ["cloud=127.0.0.1/plain"],
    }
    with qmt.host(**shared, uses=0) as host, qmt.join(host.invite.url) as mesh:
        names = [each["name"] for each in mesh.models]
        assert names == ["cloud", "127.0.0.1/echo", "plain", "echo/echo"]
        for name in ("cloud", "plain"):
            assert mesh.chat("x", model=name).read() == "one two three"
        assert mesh.chat("said", model="echo/echo").read() == "said"
    assert [headers.get("Authorization") for _, headers, body in first.asked if body] == [
        "Bearer sk-first-key-1"
    ]
    assert [headers.get("Authorization") for _, headers, _ in second.asked] == [None] * 2


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"model": "echo", "aliases": "fast=gone"}, "no model 'gone'"),
        ({"model": "echo", "aliases": ["a", "b"]}, "gets two names"),
        ({"model": "echo", "aliases": "x" * 101}, "not 101"),
        ({"model": "echo", "engine": "vllm"}, None),
    ],
)
def test_what_cannot_be_shared_so_is_said_and_leaves_nothing(given, said):
    if said is None:
        given = {**given, "model": "smollm2"}
    with pytest.raises(OptionInvalid, match=said):
        qmt.host(**given)
    qmt.host("echo").close()


def test_what_was_opened_is_closed_where_a_later_one_fails(upstreams):
    class Closing(Echo):
        closed = 0

        async def aclose(self):
            self.closed += 1

    provider = Closing()
    with pytest.raises(EngineMissing, match="no provider plugin whisper"):
        qmt.host([provider, "whisper:large"], upstream=upstreams[1].url)
    assert provider.closed == 1
    qmt.host("echo").close()


def test_a_provider_that_says_what_none_may_say_is_refused():
    class Nameless(Echo):
        models = (Model(""),)

    with pytest.raises(ModelNotLoaded, match="The provider Nameless has a model without a name"):
        qmt.host(Nameless())
    qmt.host("echo").close()


@pytest.fixture
def local(monkeypatch):
    server = LocalServer(ollama("llama3.2:latest"))
    product = detect.Product("Ollama", server.port, "/api/version", detect.PRODUCTS[0].is_it)
    monkeypatch.setattr(detect, "PRODUCTS", (product,))
    monkeypatch.setattr(detect, "DEADLINE", 20.0)
    yield server
    server.close()


def test_what_runs_here_is_told_as_plain_values(local):
    url = f"http://127.0.0.1:{local.port}/v1"
    here = {"product": "Ollama", "url": url, "models": ["llama3.2:latest"], "needs_key": False}
    assert qmt.detect() == [here]


@pytest.mark.anyio
async def test_the_twin_finds_the_same(local):
    assert [found["product"] for found in await aio.detect()] == ["Ollama"]


def test_nobody_is_asked_where_the_settings_say_so(local, monkeypatch):
    monkeypatch.setenv("QMT_DETECT", "off")
    assert qmt.detect() == []
    assert local.asked == []
    monkeypatch.setenv("QMT_DETECT", "of")
    with pytest.raises(OptionInvalid, match="QMT_DETECT=off"):
        qmt.detect()


def test_hosting_from_python_looks_for_nothing(local):
    qmt.host("echo").close()
    assert local.asked == []
