"""Counters and histograms: what happened is what they say, in bounded room, and they only grow."""

from __future__ import annotations

import math

import pytest

from qmt_jupyter.errors import Busy, LedgerDamaged, OptionInvalid, RequestRateReached
from qmt_jupyter.host import records
from qmt_jupyter.host.hours import HOUR, tokens_by_hour
from qmt_jupyter.host.ledger import FILE, open_for_writing
from qmt_jupyter.host.meters import (
    MOST_CODES,
    MOST_MODELS,
    OTHERS,
    SECONDS,
    Histogram,
    Meters,
    Now,
)
from qmt_jupyter.host.rows import HOW_ENDED, InviteRecord, Membership, Request
from tests.host.test_dispatch import Books, Scripted, piece, spent

pytestmark = pytest.mark.anyio

NOON = 1_700_000_000 // HOUR * HOUR


def said(counts):
    """The codes that were counted at all."""
    return {code: count for code, count in counts.items() if count}


def outcomes(report, model):
    return {
        each["outcome"]: each["count"]
        for each in report["requests"]
        if each["model"] == model and each["count"]
    }


def tokens(report):
    return {each["model"]: (each["prompt"], each["completion"]) for each in report["tokens"]}


def ended(model="m", how="completed", prompt=5, completion=20, first=0.5):
    return Request(1, None, model, 0.0, 0.1, first, prompt, completion, False, 9.0, how)


def test_a_histogram_counts_a_value_in_every_bucket_that_holds_it():
    histogram = Histogram((1.0, 2.0, 5.0))
    for value in (-3.0, 1.0, 1.5, 99.0):
        histogram.add(value)
    assert histogram.as_dict() == {
        "buckets": [[1.0, 2], [2.0, 3], [5.0, 3]], "sum": 101.5, "count": 4
    }  # fmt: skip


def test_what_a_model_is_offered_for_is_there_before_anybody_asked():
    report = Meters().report({}, ["m"])
    ways = {each["outcome"] for each in report["requests"]}
    assert ways == set(HOW_ENDED) - {"lost"}
    assert {each["count"] for each in report["requests"]} == {0}
    assert tokens(report) == {"m": (0, 0)}
    assert report["queue_seconds"]["m"]["count"] == 0
    assert len(report["queue_seconds"]["m"]["buckets"]) == len(SECONDS)
    assert report["models"] == [{"model": "m", "running": 0, "waiting": 0}]


def test_tokens_of_what_runs_count_and_a_correction_takes_nothing_back():
    meters = Meters()
    running = {"m": Now(running=1, prompt=10, completion=30)}
    assert tokens(meters.report(running, ["m"])) == {"m": (10, 30)}
    meters.ended(ended(prompt=8, completion=25), "", 3.0)
    assert tokens(meters.report({}, ["m"])) == {"m": (10, 30)}
    meters.ended(ended(prompt=8, completion=25), "", 3.0)
    assert tokens(meters.report({}, ["m"])) == {"m": (16, 50)}


def test_speed_is_of_the_answer_alone_and_needs_some_tokens():
    meters = Meters()
    meters.ended(ended(completion=21, first=1.0), "", 3.0)
    meters.ended(ended(completion=3), "", 3.0)
    meters.ended(ended(completion=0, first=None), "", 3.0)
    assert meters.report({}, [])["answer_tokens_per_second"]["m"]["sum"] == 10.0
    assert meters.report({}, [])["answer_tokens_per_second"]["m"]["count"] == 1
    meters.ended(ended(completion=100, first=3.0), "", 3.0)
    assert math.isfinite(meters.report({}, [])["answer_tokens_per_second"]["m"]["sum"])


def test_a_thousand_models_and_codes_take_bounded_room_and_nothing_is_lost():
    meters = Meters()
    for number in range(1000):
        model = f"model {number}"
        meters.waited(model, 0.1)
        meters.spoke(model, 0.1)
        meters.ended(ended(model, "failed"), f"code-{number}", 2.0)
    offered = [f"model {number}" for number in range(1000)]
    report = meters.report({name: Now(running=1, prompt=1) for name in offered}, offered)
    labels = {each["model"] for each in report["requests"]}
    assert len(labels) == MOST_MODELS + 1
    assert OTHERS in labels
    assert sum(each["count"] for each in report["requests"]) == 1000
    assert sum(each["running"] for each in report["models"]) == 1000
    for name in ("queue_seconds", "first_token_seconds", "answer_tokens_per_second"):
        assert set(report[name]) == labels
        assert sum(each["count"] for each in report[name].values()) == 1000
    assert sum(each[0] for each in tokens(report).values()) == 6 * 1000
    assert len(report["failed"]) <= MOST_CODES + 1
    assert sum(report["failed"].values()) == 1000


def test_a_hostile_name_becomes_one_short_line():
    meters = Meters()
    for name in ("a\nb", "x" * 5000, "\ud800", "\u202egpj.exe"):
        meters.ended(ended(name), "", 2.0)
    labels = [each["model"] for each in meters.report({}, [])["tokens"]]
    assert len(labels) == 4
    assert all(label.isprintable() and len(label) <= 120 for label in labels)
    assert labels[0] == "a b"
    assert all(labels), "none can be taken for no model"


