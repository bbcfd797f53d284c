"""Joining without a link: two cells in a server of a real JupyterHub, and the service answers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from qmt_jupyter.hub import configure
from tests.hub.hub import Service
from tests.hub.kernel import Cell, CellFailedError

SERVICE = Service(arguments=["--model", "smollm2"])


def known(c, hub):
    configure(
        c,
        groups=["course-a", "staff"],
        url=SERVICE.url,
        api_token=SERVICE.token,
        hub_url=hub.url,
    )


HUB = {
    "groups": {"course-a": ["ann", "ben"], "staff": ["zoe"]},
    "users": ["eve"],
    "services": [SERVICE],
    "configure": known,
}
JOIN = "%load_ext qmt_jupyter\n%qmt_join"
ASK = "%%chat --temperature 0 --max-tokens 24\nSay hello."


@pytest.fixture
def published(monkeypatch):
    """All that the kernels tell their front ends, as JSON: whatever could be saved is in it."""
    heard, hear = [], Cell.hear

    def record(cell, kind, content):
        heard.append(json.dumps(content))
        hear(cell, kind, content)

    monkeypatch.setattr(Cell, "hear", record)
    return heard


def test_two_cells_answer_and_hold_no_secret(hub, published):
    ann = hub.start_server("ann")
    assert "Your seat as ann is renewed until you leave." in ann.run(JOIN)
    assert "smollm2" in ann.run(ASK)
    assert "renewed while the JupyterHub lets you" in ann.run("%qmt_status")
    shown = "\n".join(published)
    assert "application/vnd.jupyter.widget-view+json" in shown or "text/html" in shown
    token = ann.run("import os; print(os.environ['JUPYTERHUB_API_TOKEN'])").strip()
    home = ann.run("print(os.environ['QMT_HOME'])").strip()
    assert len(token) > 20
    files = [path.read_bytes().decode(errors="replace") for path in files_in(home)]
    assert files
    for written in (shown, hub.service_log("qmt"), *files):
        assert token not in written
        assert "qmt://mesh/join/" not in written


def files_in(folder):
    return [path for path in Path(folder).rglob("*") if path.is_file()]


STORY = """
from qmt_jupyter.notebook.state import STATE
for piece in STATE.mesh.chat("Tell a long story.", temperature=0, max_tokens=300):
    print(piece, end="", flush=True)
print("THE END", STATE.mesh.status()[0]["connected"])
"""
TERMINAL = """
import subprocess, sys
flags = ["--json", "--max-tokens", "4", "Hi"]
done = subprocess.run(
    [sys.executable, "-m", "qmt_jupyter.cli", "chat", "--join", "hub", *flags],
    capture_output=True, text=True,
)
print(done.stdout, done.stderr)
"""


def test_a_terminal_beside_it_takes_no_seat_away(hub):
    ann = hub.start_server("ann")
    ann.run(JOIN)
    story = ann.begin(STORY)
    story.wait_for(" ")
    # It gives its seat up at its end. That is the kernel's, too, whose answer goes on.
    said = ann.kernel().begin(TERMINAL).wait(60)
    assert '"event": "done"' in said, said
    assert not story.is_over or story.error == ""
    assert story.wait(90).endswith("THE END True\n")


def test_a_service_that_starts_anew_is_joined_again(hub):
    ben = hub.start_server("ben")
    ben.run(JOIN)
    hub.stop_service("qmt")
    hub.start_service("qmt")
    assert "smollm2" in ben.run(ASK, 90)


NO_OTHER_WAY = """
%load_ext qmt_jupyter
import os, qmt_jupyter.mesh.locate as locate
os.environ["QMT_DHT"] = "off"
locate._sources = lambda *_: []
%qmt_join
"""


def test_where_nothing_else_leads_to_the_service_the_hub_s_own_proxy_does(hub):
    ben = hub.start_server("ben")
    kernel = ben.kernel()
    assert "Your seat as ben" in kernel.begin(NO_OTHER_WAY).wait(60)
    assert "smollm2" in kernel.begin(ASK).wait(60)


def test_who_leaves_the_group_is_told_so(hub):
    zoe = hub.start_server("zoe")
    zoe.run(JOIN)
    hub.remove_from_group("zoe", "staff")
    try:
        with pytest.raises(CellFailedError, match="HubRefused"):
            zoe.run("%qmt_leave\n%qmt_join")
    finally:
        hub.add_to_group("zoe", "staff")
    assert "Your seat as zoe" in zoe.run("%qmt_join")


def test_who_is_in_no_group_is_refused_in_a_sentence(hub):
    eve = hub.start_server("eve")
    with pytest.raises(CellFailedError, match="HubRefused: eve .*Ask whoever runs the JupyterHub"):
        eve.run(JOIN)
