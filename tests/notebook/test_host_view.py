"""What the host's panel shows: pure, from what the host says of itself."""

from __future__ import annotations

import json

import pytest

from qmt_jupyter.errors import OptionInvalid
from qmt_jupyter.notebook.panels import host, host_view

# ipywidgets 7.7 in a process without a kernel
pytestmark = pytest.mark.filterwarnings("ignore:Deprecated in traitlets 4.1:DeprecationWarning")

NOW = 1_800_000_000.0
SINCE = NOW - 600
IDLE = {"requests": None, "tokens": None}


def guest(name="g", **facts):
    return {
        "membership": f"membership-{name}", "peer_id": f"12D3KooWpeer-of-{name:>8}", "claimed_name": name,
        "joined_at": SINCE, "revoked_at": None, "requests": 2, "running": 0, "prompt_tokens": 10,
        "completion_tokens": 90, "last_seen": NOW - 60, "ended": {}, "left": IDLE, **facts,
    }  # fmt: skip


def invite(number=1, guests=(), **facts):
    return {
        "invite_id": f"invite-{number}", "name": "Team", "made_at": SINCE, "expires_at": None,
        "revoked_at": None, "max_uses": 5, "uses": len(guests), "limits": {}, "left": IDLE,
        "requests": 2, "running": 0, "prompt_tokens": 10, "completion_tokens": 90, "last_seen": 0.0,
        "ended": {}, "guests": list(guests), **facts,
    }  # fmt: skip


def doing(connections=0, running=0, waiting=0, speed=0.0):
    return {
        "connections": connections, "running": running, "waiting": waiting, "tokens_per_second": speed,
    }  # fmt: skip


def seen(*invites, guests=None, models=(), linked=("invite-1",), users=()):
    usage = {
        "peer_id": "12D3KooWhost",
        "invites": list(invites),
        "users": list(users),
        "own": {"requests": 0, "prompt_tokens": 0, "completion_tokens": 0},
    }
    activity = {
        "models": list(models),
        "guests": guests or {},
        "own": doing(),
        "tokens": {"every": 5, "series": [[1, 2, 3]]},
    }
    return host_view.host_view(usage, activity, since=SINCE, now=NOW, linked=linked)


@pytest.mark.parametrize(
    ("facts", "state"),
    [
        ({}, "open"),
        ({"expires_at": NOW + 1}, "open"),
        ({"max_uses": 0, "uses": 1000}, "open"),
        ({"uses": 5}, "used up"),
        ({"expires_at": NOW - 1}, "expired"),
        ({"revoked_at": NOW - 1, "expires_at": NOW - 5, "uses": 5}, "revoked"),
    ],
)
def test_an_invite_is_open_or_it_is_said_why_not(facts, state):
    (shown,) = seen(invite(**facts))["invites"]
    assert shown["state"] == state


@pytest.mark.parametrize(
    ("activity", "facts", "terms", "state"),
    [
        (None, {}, {}, "away"),
        (doing(connections=1), {}, {}, "connected"),
        (doing(connections=1, waiting=2), {}, {}, "waiting"),
        (doing(connections=1, waiting=2, running=1, speed=20.0), {}, {}, "answering"),
        (doing(connections=1, running=1), {"revoked_at": NOW}, {}, "revoked"),
        (doing(connections=1), {}, {"revoked_at": NOW}, "revoked"),
        (doing(connections=1), {}, {"expires_at": NOW - 1}, "ended"),
        (doing(connections=1), {}, {"max_uses": 1}, "connected"),
    ],
)
def test_a_guest_has_one_state(activity, facts, terms, state):
    one = guest(**facts)
    view = seen(invite(guests=[one], **terms), guests={one["membership"]: activity} if activity else {})  # fmt: skip
    assert [each["state"] for each in view["guests"]] == [state]


def test_what_comes_from_elsewhere_is_bounded_and_printable():
    hostile = "\x1b[31m\u202e<img src=x onerror=alert(1)>\n" + "x" * 10_000
    view = seen(
        invite(guests=[guest(claimed_name=hostile)], name=hostile),
        models=[{"name": hostile, "slots": 1, "busy": 0, "waiting": 0}],
    )
    said = json.dumps(view, ensure_ascii=False)
    assert len(said) < 2000
    assert not any(each in said for each in "\x1b\u202e\n")


def test_a_guest_is_known_by_the_end_of_its_id_alone():
    view = seen(invite(guests=[guest("one")]))
    assert "12D3KooW" not in json.dumps(view)
    assert view["guests"][0]["who"] == f"{'one':>8}"


def test_what_ended_before_this_host_began_is_only_counted():
    old = SINCE - 100
    view = seen(
        invite(1, [guest("now", last_seen=old)]),
        invite(2, [guest("gone", last_seen=old)], revoked_at=old),
        invite(3, [guest("late", last_seen=NOW)], expires_at=old),
        invite(4, [guest("lately")], revoked_at=NOW),
        invite(5, uses=5),
    )
    assert [each["id"] for each in view["invites"]] == ["invite-5", "invite-1", "invite-4"]
    assert {each["claim"] for each in view["guests"]} == {"now", "late", "lately"}
    assert view["earlier"] == {"invites": 2, "guests": 1}


