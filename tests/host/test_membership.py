"""Who is admitted, and whether they still are, without a network: signatures, uses, revocation."""

from __future__ import annotations

import sqlite3
import time
import uuid

import pytest

from qmt_jupyter.errors import (
    AdmissionRefused,
    InviteExpired,
    InviteUsedUp,
    MembershipEnded,
    OptionInvalid,
    RequestRateReached,
    Revoked,
    TokenRateReached,
)
from qmt_jupyter.host import records
from qmt_jupyter.host.granting import Terms, sign_invite
from qmt_jupyter.host.ledger import open_for_writing
from qmt_jupyter.host.limits import Limits
from qmt_jupyter.host.membership import Register, verify
from qmt_jupyter.host.records import Changes
from qmt_jupyter.host.rows import Membership, Request
from qmt_jupyter.identity import keys, statement

HOST, GUEST, OTHER, ENDPOINT = (keys.Identity(bytes([n]) * 32) for n in (1, 2, 3, 4))
NOW = float(int(time.time()))
DAY = 86400


def shown(invite, *, guest=GUEST, now=NOW, made_at=NOW, host=HOST, endpoint=ENDPOINT, token=None):
    return verify(
        token or invite.token,
        statement.create(guest, ENDPOINT.public_key, host.public_key, made_at),
        endpoint_key=endpoint.public_key,
        host_key=HOST.public_key,
        now=now,
    )


def invite(uses=0, lifetime=60, host=HOST):
    return sign_invite(host, Terms("x", uses, lifetime), NOW)


def test_what_is_this_hosts_and_this_connections_is_believed():
    assert shown(invite()).guest_id == GUEST.peer_id


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ({"invite": invite(host=OTHER)}, "another host's"),
        ({"endpoint": OTHER}, "another connection"),
        ({"host": OTHER}, "another host"),
        ({"made_at": NOW - DAY}, "not valid now"),
        ({"made_at": NOW + DAY}, "not valid now"),
    ],
)
def test_what_is_not_is_refused(case, said):
    with pytest.raises(AdmissionRefused, match=said):
        shown(case.pop("invite", None) or invite(), **case)


def test_an_expired_invite_is_refused_by_the_host_too():
    with pytest.raises(InviteExpired):
        shown(invite(lifetime=60), now=NOW + 61)


# Admission, in the ledger ---------------------------------------------------------------------


@pytest.fixture
def ledger(tmp_path):
    connection = open_for_writing(tmp_path)
    yield connection
    connection.close()


def record(ledger, uses=0, lifetime=None, **limits):
    terms = Terms("x", uses, lifetime, Limits(**limits))
    made = terms.record(sign_invite(HOST, terms, NOW), NOW)
    records.add_invite(ledger, made)
    return made


def wanted(made, guest="guest", name=""):
    return Membership(str(uuid.uuid4()), made.invite_id, guest, name, NOW)


def test_a_guest_that_comes_back_has_the_membership_it_had(ledger):
    made = record(ledger, uses=1)
    first = records.admit(ledger, wanted(made, name="Ada"))
    assert records.admit(ledger, wanted(made)) == first
    renamed = records.admit(ledger, wanted(made, name="Ada L."))
    assert (renamed.membership_id, renamed.claimed_name) == (first.membership_id, "Ada L.")
    with pytest.raises(InviteUsedUp, match="only use"):
        records.admit(ledger, wanted(made, guest="another"))
    assert records.read(ledger).memberships == (renamed,)


def test_an_invite_without_a_number_of_uses_admits_any(ledger):
    made = record(ledger, uses=0)
    ids = {records.admit(ledger, wanted(made, guest=str(n))).membership_id for n in range(50)}
    assert len(ids) == 50


def test_an_invite_that_was_never_recorded_admits_nobody(ledger):
    made = Terms("x", 0, None).record(invite(), NOW)
    with pytest.raises(AdmissionRefused, match="no record"):
        records.admit(ledger, wanted(made))


@pytest.mark.parametrize("what", ["invite_id", "membership_id"])
def test_who_is_revoked_is_not_admitted_again_and_holds_its_use(ledger, what):
    made = record(ledger, uses=2)
    member = records.admit(ledger, wanted(made))
    records.revoke(ledger, getattr(member, what), NOW)
    records.revoke(ledger, getattr(member, what), NOW + 5)
    with pytest.raises(Revoked):
        records.admit(ledger, wanted(made))
    if what == "membership_id":
        records.admit(ledger, wanted(made, guest="second"))
        with pytest.raises(InviteUsedUp):
            records.admit(ledger, wanted(made, guest="third"))
    when = [*records.read(ledger).invites, *records.read(ledger).memberships]
    assert NOW in [each.revoked_at for each in when]
    assert NOW + 5 not in [each.revoked_at for each in when]


def test_one_guest_cannot_be_recorded_twice_for_one_invite(ledger):
    made = record(ledger)
    records.admit(ledger, wanted(made))
    again = wanted(made)
    with pytest.raises(sqlite3.IntegrityError):
        ledger.execute(
            "INSERT INTO memberships VALUES (?, ?, ?, '', 0, NULL)",
            (again.membership_id, again.invite_id, again.guest_id),
        )


# The register, in memory ----------------------------------------------------------------------


