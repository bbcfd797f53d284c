"""How long a guest still hears an answer after its invite was revoked, on this machine.

    python benchmarks/revocation.py [--json] [--quick]

This process hosts the echo provider, 3 ms a piece. Each trial is a fresh invite, a fresh guest in
another process, and eight streams in full flow, which are revoked at a random moment: in turn
here (``host.revoke``) and from a third process (``home.revoke``, as ``qmt revoke`` does; it is up
already, so that an interpreter's start does not count). The clock is ``time.monotonic``, common to
all processes of a machine. It runs from just before the call to the last piece that the guest's
own code got from any of the eight; a last piece from before the call counts as 0.

Figures, in ms: ``revoke_ms_p50``, ``revoke_ms_p99`` of all trials; ``revoke_here_ms_p99``,
``revoke_elsewhere_ms_p99`` by who revoked; ``ended_ms_p99`` until all eight had raised
``Revoked``. A stream that ends in any other way fails the run.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.figures import percentile, show
from harness.processes import Other, say

os.environ["QMT_INTERFACES"] = "127.0.0.1"

if TYPE_CHECKING:
    from qmt_jupyter import aio

STREAMS = 8
PIECE_S = 0.003
# From so many pieces on, a stream gathers several into one write: it flows as it will go on.
IN_FULL_FLOW = 20
# Longer than both the host's look for commits and its gathering of pieces.
MOMENTS_S = 0.06
WORDS = "the quick brown fox jumps over the lazy dog"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--quick", action="store_true", help="20 trials, for a first look")
    parser.add_argument("--guest", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--owner", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


# The guest's process ----------------------------------------------------------------------------


@dataclass
class Heard:
    """One stream as its reader saw it; times of the monotonic clock."""

    pieces: int = 0
    last: float = 0.0
    ended: float = 0.0
    error: str = ""


async def listen(mesh: aio.Mesh, heard: Heard) -> None:
    from qmt_jupyter.errors import QmtError

    try:
        async for _ in mesh.chat(WORDS, max_tokens=100_000):
            heard.last = time.monotonic()
            heard.pieces += 1
        heard.error = "none"
    except QmtError as error:
        heard.error = type(error).__name__
    heard.ended = time.monotonic()


async def guest_main() -> None:
    from qmt_jupyter import aio

    homes = Path(os.environ["QMT_HOME"])
    loop = asyncio.get_running_loop()
    guests = 0
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        guests += 1
        os.environ["QMT_HOME"] = str(homes / str(guests))  # another home is another guest
        async with await aio.join(json.loads(line)["join"]) as mesh:
            streams = [Heard() for _ in range(STREAMS)]
            listening = asyncio.gather(*(listen(mesh, heard) for heard in streams))
            while not all(heard.pieces >= IN_FULL_FLOW or heard.error for heard in streams):
                await asyncio.sleep(0.005)
            say(flows=True)
            await listening
            say(streams=[asdict(heard) for heard in streams])


# The owner's other process ----------------------------------------------------------------------


def owner_main() -> None:
    from qmt_jupyter import home

    for line in sys.stdin:
        revoked = time.monotonic()
        home.revoke(json.loads(line)["revoke"])
        say(revoked=revoked)


# The host's process -----------------------------------------------------------------------------


async def trial(host: aio.Host, guest: Other, owner: Other | None) -> tuple[float, float]:
    """Milliseconds from a revocation, here or by ``owner``, to the last piece and to the end."""
    invite = await host.new_invite(uses=0)
    guest.tell(join=invite.url)
    await guest.hear()
    await asyncio.sleep(random.uniform(0, MOMENTS_S))
    if owner is None:
        revoked = time.monotonic()
        await host.revoke(invite.invite_id)
    else:
        owner.tell(revoke=invite.invite_id)
        revoked = (await owner.hear())["revoked"]
    streams = [Heard(**facts) for facts in (await guest.hear())["streams"]]
    ends = {heard.error for heard in streams}
    if ends != {"Revoked"}:
        raise SystemExit(f"streams ended with {', '.join(sorted(ends))} instead of Revoked")
    last = max(heard.last for heard in streams)
    ended = max(heard.ended for heard in streams)
    return max(0.0, last - revoked) * 1000, max(0.0, ended - revoked) * 1000


async def revocation_figures(quick: bool) -> dict[str, float]:
    from qmt_jupyter import aio
    from qmt_jupyter.providers.echo import Echo

    random.seed(1)
    here: list[tuple[float, float]] = []
    elsewhere: list[tuple[float, float]] = []
    with (
        tempfile.TemporaryDirectory(prefix="qmt-host-") as home,
        tempfile.TemporaryDirectory(prefix="qmt-guests-") as homes,
    ):
        os.environ["QMT_HOME"] = home
        provider = Echo(slots=STREAMS, delay=PIECE_S, repeat=True)
        guest, owner = Other("--guest", {"QMT_HOME": homes}), Other("--owner", {"QMT_HOME": home})
        try:
            async with await aio.host(provider, name="benchmark", uses=0) as host:
                for number in range(11 if quick else 101):
                    pair = await trial(host, guest, None), await trial(host, guest, owner)
                    if number:  # the first ones import and warm up
                        here.append(pair[0])
                        elsewhere.append(pair[1])
        finally:
            guest.close()
            owner.close()
    last = [each[0] for each in here + elsewhere]
    return {
        "revoke_ms_p50": percentile(last, 0.5),
        "revoke_ms_p99": percentile(last, 0.99),
        "revoke_here_ms_p99": percentile([each[0] for each in here], 0.99),
        "revoke_elsewhere_ms_p99": percentile([each[0] for each in elsewhere], 0.99),
        "ended_ms_p99": percentile([each[1] for each in here + elsewhere], 0.99),
    }


BUDGETS = {"revoke_ms_p99": ("≤", 100.0)}


def main() -> None:
    arguments = parse()
    if arguments.guest:
        asyncio.run(guest_main())
        return
    if arguments.owner:
        owner_main()
        return
    figures = asyncio.run(revocation_figures(arguments.quick))
    show(figures, BUDGETS, arguments.json)


if __name__ == "__main__":
    main()
