"""Hearing a widget while a cell runs, where the kernel has subshells (ipykernel 7 and later)."""

from __future__ import annotations

import contextlib
from typing import Any


def is_pressable(shell: Any) -> bool:
    """Whether a button pressed while a cell runs could reach the kernel behind ``shell`` at once.

    A run without anybody in front of it (nbclient, papermill) says that nothing can be asked.
    """
    kernel = getattr(shell, "kernel", None)
    features = getattr(kernel, "kernel_info", {}).get("supported_features", ())
    return bool(getattr(kernel, "_allow_stdin", False)) and "kernel subshells" in features


def hear_at_once(widget: Any) -> None:
    """Have what the front end sends to ``widget`` handled where the front end sent it.

    ipykernel 7.4 hands a comm's messages to the shell that last sent on that comm, whatever
    subshell they name: what a running cell has shown would be deaf until the cell ends. To be
    called once the comm is open; does nothing where there is no such rule.
    """
    comm = getattr(widget, "comm", None)
    if comm is not None and hasattr(comm, "_reply_subshell_for"):
        with contextlib.suppress(AttributeError):
            comm._reply_subshell_for = _as_sent


def _as_sent(_data: Any, named: Any) -> Any:
    return named