def test_with_ever_more_guests_those_who_are_here_are_shown():
    many = [guest(f"away-{number}") for number in range(500)]
    here = guest("here", last_seen=0.0)
    view = seen(
        *(invite(number) for number in range(60)),
        invite(100, [*many, here], max_uses=0),
        guests={here["membership"]: doing(connections=1)},
    )
    assert len(view["guests"]) == host_view.MOST_GUESTS
    assert view["guests"][0]["claim"] == "here"
    assert len(view["invites"]) == host_view.MOST_INVITES
    assert view["invites"][0]["id"] == "invite-100", "the newest first"
    assert view["more"] == {"models": 0, "invites": 11, "guests": 501 - host_view.MOST_GUESTS}


def test_what_can_still_be_used_or_revoked_is_shown_before_what_is_used_up_or_over():
    gone = [guest(f"gone-{number}", revoked_at=NOW) for number in range(300)]
    view = seen(
        invite(1, [guest("away", last_seen=0.0), *gone], max_uses=0),
        *(invite(number, max_uses=1, uses=1) for number in range(2, 80)),
    )
    assert len(view["invites"]) == host_view.MOST_INVITES
    assert view["invites"][-1]["id"] == "invite-1", "the only one that is open"
    assert view["invites"][0]["id"] == "invite-79", "the newest first"
    assert view["guests"][0]["claim"] == "away"


def test_limits_and_what_is_left_are_said_and_whether_they_are_shared():
    left = {"requests": 3, "tokens": None}
    together = invite(1, [guest(left=left)], limits={"requests": 9}, left=left)
    each = invite(2, [guest(left=left)], limits={"requests": 9, "per_guest": True}, left=None)
    view = seen(together, each)
    assert [(row["left"], row["shared"]) for row in view["guests"]] == [(left, True), (left, False)]
    assert view["invites"][0]["limits"] == "9 requests, each for every guest"
    assert [one["left"] for one in view["invites"]] == [None, left]
    assert [one["linked"] for one in view["invites"]] == [False, True]


def test_a_view_of_fifty_guests_is_a_modest_message():
    guests = [guest(f"g{number}") for number in range(50)]
    busy = {each["membership"]: doing(1, 1, 0, 20.0) for each in guests}
    report = invite(guests=guests)
    assert len(json.dumps(seen(report, guests=busy))) < 32_000


class NoHost:
    is_running = True
    models = ("echo",)
    invites = ()

    def __init__(self):
        self.made = []

    def new_invite(self, **terms):
        self.made.append(terms)
        raise OptionInvalid("as far as this")


@pytest.fixture
def shown():
    panel = host.HostPanel(NoHost())
    yield panel
    panel.close()


FORM = {"name": "", "uses": "2", "ttl": "24h", "tokens": "", "concurrent": "", "requests_per_minute": ""}  # fmt: skip


@pytest.mark.parametrize(
    "typed",
    [
        {"uses": ""}, {"uses": "x"}, {"uses": "-1"}, {"uses": "1.5"}, {"uses": "1e3"}, {"uses": "\uff19"},
        {"uses": 3}, {"uses": None}, {"uses": ["1"]}, {"uses": "9" * 16},
        {"tokens": "many"}, {"tokens": "0"}, {"concurrent": "0"}, {"requests_per_minute": "-5"},
        {"name": {"a": 1}}, {"name": "x" * 201}, {"ttl": 7},
    ],
    ids=repr,
)  # fmt: skip
def test_a_form_with_nonsense_makes_no_invite(shown, typed):
    with pytest.raises(OptionInvalid) as raised:
        shown.actions["invite"]({**FORM, **typed})
    assert "as far as this" not in str(raised.value)
    assert shown.host.made == []


def test_the_form_gives_the_terms_that_were_typed(shown):
    typed = {**FORM, "name": " Lab ", "tokens": "1000", "concurrent": "2", "per_guest": True}
    with pytest.raises(OptionInvalid, match="as far"):
        shown.actions["invite"](typed)
    (terms,) = shown.host.made
    assert (terms["name"], terms["uses"], terms["ttl"]) == ("Lab", 2, "24h")
    limits = {"tokens": 1000, "concurrent": 2, "per_guest": True}
    assert terms["limits"].as_dict() == limits


@pytest.mark.parametrize("which", ["", "12345678", None, 5, "g" * 36, ["x"], "a" * 37])
def test_what_is_no_id_is_revoked_nowhere(shown, which):
    asked = []
    shown.host.revoke = asked.append
    with pytest.raises(OptionInvalid):
        shown.actions["revoke"]({"which": which})
    assert asked == []


def test_the_guests_of_seats_are_shown_by_their_users_names():
    seat = invite(7, [guest("lab")], max_uses=1, expires_at=NOW + 900)
    user = {
        "user": "a\u202elice", "requests": 3, "running": 1, "prompt_tokens": 11,
        "completion_tokens": 91, "last_seen": NOW, "ended": {}, "left": IDLE, "seats": [seat],
    }  # fmt: skip
    view = seen(invite(1), users=[user], guests={"membership-lab": doing(1, running=1)})
    assert [each["id"] for each in view["invites"]] == ["invite-1"], "a class makes many seats"
    (shown,) = view["guests"]
    assert (shown["invite"], shown["state"]) == ("seat of a lice", "answering")
    assert shown["invite"].isprintable()
    usage = {"invites": [invite(1)], "users": [user]}
    assert host_view.totals(usage) == (1, 5, 21, 181)
