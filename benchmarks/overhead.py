"""What the mesh costs against the same provider in process, on this machine, in one run.

    python benchmarks/overhead.py [--json] [--quick] [--only echo|engine|death|load_ext]

This process hosts; the guests are another process with its own ``QMT_HOME``. Each comparison is
interleaved: provider in process, mesh, provider in process, mesh … and the figure is the median
of the ratios, so that a machine that slows down slows both. All traffic is on loopback.

Figures: ``tokens_ratio_1``, ``tokens_ratio_8`` (tokens/s through the mesh over in process, 1 and
8 guests, SmolLM2), ``added_ttft_ms_engine_p50``; with the echo provider ``added_ttft_ms_p50``,
``added_ttft_ms_p99`` and ``chunks_per_s_50``; ``host_death_s_p95``; ``load_ext_ms``.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any

from harness.figures import percentile, show

os.environ["QMT_INTERFACES"] = "127.0.0.1"

PROMPT = "Tell a long story about a lighthouse keeper and the sea, with many details."
ECHO_WORDS = "the quick brown fox jumps over the lazy dog"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--quick", action="store_true", help="fewer rounds, for a first look")
    parser.add_argument("--only", choices=["echo", "engine", "death", "load_ext"])
    parser.add_argument("--models", help="directory with model files (default: QMT_HOME's)")
    parser.add_argument("--guest", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--doomed-host", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


# One round: so many requests side by side, and when their pieces came ---------------------------


async def measure(ask: Callable[[], AsyncGenerator[Any, None]], streams: int) -> dict[str, float]:
    """Run ``streams`` requests at once; seconds, pieces, and the times to the first piece."""
    first: list[float] = []
    pieces = 0

    async def one() -> None:
        nonlocal pieces
        asked = time.perf_counter()
        seen = False
        async for text in ask():
            if text:
                pieces += 1
                if not seen:
                    seen = True
                    first.append(time.perf_counter() - asked)

    started = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(streams)))
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "pieces": pieces, "first": statistics.median(first)}


# The guests' process ----------------------------------------------------------------------------


async def guest_main() -> None:
    from qmt_jupyter import aio

    loop = asyncio.get_running_loop()
    meshes: list[aio.Mesh] = []
    print(json.dumps({"ready": True}), flush=True)
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        order = json.loads(line)
        if "join" in order:
            for mesh in meshes:
                await mesh.leave()
            meshes = [await aio.join(order["join"])]
            print(json.dumps({}), flush=True)
            continue

        def ask(
            order: dict[str, Any] = order, mesh: aio.Mesh = meshes[0]
        ) -> AsyncGenerator[Any, None]:
            return mesh.chat(order["prompt"], **order["parameters"]).updates()

        print(json.dumps(await measure(ask, order["streams"])), flush=True)
    for mesh in meshes:
        await mesh.leave()


class Guests:
    """The other process, told what to do line by line."""

    def __init__(self) -> None:
        self.home = tempfile.TemporaryDirectory(prefix="qmt-guest-")
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--guest"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "QMT_HOME": self.home.name},
        )
        self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("the guests' process ended early")
        answer: dict[str, Any] = json.loads(line)
        return answer

    async def tell(self, **order: Any) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        return await asyncio.get_running_loop().run_in_executor(None, self._answer)

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(timeout=10)
        self.home.cleanup()


def in_process(provider: Any, prompt: str, parameters: dict[str, Any]) -> Any:
    """The same request straight to the provider, in the loop where it lives."""
    from qmt_jupyter import runtime

    def ask() -> AsyncGenerator[Any, None]:
        async def texts() -> AsyncGenerator[Any, None]:
            request = {"messages": [{"role": "user", "content": prompt}], **parameters}
            async for chunk in provider.chat(provider.models[0].name, request):
                for choice in chunk["choices"]:
                    yield (choice.get("delta") or {}).get("content")

        return texts()

    async def run(streams: int) -> dict[str, float]:
        return await runtime.call_async(measure, ask, streams)

    return run


# The parts --------------------------------------------------------------------------------------


async def echo_figures(guests: Guests, quick: bool) -> dict[str, float]:
    from qmt_jupyter import aio
    from qmt_jupyter.providers.echo import Echo

    provider = Echo(slots=64, repeat=True)
    async with await aio.host(provider, name="benchmark", uses=0) as host:
        await guests.tell(join=host.invite.url)
        one = {"max_tokens": 4}
        baseline = in_process(provider, ECHO_WORDS, one)
        added: list[float] = []
        for number in range(60 if quick else 320):
            near = (await baseline(1))["first"]
            far = (await guests.tell(prompt=ECHO_WORDS, parameters=one, streams=1))["first"]
            if number >= 20:
                added.append((far - near) * 1000)
        rates = []
        for _ in range(2 if quick else 7):
            far = await guests.tell(
                prompt=ECHO_WORDS, parameters={"max_tokens": 400 if quick else 1000}, streams=50
            )
            rates.append(far["pieces"] / far["seconds"])
    return {
        "added_ttft_ms_p50": percentile(added, 0.5),
        "added_ttft_ms_p99": percentile(added, 0.99),
        "chunks_per_s_50": statistics.median(rates[1:]),
    }


async def engine_figures(guests: Guests, quick: bool, models: Path) -> dict[str, float]:
    from qmt_jupyter import aio
    from qmt_jupyter.providers.llamacpp import LlamaCpp
    from qmt_jupyter.providers.model_files import locate_model

    file = locate_model("smollm2", models)
    from qmt_jupyter import runtime

    provider = await runtime.call_async(lambda: LlamaCpp.load(file, slots=8, context=1024))
    figures: dict[str, float] = {}
    async with await aio.host(provider, name="benchmark", uses=0) as host:
        await guests.tell(join=host.invite.url)
        for streams, tokens, rounds in ((1, 256, 13), (8, 128, 11)):
            parameters = {"max_tokens": tokens, "temperature": 0.0, "seed": 1}
            baseline = in_process(provider, PROMPT, parameters)
            ratios, added = [], []
            for number in range(3 if quick else rounds + 1):
                # Which goes first alternates, so that a drift favours neither.
                far = functools.partial(
                    guests.tell, prompt=PROMPT, parameters=parameters, streams=streams
                )

                if number % 2:
                    meshed, near = await far(), await baseline(streams)
                else:
                    near, meshed = await baseline(streams), await far()
                if number:
                    rate = meshed["pieces"] / meshed["seconds"]
                    ratios.append(rate / (near["pieces"] / near["seconds"]))
                    added.append((meshed["first"] - near["first"]) * 1000)
            figures[f"tokens_ratio_{streams}"] = statistics.median(ratios)
            figures[f"tokens_ratio_{streams}_min"] = min(ratios)
            figures[f"tokens_ratio_{streams}_max"] = max(ratios)
            figures[f"tokens_per_s_{streams}"] = rate
            if streams == 1:
                figures["added_ttft_ms_engine_p50"] = statistics.median(added)
    return figures


def doomed_host_main() -> None:
    import qmt_jupyter as qmt
    from qmt_jupyter.providers.echo import Echo

    host = qmt.host(Echo(slots=4, delay=0.2, repeat=True), name="doomed", uses=0)
    print(host.invite.url, flush=True)
    time.sleep(60)


def death_figures(quick: bool) -> dict[str, float]:
    """Kill a host with SIGKILL while it answers, and time until the guest is told."""
    import qmt_jupyter as qmt
    from qmt_jupyter.errors import HostGone

    seconds = []
    for _ in range(2 if quick else 10):
        with tempfile.TemporaryDirectory(prefix="qmt-host-") as home:
            process = subprocess.Popen(
                [sys.executable, __file__, "--doomed-host"],
                stdout=subprocess.PIPE,
                text=True,
                env={**os.environ, "QMT_HOME": home},
            )
            assert process.stdout is not None
            with qmt.join(process.stdout.readline().strip()) as mesh:
                answer = mesh.chat(ECHO_WORDS, max_tokens=1000)
                pieces = iter(answer)
                next(pieces)
                process.send_signal(signal.SIGKILL)
                died = time.perf_counter()
                try:
                    for _ in pieces:
                        pass
                except HostGone:
                    seconds.append(time.perf_counter() - died)
            process.wait()
    return {"host_death_s_p50": percentile(seconds, 0.5), "host_death_s_p95": max(seconds)}


def load_ext_figures(quick: bool) -> dict[str, float]:
    """``%load_ext qmt_jupyter`` in a shell that is up, in fresh processes."""
    code = (
        "import time\n"
        "from IPython.core.interactiveshell import InteractiveShell\n"
        "shell = InteractiveShell.instance()\n"
        "started = time.perf_counter()\n"
        "shell.run_line_magic('load_ext', 'qmt_jupyter')\n"
        "print((time.perf_counter() - started) * 1000)\n"
    )
    times = []
    for _ in range(3 if quick else 9):
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        times.append(float(done.stdout.split()[-1]))
    return {"load_ext_ms": statistics.median(times)}


BUDGETS = {
    "tokens_ratio_1": ("≥", 0.98),
    "tokens_ratio_8": ("≥", 0.98),
    "added_ttft_ms_p50": ("≤", 2.5),
    "chunks_per_s_50": ("≥", 6500),
    "host_death_s_p95": ("≤", 4.0),
    "load_ext_ms": ("≤", 100.0),
}


async def meshed_figures(arguments: argparse.Namespace) -> dict[str, float]:
    from qmt_jupyter.settings import Settings

    models = Path(arguments.models) if arguments.models else Settings.from_environment().models_dir
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="qmt-host-") as home:
        os.environ["QMT_HOME"] = home
        guests = Guests()
        try:
            if arguments.only in (None, "echo"):
                figures |= await echo_figures(guests, arguments.quick)
            if arguments.only in (None, "engine"):
                figures |= await engine_figures(guests, arguments.quick, models)
        finally:
            guests.close()
    return figures


def main() -> None:
    arguments = parse()
    if arguments.guest:
        asyncio.run(guest_main())
        return
    if arguments.doomed_host:
        doomed_host_main()
        return
    figures: dict[str, float] = {}
    if arguments.only in (None, "echo", "engine"):
        figures |= asyncio.run(meshed_figures(arguments))
    if arguments.only in (None, "death"):
        with tempfile.TemporaryDirectory(prefix="qmt-guest-") as home:
            os.environ["QMT_HOME"] = home
            figures |= death_figures(arguments.quick)
    if arguments.only in (None, "load_ext"):
        figures |= load_ext_figures(arguments.quick)
    show(figures, BUDGETS, arguments.json)


if __name__ == "__main__":
    main()
