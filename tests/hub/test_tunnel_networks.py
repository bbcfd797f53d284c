"""A whole machine whose UDP goes nowhere, and the Hub's real proxy, which it reaches by TCP.

The Hub behind the proxy is a script that knows one token; everything else is what runs in earnest.
"""

from __future__ import annotations

import sys
import time

import pytest

from tests.hub.hub import PROXY
from tests.mesh import namespaces

WHY_NOT = namespaces.why_not()
pytestmark = [
    pytest.mark.skipif(WHY_NOT is not None, reason=WHY_NOT or ""),
    pytest.mark.skipif(not PROXY.exists(), reason="there is no .hub-proxy"),
]

# Knows the one token as long as the file is there.
HUB = r"""
import json, pathlib, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Hub(BaseHTTPRequestHandler):
    def do_GET(self):
        known = pathlib.Path(sys.argv[1]).exists()
        known = known and self.headers["Authorization"] == "token token-of-ann"
        person = {"kind": "user", "name": "ann", "groups": [], "scopes": ["access:services"]}
        body = json.dumps(person if known else {}).encode()
        self.send_response(200 if known else 403)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass

server = ThreadingHTTPServer(("127.0.0.1", 8081), Hub)
print(json.dumps({"ready": True}), flush=True)
server.serve_forever()
"""

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

TO_THE_NETWORK = ("-A", "OUTPUT", "-o", "eth0", "-p", "udp")
FIREWALLS = {
    "dropped on the way": ("-A", "INPUT", "-i", "eth0", "-p", "udp", "-j", "DROP"),
    "refused by the machine itself": (*TO_THE_NETWORK, "-j", "DROP"),
    "rejected by the machine itself": (*TO_THE_NETWORK, "-j", "REJECT"),
}

TEXT = " ".join(["word"] * 3000)


@pytest.fixture
def net(tmp_path):
    with namespaces.network(tmp_path) as made:
        yield made


def start_service(machine, tmp_path):
    """The Hub's proxy, a scripted Hub and the service, all on one machine."""
    (tmp_path / "ann-is-here").touch()
    machine.start(sys.executable, "-c", HUB, str(tmp_path / "ann-is-here")).hear()
    machine.start(
        str(PROXY), "--ip", "0.0.0.0", "--port", "8000", "--api-ip", "127.0.0.1",
        "--default-target", "http://127.0.0.1:10200", CONFIGPROXY_AUTH_TOKEN="of the proxy",
    )  # fmt: skip
    machine.start(
        sys.executable, "-m", "qmt_jupyter.hub", "--model", "echo", "--recheck", "1",
        JUPYTERHUB_API_URL="http://127.0.0.1:8081/hub/api",
        JUPYTERHUB_API_TOKEN="of-the-service",
        JUPYTERHUB_SERVICE_URL="http://127.0.0.1:10200",
    )  # fmt: skip
    ready = (
        "import time, urllib.request\n"
        "url = 'http://127.0.0.1:8000/services/qmt/health'\n"
        "for _ in range(300):\n"
        "    try:\n"
        "        if b'ok' in urllib.request.urlopen(url).read(): break\n"
        "    except OSError: time.sleep(0.1)\n"
        "else: raise SystemExit('no service')\n"
    )
    machine.run(sys.executable, "-c", ready)


def test_servers_whose_udp_is_blocked_are_served_by_the_proxy(net, tmp_path, capsys):
    one = net.machine("service")
    others = {name: net.machine(f"guest{n}") for n, name in enumerate(FIREWALLS)}
    net.lan(one, *others.values())
    start_service(one, tmp_path)
    guests = []
    for firewall, machine in others.items():
        machine.rule(*FIREWALLS[firewall])
        guest = machine.start(
            sys.executable, "-c", GUEST,
            QMT_HUB_URL="http://10.0.0.1:8000/services/qmt/", JUPYTERHUB_API_TOKEN="token-of-ann",
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
