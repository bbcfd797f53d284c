"""From an invite to being ready to ask, by each way of finding the host, on this machine.

    python benchmarks/join.py [--json] [--quick] [--only hints|lan|dht|relay]

A host with the echo provider runs in a process of its own, and with ``relay`` a relay server
(``make .relay/.made``) in a third; all traffic is on loopback. Each trial is a new guest with an
empty ``QMT_HOME``, so that nothing is remembered, in a process that has the libraries loaded. The
clock runs from the call of ``join`` to its return: found, greeted, admitted and written down.

- ``hints``: the whole link.
- ``lan``: the token alone, by multicast DNS. On Linux the guests have another loopback address than
  the host, as another machine has: on one address both share port 5353, and an answer meant for the
  guest alone may reach the host instead, which costs a second.
- ``dht``: the token alone, in a DHT of a hundred nodes (in one process, 30 of them hostile); host
  and guest know one honest node each; multicast DNS is kept from answering.
- ``relay``: the token and the relay; multicast DNS is kept from answering.

Figures: ``WAY_s_p50`` and ``WAY_s_p95``, in seconds. ``relay`` waits 0.3 s for a direct way first.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ["QMT_INTERFACES"] = "127.0.0.1"

RELAY = Path(__file__).resolve().parents[1] / ".relay" / "bin" / "iroh-relay"
BUDGETS = {"hints": 0.3, "lan": 1.5, "dht": 3.0, "relay": 3.0}
DEADLINE_S = 30.0
# Of the whole 127.0.0.0/8 others have only the first address.
ELSEWHERE = "127.0.0.2" if sys.platform.startswith("linux") else "127.0.0.1"

HOST = """
import json, os, sys, time
import qmt_jupyter as qmt
with qmt.host("echo", uses=0, relay=sys.argv[1]) as host:
    while host.status()["lan"] == "starting":
        time.sleep(0.05)
    while "QMT_BOOTSTRAP" in os.environ and "published" not in host.status()["dht"]["state"]:
        time.sleep(0.05)
    print(json.dumps({"invite": host.invite.url, **host.status()}), flush=True)
    sys.stdin.read()
"""


NODES = """
import asyncio, json, sys
sys.path.insert(0, sys.argv[1])
from tests.mesh.hostile_nodes import Crowd, address

async def main():
    async with Crowd(100, 0.3) as crowd:
        honest = [number for number in range(100) if number not in crowd.hostile_numbers]
        at = [f"{address(number)}:{crowd.nodes[number].port}" for number in honest]
        print(json.dumps(at), flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)

asyncio.run(main())
"""


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--quick", action="store_true", help="10 trials a way, for a first look")
    parser.add_argument("--only", choices=sorted(BUDGETS), help="one way of finding")
    return parser.parse_args()


def percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


@contextmanager
def running(command: list[str], **options: Any) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(command, stdin=subprocess.PIPE, text=True, **options)
    try:
        yield process
    finally:
        if process.stdin is not None:
            process.stdin.close()
        if process.stdout is not None:
            process.stdout.close()
        process.terminate()
        process.wait()


@contextmanager
def relay(home: Path) -> Iterator[str]:
    """A relay server on loopback, as its URL."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = home / "relay.toml"
    config.write_text(f'http_bind_addr = "127.0.0.1:{port}"\nenable_metrics = false\n')
    silent = subprocess.DEVNULL
    command = [str(RELAY), "--dev", "--config-path", str(config)]
    with running(command, stdout=silent, stderr=silent) as server:
        deadline = time.monotonic() + DEADLINE_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                if server.poll() is not None or time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
        yield f"http://127.0.0.1:{port}/"


@contextmanager
def host(home: Path, relay_url: str) -> Iterator[dict[str, Any]]:
    """A host in a process of its own, as what it says when it can be found."""
    environment = {**os.environ, "QMT_HOME": str(home / "host")}
    command = [sys.executable, "-c", HOST, relay_url]
    with running(command, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise SystemExit("The host did not start.")
        yield json.loads(line)


@contextmanager
def nodes() -> Iterator[list[str]]:
    """A DHT in a process of its own, as the addresses of its honest nodes."""
    command = [sys.executable, "-c", NODES, str(Path(__file__).resolve().parents[1])]
    with running(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise SystemExit("The nodes did not start.")
        yield json.loads(line)


async def joins(link: str, home: Path, way: str, trials: int) -> list[float]:
    """So many joins by the link, one after the other, each as a new guest; seconds each."""
    from qmt_jupyter import aio

    took = []
    for trial in range(trials):
        os.environ["QMT_HOME"] = str(home / f"{way}-{trial}")
        began = time.perf_counter()
        mesh = await aio.join(link, timeout=DEADLINE_S)
        took.append(time.perf_counter() - began)
        await mesh.leave()
    return took


def close_the_lan() -> None:
    """Keep multicast DNS from answering in this process, so that the next way is measured."""
    from qmt_jupyter.mesh import lan

    async def find(_self: lan.Lan, _peer_id: str) -> tuple[str, ...]:
        return await asyncio.Future()

    # The process measures one way and ends; there is no option for leaving out another.
    lan.Lan.find = find  # type: ignore[method-assign]


def measure(ways: list[str], trials: int) -> dict[str, float]:
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)

        def run(way: str, link: str) -> None:
            asyncio.run(joins(link, home, f"{way}-warm", 2))
            took = asyncio.run(joins(link, home, way, trials))
            figures[f"{way}_s_p50"] = round(percentile(took, 0.5), 4)
            figures[f"{way}_s_p95"] = round(percentile(took, 0.95), 4)

        if {"hints", "lan"} & set(ways):
            with host(home, "none") as ready:
                token = ready["invite"].partition("?")[0]
                if "hints" in ways:
                    run("hints", ready["invite"])
                if "lan" in ways:
                    os.environ["QMT_INTERFACES"] = ELSEWHERE
                    run("lan", token)
                    os.environ["QMT_INTERFACES"] = "127.0.0.1"
        if {"dht", "relay"} & set(ways):
            close_the_lan()
        if "dht" in ways:
            with nodes() as honest:
                os.environ["QMT_BOOTSTRAP"] = honest[0]
                with host(home / "dht", "none") as ready:
                    os.environ["QMT_BOOTSTRAP"] = honest[-1]
                    run("dht", ready["invite"].partition("?")[0])
                del os.environ["QMT_BOOTSTRAP"]
        if "relay" in ways and RELAY.exists():
            with relay(home) as url, host(home, url) as ready:
                run("relay", f"{ready['invite'].partition('?')[0]}?r={url}")
    return figures


def main() -> None:
    arguments = parse()
    ways = [arguments.only] if arguments.only else list(BUDGETS)
    figures = measure(ways, 10 if arguments.quick else 100)
    if "relay" in ways and not RELAY.exists():
        print("relay: not measured, there is no relay server (make .relay/.made)", file=sys.stderr)
    if arguments.json:
        print(json.dumps(figures))
        return
    for name, value in figures.items():
        budget = f"   (budget {BUDGETS[name.split('_')[0]]} s)" if name.endswith("p95") else ""
        print(f"{name:14} {value:.3f}{budget}")


if __name__ == "__main__":
    main()
