"""Which host is asked, and who is next: decisions without a network."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from qmt_jupyter import errors
from qmt_jupyter.errors import OptionInvalid, QmtError
from qmt_jupyter.guest.routing import (
    Attempts,
    Candidate,
    Passed,
    begins,
    default_model,
    is_at_fault,
    most_useful,
    of_host,
    passes_on,
    ranked,
)
from qmt_jupyter.wire.messages import Delta, Done, Queued, Started, Usage


@dataclass(frozen=True)
class Host:
    host_id: str
    mesh_name: str = "Team"


A = Host("12D3KooWAAAAbbbbCCCCddddEEEE0001", "Lab")
B = Host("12D3KooWAAAAbbbbCCCCddddEEEE0002", "Class")
C = Host("12D3KooWZZZZbbbbCCCCddddEEEE0003", "Class")


def candidate(host, order=0, **facts):
    return Candidate(host, "m", order, **facts)


def order_of(*candidates):
    """The order in which they are asked, whatever the order they are given in."""
    forwards = [each.host for each in ranked(candidates)]
    assert forwards == [each.host for each in ranked(reversed(candidates))]
    return forwards


# Ranking --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"load": 0.0, "rtt_ms": 90.0}, {"load": 0.25, "rtt_ms": 1.0}),
        ({"load": 0.5, "rtt_ms": 1.0}, {"load": 0.5, "rtt_ms": 2.0}),
        ({"load": 0.5, "rtt_ms": 2.0}, {"load": 0.5, "rtt_ms": None}),
        ({"load": 0.5}, {"load": 0.5}),
        ({"load": None}, {"load": 0.1}),
        ({"load": 9.0}, {"load": 0.0, "paused": True}),
        ({"load": 9.0, "paused": True}, {"load": 0.0, "connected": False}),
        ({"load": 9.0, "connected": False}, {"load": 0.0, "preferred": False}),
    ],
)
def test_the_first_asked_is_there_is_well_is_idle_is_near_was_joined_first(first, second):
    assert order_of(candidate(A, 0, **first), candidate(B, 1, **second)) == [A, B]


def test_no_claim_of_load_comes_before_a_host_that_answers():
    liar = candidate(A, 0, load=0.0, rtt_ms=0.0, paused=True)
    assert order_of(liar, candidate(B, 1, load=3.0, rtt_ms=80.0))[0] is B


def test_the_default_model_is_the_first_offered_in_the_order_of_joining():
    assert default_model([(True, []), (True, ["b", "c"]), (True, ["a"])]) == "b"
    assert default_model([(False, ["a"]), (True, ["b"])]) == "b", "who is there comes first"
    assert default_model([(False, []), (False, ["a"])]) == "a"
    assert default_model([(True, [])]) is None


# Names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("Lab", A),
        (" Lab ", A),
        (A.host_id, A),
        (B.host_id, B),
        ("12D3KooWZ", C),
        ("EEEE0002", B),
        ("0003", C),
    ],
)
def test_a_host_goes_by_its_mesh_its_peer_id_or_the_ends_of_it(text, host):
    assert of_host([A, B, C], text) is host


@pytest.mark.parametrize("text", ["Class", "12D3KooW", "12D3KooWAAAA"])
def test_what_may_be_several_hosts_is_asked_back_with_their_names(text):
    with pytest.raises(OptionInvalid, match="may be each of") as raised:
        of_host([A, B, C], text)
    assert "EEEE0002" in str(raised.value)
    assert "more characters" in str(raised.value)


@pytest.mark.parametrize("text", ["", "  ", "lab", "003", "12D", "nobody", "x\x1b[31m\n" * 99])
def test_what_is_no_host_is_said_with_those_there_are(text):
    with pytest.raises(OptionInvalid, match="has been joined") as raised:
        of_host([A, B, C], text)
    assert "Lab (EEEE0001)" in str(raised.value)
    assert str(raised.value).isprintable()


def test_a_host_whose_mesh_is_named_like_anothers_id_does_not_become_it():
    thief = Host("12D3KooWQQQQbbbbCCCCddddEEEE0009", A.host_id)
    assert of_host([thief, A], A.host_id) is A
    with pytest.raises(OptionInvalid):
        of_host([replace(thief, mesh_name="EEEE0001"), A], "EEEE0001")


def test_a_long_list_of_hosts_is_cut():
    many = [Host(f"12D3KooW{number:024}") for number in range(40)]
    with pytest.raises(OptionInvalid, match="and 35 more"):
        of_host(many, "Team")


# The first token ------------------------------------------------------------------------------


def delta(**given):
    return Delta(seq=1, choices=[{"index": 0, "delta": given, "finish_reason": None}])


@pytest.mark.parametrize(
    "reply",
    [
        Queued(position=3),
        Started(id="i", model="m", created=1),
        delta(),
        delta(role="assistant", content=""),
        Delta(seq=1, choices=[]),
        Delta(seq=1, choices=[{"delta": None}, {"delta": 7}, {}]),
    ],
)
def test_an_answer_has_not_begun_with_what_says_nothing(reply):
    assert not begins(reply)


@pytest.mark.parametrize(
    "reply",
    [
        delta(content="x"),
        delta(role="assistant", content="x"),
        delta(tool_calls=[{"index": 0}]),
        delta(reasoning_content="hm"),
        Delta(seq=1, choices=[{"delta": {}, "finish_reason": "stop"}]),
        Usage(usage={}),
        Done(finish_reason="stop"),
    ],
)
def test_an_answer_begins_with_the_first_that_says_something(reply):
    assert begins(reply)


# Failing over ---------------------------------------------------------------------------------

PASSED_ON = [
    errors.HostGone, errors.HostNotFound, errors.ProtocolViolation, errors.VersionMismatch,
    errors.Busy, errors.Stopped, errors.Revoked, errors.MembershipEnded, errors.InviteUsedUp,
    errors.InviteExpired, errors.TooManyAtOnce, errors.RequestRateReached, errors.TokenRateReached,
    errors.RequestsUsedUp, errors.TokensUsedUp, errors.TokensReserved, errors.ModelNotAllowed,
    errors.ModelUnknown, errors.PromptTooLong, errors.RecordsUnwritable, errors.GenerationFailed,
    errors.OutOfMemory, errors.UpstreamUnreachable, errors.UpstreamRefused, errors.Refused,
]  # fmt: skip


@pytest.mark.parametrize("cls", PASSED_ON)
def test_a_refusal_leads_to_the_next_host(cls):
    attempts = Attempts()
    first = attempts.next([candidate(A, 0), candidate(B, 1)])
    attempts.refused(first, cls("No."))
    assert attempts.next([candidate(A, 0), candidate(B, 1)]).host is B
    assert attempts.passed == (Passed(A.host_id, cls.code),)


@pytest.mark.parametrize("cls", [errors.RequestInvalid, errors.OptionInvalid])
def test_a_request_that_is_wrong_is_not_shown_to_another_host(cls):
    attempts = Attempts()
    with pytest.raises(cls):
        attempts.refused(candidate(A), cls("No."))
    assert not passes_on(cls("No."))
    assert not is_at_fault(cls("No."))


@pytest.mark.parametrize("cls", PASSED_ON)
def test_a_request_that_named_its_host_goes_nowhere_else(cls):
    attempts = Attempts(B)
    chosen = attempts.next([candidate(A, 0), candidate(B, 1, load=9.0)])
    assert chosen.host is B
    with pytest.raises(cls):
        attempts.refused(chosen, cls("No."))


def test_nobody_is_asked_twice_and_a_newcomer_is_asked():
    attempts = Attempts()
    both = [candidate(A, 0), candidate(B, 1)]
    for _ in both:
        attempts.refused(attempts.next(both), errors.Busy("Full."))
    assert attempts.next([*both, candidate(C, 2)]).host is C
    with pytest.raises(errors.Busy):
        attempts.next(both)


def test_the_same_host_joined_anew_is_another_chance():
    attempts = Attempts()
    attempts.refused(candidate(A), errors.HostGone("Gone."))
    again = replace(A)
    assert again == A
    assert attempts.next([candidate(again)]).host is again


def test_a_prompt_that_is_too_long_goes_only_where_there_is_more_room():
    attempts = Attempts()
    attempts.refused(candidate(A, context=4096), errors.PromptTooLong("Too long."))
    with pytest.raises(errors.PromptTooLong):
        attempts.next([candidate(B, context=4096)])
    assert attempts.next([candidate(B, context=4096), candidate(C, context=8192)]).host is C
    assert attempts.next([candidate(B, context=None)]).host is B


def test_without_any_candidate_nobody_has_refused():
    assert Attempts().next([]) is None
    assert Attempts(A).next([candidate(B)]) is None


@pytest.mark.parametrize(
    ("useful", "other"),
    [
        (errors.Busy("Full.", retry_after=3.0), errors.Busy("Full.", retry_after=9.0)),
        (errors.TokenRateReached("Rate.", retry_after=30.0), errors.TokensUsedUp("Spent.")),
        (errors.TooManyAtOnce("Two."), errors.Revoked("Revoked.")),
        (errors.PromptTooLong("Long."), errors.TokensUsedUp("Spent.")),
        (errors.TokensUsedUp("Spent."), errors.GenerationFailed("Broke.")),
        (errors.GenerationFailed("Broke."), errors.Stopped("Stopped.")),
        (errors.Stopped("Stopped."), errors.Revoked("Revoked.")),
        (errors.Revoked("Revoked."), errors.HostGone("Gone.")),
        (errors.HubRefused("Not you."), errors.HubNotFound("Away.", retry_after=2.0)),
        (errors.HostGone("Gone."), errors.HostNotFound("Not found.")),
    ],
)
def test_of_several_errors_the_one_that_helps_is_shown(useful, other):
    for failed in ([(A, useful), (B, other)], [(B, other), (A, useful)]):
        shown = most_useful(failed)
        assert type(shown) is type(useful)
        assert shown.sentence == f"None of 2 hosts could; Lab (EEEE0001): {useful.sentence}"
        assert (shown.retry_after, shown.next_step) == (useful.retry_after, useful.next_step)


def test_one_hosts_error_stays_as_it_is():
    error = QmtError("So it is.")
    assert most_useful([(A, error)]) is error


def test_who_was_told_no_is_told_apart_from_who_found_nobody():
    attempts = Attempts()
    attempts.refused(candidate(A), errors.HostGone("gone"))
    assert not attempts.was_answered
    attempts.refused(candidate(B), errors.RequestsUsedUp("no"))
    assert attempts.was_answered


def test_the_report_of_a_search_is_kept_among_several():
    first, second = errors.HostNotFound("a"), errors.HostNotFound("b")
    for each in (first, second):
        each.report = ({"source": "LAN"},)
    shown = most_useful([(A, first), (B, second)])
    assert shown.report == ({"source": "LAN"},)
