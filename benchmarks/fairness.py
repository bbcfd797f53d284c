"""What seven guests still get from a host that an eighth floods, on this machine.

    python benchmarks/fairness.py [--json] [--quick]

This process hosts the echo provider: four slots, 5 ms a piece. The eight guests, each with an
identity of its own, are in another process; all traffic is on loopback.

Burst: one guest sends 100 requests at once; when all have arrived the seven send one each, of the
same size. ``seven_wait_s_median``, ``seven_wait_s_max``, ``flooder_wait_s_median``: from asking to
the first piece. ``wait_ratio``: the flooder's median over the seven's.

Contention: for a while the flooder keeps 100 requests outstanding and each of the seven keeps one,
which is enough: eight guests share four slots, so that a fair share is half a slot, and who keeps
one waits or runs all the time. ``jain_flooder_long`` and ``jain_flooder_short`` are Jain's index
(1: equal, 1/8: one has all) over the tokens, prompt and answer, that each got between the moment
when all eight contended and the end, with answers of 96 tokens for the flooder and 12 for the
seven, and the other way round; ``jain`` is the worse. Served as they come, they would have 0.13
and 0.28; guest by guest without regard to length, 0.42 and 0.91.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.figures import jain, show

os.environ["QMT_INTERFACES"] = "127.0.0.1"

if TYPE_CHECKING:
    from qmt_jupyter.guest.mesh import GuestMesh, Route
    from qmt_jupyter.wire.messages import Reply

GUESTS = 8
FLOOD = 100
SLOTS = 4
PIECE_S = 0.005
BURST_TOKENS = 32
LONG, SHORT = 96, 12
PATIENCE_S = 60.0
PROMPT = "lighthouse"
PROMPT_TOKENS = 1  # as the echo provider counts it


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--quick", action="store_true", help="shorter, for a first look")
    parser.add_argument("--guests", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


# The guests' process ----------------------------------------------------------------------------


def question(tokens: int) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": PROMPT}], "max_tokens": tokens}


def carries_text(reply: Reply | Route) -> bool:
    from qmt_jupyter.wire.messages import Delta

    return isinstance(reply, Delta) and any(
        choice.get("delta", {}).get("content") for choice in reply.choices
    )


class Burst:
    """One guest floods, then the others ask once each."""

    def __init__(self, meshes: list[GuestMesh]) -> None:
        self.meshes = meshes
        self.arrived = 0

    async def wait_for_first(self, mesh: GuestMesh) -> float:
        """Ask once, read it all, and return the seconds to the first piece."""
        from qmt_jupyter.wire.messages import Queued, Started

        asked, known, wait = time.monotonic(), False, 0.0
        async for reply in mesh.answer(question(BURST_TOKENS)):
            if not known and isinstance(reply, (Queued, Started)):
                known = True
                self.arrived += 1
            if not wait and carries_text(reply):
                wait = time.monotonic() - asked
        return wait

    async def run(self) -> dict[str, list[float]]:
        flooder, *seven = self.meshes
        flood = asyncio.gather(*(self.wait_for_first(flooder) for _ in range(FLOOD)))
        while self.arrived < FLOOD and not flood.done():
            await asyncio.sleep(0.001)
        waits = await asyncio.gather(*(self.wait_for_first(mesh) for mesh in seven))
        return {"flooder": await flood, "seven": waits}


class Contention:
    """All ask again as soon as they have an answer; counts what each got."""

    def __init__(self, meshes: list[GuestMesh], flooder: int, seven: int) -> None:
        self.meshes = meshes
        self.sizes = [flooder] + [seven] * (len(meshes) - 1)
        self.tokens = [0] * len(meshes)

    async def keep_asking(self, guest: int) -> None:
        from qmt_jupyter.wire.messages import Started

        while True:
            async for reply in self.meshes[guest].answer(question(self.sizes[guest])):
                if isinstance(reply, Started):
                    self.tokens[guest] += PROMPT_TOKENS
                elif carries_text(reply):
                    self.tokens[guest] += 1

    async def run(self, seconds: float) -> dict[str, list[int]]:
        askers = [0] * FLOOD + list(range(1, len(self.meshes)))
        asking = [asyncio.ensure_future(self.keep_asking(guest)) for guest in askers]
        try:
            while not all(self.tokens) and not any(task.done() for task in asking):
                await asyncio.sleep(0.001)
            before = list(self.tokens)
            await asyncio.wait(asking, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            got = [after - had for after, had in zip(self.tokens, before, strict=True)]
        finally:
            for task in asking:
                task.cancel()
            ends = await asyncio.gather(*asking, return_exceptions=True)
        for end in ends:
            if not isinstance(end, asyncio.CancelledError):
                raise RuntimeError("a request failed while all contended") from end
        return {"tokens": got}


async def guests_main() -> None:
    from qmt_jupyter.guest.mesh import GuestMesh
    from qmt_jupyter.identity import link
    from qmt_jupyter.settings import Settings

    homes = Path(os.environ["QMT_HOME"])
    loop = asyncio.get_running_loop()
    meshes: list[GuestMesh] = []
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        order = json.loads(line)
        answer: dict[str, Any] = {}
        if "join" in order:
            invite = link.read(order["join"])
            for number in range(GUESTS):
                settings = Settings(homes / str(number), ("127.0.0.1",))
                meshes.append(await GuestMesh.join(invite, settings))
        elif "seconds" in order:
            contention = Contention(meshes, order["flooder"], order["seven"])
            answer = await contention.run(order["seconds"])
        else:
            answer = await Burst(meshes).run()
        print(json.dumps(answer), flush=True)
    for mesh in meshes:
        await mesh.close()


# The host's process -----------------------------------------------------------------------------


class Guests:
    """The other process, told what to do line by line."""

    def __init__(self, homes: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--guests"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "QMT_HOME": homes},
        )

    async def tell(self, **order: Any) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        read = asyncio.get_running_loop().run_in_executor(None, self.process.stdout.readline)
        line = await asyncio.wait_for(asyncio.shield(read), PATIENCE_S)
        if not line:
            raise SystemExit("the guests' process ended early")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


async def burst_figures(guests: Guests, quick: bool) -> dict[str, float]:
    seven: list[float] = []
    flooder: list[float] = []
    for _ in range(1 if quick else 3):
        waits = await guests.tell()
        seven += waits["seven"]
        flooder += waits["flooder"]
    return {
        "seven_wait_s_median": statistics.median(seven),
        "seven_wait_s_max": max(seven),
        "flooder_wait_s_median": statistics.median(flooder),
        "wait_ratio": statistics.median(flooder) / statistics.median(seven),
    }


async def contention_figures(guests: Guests, quick: bool) -> dict[str, float]:
    seconds = 5.0 if quick else 15.0
    long = await guests.tell(flooder=LONG, seven=SHORT, seconds=seconds)
    short = await guests.tell(flooder=SHORT, seven=LONG, seconds=seconds)
    indices = jain(long["tokens"]), jain(short["tokens"])
    return {
        "jain": min(indices),
        "jain_flooder_long": indices[0],
        "jain_flooder_short": indices[1],
    }


async def fairness_figures(quick: bool) -> dict[str, float]:
    from qmt_jupyter import aio
    from qmt_jupyter.providers.echo import Echo

    with (
        tempfile.TemporaryDirectory(prefix="qmt-host-") as home,
        tempfile.TemporaryDirectory(prefix="qmt-guests-") as homes,
    ):
        os.environ["QMT_HOME"] = home
        guests = Guests(homes)
        try:
            provider = Echo(slots=SLOTS, delay=PIECE_S, repeat=True)
            async with await aio.host(provider, name="benchmark", uses=0) as host:
                await guests.tell(join=host.invite.url)
                figures = await burst_figures(guests, quick)
                return figures | await contention_figures(guests, quick)
        finally:
            guests.close()


BUDGETS = {"jain": ("≥", 0.95)}


def main() -> None:
    arguments = parse()
    if arguments.guests:
        asyncio.run(guests_main())
        return
    figures = asyncio.run(fairness_figures(arguments.quick))
    show(figures, BUDGETS, arguments.json)


if __name__ == "__main__":
    main()
