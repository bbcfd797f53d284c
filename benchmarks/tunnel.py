"""What the tunnel of a JupyterHub costs against a direct path, in one run. Root on Linux.

    python benchmarks/tunnel.py [--json] [--quick]

The service, with the echo provider, and the Hub's real proxy are on one machine, two guests on two
others: the first reaches the service by UDP, the second by the proxy alone. Machines are network
namespaces; nothing is slow or lost between them. Rounds are interleaved, first one guest's and then
the other's, and figures are medians.

``join_s_…``: ``qmt.join("hub")``, seat and all. ``first_ms_…``: the time to the first token of one
request, and ``added_first_ms`` the difference. ``tokens_per_s_…_1`` and ``…_8``: tokens of one and
of eight answers at once; ``tokens_ratio_1`` and ``tokens_ratio_8``: tunnel over direct.
``prompt_s_…``: until the first token of a prompt of 400 kB.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from harness.figures import show

from tests.hub.hub import PROXY
from tests.hub.tunnel_machines import FIREWALLS, TOKEN, URL, start_service
from tests.mesh import namespaces

ROUNDS, QUICK_ROUNDS = 15, 3
NO_LIMITS = """
[everybody]
tokens_per_day = 0
concurrent = 0
requests_per_minute = 0
"""

GUEST = r"""
import asyncio, json, statistics, sys, time
from qmt_jupyter import aio

async def one(mesh, prompt, **more):
    began, first = time.perf_counter(), None
    async for piece in mesh.chat(prompt, **more):
        first = first or time.perf_counter() - began
    return first

async def main():
    began = time.perf_counter()
    mesh = await aio.join("hub", timeout=30)
    joined = time.perf_counter() - began
    await one(mesh, "warm up")
    for line in sys.stdin:
        path = (await mesh.status())[0]["path"]
        said = {"path": path, "join_s": joined}
        said["first_ms"] = 1000 * statistics.median([await one(mesh, "a word") for _ in range(10)])
        for streams in (1, 8):
            began = time.perf_counter()
            await asyncio.gather(*(one(mesh, "word " * 4000) for _ in range(streams)))
            said[f"tokens_per_s_{streams}"] = 4000 * streams / (time.perf_counter() - began)
        said["prompt_s"] = await one(mesh, "word " * 80_000, max_tokens=1)
        print(json.dumps(said), flush=True)

asyncio.run(main())
"""


def measure(folder: Path, rounds: int) -> dict[str, list[dict[str, Any]]]:
    """What each guest said in each round, by its path."""
    (folder / "policy.toml").write_text(NO_LIMITS)
    with namespaces.network(folder) as net:
        service, direct, blocked = (net.machine(name) for name in ("service", "direct", "tunnel"))
        net.lan(service, direct, blocked)
        start_service(
            service, folder / "known", "--slots", "8", "--config", str(folder / "policy.toml")
        )
        blocked.rule(*FIREWALLS["dropped on the way"])
        guests = [
            machine.start(sys.executable, "-c", GUEST, QMT_HUB_URL=URL, JUPYTERHUB_API_TOKEN=TOKEN)
            for machine in (direct, blocked)
        ]
        said: dict[str, list[dict[str, Any]]] = {"direct": [], "tunnel": []}
        for _ in range(rounds):
            for path, guest in zip(said, guests, strict=True):
                said[path].append(guest.ask("round"))
                assert said[path][-1]["path"] == path
    return said


def figures(said: dict[str, list[dict[str, Any]]]) -> dict[str, float]:
    names = [name for name in said["direct"][0] if name != "path"]
    median = {
        f"{name}_{path}": statistics.median(each[name] for each in rounds)
        for name in names
        for path, rounds in said.items()
    }
    median["added_first_ms"] = median["first_ms_tunnel"] - median["first_ms_direct"]
    for streams in (1, 8):
        name = f"tokens_per_s_{streams}"
        pairs = zip(said["tunnel"], said["direct"], strict=True)
        median[f"tokens_ratio_{streams}"] = statistics.median(a[name] / b[name] for a, b in pairs)
    return median


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--quick", action="store_true", help="fewer rounds, for a first look")
    options = parser.parse_args()
    if why := namespaces.why_not() or ("" if PROXY.exists() else "make .hub-proxy/.made first"):
        print(f"The tunnel is not measured here: {why}.", file=sys.stderr)
        return
    with tempfile.TemporaryDirectory() as folder:
        said = measure(Path(folder), QUICK_ROUNDS if options.quick else ROUNDS)
    show(figures(said), {}, options.json)


if __name__ == "__main__":
    main()
