"""The command line in a server of a JupyterHub, and the same from Python."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys

import pytest

import qmt_jupyter as qmt
from qmt_jupyter import aio
from qmt_jupyter.cli import main
from qmt_jupyter.errors import HubNotFound
from qmt_jupyter.providers.echo import Echo
from tests.mesh.hub_service import TOKEN, in_background


@pytest.fixture
def service(tmp_path, monkeypatch):
    with in_background(tmp_path / "service") as scripted:
        monkeypatch.setenv("QMT_HUB_URL", scripted.url)
        monkeypatch.setenv("JUPYTERHUB_API_TOKEN", TOKEN)
        yield scripted


def events(said):
    assert TOKEN not in said.out + said.err
    assert "qmt://" not in said.out + said.err
    return [json.loads(line) for line in said.out.splitlines()]


@pytest.mark.parametrize("link", [["--join", "hub"], []])
def test_a_question_needs_no_link(service, capsys, link):
    assert main(["chat", *link, "--json", "one two"]) == 0
    (*_, done) = events(capsys.readouterr())
    assert (done["event"], done["host"]) == ("done", service.host.peer_id)
    assert service.asked == ["POST", "DELETE"]


@pytest.mark.parametrize("link", [["hub"], []])
def test_joining_is_remembered_without_any_secret(service, capsys, home, link):
    assert main(["join", *link, "--json"]) == 0
    (joined,) = events(capsys.readouterr())
    assert (joined["mesh"], joined["host"]) == ("Lab", service.host.peer_id)
    assert json.loads((home / "guest" / "joined.json").read_text()) == {"links": ["hub"]}
    for host in ([], ["--host", "Lab"]):
        assert main(["chat", "--json", *host, "hi"]) == 0
        assert events(capsys.readouterr())[-1]["event"] == "done"


def test_where_there_is_no_hub_the_error_says_what_to_do(service, capsys, monkeypatch):
    monkeypatch.delenv("QMT_HUB_URL")
    assert main(["chat", "--join", "hub", "--json", "hi"]) == 1
    (error,) = events(capsys.readouterr())
    assert (error["event"], error["code"]) == ("error", "hub-not-found")
    assert "whoever runs the JupyterHub" in error["next_step"]
    assert service.asked == []


def test_a_link_and_the_hub_are_joined_together(service):
    with qmt.host(Echo(), name="Team", uses=0) as other:
        with qmt.join([other.invite.url, "hub"]) as mesh:
            assert sorted(each["mesh"] for each in mesh.status()) == ["Lab", "Team"]
        with qmt.join(other.invite.url) as mesh:
            assert mesh.join("hub") == service.host.peer_id
            assert mesh.chat("hi", host="Lab").read() == "hi"
            mesh.leave("Lab")
            assert [each["seat"] for each in mesh.status()] == [None]


def test_the_awaitable_twin_joins_by_the_hub(service):
    async def ask():
        async with await aio.join("hub") as mesh:
            (status,) = await mesh.status()
            return status["seat"], await mesh.chat("hi").read()

    seat, answer = asyncio.run(ask())
    assert (seat["user"], answer) == ("alice", "hi")


def test_the_facade_says_where_there_is_none():
    with pytest.raises(HubNotFound, match="QMT_HUB_URL is not set"):
        qmt.join("hub")


FORKING = """
import os, sys
import qmt_jupyter as qmt

mesh = qmt.join("hub")
if os.fork() == 0:
    sys.exit()  # with all that an interpreter does at its end
os.wait()
print(mesh.chat("still here").read(), flush=True)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_fork_gives_nothing_up_and_the_end_of_the_process_does(service):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKING],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.stderr, done.returncode) == ("still here\n", "", 0)
    assert service.asked == ["POST", "DELETE"]
    assert service.given_up == [0]


def test_a_process_that_is_killed_leaves_a_seat_that_lapses(service):
    program = 'import os, qmt_jupyter as qmt; qmt.join("hub"); os.kill(os.getpid(), 9)'
    done = subprocess.run([sys.executable, "-c", program], timeout=60, check=False)
    assert done.returncode == -9
    assert service.asked == ["POST"]
    (user,) = service.host.seats()
    assert [seat["expires_at"] > 0 for seat in user["seats"]] == [True]
