"""``%qmt_join`` in a server of a JupyterHub: which service it asks, and what the cell says."""

from __future__ import annotations

import pytest

from qmt_jupyter.errors import HubNotFound, HubRefused, InviteMalformed, OptionInvalid
from qmt_jupyter.notebook.completion import Sources, complete
from qmt_jupyter.notebook.magics import QmtMagics
from qmt_jupyter.notebook.state import STATE, State
from tests.mesh.hub_service import TOKEN, in_background


@pytest.fixture
def service(tmp_path, monkeypatch):
    with in_background(tmp_path / "service") as scripted:
        monkeypatch.setenv("QMT_HUB_URL", scripted.url)
        monkeypatch.setenv("JUPYTERHUB_API_TOKEN", TOKEN)
        yield scripted
        if STATE.mesh is not None:
            STATE.leave()


@pytest.fixture
def nobody_to_ask(monkeypatch):
    def ask():
        raise AssertionError("a link was asked for")

    monkeypatch.setattr(QmtMagics, "_ask_for_link", staticmethod(ask))


@pytest.mark.parametrize("line", ["", "hub"])
def test_on_a_hub_no_link_is_asked_for(shell, service, nobody_to_ask, capsys, line):
    shell.run_line_magic("qmt_join", line)
    said = capsys.readouterr()
    assert "Joined Lab" in said.out
    assert "Your seat as alice is renewed until you leave." in said.out
    assert said.err == ""  # no warning of a link in the notebook
    shell.run_line_magic("qmt_status", "")
    assert "renewed while the JupyterHub lets you" in capsys.readouterr().out
    shell.run_line_magic("qmt_leave", "")
    assert service.asked == ["POST", "DELETE"]


def test_the_cell_run_again_keeps_the_seat_and_its_connection(shell, service, nobody_to_ask):
    shell.run_line_magic("qmt_join", "")
    (link,) = STATE.mesh._mesh.links
    shell.run_line_magic("qmt_join", "")
    assert STATE.mesh._mesh.links == (link,)
    assert link.is_connected


def test_a_reload_of_the_extension_keeps_the_seat(shell, service, nobody_to_ask):
    shell.run_line_magic("qmt_join", "")
    mesh = STATE.mesh
    shell.run_line_magic("reload_ext", "qmt_jupyter")
    assert STATE.mesh is mesh
    assert mesh.chat("still here").read() == "still here"
    assert service.asked == ["POST"]


def test_elsewhere_a_link_is_asked_for_as_ever(shell, service, monkeypatch, nobody_to_ask):
    monkeypatch.delenv("QMT_HUB_URL")
    with pytest.raises(AssertionError, match="a link was asked for"):
        shell.run_line_magic("qmt_join", "")
    with pytest.raises(
        HubNotFound, match="QMT_HUB_URL is not set. Ask whoever runs the JupyterHub"
    ):
        shell.run_line_magic("qmt_join", "hub")
    assert service.asked == []


def test_a_link_that_was_given_comes_before_the_hub(shell, service, tmp_path, nobody_to_ask):
    (tmp_path / "link.txt").write_text("qmt://mesh/join/nonsense")
    with pytest.raises(InviteMalformed):
        shell.run_line_magic("qmt_join", f"--file {tmp_path / 'link.txt'}")
    with pytest.raises(OptionInvalid):
        shell.run_line_magic("qmt_join", "--file /nowhere")
    assert service.asked == []


def test_a_no_is_one_sentence(shell, service, nobody_to_ask):
    service.refused["alice"] = "alice is in none of the groups that may use this service."
    with pytest.raises(HubRefused) as refused:
        shell.run_line_magic("qmt_join", "")
    assert refused.value._render_traceback_() == [
        "HubRefused: alice is in none of the groups that may use this service. Ask whoever runs "
        "the JupyterHub."
    ]
    assert STATE.mesh is None


def test_the_tab_key_knows_the_hub_where_there_is_one(service, monkeypatch):
    sources = Sources(State(), {})
    assert "hub" in complete("%qmt_join h", sources)[1]
    monkeypatch.delenv("JUPYTERHUB_API_TOKEN")
    assert "hub" not in complete("%qmt_join h", sources)[1]
