"""Whether a host's record is found in a DHT of which a third is hostile, and at what cost.

    python benchmarks/dht.py [--json] [--quick] [--seed N]

Networks of 100, 300 and 1000 nodes, all in this process, each with a UDP socket and a loopback
address of its own (of one address only a few nodes count). 30 % of them are hostile, of eight
kinds in turn: they forge records, repeat old ones, answer hugely, with nonsense, with made-up or
hostile contacts, or not at all, and say that they store what they do not. Each trial: a host that
no node has heard of publishes its record at one honest node, and another honest node looks it up.

Figures, each for each size (``_100``, ``_300``, ``_1000``): ``success``, the share of lookups that
ended with the true record; ``wrong``, records that the host had never signed (must be 0);
``hops_mean``, the chain of nodes that led to the record; ``requests_mean`` and ``requests_max`` of
a lookup (an answered request is two packets); ``found_ms_p50`` and ``_p95``, until the true record
was there; ``whole_ms_p50`` and ``_p95``, until nothing newer could be expected. Times are of one
process that plays all nodes at once, on loopback, and include the patience with the silent ones.
``growth_requests`` and ``growth_hops``: the largest network over the smallest.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

os.environ["QMT_INTERFACES"] = "127.0.0.1"
# The hostile nodes are those of the suite.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

if TYPE_CHECKING:
    from qmt_jupyter.identity.whereabouts import Whereabouts
    from tests.mesh.hostile_nodes import Crowd

SIZES = (100, 300, 1000)
HOSTILE = 0.3
# A socket for each node, and some for the interpreter.
SPARE_FILES = 200


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--quick", action="store_true", help="30 lookups a size instead of 200")
    parser.add_argument("--seed", type=int, default=1, help="who is hostile, and who asks")
    return parser.parse_args()


def percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


@dataclass
class Trials:
    """What the lookups of one network came to."""

    tried: int = 0
    succeeded: int = 0
    wrong: int = 0
    hops: list[int] = field(default_factory=list)
    requests: list[int] = field(default_factory=list)
    found_ms: list[float] = field(default_factory=list)
    whole_ms: list[float] = field(default_factory=list)

    async def run(self, crowd: Crowd, number: int) -> None:
        """One host is published and looked up."""
        from tests.mesh.hostile_nodes import record

        host = crowd.host(number)
        publisher, searcher = crowd.chance.sample(crowd.honest, 2)
        made = record(host)
        await publisher.publish(made)
        found: list[float] = []

        def newer(each: Whereabouts) -> None:
            self.wrong += each.host_key != host.public_key
            if each == made:
                found.append((time.perf_counter() - began) * 1000)

        began = time.perf_counter()
        outcome = await searcher.search(host.public_key, newer)
        self.whole_ms.append((time.perf_counter() - began) * 1000)
        self.tried += 1
        self.requests.append(outcome.requests)
        if outcome.record == made:
            self.succeeded += 1
            self.found_ms += found[:1]
            # Where the searcher holds the record itself there was nobody between.
            if outcome.hops:
                self.hops.append(outcome.hops)

    def figures(self, size: int) -> dict[str, float]:
        found = self.found_ms or [float("nan")]
        return {
            f"success_{size}": self.succeeded / self.tried,
            f"wrong_{size}": self.wrong,
            f"hops_mean_{size}": statistics.mean(self.hops or [0]),
            f"requests_mean_{size}": statistics.mean(self.requests),
            f"requests_max_{size}": max(self.requests),
            f"found_ms_p50_{size}": statistics.median(found),
            f"found_ms_p95_{size}": percentile(found, 0.95),
            f"whole_ms_p50_{size}": statistics.median(self.whole_ms),
            f"whole_ms_p95_{size}": percentile(self.whole_ms, 0.95),
        }


def allow_open_files(wanted: int) -> None:
    """Raise this process's limit, where the system has one."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft < wanted:
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, hard), hard))


async def dht_figures(quick: bool, seed: int) -> dict[str, float]:
    from tests.mesh.hostile_nodes import Crowd

    figures: dict[str, float] = {}
    for size in SIZES:
        trials = Trials()
        async with Crowd(size, HOSTILE, seed=seed) as crowd:
            for number in range(30 if quick else 200):
                await trials.run(crowd, number)
        figures |= trials.figures(size)
    first, last = SIZES[0], SIZES[-1]
    for name in ("requests", "hops"):
        figures[f"growth_{name}"] = figures[f"{name}_mean_{last}"] / figures[f"{name}_mean_{first}"]
    return figures


BUDGETS = {"success_1000": ("≥", 0.99)}


def main() -> None:
    arguments = parse()
    allow_open_files(max(SIZES) + SPARE_FILES)
    figures = asyncio.run(dht_figures(arguments.quick, arguments.seed))
    if arguments.json:
        print(json.dumps({name: round(value, 4) for name, value in figures.items()}))
        return
    width = max(map(len, figures))
    for name, value in figures.items():
        budget = "{} {:g}".format(*BUDGETS[name]) if name in BUDGETS else ""
        print(f"{name:<{width}}  {value:>10.3f}  {budget}")


if __name__ == "__main__":
    main()
