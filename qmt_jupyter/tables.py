"""Usage and models as plain text tables, for terminals and for notebooks without a front end."""

from __future__ import annotations

import csv
import io
import re
import time
from collections.abc import Sequence
from typing import Any

from .harmless import printable
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
    """The host's usage: a heading for each invite, a row for each guest, and for each user."""
    now = time.time() if now is None else now
    parts = []
    for invite in usage["invites"]:
        name, per_guest = printable(invite["name"], 60), invite["left"] is None
        said = [f"Invite {invite['invite_id'][:8]} to {name}: {_uses(invite)} uses taken"]
        said += [_ends(invite, now), *_left(invite["left"] or {}, invite["limits"])]
        parts.append(", ".join(said))
        rows = [
            (
                guest["membership"][:8],
                short(guest["peer_id"]),
                _claimed(guest["claimed_name"]),
                guest["requests"],
                guest["running"],
                guest["prompt_tokens"],
                guest["completion_tokens"],
                _last_asked(guest, now),
                _broken_off(guest),
                *([_rest(guest["left"])] if per_guest else []),
            )
            for guest in invite["guests"]
        ]
        if rows:
            parts.append(table(_GUEST_HEADS + (("left",) if per_guest else ()), rows))
    if usage["users"]:
        parts += ["Users with seats:", _users_table(usage["users"], now)]
    return "\n".join(parts)


def _users_table(users: Sequence[dict[str, Any]], now: float) -> str:
    rows = [
        (
            printable(user["user"], 40),
            sum(1 for seat in user["seats"] if _ends(seat, now) not in ("revoked", "over")),
            user["requests"],
            user["running"],
            user["prompt_tokens"],
            user["completion_tokens"],
            f"{describe(now - user['last_seen'])} ago" if user["last_seen"] else "never",
            _broken_off(user),
            _rest(user["left"]),
        )
        for user in users
    ]
    return table(("user", "seats", "asked", "now", "in", "out", "last", "broken off", "left"), rows)


def _broken_off(counted: dict[str, Any]) -> str:
    return ", ".join(f"{n} {how}" for how, n in counted["ended"].items() if how != "completed")


# Narrow enough for a notebook; an answer that was completed needs no word.
_GUEST_HEADS = (
    "id", "guest", "calls itself", "asked", "now", "in", "out", "last", "broken off",
)  # fmt: skip


def invites_table(invites: Sequence[dict[str, Any]], now: float | None = None) -> str:
    """The invites, newest last."""
    now = time.time() if now is None else now
    rows = [
        (
            invite["invite_id"][:8],
            invite["name"],
            _uses(invite),
            _ends(invite, now),
            invite["requests"],
            invite["prompt_tokens"] + invite["completion_tokens"],
            limits_phrase(invite["limits"]) or "none",
        )
        for invite in invites
    ]
    return table(("id", "mesh", "uses", "state", "requests", "tokens", "limits"), rows)


def _uses(invite: dict[str, Any]) -> str:
    return f"{invite['uses']} of {invite['max_uses'] or 'any number'}"


def _ends(invite: dict[str, Any], now: float) -> str:
    if invite["revoked_at"] is not None:
        return "revoked"
    ends = invite["expires_at"]
    if ends is None:
        return "no end"
    return f"{describe(ends - now)} left" if ends > now else "over"


def _left(left: dict[str, Any], limits: dict[str, Any]) -> list[str]:
    return [f"{left[key]} of {limits[key]} {key} left" for key in limits if key in left]


def _rest(left: dict[str, Any]) -> str:
    """What a guest has left of its own limits."""
    return ", ".join(f"{number} {what}" for what, number in left.items() if number is not None)


def _claimed(name: str) -> str:
    """A guest's own name, marked as nothing but that."""
    inner = name.replace('"', "'")
    return f'"{inner}"' if name else ""


def _last_asked(guest: dict[str, Any], now: float) -> str:
    if guest["revoked_at"] is not None:
        return "revoked"
    return f"{describe(now - guest['last_seen'])} ago" if guest["last_seen"] else "never"


_ONE = re.compile(r"\b1 (request|token)s")
_LIMIT_WORDS = {
    "requests": "{} requests",
    "tokens": "{} tokens",
    "requests_per_minute": "{} requests a minute",
    "tokens_per_minute": "{} tokens a minute",
    "concurrent": "{} at once",
    "answer_tokens": "answers up to {} tokens",
}


def limits_phrase(limits: dict[str, Any]) -> str:
    """An invite's limits in words; empty where there is none."""
    said = [words.format(limits[key]) for key, words in _LIMIT_WORDS.items() if limits.get(key)]
    said = [_ONE.sub(r"1 \1", each) for each in said]
    if limits.get("models"):
        said.append(f"only {', '.join(limits['models'])}")
    if said and limits.get("per_guest"):
        said.append("each for every guest")
    return ", ".join(said)


def rows_csv(rows: Sequence[dict[str, Any]]) -> str:
    """Rows as CSV with a header. A text that a spreadsheet would compute is made harmless."""
    if not rows:
        return ""
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _plain_cell(value) for key, value in row.items()} for row in rows)
    return out.getvalue()


def _plain_cell(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value[:1] in tuple("=+-@\t\r") else value


def models_table(models: Sequence[dict[str, Any]]) -> str:
    """The models that can be asked, each with how many of its host's slots are taken."""
    rows = [
        (
            each["name"],
            each["context"] or "",
            each["mesh"],
            short(each["host"]),
            load_phrase(each["busy"], each["slots"]),
            round_trip(each["rtt_ms"]),
        )
        for each in models
    ]
    return table(("model", "context", "mesh", "host", "load", "round trip"), rows)


def load_phrase(busy: int | None, slots: int | None) -> str:
    """``2 of 4``, ``4 of 4, 3 wait``; empty where it is not known."""
    if busy is None or slots is None:
        return ""
    waiting = f", {busy - slots} wait" if busy > slots else ""
    return f"{min(busy, slots)} of {slots}{waiting}"


def round_trip(milliseconds: float | None) -> str:
    """Rounded, or empty where it is not known."""
    if milliseconds is None:
        return ""
    return f"{milliseconds:.0f} ms" if milliseconds >= 1 else "under 1 ms"
