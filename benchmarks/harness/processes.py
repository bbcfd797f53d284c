"""Other processes of a benchmark, told what to do and answering line by line in JSON."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

PATIENCE_S = 60.0


def say(**facts: Any) -> None:
    """In the other process: one line of facts to who started it."""
    print(json.dumps(facts), flush=True)


async def next_order() -> dict[str, Any] | None:
    """In the other process: the next order, None when there are no more."""
    line = await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    return json.loads(line) if line else None


class Other:
    """Another process of the script that runs, in the role that its argument names."""

    def __init__(self, role: str, environment: Mapping[str, str] | None = None) -> None:
        self.process = subprocess.Popen(
            [sys.executable, sys.argv[0], role],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **(environment or {})},
        )

    @property
    def pid(self) -> int:
        return self.process.pid

    def tell(self, **order: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()

    async def hear(self, patience: float = PATIENCE_S) -> dict[str, Any]:
        """The next line of facts, waited for so many seconds."""
        assert self.process.stdout is not None
        read = asyncio.get_running_loop().run_in_executor(None, self.process.stdout.readline)
        line = await asyncio.wait_for(asyncio.shield(read), patience)
        if not line:
            raise SystemExit("another process of the benchmark ended early")
        facts: dict[str, Any] = json.loads(line)
        return facts

    async def ask(self, **order: Any) -> dict[str, Any]:
        """Tell it something and hear what came of it."""
        self.tell(**order)
        return await self.hear()

    def close(self) -> None:
        """Let it end by itself, or end it."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        end(self.process)


def end(process: subprocess.Popen[Any], patience: float = 10.0) -> None:
    """Wait for a process that was told to end, and kill one that does not."""
    try:
        process.wait(timeout=patience)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()


def memory_mb(pid: int) -> float:
    """Resident memory of a process and its children in MB (10^6 bytes)."""
    import psutil

    root = psutil.Process(pid)
    return sum(each.memory_info().rss for each in [root, *root.children(recursive=True)]) / 1e6


def cpu_s(pid: int) -> float:
    """Processor time of a process, in seconds; of its children those that have ended."""
    import psutil

    return float(sum(psutil.Process(pid).cpu_times()[:4]))
