"""A host's metrics in the text format that Prometheus reads. Pure, but for the process's own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from .. import __version__

CONTENT_TYPE = CONTENT_TYPE_LATEST


class HostCollector(Collector):
    """What :meth:`qmt_jupyter.Host.metrics` gave, as metrics. No label ever names a person.

    With ``peers``, as :meth:`.peers.Peers.report` gives them, whether each other service answers.
    """

    def __init__(self, report: Mapping[str, Any]) -> None:
        self._report = report

    def collect(self) -> Iterator[Metric]:
        """prometheus_client's hook."""
        info = InfoMetricFamily("qmt", "The service that answers, by its version.")
        info.add_metric([], {"version": __version__})
        yield info
        yield from self._counters()
        yield from self._histograms()
        yield from self._gauges()

    def _counters(self) -> Iterator[Metric]:
        report = self._report
        requests = CounterMetricFamily(
            "qmt_requests",
            "Requests that have ended, by model (empty: the host has none of that name) and by "
            "how they ended.",
            labels=["model", "outcome"],
        )
        for each in report["requests"]:
            requests.add_metric([each["model"], each["outcome"]], each["count"])
        yield requests
        tokens = CounterMetricFamily(
            "qmt_tokens",
            "Tokens of prompts and of answers, those of answers that are being written included.",
            labels=["model", "kind"],
        )
        for each in report["tokens"]:
            tokens.add_metric([each["model"], "prompt"], each["prompt"])
            tokens.add_metric([each["model"], "answer"], each["completion"])
        yield tokens
        for name, told, about in (
            ("qmt_refusals", "refused", "Requests that were refused"),
            ("qmt_failures", "failed", "Requests that failed after they had been let in"),
            (
                "qmt_admission_refusals",
                "not_admitted",
                "Guests that were turned away on connecting",
            ),
        ):
            counter = CounterMetricFamily(name, f"{about}, by the error's code.", labels=["code"])
            for code, count in report[told].items():
                counter.add_metric([code], count)
            yield counter

    def _histograms(self) -> Iterator[Metric]:
        for name, told, about in (
            (
                "qmt_queue_seconds",
                "queue_seconds",
                "How long requests waited for a slot, or until they gave up waiting.",
            ),
            (
                "qmt_first_token_seconds",
                "first_token_seconds",
                "From asking to the first token of the answer, the wait for a slot included.",
            ),
            (
                "qmt_answer_tokens_per_second",
                "answer_tokens_per_second",
                "How fast one answer came, from its first token to its last.",
            ),
        ):
            histogram = HistogramMetricFamily(name, about, labels=["model"])
            for model, each in self._report[told].items():
                buckets = [(str(most), count) for most, count in each["buckets"]]
                histogram.add_metric([model], [*buckets, ("+Inf", each["count"])], each["sum"])
            yield histogram

    def _gauges(self) -> Iterator[Metric]:
        for name, told, about in (
            ("qmt_requests_running", "running", "Requests that have a slot now."),
            ("qmt_requests_waiting", "waiting", "Requests that wait for a slot now."),
        ):
            by_model = GaugeMetricFamily(name, about, labels=["model"])
            for each in self._report["models"]:
                by_model.add_metric([each["model"]], each[told])
            yield by_model
        peers = GaugeMetricFamily(
            "qmt_peer_up",
            "Whether another service that is counted together with this one answers.",
            labels=["peer"],
        )
        for peer in self._report.get("peers", ()):
            peers.add_metric([peer["url"]], peer["answers"])
        yield peers
        for name, about in (
            ("slots", "Requests that run side by side, of all models together."),
            ("connections", "Connections of guests that were admitted."),
            ("guests", "Guests that are connected, each once."),
            (
                "active_users",
                "Who asked something in the last five minutes, or whose requests run.",
            ),
        ):
            yield GaugeMetricFamily(f"qmt_{name}", about, value=self._report[name])


def exposition(report: Mapping[str, Any]) -> bytes:
    """The text that answers a scrape, of :data:`CONTENT_TYPE`, from ``await host.metrics()``."""
    # Of its own: a library that counts for itself in this process stays out of it.
    registry = CollectorRegistry(auto_describe=False)
    registry.register(HostCollector(report))
    ProcessCollector(namespace="qmt", registry=registry)
    return generate_latest(registry)
