"""What a terminal shows: results, a progress bar, and what it cannot show."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from .errors import HostNotFound, QmtError


def prepare_streams() -> None:
    """Have the standard streams take whatever is printed, where they lack letters or are closed."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")


def shell_line(*words: str) -> str:
    """The words as one line that this system's shell takes apart again."""
    return subprocess.list2cmdline(words) if os.name == "nt" else shlex.join(words)


def shown_if_possible(picture: str) -> str:
    """A picture made of characters, or a word where standard output lacks them."""
    try:
        picture.encode(sys.stdout.encoding or "utf-8")
    except (UnicodeEncodeError, LookupError):
        return "(This terminal cannot show the QR code.)"
    return picture


def progress_bar(what: str) -> Callable[[int, int], None]:
    """A bar on standard error, where a person watches; nothing otherwise."""

    def show(done: int, total: int) -> None:
        if not sys.stderr.isatty():
            return
        share = min(1.0, done / total) if total else 0.0
        filled = round(share * 30)
        bar = "█" * filled + "░" * (30 - filled)
        end = "\n" if total and done >= total else ""
        print(
            f"\r{what} {bar} {share:4.0%} of {total / 1e6:.0f} MB",
            end=end,
            file=sys.stderr,
            flush=True,
        )

    return show


class Output:
    """Text for people, or one JSON object a line."""

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json

    def event(self, event: str, text: str, **fields: Any) -> None:
        """One thing that happened: ``text`` for people, the fields for programs."""
        if self.as_json:
            self.json({"event": event, **fields})
        elif text:
            print(text, flush=True)

    def json(self, value: dict[str, Any]) -> None:
        """One object, one line."""
        print(json.dumps(value, ensure_ascii=False), flush=True)

    def error(self, error: QmtError) -> None:
        """What went wrong, and what to do."""
        if self.as_json:
            report = {"report": error.report} if isinstance(error, HostNotFound) else {}
            self.json(
                {
                    "event": "error",
                    "code": error.code,
                    "sentence": error.sentence,
                    "next_step": error.next_step,
                    **report,
                }
            )
        else:
            said = str(error)
            said = said if said.startswith("qmt") else f"qmt: {said}"
            print(said, file=sys.stderr, flush=True)
