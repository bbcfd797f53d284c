"""A user's account: by day and month, by the week, at once, and told of what others took."""

from __future__ import annotations

from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmt_jupyter.errors import (
    DayUsedUp,
    MonthUsedUp,
    OutsideHours,
    Paused,
    RequestRateReached,
    TokensReserved,
    TooManyAtOnce,
)
from qmt_jupyter.host.allowance import Allowance
from qmt_jupyter.host.calendar import QUARTER, zone_of
from qmt_jupyter.host.seat_account import SeatAccount

BERLIN = "Europe/Berlin"


def at(text, zone="UTC"):
    return datetime.fromisoformat(text).replace(tzinfo=zone_of(zone)).timestamp()


NOON = at("2026-11-30T12:00")  # a Monday, and the month's last day


def begin(account, wall=NOON, *, prompt=10, wanted=90, longest=4096, now=0.0):
    return account.begin(prompt=prompt, wanted=wanted, longest=longest, now=now, wall=wall)


def take(account, prompt, answer, wall=NOON, now=0.0):
    begin(account, wall, prompt=prompt, wanted=answer, now=now).settle(prompt, answer, now)


def test_a_day_is_used_up_and_the_next_one_is_whole():
    account = SeatAccount(Allowance(tokens_per_day=100))
    take(account, 40, 50)
    with pytest.raises(
        DayUsedUp,
        match=r"^10 of your 100 tokens for this day are left, and the prompt takes about 40; "
        r"there are none until Tuesday 00:00 \(UTC\)\.",
    ) as raised:
        begin(account, prompt=40)
    assert raised.value.retry_after == 12 * 3600
    assert account.left(NOON) == {"requests": None, "tokens": 10}
    assert account.left(NOON + 12 * 3600) == {"requests": None, "tokens": 100}
    take(account, 40, 50, NOON + 12 * 3600)
    assert account.used(NOON + 12 * 3600)["day"] == 90


def test_a_month_is_used_up_however_much_the_day_has_left():
    account = SeatAccount(Allowance(tokens_per_day=100, tokens_per_month=150))
    take(account, 40, 50, at("2026-11-02T12:00"))
    assert account.rest(NOON) == {"day": 100, "month": 60}
    assert account.left(NOON)["tokens"] == 60
    grant = begin(account, prompt=10, wanted=90)
    assert (grant.answer_limit, grant.cut_by) == (50, "month")
    grant.settle(10, 50, 0.0)
    with pytest.raises(MonthUsedUp, match=r"^0 of your 150 .* until Tuesday 00:00 \(UTC\)\."):
        begin(account)
    with pytest.raises(MonthUsedUp, match=r"none until 1 December 00:00 \(UTC\)\."):
        account.allow(Allowance(tokens_per_month=1))
        begin(account, at("2026-11-02T12:00"))


def test_the_scarcer_of_day_and_month_cuts_and_says_so():
    for allowance, cut_by in (
        (Allowance(tokens_per_day=50, tokens_per_month=60), "day"),
        (Allowance(tokens_per_day=60, tokens_per_month=50), "month"),
        (Allowance(tokens_per_day=60, tokens_per_month=50, answer_tokens=5), "length"),
    ):
        assert begin(SeatAccount(allowance)).cut_by == cut_by


def test_what_is_reserved_is_not_given_twice_and_comes_back():
    account = SeatAccount(Allowance(tokens_per_day=100))
    first = begin(account)
    with pytest.raises(TokensReserved, match="hold 100 of them") as raised:
        begin(account)
    assert raised.value.retry_after
    assert account.left(NOON)["tokens"] == 100, "what is reserved is not used"
    first.started, first.streamed = True, 20
    assert account.used(NOON) == {"day": 30, "month": 30}
    first.settle(10, 20, 1.0)
    first.settle(10, 20, 1.0)
    assert account.used(NOON) == {"day": 30, "month": 30}
    assert begin(account).answer_limit == 60


def test_a_request_that_is_withdrawn_counts_for_nothing():
    account = SeatAccount(Allowance(tokens_per_day=100, requests_per_minute=1))
    begin(account).withdraw(0.0)
    assert account.used(NOON) == {"day": 0, "month": 0}
    begin(account)


def test_a_prompt_that_is_longer_than_was_guessed_takes_from_the_answer_or_ends():
    account = SeatAccount(Allowance(tokens_per_day=100))
    grant = begin(account, prompt=10)
    grant.know_prompt(60, 0.0)
    assert (grant.answer_limit, grant.cut_by) == (40, "day")
    other = begin(SeatAccount(Allowance(tokens_per_month=100)), prompt=10)
    with pytest.raises(MonthUsedUp, match="The prompt has 200 tokens, and fewer are left"):
        other.know_prompt(200, 0.0)


