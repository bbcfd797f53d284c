"""How much memory a model needs, and how much there is.

An estimate that errs on the side of trying: the engine says no by itself where it can, but on
Linux a context that does not fit is killed without a word, so what plainly cannot fit is refused
before loading.
"""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import OutOfMemory
from .gguf import GgufHead

_ROOT = Path("/")


def require_memory(
    name: str, head: GgufHead, *, slots: int, context: int, available: int | None
) -> None:
    """Refuse a model whose weights and context exceed ``available`` bytes (None: unknown).

    ``context`` is in tokens per slot. Raises :class:`~qmt_jupyter.errors.OutOfMemory`.
    """
    if available is None:
        return
    cache = (head.kv_bytes_per_token or 0) * context * slots
    if head.size + cache > available:
        raise OutOfMemory(
            f"{name} needs about {_gigabytes(head.size + cache)} ({_gigabytes(head.size)} for the "
            f"model, {_gigabytes(cache)} for {slots} slots of {context} tokens), and "
            f"{_gigabytes(available)} are available."
        )


def available_memory(root: Path = _ROOT) -> int | None:
    """Bytes of main memory that this process may still use; None where it cannot be known.

    Takes the limit of a Linux container (cgroup version 2) into account: its memory is smaller
    than the machine's, and exceeding it ends the process.
    """
    free = _proc_available(root)
    limit = _cgroup_available(root)
    known = [amount for amount in (free, limit) if amount is not None]
    if known:
        return min(known)
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def _proc_available(root: Path) -> int | None:
    try:
        for line in (root / "proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    return None


def _cgroup_available(root: Path) -> int | None:
    """The tightest limit on the way from this process's group to the root, less what is used."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
        group = next(line[3:] for line in lines if line.startswith("0::"))
    except (OSError, StopIteration):
        return None
    top = root / "sys/fs/cgroup"
    directory = top / group.lstrip("/")
    tightest: int | None = None
    for place in (directory, *directory.parents):
        try:
            limit = (place / "memory.max").read_text().strip()
            used = int((place / "memory.current").read_text())
            if limit != "max":
                left = max(0, int(limit) - used + _reclaimable(place))
                tightest = left if tightest is None else min(tightest, left)
        except (OSError, ValueError):
            pass
        if place == top:
            break
    return tightest


def _reclaimable(place: Path) -> int:
    """File pages count as used but make way when memory is needed."""
    try:
        for line in (place / "memory.stat").read_text().splitlines():
            if line.startswith("inactive_file "):
                return int(line.split()[1])
    except (OSError, ValueError, IndexError):
        pass
    return 0


def _gigabytes(amount: int) -> str:
    return f"{amount / 1e9:,.1f} GB"
