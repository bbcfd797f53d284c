"""What goes on now: tokens over time in bounded room, speeds that follow, who runs and waits."""

from __future__ import annotations

from qmt_jupyter.host.account import Account
from qmt_jupyter.host.activity import EVERY, KEPT, Meter
from qmt_jupyter.host.report import activity_report
from qmt_jupyter.host.usage import GuestUsage, UsageBook

START = 1_000_000 * EVERY


async def nothing(rows):
    pass


def book_of(clock=0.0):
    book = UsageBook(1, write=nothing, post=lambda rows: None)

    def begin(asker, guest, prompt=3):
        grant = Account().begin(prompt=prompt, wanted=None, longest=100, now=clock)
        counted = book.begin(asker, guest, grant, "m", START, clock)
        counted.recorded.close()
        return counted

    return book, begin


def test_tokens_are_added_up_for_every_few_seconds_that_had_any():
    meter = Meter()
    meter.add_up(START)
    assert meter.series() == []
    meter.prompt, meter.completion = 5, 10
    meter.add_up(START + 1)
    meter.completion = 12
    meter.add_up(START + 4.9)
    meter.completion = 20
    meter.add_up(START + 3 * EVERY)
    assert meter.series() == [[START, 5, 12], [START + 3 * EVERY, 0, 8]]


def test_a_correction_takes_nothing_back_and_counts_nothing_twice():
    meter = Meter()
    meter.completion = 10
    meter.add_up(START)
    meter.completion = 7
    meter.add_up(START + 1)
    meter.completion = 12
    meter.add_up(START + 2)
    assert meter.series() == [[START, 0, 12]]


def test_a_quarter_of_an_hour_is_kept_however_long_it_goes_on():
    meter = Meter()
    for number in range(5 * KEPT):
        meter.completion += 1
        meter.add_up(START + number * EVERY)
    assert len(meter.series()) == KEPT
    assert meter.series()[0][0] == START + 4 * KEPT * EVERY
    meter.add_up(START + 5 * KEPT * EVERY + 3600)
    assert meter.series() == []


def test_a_clock_that_was_set_back_makes_no_mess():
    meter = Meter()
    for at in (START + 100, START):
        meter.completion += 1
        meter.add_up(at)
    assert meter.series() == [[START + 100, 0, 2]]


def test_speed_follows_what_a_guest_gets_and_ends_with_it():
    meter, guest = Meter(), GuestUsage(completion_tokens=500)
    assert meter.speed("g", 0.0) == 0
    meter.follow("g", guest, 0.0)
    for step in range(1, 21):
        guest.completion_tokens += 10
        meter.follow("g", guest, step / 2)
    assert meter.speed("g", 10.0) == 20
    assert 5 < meter.speed("g", 12.0) < 20, "it wanes"
    assert meter.speed("g", 14.0) == 0
    assert meter.speed("other", 10.0) == 0
    meter.forget(14.0)
    assert meter._trails == {}, "and nothing of it is left"
    guest.completion_tokens -= 50
    meter.follow("g", guest, 20.0)
    meter.follow("g", GuestUsage(), 20.5)
    assert meter.speed("g", 20.5) == 0, "never below nothing"


def test_guests_that_come_and_go_leave_nothing_where_nobody_looks():
    book, begin = book_of()
    for number in range(100):
        begin(f"g{number}", GuestUsage()).end("completed", START, float(number))
        book.look(START, float(number))
    assert len(book.meter._trails) < 10
    book.look(START, 200.0)
    assert book.meter._trails == {}


def test_who_waits_and_who_runs_is_told_apart():
    book, begin = book_of()
    one, other = GuestUsage(), GuestUsage()
    first, second, third = begin("a", one), begin("a", one), begin("b", other)
    own = begin(None, GuestUsage())
    first.started(0.5)
    own.started(0.5)
    assert book.running() == {"a": (1, 1), "b": (0, 1), None: (1, 0)}
    first.piece(1.0)
    first.piece(1.2, so_far=10)
    first.settle({"prompt_tokens": 4, "completion_tokens": 11})
    book.look(START, 1.5)
    report = activity_report(book, {"a": 2, "c": 1}, {"m": (2, 5)}, 2.0)
    assert report == {
        "models": [{"name": "m", "slots": 2, "busy": 5, "waiting": 3}],
        "guests": {
            "a": {"connections": 2, "running": 1, "waiting": 1, "tokens_per_second": 5.5},
            "b": {"connections": 0, "running": 0, "waiting": 1, "tokens_per_second": 0},
            "c": {"connections": 1, "running": 0, "waiting": 0, "tokens_per_second": 0},
        },
        "own": {"connections": 0, "running": 1, "waiting": 0, "tokens_per_second": 0},
        "tokens": {"every": EVERY, "series": [[START, 4 + 3, 11]]},
    }
    for each in (first, second, third, own):
        each.end("completed", START + 1, 3.0)
    assert book.running() == {}
