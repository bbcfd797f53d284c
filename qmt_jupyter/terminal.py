"""What a terminal shows: a progress bar, and a model's text made harmless."""

from __future__ import annotations

import sys
from collections.abc import Callable


def plain(text: str) -> str:
    """A model's text without what would steer a terminal."""
    return "".join(
        c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text
    )


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
