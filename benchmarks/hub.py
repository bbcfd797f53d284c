"""A class that comes to one service of a JupyterHub within a minute, on this machine.

    python benchmarks/hub.py [--json] [--quick] [--only echo|engine]

The service is the real one, ``python -m qmt_jupyter.hub`` in a process of its own, with its class
defaults for limits. The Hub is a scripted API in another process, which answers as the real one
does: no proxy and no database stand between. The students, each with a token, an identity and an
endpoint of its own, live in four more processes and share the machine with the service; all traffic
is on loopback. They have the address in the link and no multicast DNS, as pods have.

``echo``: 200 students arrive at random moments of a minute. Each gets a seat, joins by QUIC and
asks twice, reading for some seconds between. The echo gives 50 tokens a second in each of 16 slots,
as an engine with one GPU might.

- ``served``: how many students had a seat and a whole answer to each question. ``asked_again``: how
  often one had lost the connection and asked once more, as a person would.
- ``join_s_p50``, ``join_s_p95``: from asking for the seat to being admitted, in seconds.
- ``queue_s_p50``, ``queue_s_p95``: from asking to the slot, and ``first_s_…`` to the first token.
- ``lesson_s``: from the first arrival to the last answer.
- ``service_cpu_s``, ``students_cpu_s``: processor time until then, of the service and of all
  students.
- ``memory_mb_before``, ``memory_mb_after``: of the service, before the first student and with all.
- ``hub_asked_per_s``: requests of the service to the Hub, for seats and for looking again.

Then all keep asking at once for a while, every tenth with two requests at a time: ``jain`` is
Jain's index (1: equal) over the tokens of answers that each got, and ``refused`` is how many met an
error.

``engine``: 20 students within six seconds ask SmolLM2 once each, as figures that begin with
``engine_``.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import re
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from harness.figures import jain, percentile, show
from harness.hub_api import hub_process
from harness.hub_service import NAME, PLUGIN, TOKEN, service
from harness.processes import Other, cpu_s, memory_mb
from harness.students import students_main

os.environ["QMT_INTERFACES"] = "127.0.0.1"

STUDENTS, ARRIVALS_S = 200, 60.0
SLOTS, QUICK_SLOTS, TOKEN_MS = 16, 4, 20
CHATS, ANSWER_TOKENS, READING_S = 2, 100, 5.0
CONTEND_S, CONTEND_TOKENS = 40.0, 20
ENGINE_STUDENTS, ENGINE_TOKENS, ENGINE_SLOTS = 20, 48, 8
PROCESSES = 4
PATIENCE_S = 600.0
BUDGETS = {"served": ("≥", float(STUDENTS)), "jain": ("≥", 0.95)}
MODELS = Path(os.environ.get("QMT_MODELS") or Path(__file__).parents[1] / ".cache" / "models")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--quick", action="store_true", help="a tenth of the class, for a look")
    parser.add_argument("--only", choices=("echo", "engine"), help="one half alone")
    parser.add_argument("role", nargs="?", choices=("hub", "students"), help=argparse.SUPPRESS)
    return parser.parse_args()


def names(count: int) -> list[str]:
    return [f"student-{number:03}" for number in range(count)]


class School:
    """The Hub's process, the service's and the students', for one class."""

    def __init__(self, folder: Path, url: str, pid: int, hub: Other) -> None:
        self.url, self.pid, self.hub = url, pid, hub
        homes = {"QMT_HOME": str(folder / "students")}
        self.processes = [Other("students", homes) for _ in range(PROCESSES)]

    async def all(self, orders: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Give each process its order; what the students of all of them report."""
        for process, order in zip(self.processes, orders, strict=True):
            process.tell(**order)
        heard = await asyncio.gather(*(each.hear(PATIENCE_S) for each in self.processes))
        return [student for facts in heard for student in facts["students"]]

    async def lesson(self, count: int, seconds: float, **lesson: Any) -> list[dict[str, Any]]:
        """``count`` students arrive within so many seconds, and ask."""
        chance = random.Random(7)
        arrivals = [(name, chance.uniform(0, seconds)) for name in names(count)]
        began = time.time() + 1.0
        return await self.all(
            [
                {"attend": arrivals[part::PROCESSES], "url": self.url, "began": began, **lesson}
                for part in range(PROCESSES)
            ]
        )

    async def contention(self, count: int, seconds: float, tokens: int) -> list[dict[str, Any]]:
        """All who came ask at once and again, for so many seconds."""
        order = {"until": time.time() + seconds, "greedy": names(count)[::10], "tokens": tokens}
        return await self.all([order] * PROCESSES)

    async def asked(self) -> int:
        count: int = (await self.hub.ask(asked=True))["asked"]
        return count

    def students_cpu_s(self) -> float:
        return sum(cpu_s(process.pid) for process in self.processes)

    def close(self) -> None:
        for process in self.processes:
            process.close()


def tell_problems(students: list[dict[str, Any]]) -> None:
    # Numbers aside, many meet the same.
    met = [each["problem"] for each in students if each["problem"]]
    problems = Counter(re.sub(r"[0-9.]+", "…", problem)[:160] for problem in met)
    for problem, count in problems.most_common(5):
        print(f"{count} met: {problem}", file=sys.stderr)


def lesson_figures(students: list[dict[str, Any]], chats: int) -> dict[str, float]:
    joined = [each["join_s"] for each in students if each["join_s"]]
    queues = [wait for each in students for wait in each["queue_s"]]
    firsts = [wait for each in students for wait in each["first_s"]]
    tell_problems(students)
    if not (joined and queues):
        raise SystemExit("no student was served")
    return {
        "students": len(students),
        "served": sum(each["answers"] == chats for each in students),
        "asked_again": sum(each["asked_again"] for each in students),
        "join_s_p50": percentile(joined, 0.5),
        "join_s_p95": percentile(joined, 0.95),
        "queue_s_p50": percentile(queues, 0.5),
        "queue_s_p95": percentile(queues, 0.95),
        "first_s_p50": percentile(firsts, 0.5),
        "first_s_p95": percentile(firsts, 0.95),
    }


async def echo_figures(school: School, quick: bool, slots: int) -> dict[str, float]:
    count = STUDENTS // 10 if quick else STUDENTS
    before, asked, began = memory_mb(school.pid), await school.asked(), time.monotonic()
    service_cpu, students_cpu = cpu_s(school.pid), school.students_cpu_s()
    lesson = {"chats": CHATS, "tokens": ANSWER_TOKENS, "reading_s": READING_S}
    students = await school.lesson(count, ARRIVALS_S / (10 if quick else 1), **lesson)
    took = time.monotonic() - began
    figures = lesson_figures(students, CHATS)
    figures |= {
        "lesson_s": took,
        "tokens_per_s": sum(each["tokens"] for each in students) / took,
        "service_cpu_s": cpu_s(school.pid) - service_cpu,
        "students_cpu_s": school.students_cpu_s() - students_cpu,
        "hub_asked_per_s": (await school.asked() - asked) / took,
        "memory_mb_before": before,
        "memory_mb_after": memory_mb(school.pid),
    }
    # Fewer students ask as often in all if they ask for more, and stay below their rates.
    tokens = CONTEND_TOKENS * (STUDENTS * slots // SLOTS // count)
    contended = await school.contention(count, CONTEND_S, tokens)
    tell_problems(contended)
    figures["jain"] = jain([each["tokens"] for each in contended])
    figures["refused"] = sum(bool(each["problem"]) for each in contended)
    return figures


async def engine_figures(school: School) -> dict[str, float]:
    lesson = {"chats": 1, "tokens": ENGINE_TOKENS, "reading_s": 0.0}
    began = time.monotonic()
    students = await school.lesson(ENGINE_STUDENTS, 6.0, **lesson)
    figures = lesson_figures(students, 1)
    figures["lesson_s"] = time.monotonic() - began
    return {f"engine_{name}": value for name, value in figures.items()}


async def measure(half: str, quick: bool) -> dict[str, float]:
    if half == "echo":
        slots = QUICK_SLOTS if quick else SLOTS
        model = f"{PLUGIN}:{TOKEN_MS}"
    else:
        os.environ["QMT_MODELS"] = str(MODELS)
        slots, model = ENGINE_SLOTS, "smollm2"
    arguments = ["--model", model, "--slots", str(slots)]
    with tempfile.TemporaryDirectory(prefix="qmt-hub-") as name:
        folder = Path(name)
        hub = Other("hub")
        try:
            api = (await hub.hear())["url"]
            with service(folder, api, arguments) as (url, pid):
                school = School(folder, url, pid, hub)
                try:
                    if half == "echo":
                        return await echo_figures(school, quick, slots)
                    return await engine_figures(school)
                finally:
                    school.close()
        finally:
            hub.close()


def main() -> None:
    arguments = parse()
    if arguments.role == "hub":
        hub_process(names(STUDENTS), NAME, TOKEN)
    elif arguments.role == "students":
        asyncio.run(students_main())
    else:
        figures: dict[str, float] = {}
        for half in [arguments.only] if arguments.only else ["echo", "engine"]:
            figures |= asyncio.run(measure(half, arguments.quick))
        show(figures, BUDGETS, arguments.json)


if __name__ == "__main__":
    main()
