"""A relay of our own, the real server, where ``make .relay/.made`` has built it."""

from __future__ import annotations

import socket
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

SERVER = Path(__file__).resolve().parents[2] / ".relay" / "bin" / "iroh-relay"

needs_relay = pytest.mark.skipif(
    not SERVER.exists(), reason="needs the relay server: make .relay/.made (takes cargo)"
)


def command(directory: Path, address: str, port: int) -> list[str]:
    """How to run one that speaks plain HTTP on ``address``; its configuration goes to a file."""
    config = directory / f"relay-{port}.toml"
    config.write_text(f'http_bind_addr = "{address}:{port}"\nenable_metrics = false\n')
    return [str(SERVER), "--dev", "--config-path", str(config)]


@contextmanager
def running(directory: Path, address: str = "127.0.0.1"):
    """A relay on this machine, as its URL."""
    with socket.socket() as free:
        free.bind((address, 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        command(directory, address, port), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 20
        while True:
            try:
                socket.create_connection((address, port), timeout=1).close()
                break
            except OSError:
                assert server.poll() is None and time.monotonic() < deadline
                time.sleep(0.02)
        yield f"http://{address}:{port}/"
    finally:
        server.kill()
        server.wait()
