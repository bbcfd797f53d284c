"""From samples to figures, and figures to the terminal."""

from __future__ import annotations

import json
from collections.abc import Mapping

Budget = tuple[str, float]
"""``≤`` or ``≥`` and the number that DESIGN's table names."""


def percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def jain(shares: list[int]) -> float:
    """Jain's fairness index: 1 where all have the same, 1/n where one has everything."""
    return sum(shares) ** 2 / (len(shares) * sum(share * share for share in shares))


def show(figures: Mapping[str, float], budgets: Mapping[str, Budget], as_json: bool) -> None:
    """Print one JSON object, or a line a figure with its budget."""
    if as_json:
        print(json.dumps({name: round(value, 4) for name, value in figures.items()}))
        return
    width = max(map(len, figures))
    for name, value in figures.items():
        budget = "{} {:g}".format(*budgets[name]) if name in budgets else ""
        print(f"{name:<{width}}  {value:>10.3f}  {budget}".rstrip())
