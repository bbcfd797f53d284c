"""Usage and models as plain text tables, for terminals and for notebooks without a front end."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from .errors import printable
from .identity.lifetime import describe
from .identity.peer_id import short


def table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Columns as wide as their content; numbers to the right. Cells are made printable."""
    cells = [[printable(str(cell), 80) for cell in row] for row in rows]
    widths = [max(len(line[i]) for line in [list(heads), *cells]) for i in range(len(heads))]
    numeric = [
        bool(rows) and all(isinstance(row[i], int) for row in rows) for i in range(len(heads))
    ]

    def line(texts: Sequence[str]) -> str:
        padded = [
            text.rjust(width) if right else text.ljust(width)
            for text, width, right in zip(texts, widths, numeric, strict=True)
        ]
        return "  ".join(padded).rstrip()

    rule = "  ".join("-" * width for width in widths)
    return "\n".join([line(heads), rule, *(line(row) for row in cells)])


def usage_table(usage: dict[str, Any], now: float | None = None) -> str:
    """The host's usage: a heading for each invite, a row for each guest."""
    now = time.time() if now is None else now
    parts = []
    for invite in usage["invites"]:
        uses = f"{invite['uses']} of {invite['max_uses']}" if invite["max_uses"] else invite["uses"]
        ends = invite["expires_at"]
        left = (
            "no end" if ends is None else f"{describe(ends - now)} left" if ends > now else "over"
        )
        name = printable(invite["name"], 60)
        parts.append(f"Invite {invite['invite_id'][:8]} to {name}: {uses} uses taken, {left}")
        rows = [
            (
                short(guest["peer_id"]),
                guest["requests"],
                guest["running"],
                guest["prompt_tokens"],
                guest["completion_tokens"],
                f"{describe(now - guest['last_seen'])} ago" if guest["last_seen"] else "never",
            )
            for guest in invite["guests"]
        ]
        if rows:
            heads = ("guest", "requests", "running", "tokens in", "tokens out", "last asked")
            parts.append(table(heads, rows))
    return "\n".join(parts)


def models_table(models: Sequence[dict[str, Any]]) -> str:
    """The models that can be asked."""
    rows = [
        (each["name"], each["context"] or "", each["mesh"], short(each["host"])) for each in models
    ]
    return table(("model", "context", "mesh", "host"), rows)
