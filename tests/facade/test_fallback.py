"""A model that is not here is found on the mesh, unless that is switched off."""

from __future__ import annotations

import pytest

import qmt_jupyter as qmt
from qmt_jupyter.errors import ModelUnknown, OptionInvalid
from qmt_jupyter.guest.openai.service import Service
from qmt_jupyter.providers.base import Model
from qmt_jupyter.providers.echo import Echo
from qmt_jupyter.providers.secret import Secret
from tests.endpoint.conftest import Client


class Far(Echo):
    """The echo under another name."""

    @property
    def models(self):
        return (Model("far", embeds=True), Model("echo", embeds=True))

    def chat(self, model, request):
        return super().chat("echo", request)

    def embed(self, model, request):
        return super().embed("echo", request)


@pytest.fixture(autouse=True)
def usual():
    yield
    qmt.config.auto_fallback = True


@pytest.fixture
def far(tmp_path, monkeypatch):
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("QMT_HOME", str(tmp_path / "far"))
        running = qmt.host(Far())
    yield running
    running.close()


@pytest.fixture
def near():
    with qmt.host(Echo()) as running:
        yield running


@pytest.fixture
def mesh(far):
    with qmt.join(far.invite.url) as joined:
        yield joined


def test_a_model_that_is_not_here_is_found_on_the_mesh(near, far, mesh):
    answer = near.chat("over there", model="far")
    assert answer.read() == "over there"
    assert (answer.host, answer.model) == (far.peer_id, "far")
    assert near.embed("a", model="far")["model"] == "far"
    assert near.usage()["own"]["requests"] == 0
    assert far.usage()["invites"][0]["guests"][0]["requests"] == 2


def test_what_is_here_is_never_asked_for_elsewhere(near, far, mesh):
    """The other host would read the prompt."""
    for answer in (near.chat("mine"), near.chat("mine", model="echo")):
        answer.read()
        assert answer.host == near.peer_id
    assert not far.usage()["invites"][0]["guests"][0]["requests"]


def test_it_can_be_switched_off(near, mesh):
    qmt.config.auto_fallback = False
    with pytest.raises(ModelUnknown, match="it offers echo"):
        near.chat("over there", model="far").read()
    assert mesh.chat("asked for by name", model="far").read() == "asked for by name"
    with pytest.raises(OptionInvalid, match="auto_fallback"):
        qmt.config.auto_fallback = "no"
    with pytest.raises(AttributeError):
        qmt.config.auto_fallbck = True


def test_a_mesh_that_was_left_is_not_asked(near, mesh):
    mesh.leave()
    with pytest.raises(ModelUnknown):
        near.chat("gone", model="far").read()


class Chats(Echo):
    """Makes no embeddings, under a name with a label."""

    @property
    def models(self):
        return (Model("label/echo"),)

    def chat(self, model, request):
        return super().chat("echo", request)


def test_an_endpoint_asks_no_other_host_without_being_told_its_model(far, mesh):
    """Texts for embeddings without a model went to the other host, who read them."""
    with qmt.host(Chats()) as near, near.serve() as endpoint:
        client = Client(endpoint)
        assert client.send("POST", "/v1/embeddings", {"input": "mine"}).status == 404
        assert not far.usage()["invites"][0]["guests"][0]["requests"]
        named = client.send("POST", "/v1/embeddings", {"input": "theirs", "model": "far"})
        assert named.status == 200


@pytest.mark.parametrize(
    ("model", "who"), [(None, 0), ("echo", 0), ("label/echo", 0), ("far", 1), ("far/echo", 1)]
)
def test_an_endpoint_knows_by_the_name_who_is_meant(model, who):
    class Knows:
        def __init__(self, *names):
            self.names = names

        def models(self):
            return [{"name": name} for name in self.names]

    answering = [Knows("label/echo"), Knows("far", "far/echo")]
    service = Service(lambda: answering, Secret("k" * 20), frozenset(), 0)
    assert service._who(model) is answering[who]
    with pytest.raises(ModelUnknown):
        service._who("nobody's")
