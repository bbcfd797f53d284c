"""The service of a JupyterHub as a process of its own, started as the Hub starts it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from qmt_jupyter.providers.base import Options
from qmt_jupyter.providers.echo import Echo

from .processes import end

NAME = "qmt"
PREFIX = f"/services/{NAME}/"
TOKEN = "token-of-the-service-0123456789abcdef"
PLUGIN = "paced-echo"
DEADLINE_S = 60.0


def paced_echo(rest: str, options: Options) -> Echo:
    """The echo at the pace of an engine: ``rest`` is milliseconds a token."""
    return Echo(slots=options.slots, delay=float(rest) / 1000, repeat=True)


def bring_plugin(folder: Path) -> None:
    """Make ``--model paced-echo:20`` known to a process that has ``folder`` on its path."""
    info = folder / "qmt_paced_echo-1.0.dist-info"
    info.mkdir(parents=True)
    entry = f"[qmt_jupyter.providers]\n{PLUGIN} = harness.hub_service:paced_echo\n"
    (info / "entry_points.txt").write_text(entry)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: qmt-paced-echo\nVersion: 1.0\n")


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


@contextmanager
def service(folder: Path, hub_api: str, arguments: list[str]) -> Iterator[tuple[str, int]]:
    """The service's address and process id, once it answers. Its log is ``folder/log``."""
    site = folder / "site"
    bring_plugin(site)
    port = free_port()
    environment = {
        **os.environ,
        "QMT_HOME": str(folder / "home"),
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), str(site)]),
        "JUPYTERHUB_API_TOKEN": TOKEN,
        "JUPYTERHUB_API_URL": hub_api,
        "JUPYTERHUB_BASE_URL": "/",
        "JUPYTERHUB_CLIENT_ID": f"service-{NAME}",
        "JUPYTERHUB_HOST": "",
        "JUPYTERHUB_OAUTH_ACCESS_SCOPES": json.dumps([f"access:services!service={NAME}"]),
        "JUPYTERHUB_OAUTH_SCOPES": json.dumps([f"access:services!service={NAME}"]),
        "JUPYTERHUB_SERVICE_NAME": NAME,
        "JUPYTERHUB_SERVICE_PREFIX": PREFIX,
        "JUPYTERHUB_SERVICE_URL": f"http://127.0.0.1:{port}",
    }
    url = f"http://127.0.0.1:{port}{PREFIX}"
    command = [sys.executable, "-m", "qmt_jupyter.hub", *arguments]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
    try:
        wait_for(process, f"{url}health", folder / "log")
        yield url, process.pid
    finally:
        process.terminate()
        end(process)


def wait_for(process: subprocess.Popen[bytes], health: str, log: Path) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while True:
        try:
            with urllib.request.urlopen(health, timeout=2):
                return
        except (urllib.error.URLError, OSError):
            if process.poll() is not None or time.monotonic() > deadline:
                said = log.read_text(errors="replace")[-2000:]
                raise SystemExit(f"The service did not start:\n{said}") from None
            time.sleep(0.1)
