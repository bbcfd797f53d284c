"""A model that is not here is found on the mesh, unless that is switched off."""

from __future__ import annotations

import pytest

import qmt_jupyter as qmt
from qmt_jupyter.errors import ModelUnknown, OptionInvalid
from qmt_jupyter.providers.base import Model
from qmt_jupyter.providers.echo import Echo


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
