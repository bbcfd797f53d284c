"""A whole machine whose UDP goes nowhere, and the Hub's real proxy, which it reaches by TCP.

The Hub behind the proxy is a script that knows one token; everything else is what runs in earnest.
"""

from __future__ import annotations

import sys
import time

import pytest

from tests.hub.hub import PROXY
from tests.hub.tunnel_machines import FIREWALLS, TOKEN, URL, start_service
from tests.mesh import namespaces

WHY_NOT = namespaces.why_not()
pytestmark = [
    pytest.mark.skipif(WHY_NOT is not None, reason=WHY_NOT or ""),
    pytest.mark.skipif(not PROXY.exists(), reason="there is no .hub-proxy"),
]

# Joins, chats as it is told to, and says how each went.
GUEST = r"""
import json, sys, time
import qmt_jupyter as qmt

def say(began, **facts):
    print(json.dumps({"seconds": round(time.monotonic() - began, 3), **facts}), flush=True)

began = time.monotonic()
mesh = qmt.join("hub", timeout=30)
say(began, **mesh.status()[0])
for line in sys.stdin:
    began, pieces = time.monotonic(), 0
    answer = mesh.chat(line.strip())
    try:
        for piece in answer.updates():
            pieces += bool(piece)
    except qmt.QmtError as error:
        say(began, error=error.code, sentence=error.sentence)
        continue
    say(began, text=answer.text, pieces=pieces, **mesh.status()[0])
"""

TEXT = " ".join(["word"] * 3000)


@pytest.fixture
def net(tmp_path):
    with namespaces.network(tmp_path) as made:
        yield made


def test_servers_whose_udp_is_blocked_are_served_by_the_proxy(net, tmp_path, capsys):
    one = net.machine("service")
    others = {name: net.machine(f"guest{n}") for n, name in enumerate(FIREWALLS)}
    net.lan(one, *others.values())
    start_service(one, tmp_path / "ann-is-here")
    guests = []
    for firewall, machine in others.items():
        machine.rule(*FIREWALLS[firewall])
        guest = machine.start(
            sys.executable, "-c", GUEST,
            QMT_HUB_URL=URL, JUPYTERHUB_API_TOKEN=TOKEN,
        )  # fmt: skip
        guests.append(guest)
        joined = guest.hear()
        with capsys.disabled():
            print(f"\n{firewall}: joined in {joined['seconds']} s by {joined['path']}", end="")
        assert joined["path"] == "tunnel"
        said = guest.ask(TEXT)
        assert (said["text"], said["path"]) == (TEXT, "tunnel")
        assert said["pieces"] > 1, "it was streamed"
    # Gone from the Hub: each of them is told so, though nothing but the proxy reaches it.
    (tmp_path / "ann-is-here").unlink()
    deadline = time.monotonic() + 30
    for guest in guests:
        while "error" not in (said := guest.ask("still here?")):
            assert time.monotonic() < deadline
            time.sleep(1.0)
        assert said["error"] in ("revoked", "hub-refused"), said
