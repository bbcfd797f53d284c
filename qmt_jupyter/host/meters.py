"""How many requests and tokens, how long they waited and how fast they came, since the start.

What a monitoring system reads again and again: counters that only grow, and histograms. A request
is looked at when it takes its slot, at its first token and at its end; a token costs nothing here.
Kept in memory alone and gone with the host, in bounded room: the labels are models of this host,
at most :data:`MOST_MODELS` of them, and codes of errors, never a guest. Pure: time is an argument.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from ..errors import (
    AdmissionRefused,
    Busy,
    DayUsedUp,
    GenerationFailed,
    InviteExpired,
    InviteUsedUp,
    ModelNotAllowed,
    ModelUnknown,
    MonthUsedUp,
    OutOfMemory,
    OutsideHours,
    Paused,
    PromptTooLong,
    QmtError,
    RecordsUnwritable,
    RequestInvalid,
    RequestRateReached,
    RequestsUsedUp,
    Revoked,
    TokenRateReached,
    TokensReserved,
    TokensUsedUp,
    TooManyAtOnce,
    UpstreamRefused,
    UpstreamUnreachable,
    VersionMismatch,
)
from ..harmless import printable
from .rows import HOW_ENDED, LOST, REFUSED, Request

MOST_MODELS = 100
"""Models by name; what others do is added up under :data:`OTHERS`."""
MOST_CODES = 100
OTHERS = "others"
LONGEST_LABEL = 120
"""A model's name is cut to so many characters."""
SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
SPEEDS = (1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 50.0, 75.0, 100.0, 150.0, 200.0, 300.0, 500.0, 1000.0)
# How requests end that this host has let in; what was lost, a former one had.
_HERE = tuple(how for how in HOW_ENDED if how != LOST)
# There from the beginning: of a counter that begins with 1, nobody sees that it has grown.
_REFUSALS: tuple[type[QmtError], ...] = (
    Busy, DayUsedUp, ModelNotAllowed, ModelUnknown, MonthUsedUp, OutsideHours, Paused,
    RecordsUnwritable, RequestInvalid, RequestRateReached, RequestsUsedUp, TokenRateReached,
    TokensReserved, TokensUsedUp, TooManyAtOnce,
)  # fmt: skip
_FAILURES: tuple[type[QmtError], ...] = (
    GenerationFailed, OutOfMemory, PromptTooLong, UpstreamRefused, UpstreamUnreachable,
)  # fmt: skip
_TURNED_AWAY: tuple[type[QmtError], ...] = (
    AdmissionRefused, Busy, InviteExpired, InviteUsedUp, Revoked, VersionMismatch,
)  # fmt: skip
# A few tokens that come at once say nothing of a speed.
_LEAST_TOKENS = 8
_LEAST_SECONDS = 0.001


@dataclass
class Now:
    """What one model's requests that have not ended do: how many, and their tokens so far."""

    running: int = 0
    waiting: int = 0
    prompt: int = 0
    completion: int = 0


