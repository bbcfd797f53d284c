"""What this mesh adds to an OpenAI-compatible server, against a LiteLLM proxy before the same one.

    python benchmarks/gateway.py [--json] [--quick] [--litellm PROGRAM] [--litellm-key KIND]

Five processes: the upstream (a server that only writes, faster than all the rest), the LiteLLM
proxy (one worker, in the environment that ``make .venv-gateway/.installed`` makes), the host (with
``upstream=``), who asks, and this one, which only gives the word. Rounds are interleaved, all
traffic is on loopback.

A program asks the upstream and the proxy with the openai SDK, and the mesh with the guest's
library. The first two are also asked by a bare HTTP client that only counts (``_bare``): there, all
that the guest's library does counts against the mesh, and no client against the proxy.

LiteLLM keeps virtual keys in a Postgres database. Without one, ``--litellm-key virtual`` (the
default) gives its proxy a key with a model list, an expiry and rate limits through its
``custom_auth`` hook, with its checks on; ``master`` is its master key, which has no limits. Its
telemetry is off and its price map local: nothing leaves the machine.

Figures: ``added_ttft_ms_mesh_p50`` and ``added_ttft_ms_litellm_p50``, the time to the first piece
over the upstream's own, one request after the other, of pieces that come 10 ms apart, and
``added_ttft_ratio``; ``chunks_per_s_mesh``, ``_litellm`` and ``_direct`` at 50 streams at once of
pieces that come as fast as they can, and ``chunks_ratio``; the same with ``_bare`` at the end;
resident memory after that in MB, ``memory_mb_host``, ``_guest``, ``_litellm``, and
``memory_ratio``, host and guest together over the proxy.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import secrets
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from harness.figures import percentile, show
from harness.http_streams import Client, serve
from harness.processes import Other, end, memory_mb, next_order, say

os.environ["QMT_INTERFACES"] = "127.0.0.1"

PROMPT = "Tell a long story about a lighthouse keeper and the sea, with many details."
STREAMS = 50
IN_A_ROW = 11
APART_MS = 10  # a model that writes 100 tokens/s
WAYS = ("direct", "litellm", "mesh", "litellm_bare", "direct_bare")
SETTLE_S = 0.05
PATIENCE_S = 120.0
LITELLM = Path(__file__).parents[1] / ".venv-gateway" / "bin" / "litellm"
BUDGETS = {
    f"{name}{client}": budget
    for client in ("", "_bare")
    for name, budget in (("added_ttft_ratio", ("≤", 0.1)), ("chunks_ratio", ("≥", 10.0)))
}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--quick", action="store_true", help="fewer rounds, for a first look")
    parser.add_argument("--litellm", default=str(LITELLM), help="the proxy's program")
    parser.add_argument("--litellm-key", choices=["virtual", "master"], default="virtual")
    for role in ("--upstream", "--host", "--guest"):
        parser.add_argument(role, action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


# The upstream's and the host's processes --------------------------------------------------------


async def upstream_main() -> None:
    server, port = await serve(os.environ["UPSTREAM_KEY"])
    say(port=port)
    await next_order()
    server.close()


async def host_main() -> None:
    from qmt_jupyter import aio

    async with await aio.host(
        name="benchmark",
        uses=0,
        slots=STREAMS,
        upstream=os.environ["UPSTREAM_URL"],
        upstream_key="env:UPSTREAM_KEY",
    ) as host:
        say(invite=host.invite.url)
        await next_order()


# The process of who asks ------------------------------------------------------------------------

Ask = Callable[[int, int], Awaitable[tuple[float, int]]]
"""Ask for so many pieces, so many ms apart: seconds to the first one, and how many came."""


def with_openai(url: str, key: str) -> Ask:
    from openai import AsyncOpenAI

    client = AsyncOpenAI(base_url=f"{url}/v1", api_key=key)

    async def ask(pieces: int, apart: int) -> tuple[float, int]:
        asked = time.perf_counter()
        first, count = 0.0, 0
        chunks = await client.chat.completions.create(
            model="fast",
            messages=[{"role": "user", "content": PROMPT}],
            max_tokens=pieces,
            seed=apart,
            stream=True,
            stream_options={"include_usage": True},
        )
        async for chunk in chunks:
            if chunk.choices and chunk.choices[0].delta.content:
                count += 1
                first = first or time.perf_counter() - asked
        return first, count

    return ask


async def guest_main() -> None:
    from qmt_jupyter import aio

    order = await next_order()
    if order is None:
        return
    mesh = await aio.join(order["invite"])

    async def through_mesh(pieces: int, apart: int) -> tuple[float, int]:
        asked = time.perf_counter()
        first, count = 0.0, 0
        async for text in mesh.chat(PROMPT, max_tokens=pieces, seed=apart).updates():
            if text:
                count += 1
                first = first or time.perf_counter() - asked
        return first, count

    def bare(url: str, key: str) -> Ask:
        client = Client(url, key)
        return lambda pieces, apart: client.ask(PROMPT, pieces, apart)

    ways: dict[str, Ask] = {
        "direct": with_openai(order["upstream"], order["upstream_key"]),
        "litellm": with_openai(order["litellm"], order["litellm_key"]),
        "mesh": through_mesh,
        "direct_bare": bare(order["upstream"], order["upstream_key"]),
        "litellm_bare": bare(order["litellm"], order["litellm_key"]),
    }
    say(ready=True)
    while order := await next_order():
        ask, much = ways[order["way"]], (order["pieces"], order["apart"])
        started = time.perf_counter()
        if order["at_once"]:
            answers = await asyncio.gather(*(ask(*much) for _ in range(order["streams"])))
        else:
            answers = [await ask(*much) for _ in range(order["streams"])]
        say(
            seconds=time.perf_counter() - started,
            firsts=[first for first, _ in answers],
            pieces=[count for _, count in answers],
        )
    await mesh.leave()


# The proxy --------------------------------------------------------------------------------------

CONFIG = """
model_list:
  - model_name: fast
    litellm_params:
      model: openai/fast
      api_base: {upstream}/v1
      api_key: os.environ/UPSTREAM_KEY
