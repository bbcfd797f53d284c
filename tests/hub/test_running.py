"""The service's process: what it says, what it answers while it starts, and how it ends."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

from tests.hub.hub import ask, free_port

ROOT = Path(__file__).resolve().parents[2]
TOKEN = "the-service's-own-token-0123"

# Loads for a minute, and says when it has begun to.
LOADING = """
import asyncio, sys
from qmt_jupyter import aio

async def host(**_):
    print("loading", flush=True)
    await asyncio.sleep(60)

aio.host = host
from qmt_jupyter.hub.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


@contextlib.contextmanager
def service(home, *arguments, code=None, port=None, **environment):
    """A service whose Hub is away; ends with the test."""
    port = port or free_port()
    ours = {
        "JUPYTERHUB_API_TOKEN": TOKEN,
        "JUPYTERHUB_API_URL": f"http://127.0.0.1:{free_port()}/hub/api",
        "JUPYTERHUB_SERVICE_URL": f"http://127.0.0.1:{port}",
        "QMT_HOME": str(home),
        "PYTHONUNBUFFERED": "1",
    }
    program = ["-c", code] if code else ["-m", "qmt_jupyter.hub"]
    process = subprocess.Popen(
        [sys.executable, *program, "--model", "echo", *arguments], cwd=ROOT, text=True,
        env={**os.environ, **ours, **environment}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    process.url = f"http://127.0.0.1:{port}/services/qmt/"
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def end(process, number=signal.SIGTERM):
    """The status and what stood on standard error."""
    process.send_signal(number)
    _, said = process.communicate(timeout=30)
    return process.returncode, said


def shown_out(port, request):
    """Whether a stranger's connection is closed, without an answer that says all is well."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as stranger:
        answered = b""
        with contextlib.suppress(ConnectionError):
            stranger.sendall(request)
            while piece := stranger.recv(65536):
                answered += piece
    return b" 200 " not in answered


HOSTILE = (
    b"POST /services/qmt/api/seat HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n",
    b"GET /services/qmt/health HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 100_000 + b"\r\n\r\n",
    b"GET /services/qmt/health HTTP/1.1\r\nHost: x\r\nContent-Length: a\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    b"\r\n" * 50_000,
)


def test_it_says_where_it_is_and_ends_when_told_to(home):
    with service(home) as process:
        ready = process.stdout.readline()
        assert process.url in ready
        assert "12D3KooW" in ready and "can read all prompts" in ready
        assert ask("GET", f"{process.url}health").value["status"] == "ok"
        refused = ask("POST", f"{process.url}api/seat", token="t", body={"guest": "x"})
        assert (refused.status, refused.value["code"]) == (503, "hub-not-found")  # its Hub is away
        port = int(process.url.split(":")[2].split("/")[0])
        for request in HOSTILE:
            assert shown_out(port, request), request[:60]
        with service(home, port=port) as second:
            out, said = second.communicate(timeout=30)
            assert (second.returncode, out) == (1, "")
            assert f"cannot listen at 127.0.0.1:{port}" in said
            assert len(said.splitlines()) == 1
        # One connection says nothing, and one is in the midst of a request.
        with (
            socket.create_connection(("127.0.0.1", port)),
            socket.create_connection(("127.0.0.1", port)) as half,
        ):
            half.sendall(b"POST /services/qmt/api/seat HTTP/1.1\r\nHost: x\r\nContent-Le")
            assert ask("GET", f"{process.url}health").status == 200
            status, said = end(process)
        assert status == 0
        assert "Traceback" not in said and "never retrieved" not in said
        assert TOKEN not in said + ready
    # Nothing is left that would keep the next one from starting, on the same port too.
    with service(home, port=port) as again:
        assert again.url in again.stdout.readline()
        status, said = end(again, signal.SIGINT)
        assert status == 0 and "Traceback" not in said


def test_while_the_model_loads_it_says_so_and_can_be_stopped(home):
    with service(home, code=LOADING) as process:
        assert process.stdout.readline() == "loading\n"
        page = ask("GET", process.url)
        # JupyterHub would take a 503 for nobody there.
        assert (page.status, page.headers["Refresh"]) == (200, "3")
        for method, path in (("GET", "health"), ("POST", "api/seat"), ("GET", "metrics")):
            answer = ask(method, f"{process.url}{path}")
            assert (answer.status, answer.value["code"]) == (503, "hub-not-found")
            assert answer.headers["Retry-After"]
        status, said = end(process)
        assert status == 0
        assert "Traceback" not in said


def test_a_model_that_is_not_there_is_one_sentence(home, tmp_path):
    with service(home, "--model", str(tmp_path / "no.gguf")) as process:
        out, said = process.communicate(timeout=30)
        assert (process.returncode, out) == (1, "")
        assert "no.gguf" in said and len(said.splitlines()) == 1