def registered(uses=0, lifetime=None, **limits):
    made = Terms("x", uses, lifetime, Limits(**limits)).record(invite(uses, lifetime), NOW)
    register = Register()
    register.add_invite(made)
    return register, made


def test_a_membership_ends_with_its_invite():
    register, made = registered(lifetime=60)
    member = register.add_member(wanted(made))
    member.require_live(NOW + 60)
    with pytest.raises(MembershipEnded, match="expired"):
        member.require_live(NOW + 62)


def test_revoking_an_invite_ends_all_its_members_and_nobody_else():
    register, made = registered()
    other = Terms("y", 0, None).record(invite(), NOW)
    register.add_invite(other)
    members = [register.add_member(wanted(made, guest=str(n))) for n in range(3)]
    bystander = register.add_member(wanted(other))
    assert set(register.apply(Changes(revoked={made.invite_id: NOW}))) == set(members)
    assert register.apply(Changes(revoked={made.invite_id: NOW})) == []
    for member in members:
        with pytest.raises(Revoked):
            member.require_live(NOW)
    bystander.require_live(NOW)
    late = register.add_member(wanted(made, guest="late"))
    with pytest.raises(Revoked):
        late.require_live(NOW)


def test_a_revocation_that_overtakes_its_admission_still_holds():
    register, made = registered()
    membership = wanted(made)
    assert register.apply(Changes(revoked={membership.membership_id: NOW})) == []
    with pytest.raises(Revoked):
        register.add_member(membership).require_live(NOW)


def test_a_guest_that_comes_back_does_not_lift_its_revocation():
    register, made = registered()
    membership = wanted(made)
    member = register.add_member(membership)
    register.apply(Changes(revoked={membership.membership_id: NOW}))
    assert register.add_member(membership) is member
    with pytest.raises(Revoked):
        member.require_live(NOW)


def test_limits_are_shared_by_an_invites_guests_or_each_has_its_own():
    register, made = registered(tokens=100)
    accounts = {register.add_member(wanted(made, guest=str(n))).account for n in range(3)}
    assert len(accounts) == 1
    register, made = registered(tokens=100, per_guest=True)
    accounts = {register.add_member(wanted(made, guest=str(n))).account for n in range(3)}
    assert len(accounts) == 3


def test_an_id_is_found_by_its_beginning_if_that_is_one_only():
    register, made = registered()
    member = register.add_member(wanted(made))
    assert register.find(made.invite_id[:8].upper()) == made.invite_id
    assert register.find(member.membership.membership_id) == member.membership.membership_id
    for text in ("", made.invite_id[:5], "%", "'; --"):
        with pytest.raises(OptionInvalid, match="too little of an id"):
            register.find(text)
    for text in ("zzzzzzzz", made.invite_id + "0", "%%%%%%"):
        with pytest.raises(OptionInvalid, match="No invite or guest"):
            register.find(text)
    twin = Membership(f"{made.invite_id[:8]}-twin", made.invite_id, "twin", "", NOW)
    register.add_member(twin)
    with pytest.raises(OptionInvalid, match="2 ids"):
        register.find(made.invite_id[:8])


def test_a_restart_knows_what_was_used(ledger):
    made = record(ledger, tokens=1000, requests_per_minute=2)
    member = records.admit(ledger, wanted(made))
    row = Request(1, member.membership_id, "m", NOW - 20, None, None, 30, 12, False)
    records.put_requests(ledger, [row])
    assert records.close_lost(ledger, NOW - 15) == 1
    snapshot = records.read(ledger, since=NOW - 60)
    assert snapshot.next_request_id == 2
    register = Register.from_snapshot(snapshot, wall=NOW, clock=500.0)
    again = register.add_member(member)
    assert again.account.left(0.0) == {"requests": None, "tokens": 958}
    assert again.usage.as_dict()["ended"] == {"lost": 1}
    again.account.begin(prompt=1, wanted=1, longest=9, now=500.0)
    with pytest.raises(RequestRateReached, match="2 requests a minute"):
        again.account.begin(prompt=1, wanted=1, longest=9, now=500.0)


def test_a_restart_knows_the_tokens_of_an_answer_that_took_long(ledger):
    made = record(ledger, tokens_per_minute=1000)
    member = records.admit(ledger, wanted(made))
    row = Request(
        1, member.membership_id, "m", NOW - 70, 0, 1, 100, 880, False, NOW - 5, "completed"
    )
    records.put_requests(ledger, [row])
    register = Register.from_snapshot(records.read(ledger, since=NOW - 60), wall=NOW, clock=500.0)
    with pytest.raises(TokenRateReached):
        register.add_member(member).account.begin(prompt=30, wanted=500, longest=900, now=500.0)


def test_what_was_refused_before_it_began_counts_for_nothing_after_a_restart_either(ledger):
    made = record(ledger, requests=1)
    member = records.admit(ledger, wanted(made))
    records.put_requests(
        ledger, [Request(1, member.membership_id, "m", NOW - 9, ended_at=NOW - 9, how="refused")]
    )
    register = Register.from_snapshot(records.read(ledger, since=NOW - 60), wall=NOW, clock=500.0)
    again = register.add_member(member)
    assert again.account.left(0.0)["requests"] == 1
    assert again.usage.requests == 0