litellm_settings:
  enable_post_custom_auth_checks: true
general_settings:
  master_key: os.environ/{master}
"""
VIRTUAL = "  custom_auth: virtual_key.look_up\n  custom_auth_run_common_checks: true\n"
VIRTUAL_KEY = """
import os
from datetime import datetime, timedelta, timezone

from litellm.proxy._types import UserAPIKeyAuth


async def look_up(request, api_key):
    if api_key != os.environ["PROXY_KEY"]:
        raise ValueError("unknown key")
    return UserAPIKeyAuth(
        api_key=api_key,
        models=["fast"],
        expires=datetime.now(timezone.utc) + timedelta(days=1),
        rpm_limit=10**9,
        tpm_limit=10**12,
    )
"""


class Proxy:
    """LiteLLM's proxy before the upstream."""

    def __init__(self, program: str, upstream: str, upstream_key: str, kind: str) -> None:
        if not Path(program).exists():
            raise SystemExit(f"{program} is not there. Make it with: make .venv-gateway/.installed")
        self.key = "sk-" + secrets.token_hex(16)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self._home = tempfile.TemporaryDirectory(prefix="qmt-litellm-")
        home = Path(self._home.name)
        config = (
            CONFIG.format(upstream=upstream, master="PROXY_KEY")
            if kind == "master"
            else CONFIG.format(upstream=upstream, master="MASTER_KEY") + VIRTUAL
        )
        (home / "config.yaml").write_text(config)
        (home / "virtual_key.py").write_text(VIRTUAL_KEY)
        self._log = (home / "log").open("w")
        self.process = subprocess.Popen(
            [program, "--config", "config.yaml", "--host", "127.0.0.1", "--port", str(port)],
            cwd=home,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            env={
                **os.environ,
                "HOME": str(home),
                "PROXY_KEY": self.key,
                "MASTER_KEY": "sk-" + secrets.token_hex(16),  # it insists on having one
                "UPSTREAM_KEY": upstream_key,
                "LITELLM_LOCAL_MODEL_COST_MAP": "True",
                "LITELLM_TELEMETRY_DISABLED": "True",
                "LITELLM_LOG": "ERROR",
            },
        )

    def _said(self) -> str:
        return (Path(self._home.name) / "log").read_text()[-2000:]

    async def wait_ready(self) -> None:
        until = time.monotonic() + PATIENCE_S
        while self.process.poll() is None and time.monotonic() < until:
            try:
                await asyncio.to_thread(urllib.request.urlopen, self.url + "/health/liveliness")
                return
            except urllib.error.HTTPError:
                return
            except OSError:
                await asyncio.sleep(0.2)
        raise SystemExit(f"The proxy did not start. It said:\n{self._said()}")

    def close(self) -> None:
        self.process.terminate()
        end(self.process)
        self._log.close()
        self._home.cleanup()


