"""What a user may take, as given and kept; and the calendar it goes by, where clocks are changed."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

import qmt_jupyter as qmt
from qmt_jupyter.errors import OptionInvalid
from qmt_jupyter.host.allowance import NO_LIMITS, Allowance
from qmt_jupyter.host.calendar import QUARTER, Week, day_of, moment, month_of, zone_of

BERLIN = "Europe/Berlin"
HOUR = 3600.0


def at(text, zone=BERLIN, fold=0):
    """An instant by the clocks of a zone."""
    return datetime.fromisoformat(text).replace(tzinfo=zone_of(zone), fold=fold).timestamp()


def test_it_is_a_public_name():
    assert qmt.Allowance is Allowance


def test_what_was_given_is_read_back_and_only_what_is_set_is_kept():
    assert NO_LIMITS.as_dict() == {}
    given_all = Allowance(
        models=["a", "b"],
        tokens_per_day=1,
        tokens_per_month=2**53,
        concurrent=3,
        requests_per_minute=4,
        answer_tokens=5,
        priority=100,
        hours=["Mon-Fri 08:00-12:30", "Sat 22:00-02:00"],
        zone=BERLIN,
        paused=True,
    )
    stored = json.loads(json.dumps(given_all.as_dict()))
    assert len(stored) == 10
    assert Allowance.from_dict(stored) == given_all
    assert hash(given_all) == hash(Allowance.from_dict(stored))
    assert Allowance(models="one").models == ("one",), "a bare text is one name"


@pytest.mark.parametrize(
    "given_values",
    [
        {"tokens_per_day": 0},
        {"tokens_per_day": -1},
        {"tokens_per_day": True},
        {"tokens_per_day": 1.0},
        {"tokens_per_day": "5"},
        {"tokens_per_month": 10**6000},
        {"concurrent": float("nan")},
        {"priority": 0},
        {"priority": 101},
        {"priority": None},
        {"priority": 1.5},
        {"paused": 1},
        {"paused": None},
        {"models": 5},
        {"models": None},
        {"models": [""]},
        {"models": ["x" * 201]},
        {"models": ["m"] * 65},
        {"models": [None]},
        {"models": {"a": 1}},
        {"hours": ["Mon 08:00-08:00"]},
        {"hours": ["Mon 8:00-12:00"]},
        {"hours": ["Mon 08:00-25:00"]},
        {"hours": ["Mon 08:60-09:00"]},
        {"hours": ["Mon 24:00-25:00"]},
        {"hours": ["Mon 24:00-02:00"]},
        {"hours": ["mon 08:00-09:00"]},
        {"hours": ["Mon-Wed-Fri 08:00-09:00"]},
        {"hours": ["Mon 08:00-09:00\n"]},
        {"hours": ["Mon ٠٨:00-09:00"]},
        {"hours": ["Foo 08:00-09:00"]},
        {"hours": ["08:00-09:00"]},
        {"hours": [["Mon 08:00-09:00"]]},
        {"zone": ""},
        {"zone": None},
        {"zone": "Europe"},
        {"zone": "Europe/Atlantis"},
        {"zone": "../../etc/passwd"},
        {"zone": "/etc/localtime"},
        {"zone": "Europe/Berlin\0"},
        {"zone": "Europe/\udcff"},
        {"zone": "A" * 5000},
        {"zone": ["UTC"]},
    ],
)
def test_nonsense_is_an_option_that_is_invalid(given_values):
    for make in (lambda: Allowance(**given_values), lambda: Allowance.from_dict(given_values)):
        with pytest.raises(OptionInvalid) as raised:
            make()
        assert len(str(raised.value)) < 300
        assert str(raised.value).isprintable()


@pytest.mark.parametrize("stored", [None, 5, [], ["zone"], "zone", {"tokens": 5}, {5: 5}])
def test_what_is_no_allowance_is_not_read_as_one(stored):
    with pytest.raises(OptionInvalid):
        Allowance.from_dict(stored)


# Hours of the week ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hours", "when", "is_open"),
    [
        ("Mon 08:00-12:30", "2026-11-30T07:59", False),
        ("Mon 08:00-12:30", "2026-11-30T08:00", True),
        ("Mon 08:00-12:30", "2026-11-30T12:29:59", True),
        ("Mon 08:00-12:30", "2026-11-30T12:30", False),
        ("Mon-Fri 08:00-12:30", "2026-12-05T09:00", False),
        ("Fri-Mon 08:00-12:30", "2026-12-06T09:00", True),
        ("Fri-Mon 08:00-12:30", "2026-12-01T09:00", False),
        ("Mon,Wed,Fri-Sat 08:00-12:30", "2026-12-02T09:00", True),
        ("Mon,Wed,Fri-Sat 08:00-12:30", "2026-12-03T09:00", False),
        ("Sat 22:00-02:00", "2026-12-06T01:59", True),
        ("Sat 22:00-02:00", "2026-12-06T02:00", False),
        ("Sat 22:00-02:00", "2026-12-05T01:00", False),
        ("Sun 22:00-02:00", "2026-11-30T01:00", True),
        ("Mon 00:00-24:00", "2026-11-30T23:59:59", True),
        ("Mon 00:00-24:00", "2026-12-01T00:00", False),
        ("Mon 12:00-00:00", "2026-11-30T23:59", True),
    ],
)
def test_hours_are_read_off_the_zones_clocks(hours, when, is_open):
    assert Week([hours], zone_of(BERLIN)).is_open(at(when)) is is_open


@pytest.mark.parametrize(
    ("hours", "now", "opens", "said"),
    [
        (["Mon-Fri 08:00-12:00"], "2026-11-27T12:00", "2026-11-30T08:00", "Monday 08:00"),
        (["Mon 08:00-12:00"], "2026-11-30T12:00", "2026-12-07T08:00", "7 December 08:00"),
        (["Wed 10:00-11:00", "Tue 09:00-10:00"], "2026-11-30T12:00", "2026-12-01T09:00", "Tuesday"),
        # Sunday's clocks go from 02:00 to 03:00: at 03:00 it is within hours that began at 02:30.
        (["Sun 02:30-04:00"], "2026-03-29T01:30", "2026-03-29T03:00", "Sunday 03:00"),
        # There is no 02:15 on that day.
        (["Sun 02:15-02:45"], "2026-03-28T12:00", "2026-04-05T02:15", "5 April 02:15"),
    ],
)
def test_a_refusal_knows_when_the_hours_begin_next(hours, now, opens, said):
    week, zone = Week(hours, zone_of(BERLIN)), zone_of(BERLIN)
    assert not week.is_open(at(now))
    for _ in range(2):
        assert week.opens(at(now)) == at(opens)
    assert week.is_open(at(opens))
    assert moment(at(opens), at(now), zone).startswith(said)
    assert moment(at(opens), at(now), zone).endswith("(Europe/Berlin)")


def test_an_hour_that_comes_twice_is_open_twice():
    # On 25 October 2026 the clocks go from 03:00 back to 02:00.
    week = Week(["Sun 02:00-02:30"], zone_of(BERLIN))
    first, second = at("2026-10-25T02:10"), at("2026-10-25T02:10", fold=1)
    assert second - first == HOUR
    assert week.is_open(first)
    assert week.is_open(second)
    between = at("2026-10-25T02:40")
    assert not week.is_open(between)
    assert week.opens(between) == at("2026-10-25T02:00", fold=1)
    later = Week(["Sun 02:15-02:30"], zone_of(BERLIN))
    assert later.opens(between) == at("2026-10-25T02:15", fold=1)


def test_hours_that_never_come_within_days_are_said_to_be_none():
    # Samoa had no Friday in that week, and the search looks a little further than one week.
    week = Week(["Fri 12:00-12:30"], zone_of("Pacific/Apia"))
    assert week.opens(at("2011-12-29T13:00", "Pacific/Apia")) == at(
        "2012-01-06T12:00", "Pacific/Apia"
    )


zones = st.sampled_from(
    ["UTC", BERLIN, "America/New_York", "Asia/Kathmandu", "Australia/Lord_Howe", "Pacific/Chatham"]
)
days = st.sampled_from(["Mon", "Tue-Thu", "Fri-Mon", "Sat", "Sun", "Mon,Wed"])
minutes = st.integers(0, 24 * 60 - 1).map(lambda each: f"{each // 60:02}:{each % 60:02}")
entries = st.tuples(days, minutes, minutes).filter(lambda each: each[1] != each[2])
instants = st.integers(int(at("2026-01-01T00:00")), int(at("2027-06-01T00:00"))).map(float)


@given(zones, st.lists(entries, min_size=1, max_size=4), instants)
def test_the_next_beginning_is_open_and_nothing_before_it_is(zone, given_entries, now):
    hours = [f"{day} {begin}-{end}" for day, begin, end in given_entries]
    week = Week(hours, zone_of(zone))
    if week.is_open(now):
        return
    opens = week.opens(now)
    assert opens is not None
    assert opens > now
    assert week.is_open(opens)
    step = max(60.0, (opens - now) / 200)
    assert not any(week.is_open(now + n * step) for n in range(int((opens - now) / step)))
    assert not week.is_open(opens - 1)


# Days and months ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("zone", "when", "hours"),
    [
        ("UTC", "2026-03-29T12:00", 24),
        (BERLIN, "2026-03-29T12:00", 23),
        (BERLIN, "2026-10-25T12:00", 25),
        ("Australia/Lord_Howe", "2026-04-05T12:00", 24.5),
        # Clocks that are changed at midnight itself.
        ("America/Havana", "2026-03-08T12:00", 23),
        ("America/Havana", "2026-11-01T12:00", 25),
        ("America/Sao_Paulo", "2018-11-04T12:00", 23),
        ("America/Sao_Paulo", "2018-02-17T12:00", 25),
        ("Pacific/Apia", "2011-12-31T12:00", 24),
    ],
)
def test_a_day_is_as_long_as_its_zones_clocks_say(zone, when, hours):
    day = day_of(at(when, zone), zone_of(zone))
    assert (day.ends - day.starts) / HOUR == hours
    assert day_of(day.starts, zone_of(zone)) == day
    assert day_of(day.ends - 1, zone_of(zone)) == day
    assert day_of(day.ends, zone_of(zone)).starts == day.ends


@pytest.mark.parametrize(
    ("zone", "when", "begins", "ends"),
    [
        (BERLIN, "2026-10-31T23:59", "2026-10-01T00:00", "2026-11-01T00:00"),
        (BERLIN, "2026-12-31T23:59:59", "2026-12-01T00:00", "2027-01-01T00:00"),
        (BERLIN, "2028-02-29T12:00", "2028-02-01T00:00", "2028-03-01T00:00"),
        ("Asia/Kathmandu", "2026-03-01T00:00", "2026-03-01T00:00", "2026-04-01T00:00"),
    ],
)
def test_a_month_ends_where_its_zones_calendar_says(zone, when, begins, ends):
    month = month_of(at(when, zone), zone_of(zone))
    assert (month.starts, month.ends) == (at(begins, zone), at(ends, zone))


def test_it_is_another_day_elsewhere():
    now = at("2026-12-01T00:30")
    assert day_of(now, zone_of(BERLIN)).starts == at("2026-12-01T00:00")
    assert month_of(now, zone_of("UTC")).ends == at("2026-12-01T00:00", "UTC")
    assert zone_of("UTC") is timezone.utc
    assert zone_of(BERLIN) == ZoneInfo(BERLIN)


@given(zones, instants)
def test_days_and_months_begin_with_a_quarter_and_hold_their_instants(zone, now):
    for span in (day_of(now, zone_of(zone)), month_of(now, zone_of(zone))):
        assert span.has(now)
        assert span.starts % QUARTER == 0
        assert span.ends % QUARTER == 0