class Histogram:
    """How many values were at most each of ``bounds``, and their sum."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def add(self, value: float) -> None:
        """Count one value; less than nothing counts as nothing."""
        value = max(0.0, value)
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def as_dict(self) -> dict[str, Any]:
        """``{"buckets": [[at most, how many], …], "sum", "count"}``; each bucket holds the last."""
        counts = list(accumulate(self._counts))
        buckets = [list(each) for each in zip(self._bounds, counts, strict=False)]
        return {"buckets": buckets, "sum": self._sum, "count": counts[-1]}


class Meters:
    """Counts requests of one host. A ``model`` is a name that guests see; "" where none was."""

    def __init__(self) -> None:
        self._models: dict[str, None] = {}
        self._requests: Counter[tuple[str, str]] = Counter()
        self._refused = Counter({each.code: 0 for each in _REFUSALS})
        self._failed = Counter({each.code: 0 for each in _FAILURES})
        self._not_admitted = Counter({each.code: 0 for each in _TURNED_AWAY})
        # Tokens of requests that have ended, and the most that was ever told.
        self._ended: dict[str, tuple[int, int]] = {}
        self._most_told: dict[str, tuple[int, int]] = {}
        self._queued: dict[str, Histogram] = {}
        self._first_token: dict[str, Histogram] = {}
        self._speed: dict[str, Histogram] = {}

    # What happens ----------------------------------------------------------------------------

    def not_admitted(self, code: str) -> None:
        """A guest that connected was turned away, for the reason with this ``code``."""
        _count(self._not_admitted, code)

    def refused(self, model: str, code: str) -> None:
        """A request was not let in."""
        self._requests[self._label(model), REFUSED] += 1
        _count(self._refused, code)

    def waited(self, model: str, seconds: float) -> None:
        """A request got its slot, or gave up waiting for it."""
        self._of(self._queued, model, SECONDS).add(seconds)

    def spoke(self, model: str, seconds: float) -> None:
        """An answer began, so long after it was asked for."""
        self._of(self._first_token, model, SECONDS).add(seconds)

    def ended(self, row: Request, code: str, seconds: float) -> None:
        """A request that was let in is over, after so many seconds; ``code`` "": without error."""
        model, how = self._label(row.model), row.how or ""
        self._requests[model, how] += 1
        if code:
            _count(self._refused if how == REFUSED else self._failed, code)
        prompt, completion = self._ended.get(model, (0, 0))
        self._ended[model] = prompt + row.prompt_tokens, completion + row.completion_tokens
        if row.first_token_s is not None and row.completion_tokens >= _LEAST_TOKENS:
            streamed = max(seconds - row.first_token_s, _LEAST_SECONDS)
            self._of(self._speed, row.model, SPEEDS).add((row.completion_tokens - 1) / streamed)

    def _of(self, kept: dict[str, Histogram], model: str, bounds: tuple[float, ...]) -> Histogram:
        label = self._label(model)
        if label not in kept:
            kept[label] = Histogram(bounds)
        return kept[label]

    def _label(self, model: str) -> str:
        """What a model goes by here: its name made harmless, while there is room for one more."""
        if not model:
            return ""
        label = printable(model, LONGEST_LABEL) or OTHERS
        if label not in self._models:
            if len(self._models) >= MOST_MODELS:
                return OTHERS
            self._models[label] = None
        return label

    # What is told ----------------------------------------------------------------------------

    def report(self, now: Mapping[str, Now], offered: Iterable[str]) -> dict[str, Any]:
        """Everything so far as plain values; ``now`` is what has not ended, by model.

        What is ``offered`` is there from the beginning, with zeros.
        """
        at_work: dict[str, Now] = {self._label(name): Now() for name in offered}
        for name, each in now.items():
            mine = at_work.setdefault(self._label(name), Now())
            mine.running += each.running
            mine.waiting += each.waiting
            mine.prompt += each.prompt
            mine.completion += each.completion
        counts = Counter({(model, how): 0 for model in at_work for how in _HERE})
        counts.update(self._requests)
        return {
            "requests": [
                {"model": model, "outcome": how, "count": count}
                for (model, how), count in counts.items()
            ],
            "refused": dict(self._refused),
            "failed": dict(self._failed),
            "not_admitted": dict(self._not_admitted),
            "tokens": self._tokens(at_work),
            "queue_seconds": _told(self._queued, at_work, SECONDS),
            "first_token_seconds": _told(self._first_token, at_work, SECONDS),
            "answer_tokens_per_second": _told(self._speed, at_work, SPEEDS),
            "models": [
                {"model": model, "running": each.running, "waiting": each.waiting}
                for model, each in at_work.items()
            ],
        }

    def _tokens(self, at_work: Mapping[str, Now]) -> list[dict[str, Any]]:
        """Of each model, prompts' and answers'. An engine's correction downwards takes nothing
        back: what comes next fills the gap first."""
        for model in {**self._ended, **at_work}:
            now = at_work.get(model, Now())
            prompt, completion = self._ended.get(model, (0, 0))
            told = self._most_told.get(model, (0, 0))
            self._most_told[model] = (
                max(told[0], prompt + now.prompt),
                max(told[1], completion + now.completion),
            )
        return [
            {"model": model, "prompt": prompt, "completion": completion}
            for model, (prompt, completion) in self._most_told.items()
        ]


def _count(counter: Counter[str], code: str) -> None:
    counter[code if code in counter or len(counter) < MOST_CODES else OTHERS] += 1


def _told(
    kept: Mapping[str, Histogram], models: Iterable[str], bounds: tuple[float, ...]
) -> dict[str, Any]:
    """The histograms as plain values; empty ones where a model has none yet."""
    empty = {model: Histogram(bounds) for model in models}
    return {model: each.as_dict() for model, each in (empty | dict(kept)).items()}