def test_an_answer_counts_on_the_day_it_was_asked_on_though_it_ends_after_midnight():
    account = SeatAccount(Allowance(tokens_per_day=100))
    late, after = NOON + 12 * 3600 - 1, NOON + 12 * 3600 + 60
    grant = begin(account, late)
    assert begin(account, after).answer_limit == 90, "yesterday's reservation is yesterday's"
    grant.know_prompt(30, 0.0)
    grant.settle(30, 60, 0.0)
    assert account.used(after)["day"] == 0
    assert account.used(after)["month"] == 0, "November is over too"
    again = SeatAccount(Allowance(tokens_per_day=100), {int(late // QUARTER): 90})
    assert again.used(late) == {"day": 90, "month": 90}, "as it is read back after a restart"
    assert again.used(after) == {"day": 0, "month": 0}


def test_a_prompt_that_is_counted_after_midnight_takes_no_more_than_its_day_had():
    for allowance, refused in (
        (Allowance(tokens_per_day=100), DayUsedUp),
        (Allowance(tokens_per_month=100), MonthUsedUp),
    ):
        account, late = SeatAccount(allowance), NOON + 12 * 3600 - 1
        take(account, 10, 20, late)
        grant = begin(account, late, prompt=10, wanted=20)
        begin(account, late + 60).settle(10, 90, 0.0)
        grant.know_prompt(50, 0.0)
        assert grant.answer_limit == 20, "70 were left"
        with pytest.raises(refused):
            grant.know_prompt(90, 0.0)


def test_days_are_those_of_the_zone_and_another_zone_counts_anew():
    account = SeatAccount(Allowance(tokens_per_day=100, zone=BERLIN))
    evening = at("2026-12-01T23:30", BERLIN)
    take(account, 10, 20, evening)
    assert account.used(evening + 3600)["day"] == 0
    account.allow(Allowance(tokens_per_day=100, zone="UTC"))
    assert account.used(evening + 3600)["day"] == 30, "there it is the same day still"
    account.allow(Allowance(tokens_per_day=100, zone=BERLIN))
    assert account.used(evening + 3600)["day"] == 0


def test_a_clock_that_is_set_back_loses_nothing():
    account = SeatAccount(Allowance(tokens_per_day=100))
    take(account, 10, 20)
    assert account.used(NOON + 86400)["day"] == 0
    assert account.used(NOON)["day"] == 30


def test_what_was_used_elsewhere_counts_for_its_day_and_its_month():
    account = SeatAccount(Allowance(tokens_per_day=100, tokens_per_month=1000))
    account.told_elsewhere(95, 400, NOON)
    assert account.rest(NOON) == {"day": 5, "month": 600}
    assert account.used(NOON) == {"day": 0, "month": 0}
    with pytest.raises(DayUsedUp):
        begin(account)
    account.allow(Allowance(tokens_per_day=101, tokens_per_month=1000))
    assert account.elsewhere(NOON) == {"day": 95, "month": 400}, "a new limit changes no counts"
    account.told_elsewhere(20, 400, NOON)
    assert begin(account).answer_limit == 71
    earlier = at("2026-11-10T12:00")
    other = SeatAccount(Allowance(tokens_per_day=100))
    other.told_elsewhere(95, 400, earlier)
    assert other.elsewhere(earlier + 86400) == {"day": 0, "month": 400}
    assert other.elsewhere(NOON + 86400) == {"day": 0, "month": 0}


def test_what_was_used_elsewhere_is_known_before_the_first_seat_whatever_its_zone():
    # A service hears of a user before the user comes; only the seat brings the zone.
    account = SeatAccount(Allowance())
    account.told_elsewhere(95, 400, NOON)
    account.allow(Allowance(tokens_per_day=100, zone=BERLIN))
    assert account.elsewhere(NOON) == {"day": 95, "month": 400}
    with pytest.raises(DayUsedUp):
        begin(account)
    late = at("2026-12-01T00:30", BERLIN)
    account.told_elsewhere(95, 400, late)
    account.allow(Allowance(tokens_per_day=100))
    assert account.elsewhere(late) == {"day": 95, "month": 400}
    assert account.elsewhere(late + 1800) == {"day": 0, "month": 0}, "it was told in November"
    account.told_elsewhere(95, 400, late + 1800)
    account.allow(Allowance(tokens_per_day=100, zone=BERLIN))
    assert account.elsewhere(late + 86400) == {"day": 0, "month": 400}


def test_who_is_paused_is_told_so_before_anything_else():
    account = SeatAccount(Allowance(tokens_per_day=1, hours=("Sun 01:00-02:00",), paused=True))
    with pytest.raises(Paused):
        begin(account)
    assert account.is_paused
    account.allow(Allowance())
    begin(account)


def test_outside_the_hours_the_refusal_says_when_they_begin():
    account = SeatAccount(Allowance(hours=("Mon-Fri 08:00-12:00",), zone=BERLIN))
    saturday = at("2026-12-05T09:00", BERLIN)
    with pytest.raises(
        OutsideHours,
        match=r"^Your seat may not be used until Monday 08:00 \(Europe/Berlin\); its hours are "
        r"Mon-Fri 08:00-12:00\.",
    ) as raised:
        begin(account, saturday)
    assert raised.value.retry_after == 47 * 3600
    begin(account, at("2026-12-07T08:00", BERLIN))


def test_requests_at_once_and_by_the_minute_are_the_users():
    account = SeatAccount(Allowance(concurrent=1, requests_per_minute=2))
    first = begin(account)
    with pytest.raises(TooManyAtOnce):
        begin(account)
    first.settle(1, 1, 0.0)
    begin(account).settle(1, 1, 0.0)
    with pytest.raises(RequestRateReached, match="2 requests a minute") as raised:
        begin(account)
    assert 0 < raised.value.retry_after <= 61
    begin(account, now=62.0)


def test_requests_of_before_a_restart_count_in_their_minute():
    account = SeatAccount(Allowance(requests_per_minute=1))
    account.recall(30.0, 29.0, 5, 100.0)
    with pytest.raises(RequestRateReached):
        begin(account, now=100.0)
    assert account.used(NOON)["day"] == 0, "the ledger's sums have its tokens already"


def test_a_limit_that_comes_or_goes_in_mid_answer_breaks_nothing():
    account = SeatAccount(Allowance(tokens_per_day=100))
    limited, account_free = begin(account), SeatAccount(Allowance())
    free = begin(account_free)
    account.allow(Allowance())
    limited.know_prompt(5000, 0.0)
    limited.settle(5000, 10, 0.0)
    account_free.allow(Allowance(tokens_per_day=5))
    free.know_prompt(5000, 0.0)
    free.settle(5000, 10, 0.0)
    assert account.used(NOON)["day"] == account_free.used(NOON)["day"] == 5010
    with pytest.raises(DayUsedUp, match="^0 of your 5 tokens"):
        begin(account_free)


def test_old_quarters_are_let_go_of():
    start = int(at("2026-01-01T00:00"))
    account = SeatAccount(
        Allowance(), {(start + n * QUARTER) // QUARTER: 1 for n in range(60 * 96)}
    )
    now = start + 60 * 86400.0
    march = account.used(now)["month"]
    account.used(now + 86400)
    assert len(account._spent) <= 40 * 96
    assert account.used(now)["month"] == march


requests = st.tuples(
    st.integers(0, 40 * 24 * 4),  # quarters after the begin
    st.integers(1, 60),
    st.integers(0, 60),
    st.booleans(),
)


@given(st.lists(requests, max_size=30), st.sampled_from(["UTC", BERLIN, "Asia/Kathmandu"]))
def test_a_restart_at_any_time_changes_no_count(given_requests, zone):
    """What the account counts is what the ledger's sums by the quarter give again."""
    allowance = Allowance(tokens_per_day=10**6, zone=zone)
    account, spent = SeatAccount(allowance), {}
    start = at("2026-10-10T00:00")
    wall = start
    for quarters, prompt, answer, is_long in sorted(given_requests):
        asked = start + quarters * QUARTER + 7
        grant = begin(account, asked, prompt=prompt, wanted=answer)
        wall = asked + (86400 if is_long else 60)
        account.used(wall)  # the calendar turns while the answer runs
        grant.settle(prompt, answer, 0.0)
        key = int(asked // QUARTER)
        spent[key] = spent.get(key, 0) + prompt + answer
    again = SeatAccount(allowance, spent)
    for later in (wall, wall + 3600, wall + 20 * 86400):
        assert again.used(later) == account.used(later)
    assert account.reserved == 0


@given(
    st.lists(st.tuples(st.integers(1, 50), st.integers(1, 80), st.booleans()), max_size=40),
    st.integers(1, 500),
    st.integers(0, 500),
)
def test_a_budget_is_never_passed_whatever_runs_side_by_side(asked, budget, elsewhere):
    account = SeatAccount(Allowance(tokens_per_day=budget))
    account.told_elsewhere(elsewhere, elsewhere, NOON)
    running = []
    for prompt, answer, ends_one in asked:
        try:
            running.append((begin(account, prompt=prompt, wanted=answer), prompt))
        except (DayUsedUp, TokensReserved):
            assert budget - elsewhere - account.used(NOON)["day"] - account.reserved <= prompt
        if ends_one and running:
            grant, prompt = running.pop(0)
            grant.settle(prompt, grant.answer_limit, 0.0)
    for grant, prompt in running:
        grant.settle(prompt, grant.answer_limit, 0.0)
    assert account.used(NOON)["day"] <= max(0, budget - elsewhere)
    assert account.reserved == 0
