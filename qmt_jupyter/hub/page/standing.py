"""Whether a user can ask now and, if not, why. Pure: the time is an argument."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ...facade import Allowance


def standing(entry: Mapping[str, Any], allowance: Allowance, now: float) -> dict[str, Any]:
    """``{"state", "again"}``: ``open``, or what stands in the way that will last longest.

    ``paused``, ``closed`` (outside the hours of the week), ``month`` or ``day`` (used up).
    ``again`` is when the hours begin, in seconds since 1970; None where it is not known.
    """
    week = allowance.week()
    left = entry["left"]
    if allowance.paused:
        return {"state": "paused", "again": None}
    if not week.is_open(now):
        return {"state": "closed", "again": week.opens(now)}
    for span in ("month", "day"):
        if left[span] is not None and left[span] <= 0:
            return {"state": span, "again": None}
    return {"state": "open", "again": None}
