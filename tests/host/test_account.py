"""An invite's limits, without I/O: never over budget, whatever runs side by side."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmt_jupyter.errors import (
    LimitReached,
    OptionInvalid,
    RequestRateReached,
    RequestsUsedUp,
    TokenRateReached,
    TokensReserved,
    TokensUsedUp,
    TooManyAtOnce,
)
from qmt_jupyter.host.account import MINUTE, Account, Window
from qmt_jupyter.host.limits import COUNTED, Limits


def account(**limits):
    return Account(Limits(**limits))


def begin(book, prompt=10, wanted=10, longest=1000, now=0.0):
    return book.begin(prompt=prompt, wanted=wanted, longest=longest, now=now)


def test_without_limits_nothing_is_bounded_but_what_was_asked_for():
    book = account()
    assert begin(book, wanted=None).answer_limit is None
    assert begin(book, wanted=50).answer_limit == 50
    assert begin(book, wanted=5000, longest=1000).answer_limit == 1000
    assert book.left(0.0) == {"requests": None, "tokens": None}


def test_requests_in_all():
    book = account(requests=2)
    begin(book).settle(1, 1, 0.0)
    begin(book)
    assert book.left(0.0)["requests"] == 0
    with pytest.raises(RequestsUsedUp, match="All 2 requests"):
        begin(book)


def test_concurrent_requests():
    book = account(concurrent=1)
    first = begin(book)
    with pytest.raises(TooManyAtOnce) as raised:
        begin(book)
    assert raised.value.retry_after
    first.settle(1, 1, 0.0)
    begin(book)


def test_requests_a_minute_say_when_the_next_one_may_come():
    book = account(requests_per_minute=2)
    for now in (100.0, 110.0):
        begin(book, now=now)
    with pytest.raises(RequestRateReached, match="2 requests a minute") as raised:
        begin(book, now=115.0)
    again = 115.0 + raised.value.retry_after
    assert again <= 100 + MINUTE + 1
    begin(book, now=again)
    with pytest.raises(RequestRateReached):
        begin(book, now=again)


def test_tokens_are_reserved_for_requests_side_by_side():
    book = account(tokens=100)
    first = begin(book, prompt=10, wanted=50)
    second = begin(book, prompt=10, wanted=50)
    assert (first.answer_limit, first.cut_by) == (50, "length")
    assert (second.answer_limit, second.cut_by) == (30, "budget")
    with pytest.raises(TokensReserved, match="hold 100") as raised:
        begin(book)
    assert raised.value.retry_after
    first.settle(10, 5, 0.0)
    assert begin(book, prompt=10, wanted=500).answer_limit == 35
    second.settle(10, 30, 0.0)


def test_spent_tokens_are_said_with_what_is_left():
    book = account(tokens=100)
    begin(book, wanted=60).settle(10, 60, 0.0)
    with pytest.raises(TokensUsedUp, match=r"30 of the invite's 100 tokens .* about 40"):
        begin(book, prompt=40)
    begin(book, prompt=10, wanted=None).settle(10, 20, 0.0)
    with pytest.raises(TokensUsedUp, match="^0 of the invite's 100"):
        begin(book, prompt=1)
    assert book.left(0.0)["tokens"] == 0


def test_tokens_a_minute_come_back_when_the_minute_has_passed():
    book = account(tokens_per_minute=100)
    begin(book, prompt=20, wanted=60, now=50.0).settle(20, 60, 55.0)
    with pytest.raises(TokenRateReached) as raised:
        begin(book, prompt=20, wanted=60, now=60.0)
    assert 50 < raised.value.retry_after <= 57
    grant = begin(book, prompt=20, wanted=60, now=60.0 + raised.value.retry_after)
    assert grant.answer_limit == 60
    with pytest.raises(TokenRateReached, match="100 a minute"):
        begin(book, prompt=100)


def test_a_minutes_small_rest_waits_and_a_larger_one_cuts_the_answer():
    book = account(tokens_per_minute=800)
    begin(book, prompt=10, wanted=400, now=0.0).settle(10, 400, 1.0)
    grant = begin(book, prompt=10, wanted=1000, now=2.0)
    assert (grant.answer_limit, grant.cut_by) == (380, "rate")
    with pytest.raises(TokenRateReached):
        begin(book, prompt=10, wanted=1000, now=2.0)
    grant.settle(10, 300, 3.0)
    with pytest.raises(TokenRateReached):
        begin(book, prompt=10, wanted=1000, now=4.0)
    assert begin(book, prompt=10, wanted=20, now=4.0).answer_limit == 20


def test_a_prompt_that_turns_out_longer_takes_from_its_answer():
    book = account(tokens=100)
    grant = begin(book, prompt=10, wanted=80)
    grant.know_prompt(40, 0.0)
    assert (grant.answer_limit, grant.cut_by, book.reserved) == (60, "budget", 100)
    with pytest.raises(TokensUsedUp, match="101 tokens"):
        grant.know_prompt(101, 0.0)
    grant.settle(0, 0, 0.0)
    assert book.reserved == 0
    shorter = begin(book, prompt=50, wanted=10)
    shorter.know_prompt(5, 0.0)
    assert book.reserved == 15


def test_settling_twice_is_settling_once():
    book = account(tokens=100)
    grant = begin(book)
    for _ in range(2):
        grant.settle(5, 5, 0.0)
    assert (book.tokens, book.reserved, book.running) == (10, 0, 0)


def test_what_is_left_follows_a_running_answer():
    book = account(tokens=100, requests=3)
    grant = begin(book, prompt=10)
    assert book.left(0.0) == {"requests": 2, "tokens": 100}
    grant.started, grant.streamed = True, 4
    assert book.left(0.0) == {"requests": 2, "tokens": 86}


@pytest.mark.parametrize("name", COUNTED)
@pytest.mark.parametrize("value", [0, -1, 1.5, "5", True, 2**60])
def test_a_limit_that_is_no_number_is_refused(name, value):
    with pytest.raises(OptionInvalid, match=name.replace("_", "-")):
        Limits(**{name: value})


def test_limits_survive_being_written_down():
    for limits in (Limits(), Limits(tokens=5, models=("a", "b"), per_guest=True)):
        assert Limits.from_dict(limits.as_dict()) == limits
    assert Limits(models="abc").models == ("abc",)
    with pytest.raises(OptionInvalid):
        Limits(models=("",))


@given(st.lists(st.tuples(st.floats(0, 30), st.integers(0, 50)), max_size=60))
def test_a_window_never_forgets_what_is_less_than_a_minute_old(steps):
    window, now, events = Window(), 1000.0, []
    for wait, amount in steps:
        now += wait
        window.add(now, amount)
        events.append((now, amount))
        recent = sum(n for at, n in events if at > now - MINUTE)
        older = sum(n for at, n in events if at > now - MINUTE - 2)
        assert recent <= window.used(now) <= older
        for allowed in (0, 20):
            later = now + window.wait(now, allowed)
            assert sum(n for at, n in events if at > later - MINUTE) <= allowed


MOVES = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), st.integers(1, 60), st.one_of(st.none(), st.integers(1, 90))),
        st.tuples(st.just("end"), st.integers(0, 20), st.floats(0, 1)),
        st.tuples(st.just("wait"), st.integers(0, 40), st.none()),
    ),
    max_size=120,
)
LIMITS = st.builds(
    Limits,
    tokens=st.one_of(st.none(), st.integers(1, 400)),
    tokens_per_minute=st.one_of(st.none(), st.integers(1, 200)),
    requests=st.one_of(st.none(), st.integers(1, 20)),
    requests_per_minute=st.one_of(st.none(), st.integers(1, 6)),
    concurrent=st.one_of(st.none(), st.integers(1, 4)),
    answer_tokens=st.one_of(st.none(), st.integers(1, 50)),
)


@given(LIMITS, MOVES)
@settings(max_examples=400)
def test_whatever_is_asked_in_whatever_order_no_limit_is_ever_passed(limits, moves):
    book, now = Account(limits), 1000.0
    running, asked, spent = [], [], []
    for move, number, more in moves:
        if move == "wait":
            now += number
        elif move == "ask":
            try:
                grant = begin(book, prompt=number, wanted=more, longest=100, now=now)
            except LimitReached as refused:
                assert str(refused)
                assert refused.retry_after is None or refused.retry_after > 0
                continue
            assert grant.answer_limit is None or 1 <= grant.answer_limit <= (more or 100)
            running.append(grant)
            asked.append(now)
        elif running:
            grant = running.pop(number % len(running))
            answer = int(more * (grant.answer_limit or 100))
            grant.settle(grant.prompt, answer, now)
            spent.append((now, grant.prompt + answer))
            assert limits.answer_tokens is None or answer <= limits.answer_tokens
        minute = sum(tokens for at, tokens in spent if at > now - MINUTE)
        assert limits.tokens is None or sum(tokens for _, tokens in spent) <= limits.tokens
        assert limits.tokens_per_minute is None or minute <= limits.tokens_per_minute
        assert limits.requests is None or len(asked) <= limits.requests
        per_minute = limits.requests_per_minute
        assert per_minute is None or len([at for at in asked if at > now - MINUTE]) <= per_minute
        assert limits.concurrent is None or len(running) <= limits.concurrent
        assert book.running == len(running)
        assert book.reserved >= 0


@given(st.permutations(range(6)), st.integers(100, 400))
def test_what_remains_does_not_depend_on_the_order_in_which_requests_end(order, budget):
    book = account(tokens=budget)
    grants = [begin(book, prompt=5, wanted=10) for _ in range(6)]
    for number in order:
        grants[number].settle(5, number, 0.0)
    assert (book.tokens, book.reserved) == (30 + 15, 0)
    assert book.left(0.0)["tokens"] == budget - 45
