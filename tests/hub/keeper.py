"""Runs one program for a test, and leaves nothing of it behind, whoever dies first.

``python keeper.py PROGRAM ARGUMENTS…``: the program gets SIGTERM when this one's standard input ends
(the test said so, or died), and SIGKILL after ``PATIENCE`` seconds. JupyterHub starts its proxy and
its users' servers in sessions of their own; as their subreaper this program is the parent of all
that lose theirs, and ends them last. It says on its standard output which there were.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

PATIENCE = 20.0
# A kernel whose server was ended in a hurry; it ends by itself when it is the child of process 1,
# which no kernel is here.
ENDS_BY_ITSELF = "ipykernel_launcher"
_PR_SET_CHILD_SUBREAPER = 36


def children() -> list[int]:
    """The processes whose parent this one is, or has become."""
    found = []
    for listing in Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += [int(pid) for pid in listing.read_text(encoding="ascii").split()]
    return found


def what_it_is(pid: int) -> str:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return ""
    return b" ".join(words[:4]).decode(errors="replace")


def end_orphans() -> list[str]:
    """End every process that is left, and say which there were; what has ended is none."""
    left = []
    while True:
        for pid in children():
            with contextlib.suppress(OSError):
                if os.waitpid(pid, os.WNOHANG) == (0, 0):
                    name = what_it_is(pid)
                    # One without words has given its memory back: it was about to have ended.
                    left += [name] if name and ENDS_BY_ITSELF not in name else []
                    os.kill(pid, signal.SIGKILL)
                    os.waitpid(pid, 0)
        if not children():
            return left


def main(arguments: list[str]) -> int:
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    program = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=sys.stderr)

    def wait_for_the_end() -> None:
        sys.stdin.buffer.read()
        program.terminate()
        time.sleep(PATIENCE)
        program.kill()

    threading.Thread(target=wait_for_the_end, daemon=True).start()
    # Ctrl-C in a terminal reaches the whole group; who ends the program is the test.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    code = program.wait()
    for name in end_orphans():
        print(name, flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
