"""What Prometheus reads: text that stays readable whatever models are called, and true numbers."""

from __future__ import annotations

import asyncio

import prometheus_client
import pytest
from prometheus_client.parser import text_string_to_metric_families

from qmt_jupyter import aio
from qmt_jupyter.host.meters import Meters, Now
from qmt_jupyter.host.rows import Request
from qmt_jupyter.hub.metrics import CONTENT_TYPE, exposition
from qmt_jupyter.providers.echo import Echo

HOSTILE = [
    'a"b', "a\\", "a\nqmt_slots 99", "{}", "a,model=b", '"} 1\nqmt_slots 99\nx{y="', "\ud800", "",
    "\u202eevil", "#", "x" * 10_000, "🦙 model", "a\x00b", "é", "a\rb", "\u2028qmt_slots 99",
]  # fmt: skip
NUMBERS = {"slots": 4, "connections": 3, "guests": 2, "active_users": 1}


def samples(text):
    """``{(name, labels): value}`` of a scrape, read as Prometheus does; no series comes twice."""
    found = {}
    for family in text_string_to_metric_families(text.decode("utf-8")):
        assert family.documentation, family.name
        assert family.type in ("counter", "gauge", "histogram", "info")
        for each in family.samples:
            key = (each.name, tuple(sorted(each.labels.items())))
            assert key not in found, key
            found[key] = each.value
    return found


def busy_meters(names):
    meters = Meters()
    for name in names:
        meters.waited(name, 0.2)
        meters.spoke(name, 0.3)
        row = Request(1, None, name, 0.0, 0.1, 0.3, 5, 20, False, 9.0, "completed")
        meters.ended(row, name and "generation-failed", 2.0)
        meters.refused(name, "busy")
        meters.not_admitted("revoked")
    return meters


@pytest.mark.parametrize("name", HOSTILE, ids=ascii)
def test_a_hostile_name_makes_no_line_of_its_own(name):
    report = {**busy_meters([name]).report({name: Now(1, 1, 1, 1)}, [name]), **NUMBERS}
    found = samples(exposition(report))
    assert found["qmt_slots", ()] == 4
    assert sum(v for (n, _), v in found.items() if n == "qmt_requests_total") == 2
    plain = {**busy_meters(["m"]).report({"m": Now(1, 1, 1, 1)}, ["m"]), **NUMBERS}
    assert {key[0] for key in samples(exposition(plain))} == {key[0] for key in found}


def test_all_hostile_names_at_once_are_told_apart_and_counted():
    report = {**busy_meters(HOSTILE).report({}, HOSTILE), **NUMBERS}
    found = samples(exposition(report))
    requests = {key: v for key, v in found.items() if key[0] == "qmt_requests_total"}
    assert sum(requests.values()) == 2 * len(HOSTILE)
    assert len({dict(labels)["model"] for _, labels in requests}) >= len(HOSTILE) - 2


def test_the_text_says_what_the_report_says():
    meters = busy_meters(["m", "m", "n"])
    report = {**meters.report({"m": Now(2, 1, 7, 8)}, ["m", "n"]), **NUMBERS}
    found = samples(exposition(report))

    def value(name, **labels):
        return found[name, tuple(sorted(labels.items()))]

    assert value("qmt_requests_total", model="m", outcome="completed") == 2
    assert value("qmt_requests_total", model="m", outcome="refused") == 2
    assert value("qmt_requests_total", model="n", outcome="cancelled") == 0
    assert value("qmt_tokens_total", model="m", kind="prompt") == 10 + 7
    assert value("qmt_tokens_total", model="m", kind="answer") == 40 + 8
    assert value("qmt_refusals_total", code="busy") == 3
    assert value("qmt_refusals_total", code="day-used-up") == 0
    assert value("qmt_failures_total", code="generation-failed") == 3
    assert value("qmt_admission_refusals_total", code="revoked") == 3
    assert value("qmt_queue_seconds_bucket", model="m", le="0.1") == 0
    assert value("qmt_queue_seconds_bucket", model="m", le="0.25") == 2
    assert value("qmt_queue_seconds_bucket", model="m", le="+Inf") == 2
    assert value("qmt_queue_seconds_count", model="m") == 2
    assert value("qmt_queue_seconds_sum", model="m") == pytest.approx(0.4)
    assert value("qmt_first_token_seconds_count", model="n") == 1
    assert value("qmt_answer_tokens_per_second_sum", model="n") == pytest.approx(19 / 1.7)
    assert value("qmt_requests_running", model="m") == 2
    assert value("qmt_requests_waiting", model="m") == 1
    for name, number in NUMBERS.items():
        assert value(f"qmt_{name}") == number


def test_other_services_answer_or_do_not():
    peers = [{"url": "http://a/", "answers": True}, {"url": 'http://b/"\\', "answers": False}]
    found = samples(exposition({**Meters().report({}, ["m"]), **NUMBERS, "peers": peers}))
    assert found["qmt_peer_up", (("peer", "http://a/"),)] == 1
    assert found["qmt_peer_up", (("peer", 'http://b/"\\'),)] == 0


def test_what_others_count_in_this_process_stays_out():
    counter = prometheus_client.Counter("somebody_elses", "Not ours.")
    try:
        counter.inc()
        found = samples(exposition({**Meters().report({}, ["m"]), **NUMBERS}))
    finally:
        prometheus_client.REGISTRY.unregister(counter)
    assert {name for name, _ in found if not name.startswith("qmt_")} == set()


def test_a_host_says_it_of_itself_and_of_nobody():
    async def asked():
        async with (
            await aio.host(Echo(slots=3), name="Team", uses=0) as host,
            await aio.join(host.invite.url, name="Alice of the course") as mesh,
        ):
            await mesh.chat("one two three").read()
            return await host.metrics(), host.peer_id

    report, peer_id = asyncio.run(asked())
    text = exposition(report)
    found = samples(text)
    assert found["qmt_slots", ()] == 3
    assert found["qmt_tokens_total", (("kind", "answer"), ("model", "echo"))] == 3
    assert found["qmt_active_users", ()] == found["qmt_guests", ()] == 1
    for private in ("Alice", "12D3KooW", peer_id, "qmt://", "127.0.0.1"):
        assert private not in text.decode()


def test_the_type_is_one_that_prometheus_knows():
    assert CONTENT_TYPE.startswith("text/plain; version=")
