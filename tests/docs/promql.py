"""As much of Prometheus's query language as this project's dashboard and alerts speak.

Stricter than the original: a counter, a histogram's buckets included, is looked at only through
``rate`` or ``increase``, a quantile needs buckets that are still told apart, and only labels that a
metric has are asked for. Metrics are given as ``{name: labels}``.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

# What Prometheus adds to everything that it scrapes.
TARGET = {"instance", "job"}
_AGGREGATES = {"sum", "max", "min", "avg", "count"}
_OVER_TIME = {"rate", "increase"}
_OPERATORS = [{"or"}, {"and", "unless"}, {"==", "!=", "<", ">", "<=", ">="}, {"+", "-"}, {"*", "/"}]
_TOKEN = re.compile(
    r"\s*(?:(?P<string>\"(?:[^\"\\]|\\.)*\")|(?P<number>\d+(?:\.\d+)?(?![\w.]))|"
    r"(?P<duration>\d+[smhd])|(?P<name>[A-Za-z_:][\w:]*)|(?P<sign>=~|!~|[=!<>]=|[-+*/(){}\[\],=<>]))"
)


class QueryError(AssertionError):
    """What is wrong with an expression."""


class _Reader:
    def __init__(self, text: str, metrics: Mapping[str, Collection[str]]) -> None:
        self.metrics = metrics
        self.used: set[str] = set()
        self.tokens: list[tuple[str, str]] = []
        at, text = 0, text.rstrip()
        while at < len(text):
            found = _TOKEN.match(text, at)
            if found is None:
                raise QueryError(f"cannot read {text[at:]!r}")
            kind = found.lastgroup or ""
            self.tokens.append((kind, found[kind]))
            at = found.end()
        self.tokens.append(("end", ""))

    @property
    def next(self) -> str:
        return self.tokens[0][1] if self.tokens[0][0] != "string" else ""

    def take(self, *wanted: str, kind: str = "") -> str:
        """The next token, if it is one of ``wanted`` or of the ``kind``."""
        found, text = self.tokens.pop(0)
        if (wanted and text not in wanted) or (kind and found != kind):
            raise QueryError(f"{text!r} where {kind or ' or '.join(wanted)} belongs")
        return text

    # Each of these returns the labels that its result is told apart by (None: a number).

    def expression(self, level: int = 0) -> set[str] | None:
        if level == len(_OPERATORS):
            return self.primary()
        labels = self.expression(level + 1)
        while self.next in _OPERATORS[level]:
            operator = self.take()
            other = self.expression(level + 1)
            if labels is not None and other is not None and labels != other and level != 0:
                raise QueryError(f"{operator} between {sorted(labels)} and {sorted(other)}")
            labels = other if labels is None else labels
        return labels

    def primary(self) -> set[str] | None:
        kind, text = self.tokens[0]
        if kind == "number":
            self.take()
            return None
        if text == "(":
            self.take()
            labels = self.expression()
            self.take(")")
            return labels
        name = self.take(kind="name")
        if name in _AGGREGATES:
            return self.aggregate()
        if name in _OVER_TIME:
            self.take("(")
            labels = self.selector(self.take(kind="name"), over_time=True)
            self.take(")")
            return labels
        if name == "histogram_quantile":
            return self.quantile()
        return self.selector(name, over_time=False)

    def aggregate(self) -> set[str]:
        kept: set[str] = set()
        if self.next == "by":
            self.take()
            self.take("(")
            kept.add(self.take(kind="name"))
            while self.next == ",":
                self.take()
                kept.add(self.take(kind="name"))
            self.take(")")
        self.take("(")
        labels = self.expression()
        self.take(")")
        if labels is None or not kept <= labels:
            raise QueryError(f"by {sorted(kept)}, of {sorted(labels or ())}")
        return kept

    def quantile(self) -> set[str]:
        self.take("(")
        if not 0 < float(self.take(kind="number")) < 1:
            raise QueryError("a quantile is between 0 and 1")
        self.take(",")
        before = set(self.used)
        labels = self.expression()
        self.take(")")
        if labels is None or "le" not in labels:
            raise QueryError("a quantile of what is not told apart by le")
        if not all(name.endswith("_bucket") for name in self.used - before):
            raise QueryError("a quantile of what are no buckets")
        return labels - {"le"}

    def selector(self, name: str, *, over_time: bool) -> set[str]:
        if name not in self.metrics:
            raise QueryError(f"there is no metric {name}")
        self.used.add(name)
        labels = {*self.metrics[name], *TARGET}
        if self.next == "{":
            self.take()
            while self.next != "}":
                label = self.take(kind="name")
                if label not in labels:
                    raise QueryError(f"{name} has no label {label}")
                sign = self.take("=", "!=", "=~", "!~")
                value = self.take(kind="string")[1:-1]
                if "~" in sign:
                    re.compile(value)
                if self.next == ",":
                    self.take()
            self.take()
        counts = name.endswith(("_total", "_bucket", "_count", "_sum"))
        if counts != over_time:
            raise QueryError(f"{name} {'needs a' if counts else 'has no'} rate")
        if over_time:
            self.take("[")
            self.take(kind="duration")
            self.take("]")
        return labels


def check(text: str, metrics: Mapping[str, Collection[str]]) -> set[str]:
    """The names of the metrics that an expression uses; raises :class:`QueryError`."""
    reader = _Reader(text, metrics)
    labels = reader.expression()
    reader.take("")
    if labels is None:
        raise QueryError("nothing but a number")
    return reader.used