async def test_a_completed_answer_is_counted_with_its_times():
    books = Books(Scripted(*[piece("a")] * 9, piece("b", "stop"), spent(7, 12)))
    await books.replies()
    report = books.book.meters.report(books.book.now(), ["m"])
    assert outcomes(report, "m") == {"completed": 1}
    assert tokens(report) == {"m": (7, 12)}
    for name in ("queue_seconds", "first_token_seconds", "answer_tokens_per_second"):
        assert report[name]["m"]["count"] == 1
    assert said(report["failed"]) == said(report["refused"]) == {}


async def test_a_longer_answer_is_looked_at_no_more_often():
    async def calls(pieces):
        books = Books(Scripted(*[piece("a")] * pieces, piece("b", "stop")))
        made = []

        class Watched(Meters):
            def __getattribute__(self, name):
                made.append(name)
                return super().__getattribute__(name)

        books.book.meters = Watched()
        await books.replies()
        return made

    assert await calls(1000) == await calls(20) != []


async def test_who_gives_up_waiting_has_waited_and_said_nothing():
    books = Books(Scripted(piece("a"), piece("b", "stop"), spent(7, 2)))
    first, second = books.answer(), books.answer()
    await anext(first)
    await anext(second)
    now = books.book.now()["m"]
    assert (now.running, now.waiting) == (1, 1)
    await second.aclose()
    await first.aclose()
    report = books.book.meters.report(books.book.now(), ["m"])
    assert outcomes(report, "m") == {"cancelled": 2}
    assert report["queue_seconds"]["m"]["count"] == 2
    assert report["first_token_seconds"]["m"]["count"] == 0
    assert report["models"] == [{"model": "m", "running": 0, "waiting": 0}]


async def test_a_failure_is_counted_by_its_code_an_unexpected_one_too():
    class Broken(Scripted):
        async def chat(self, model, request):
            yield piece("a")
            raise ZeroDivisionError

    books = Books(Broken())
    with pytest.raises(ZeroDivisionError):
        await books.replies()
    silent = Books(Scripted(piece("a")))
    with pytest.raises(Exception, match="without saying why"):
        await silent.replies()
    for each in (books, silent):
        report = each.book.meters.report({}, [])
        assert outcomes(report, "m") == {"failed": 1}
        assert said(report["failed"]) == {"generation-failed": 1}


async def test_a_refusal_at_the_door_is_counted_with_its_model_if_there_is_one():
    books = Books(Scripted(piece("a", "stop")), requests_per_minute=1)
    await books.replies()
    with pytest.raises(RequestRateReached):
        await books.replies()
    with pytest.raises(Exception, match="no model"):
        await books.replies(model="no such thing\n")
    report = books.book.meters.report({}, ["m"])
    assert outcomes(report, "m") == {"completed": 1, "refused": 1}
    assert outcomes(report, "") == {"refused": 1}
    assert said(report["refused"]) == {"request-rate": 1, "model-unknown": 1}


async def test_who_is_not_in_the_books_is_refused_once():
    books = Books(Scripted(piece("a", "stop")), error=Busy("The disk is full."))
    with pytest.raises(Busy):
        await books.replies()
    report = books.book.meters.report({}, ["m"])
    assert outcomes(report, "m") == {"refused": 1}
    assert said(report["refused"]) == {"busy": 1}
    assert said(report["failed"]) == {}


# Tokens by hour ------------------------------------------------------------------------------


@pytest.fixture
def kept(tmp_path):
    """Requests in three hours of two days, of a guest and of the owner."""
    connection = open_for_writing(tmp_path)
    records.add_invite(connection, InviteRecord("i", "x", NOON, 0, 0))
    records.admit(connection, Membership("g", "i", "guest", "", NOON))
    rows = [
        Request(1, "g", "m", NOON - 1, 0.0, 0.1, 1, 10, False, NOON + 5, "completed"),
        Request(2, "g", "m", NOON, 0.0, 0.1, 2, 20, False, NOON + 5, "completed"),
        Request(3, None, "m", NOON + HOUR - 0.5, 0.0, 0.1, 3, 30, False, None, None),
        Request(4, "g", "m", NOON + 30 * HOUR, 0.0, 0.1, 4, 40, False, NOON, "refused"),
    ]
    records.put_requests(connection, rows)
    connection.close()
    return tmp_path


def test_each_hour_that_had_something_is_told_once_and_in_order(kept):
    hours = [[NOON - HOUR, 1, 10], [NOON, 5, 50], [NOON + 30 * HOUR, 4, 40]]
    assert tokens_by_hour(kept, 0) == hours
    assert tokens_by_hour(kept, -1e12) == hours
    assert tokens_by_hour(kept, NOON + HOUR - 1) == hours[1:], "from the begin of the hour"
    assert tokens_by_hour(kept, NOON + HOUR) == hours[2:]
    assert tokens_by_hour(kept, 1e12) == []


def test_hours_of_a_host_that_has_no_records_are_none(tmp_path):
    assert tokens_by_hour(tmp_path / "nowhere", 0) == []


@pytest.mark.parametrize("since", [math.nan, math.inf, -math.inf])
def test_a_time_that_is_none_is_refused(kept, since):
    with pytest.raises(OptionInvalid):
        tokens_by_hour(kept, since)


def test_records_that_are_damaged_are_an_error_and_stay_where_they_are(kept):
    (kept / FILE).write_bytes(b"not a database, " * 400)
    with pytest.raises(LedgerDamaged):
        tokens_by_hour(kept, 0)
    assert (kept / FILE).read_bytes().startswith(b"not a database")
