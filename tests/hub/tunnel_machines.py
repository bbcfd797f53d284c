"""Machines between which only the Hub's real proxy stands: the service on one, guests on others.

The Hub behind the proxy is a script that knows one token; everything else is what runs in earnest.
"""

from __future__ import annotations

import sys

from tests.hub.hub import PROXY

# Where the proxy is, on the service's machine, and who may come.
URL = "http://10.0.0.1:8000/services/qmt/"
TOKEN = "token-of-ann"

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

TO_THE_NETWORK = ("-A", "OUTPUT", "-o", "eth0", "-p", "udp")
FIREWALLS = {
    "dropped on the way": ("-A", "INPUT", "-i", "eth0", "-p", "udp", "-j", "DROP"),
    "refused by the machine itself": (*TO_THE_NETWORK, "-j", "DROP"),
    "rejected by the machine itself": (*TO_THE_NETWORK, "-j", "REJECT"),
}


def start_service(machine, known, *arguments):
    """The Hub's proxy, a scripted Hub and the service on one machine, until the service answers.

    The file ``known`` is made; the Hub knows the token as long as it is there.
    """
    known.touch()
    machine.start(sys.executable, "-c", HUB, str(known)).hear()
    machine.start(
        str(PROXY), "--ip", "0.0.0.0", "--port", "8000", "--api-ip", "127.0.0.1",
        "--default-target", "http://127.0.0.1:10200", CONFIGPROXY_AUTH_TOKEN="of the proxy",
    )  # fmt: skip
    machine.start(
        sys.executable, "-m", "qmt_jupyter.hub", "--model", "echo", "--recheck", "1", *arguments,
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
