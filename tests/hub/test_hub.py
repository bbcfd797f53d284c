"""The Hub that the tests of this folder run in is a real one, and leaves nothing behind."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.hub.hub import Hub, RefusedError, Service
from tests.hub.kernel import CellFailedError

SERVICE = """
import os, sys, http.server, urllib.parse

class Health(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == os.environ["JUPYTERHUB_SERVICE_PREFIX"] + "health" else 404)
        self.end_headers()
        self.wfile.write(os.environ["QMT_HOME"].encode())

port = urllib.parse.urlsplit(os.environ["JUPYTERHUB_SERVICE_URL"]).port
http.server.HTTPServer(("127.0.0.1", port), Health).serve_forever()
"""

# Dies in mid-test, without a word.
CRASHING = """
import os, signal, sys
from pathlib import Path
from tests.hub.hub import Hub
from tests.hub.test_hub import plain
hub = Hub(Path(sys.argv[1]), **plain())
hub.start_server("ann").run("1")
print("up", flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def plain():
    service = Service("plain", command=[sys.executable, "-c", SERVICE])
    return {"groups": {"course-a": ["ann"]}, "users": ["zoe"], "services": [service]}


def processes_of(root: Path) -> list[str]:
    """The processes that have anything of this folder in their environment or arguments."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            known = (process / "environ").read_bytes() + (process / "cmdline").read_bytes()
            if str(root).encode() in known and int(process.name) != os.getpid():
                found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
    return found


def is_free(url: str) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", int(url.split(":")[2].split("/")[0]))) != 0


def test_starts_serves_and_stops(hub_is_possible, tmp_path):
    root = tmp_path / "hub"
    with Hub(root, **plain()) as hub:
        ann = hub.start_server("ann")
        assert ann.run("import os; print(os.environ['JUPYTERHUB_USER']); 6 * 7") == "ann\n42"
        assert ann.run("os.environ['QMT_HOME']") == repr(str(ann.home / "qmt"))
        with pytest.raises(CellFailedError, match="ZeroDivisionError"):
            ann.run("1 / 0")
        cell = ann.begin("import time; print('first', flush=True); time.sleep(0.5); print('last')")
        assert "last" not in cell.wait_for("first")
        assert cell.wait() == "first\nlast\n"
        assert hub.api("GET", "user", token=ann.token)["groups"] == ["course-a"]
        hub.remove_from_group("ann", "course-a")
        assert hub.api("GET", "user", token=ann.token)["groups"] == []

        assert hub.ask("GET", "services/plain/health").body.endswith(b"services/plain/qmt")
        hub.stop_service("plain")
        assert hub.ask("GET", "services/plain/health").status == 503
        hub.start_service("plain")
        assert hub.ask("GET", "services/plain/health").status == 200

        token = ann.token
        hub.delete_user("ann")
        with pytest.raises(RefusedError) as refused:
            hub.api("GET", "user", token=token)
        assert refused.value.status in (401, 403)
        assert processes_of(root)
    # The service ends by SIGTERM, and the Hub ends its proxy and every server.
    assert hub.left_behind == []
    assert processes_of(root) == []
    assert is_free(hub.url) and is_free(hub.api_url) and is_free(hub.services["plain"].url)


def test_a_crashed_test_leaves_nothing_behind(hub_is_possible, tmp_path):
    root = tmp_path / "hub"
    here = Path(__file__).parents[2]
    crashed = subprocess.run(
        [sys.executable, "-c", CRASHING, root], cwd=here, timeout=90, stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(here)}, check=False,
    )  # fmt: skip
    assert (crashed.stdout, crashed.returncode) == (b"up\n", -signal.SIGKILL)
    deadline = time.monotonic() + 60
    while left := processes_of(root):
        assert time.monotonic() < deadline, left
        time.sleep(0.1)
