"""Everybody's use as CSV, one row a user, that a spreadsheet may open without harm."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from typing import Any

COLUMNS = (
    "user", "paused", "requests", "prompt_tokens", "completion_tokens", "tokens_today",
    "tokens_month", "elsewhere_today", "elsewhere_month", "tokens_per_day", "tokens_per_month",
    "left_today", "left_month", "concurrent", "priority", "running", "waiting", "last_seen",
)  # fmt: skip
# What makes a cell a formula in one spreadsheet or another, also behind spaces and quotes.
_STARTS = ("=", "+", "-", "@", "\N{FULLWIDTH EQUALS SIGN}", "\N{FULLWIDTH PLUS SIGN}",
           "\N{FULLWIDTH HYPHEN-MINUS}", "\N{FULLWIDTH COMMERCIAL AT}", "|", "%")  # fmt: skip
_BREAKS = str.maketrans(dict.fromkeys("\t\r\n\v\f\0\x85\u2028\u2029", " "))


def text_cell(text: str) -> str:
    """A text that stays a text: on one line, and with ``'`` before what would be a formula."""
    line = text.translate(_BREAKS)
    return f"'{line}" if line.strip(" '\"\xa0\ufeff").startswith(_STARTS) else line


def usage_csv(users: Iterable[Mapping[str, Any]]) -> str:
    """``Host.seats()`` as CSV with a head line; times in UTC, what is unlimited is empty."""
    out = io.StringIO()
    # Marks it as UTF-8, which Excel takes for something else otherwise.
    out.write("\ufeff")
    rows = csv.writer(out, lineterminator="\r\n")
    rows.writerow(COLUMNS)
    for user in users:
        seen = _values(user)
        rows.writerow([_cell(seen.get(column)) for column in COLUMNS])
    return out.getvalue()


def _values(user: Mapping[str, Any]) -> dict[str, Any]:
    limits, elsewhere, left = (user.get(each) or {} for each in ("allowance", "elsewhere", "left"))
    return {
        **user,
        "elsewhere_today": elsewhere.get("day"),
        "elsewhere_month": elsewhere.get("month"),
        "left_today": left.get("day"),
        "left_month": left.get("month"),
        **{
            each: limits.get(each)
            for each in ("tokens_per_day", "tokens_per_month", "concurrent", "priority")
        },
    }


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return text_cell(value)
    if isinstance(value, float):
        return (
            datetime.fromtimestamp(value, timezone.utc).isoformat("T", "seconds") if value else ""
        )
    return str(value)