# The rounds -------------------------------------------------------------------------------------


async def round_of(
    guest: Other, way: str, streams: int, pieces: int, apart: int, *, at_once: bool
) -> dict[str, Any]:
    # What is still busy with the round before would be in the way of this one.
    await asyncio.sleep(SETTLE_S)
    facts = await guest.ask(way=way, streams=streams, pieces=pieces, apart=apart, at_once=at_once)
    if facts["pieces"] != [pieces] * streams:
        raise SystemExit(f"{way} gave {facts['pieces']} instead of {pieces} pieces a stream")
    return facts


async def measured(guest: Other, quick: bool) -> dict[str, float]:
    firsts: dict[str, list[float]] = {way: [] for way in WAYS}
    for number in range(5 if quick else 31):
        for way in WAYS:
            facts = await round_of(guest, way, IN_A_ROW, 4, APART_MS, at_once=False)
            if number:
                # The first of a row wakes up what has slept meanwhile.
                firsts[way] += [first * 1000 for first in facts["firsts"][1:]]
    rates: dict[str, list[float]] = {way: [] for way in WAYS}
    for number in range(2 if quick else 6):
        for way in WAYS:
            facts = await round_of(guest, way, STREAMS, 100 if quick else 200, 0, at_once=True)
            if number:
                rates[way].append(sum(facts["pieces"]) / facts["seconds"])

    figures: dict[str, float] = {}
    for client in ("", "_bare"):
        direct, proxy = f"direct{client}", f"litellm{client}"
        figures[f"ttft_ms_{direct}_p50"] = percentile(firsts[direct], 0.5)
        for share, name in ((0.5, "p50"), (0.99, "p99")):
            for way in ("mesh", "litellm"):
                far = firsts[proxy if way == "litellm" else "mesh"]
                figures[f"added_ttft_ms_{way}_{name}{client}"] = percentile(
                    [more - less for more, less in zip(far, firsts[direct], strict=True)], share
                )
        figures[f"added_ttft_ratio{client}"] = (
            figures[f"added_ttft_ms_mesh_p50{client}"]
            / figures[f"added_ttft_ms_litellm_p50{client}"]
        )
        figures[f"chunks_ratio{client}"] = statistics.median(
            far / near for far, near in zip(rates["mesh"], rates[proxy], strict=True)
        )
    return figures | {f"chunks_per_s_{way}": statistics.median(rates[way]) for way in WAYS}


async def gateway_figures(arguments: argparse.Namespace) -> dict[str, float]:
    key = "sk-" + secrets.token_hex(16)
    closing: list[Callable[[], None]] = []
    with (
        tempfile.TemporaryDirectory(prefix="qmt-host-") as host_home,
        tempfile.TemporaryDirectory(prefix="qmt-guest-") as guest_home,
    ):
        try:
            upstream = Other("--upstream", {"UPSTREAM_KEY": key})
            closing.append(upstream.close)
            url = f"http://127.0.0.1:{(await upstream.hear())['port']}"
            proxy = Proxy(arguments.litellm, url, key, arguments.litellm_key)
            closing.append(proxy.close)
            host = Other(
                "--host",
                {"QMT_HOME": host_home, "UPSTREAM_KEY": key, "UPSTREAM_URL": f"{url}/v1"},
            )
            closing.append(host.close)
            guest = Other("--guest", {"QMT_HOME": guest_home})
            closing.append(guest.close)
            invite = (await host.hear())["invite"]
            await proxy.wait_ready()
            await guest.ask(
                invite=invite,
                upstream=url,
                upstream_key=key,
                litellm=proxy.url,
                litellm_key=proxy.key,
            )
            figures = await measured(guest, arguments.quick)
            figures["memory_mb_host"] = memory_mb(host.pid)
            figures["memory_mb_guest"] = memory_mb(guest.pid)
            figures["memory_mb_litellm"] = memory_mb(proxy.process.pid)
            figures["memory_ratio"] = (
                figures["memory_mb_host"] + figures["memory_mb_guest"]
            ) / figures["memory_mb_litellm"]
            return figures
        finally:
            for close in reversed(closing):
                close()


def main() -> None:
    arguments = parse()
    for role, run in (
        (arguments.upstream, upstream_main),
        (arguments.host, host_main),
        (arguments.guest, guest_main),
    ):
        if role:
            asyncio.run(run())
            return
    show(asyncio.run(gateway_figures(arguments)), BUDGETS, arguments.json)


if __name__ == "__main__":
    sys.exit(main())
