"""Seats over real QUIC: one user, one identity, one account, and an end that can be moved."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time

import anyio
import pytest

from qmt_jupyter.errors import (
    AdmissionRefused,
    Busy,
    DayUsedUp,
    MembershipEnded,
    MonthUsedUp,
    OptionInvalid,
    OutsideHours,
    Paused,
    RecordsUnwritable,
    Revoked,
    TooManyAtOnce,
)
from qmt_jupyter.host import seat_records
from qmt_jupyter.host import service as services
from qmt_jupyter.host.allowance import NO_LIMITS, Allowance
from qmt_jupyter.providers.echo import Echo
from qmt_jupyter.wire import messages
from tests.mesh.conftest import RawGuest, question, texts, until

pytestmark = pytest.mark.anyio

ENDLESS = 100_000


def slow(slots=2):
    return Echo(slots=slots, delay=0.005, repeat=True)


async def seat(service, user, guest, allowance=NO_LIMITS, lifetime=900):
    identity = guest.identity().peer_id
    return await service.seating.seat(user, identity, allowance, "Class", lifetime)


def of(service, user):
    """The one user's entry of the report."""
    return next(each for each in service.seats() if each["user"] == user)


class Asking:
    """One endless answer, read by a task of the test's."""

    def __init__(self, mesh):
        self.mesh = mesh
        self.pieces = 0
        self.error = None
        self.finish_reason = None

    async def run(self, **parameters):
        parameters = {"max_tokens": ENDLESS, **parameters}
        try:
            async for reply in self.mesh.answer(question(**parameters)):
                self.pieces += isinstance(reply, messages.Delta)
                if isinstance(reply, messages.Done):
                    self.finish_reason = reply.finish_reason
        except Exception as error:
            self.error = error


async def test_a_seat_is_for_one_identity_and_nobody_elses(person):
    service = await person("host").host()
    alice, mallory = person("alice"), person("mallory")
    granted = await seat(service, "alice", alice)
    with pytest.raises(AdmissionRefused, match=r"^This invite is another user's\."):
        await mallory.join(granted)
    mesh = await alice.join(granted)
    assert "".join(await texts(mesh)) == "one two three"
    (row,) = service.seats()
    assert (row["user"], row["requests"], row["tokens_today"]) == ("alice", 1, 6)
    assert [each["connections"] for each in row["seats"]] == [1]
    await mesh.close()
    await service.close()


async def test_a_pause_ends_what_runs_and_its_end_lets_it_go_on(person):
    service = await person("host").host(slow())
    mesh = await person("alice").join(await seat(service, "alice", person("alice")))
    other = await person("bob").join(await seat(service, "bob", person("bob")))
    asking, unharmed = Asking(mesh), Asking(other)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(asking.run)
        tasks.start_soon(unharmed.run)
        await until(lambda: asking.pieces > 5 and unharmed.pieces > 5)
        await service.seating.allow("alice", Allowance(paused=True))
        await until(lambda: asking.error is not None)
        assert type(asking.error) is Paused
        with pytest.raises(Paused, match="nothing can be asked"):
            await texts(mesh)
        reached = unharmed.pieces
        await until(lambda: unharmed.pieces > reached)
        await service.seating.allow("alice", NO_LIMITS)
        assert len(await texts(mesh, max_tokens=3)) >= 3
        assert [each["connections"] for each in of(service, "alice")["seats"]] == [1]
        tasks.cancel_scope.cancel()
    user = next(each for each in service.usage()["users"] if each["user"] == "alice")
    assert user["ended"]["paused"] == 1
    await mesh.close()
    await other.close()
    await service.close()


async def test_a_day_that_is_used_up_cuts_the_answer_and_says_so(person):
    service = await person("host").host(Echo(repeat=True))
    for name, error in (("day", DayUsedUp), ("month", MonthUsedUp)):
        allowance = Allowance(**{f"tokens_per_{name}": 200})
        mesh = await person(name).join(await seat(service, name, person(name), allowance))
        asking = Asking(mesh)
        await asking.run()
        assert (asking.error, asking.finish_reason) == (None, name)
        assert (
            150 < of(service, name)[{"day": "tokens_today", "month": "tokens_month"}[name]] <= 200
        )
        with pytest.raises(error, match=r"there are none until .* \(UTC\)") as raised:
            await texts(mesh)
        assert 0 < raised.value.retry_after <= 32 * 86400
        await mesh.close()
    await service.close()


async def test_outside_its_hours_a_seat_may_ask_nothing(person):
    service = await person("host").host()
    day = time.strftime("%a", time.gmtime(time.time() + 3 * 86400))
    allowance = Allowance(hours=(f"{day} 08:00-12:00",))
    mesh = await person("alice").join(await seat(service, "alice", person("alice"), allowance))
    with pytest.raises(OutsideHours, match=r"until \w+ 08:00 \(UTC\)"):
        await texts(mesh)
    assert of(service, "alice")["requests"] == 0
    await mesh.close()
    await service.close()


async def test_who_has_very_many_hours_is_told_so_as_well(person):
    service = await person("host").host()
    day = time.strftime("%a", time.gmtime(time.time() + 3 * 86400))
    many = ",".join([day] * 7)
    allowance = Allowance(hours=[f"{many} 08:00-08:{minute}" for minute in range(10, 60)] + [
        f"{many} 09:00-09:{minute}" for minute in range(10, 24)
    ])  # fmt: skip
    mesh = await person("alice").join(await seat(service, "alice", person("alice"), allowance))
    with pytest.raises(OutsideHours, match=r"until \w+ 08:00 \(UTC\)"):
        await texts(mesh)
    await mesh.close()
    await service.close()


async def test_a_seat_that_is_ended_stops_what_runs_and_stays_ended(person):
    service = await person("host").host(slow())
    alice = person("alice")
    granted = await seat(service, "alice", alice)
    mesh = await alice.join(granted)
    asking = Asking(mesh)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(asking.run)
        await until(lambda: asking.pieces > 5)
        assert await service.seating.end("alice", sentence="You left the course.") == 1
    assert type(asking.error) is Revoked
    assert "You left the course." in str(asking.error)
    await mesh.close()
    with pytest.raises(Revoked):
        await alice.join(granted)
    assert await service.seating.end("alice") == 0
    again = await seat(service, "alice", alice)
    assert again.invite.invite_id != granted.invite.invite_id
    await (await alice.join(again)).close()
    await service.close()


async def test_a_renewed_seat_keeps_its_stream_and_its_membership(person):
    service = await person("host").host(slow())
    alice = person("alice")
    first = await seat(service, "alice", alice, lifetime=4)
    mesh = await alice.join(first)
    asking = Asking(mesh)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(asking.run)
        await until(lambda: asking.pieces > 5)
        renewed = await seat(service, "alice", alice, lifetime=60)
        assert renewed.invite.invite_id == first.invite.invite_id
        assert renewed.invite.expires_at > first.invite.expires_at
        await until(lambda: time.time() > first.invite.expires_at + 1)
        reached = asking.pieces
        await until(lambda: asking.pieces > reached)
        assert asking.error is None
        tasks.cancel_scope.cancel()
    (user,) = service.usage()["users"]
    assert [len(each["guests"]) for each in user["seats"]] == [1]
    await mesh.close()
    await service.close()


async def test_a_seat_that_nobody_renews_ends_with_what_runs(person):
    service = await person("host").host(slow())
    alice = person("alice")
    mesh = await alice.join(await seat(service, "alice", alice, lifetime=4))
    asking = Asking(mesh)
    await asking.run()
    assert type(asking.error) is MembershipEnded
    assert asking.pieces > 5
    assert of(service, "alice")["seats"] == []
    await mesh.close()
    await service.close()


async def test_two_identities_of_a_user_share_requests_at_once_and_tokens(person):
    service = await person("host").host(slow())
    allowance = Allowance(concurrent=1, tokens_per_day=1000)
    home, lab = person("home"), person("lab")
    meshes = [
        await each.join(await seat(service, "alice", each, allowance)) for each in (home, lab)
    ]
    asking = Asking(meshes[0])
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(asking.run)
        await until(lambda: asking.pieces > 5)
        with pytest.raises(TooManyAtOnce, match="1 requests at once, on all your servers"):
            await texts(meshes[1])
        tasks.cancel_scope.cancel()
    await until(lambda: of(service, "alice")["running"] == 0)
    used = of(service, "alice")["tokens_today"]
    assert len(of(service, "alice")["seats"]) == 2
    await until(lambda: meshes[1].status()[0]["left"]["tokens"] == 1000 - used)
    for each in (*meshes, service):
        await each.close()


async def test_a_restart_keeps_pause_counts_and_seats(person):
    host, alice = person("host"), person("alice")
    service = await host.host()
    granted = await seat(service, "alice", alice, Allowance(tokens_per_day=100))
    mesh = await alice.join(granted)
    await texts(mesh)
    await service.seating.allow("alice", Allowance(tokens_per_day=100, paused=True))
    await seat(service, "bob", person("bob"))
    before = service.seats()
    await mesh.close()
    await service.close()
    service = await host.host()
    after = service.seats()
    for each in (*before, *after):
        each.pop("tokens_per_second")
        for one in each["seats"]:
            one.pop("connections")
    assert after == before
    mesh = await alice.join(granted)
    with pytest.raises(Paused):
        await texts(mesh)
    await service.seating.allow("alice", Allowance(tokens_per_day=8))
    with pytest.raises(DayUsedUp, match="2 of your 8 tokens"):
        await texts(mesh)
    assert (await seat(service, "alice", alice)).invite.invite_id == granted.invite.invite_id
    await mesh.close()
    await service.close()


async def test_an_older_token_of_a_renewed_seat_works_until_its_own_end_and_for_its_guest(person):
    service = await person("host").host()
    alice = person("alice")
    older = await seat(service, "alice", alice, lifetime=4)
    newer = await seat(service, "alice", alice, lifetime=600)
    with pytest.raises(AdmissionRefused):
        await person("mallory").join(newer)
    mesh = await alice.join(older)
    await until(lambda: time.time() > older.invite.expires_at + 1)
    assert "".join(await texts(mesh)) == "one two three", "who is in stays as long as the seat"
    raw = await RawGuest.connect(newer)
    refused = await raw.greet(raw.greeting(older.invite.token, identity=alice.identity()))
    assert (type(refused), refused.code) == (messages.Refusal, "invite-expired")
    await raw.close()
    await mesh.close()
    await (await alice.join(newer)).close()
    await service.close()


async def test_calls_side_by_side_give_the_same_seat(person):
    service = await person("host").host()
    alice, granted = person("alice"), []

    async def ask():
        granted.append(await seat(service, "alice", alice))

    async with anyio.create_task_group() as tasks:
        for _ in range(8):
            tasks.start_soon(ask)
    assert len({each.invite.invite_id for each in granted}) == 1
    assert len(of(service, "alice")["seats"]) == 1
    await service.close()


async def test_a_seat_that_is_ended_while_it_is_given_stays_ended_after_a_restart(person):
    host, alice = person("host"), person("alice")
    service = await host.host()
    granted, ended = [], []

    async def give():
        granted.append(await seat(service, "alice", alice, Allowance(concurrent=1)))

    async def end():
        ended.append(await service.seating.end("alice"))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(give)
        tasks.start_soon(end)
    assert ended == [1]
    with pytest.raises(Revoked):
        await alice.join(granted[0])
    await service.close()
    service = await host.host()
    assert [each["seats"] for each in service.seats()] in ([], [[]])
    with pytest.raises(Revoked):
        await alice.join(granted[0])
    await service.close()


async def test_what_a_user_may_take_is_recorded_as_it_is_though_the_disk_was_full(
    person, monkeypatch
):
    host = person("host")
    service = await host.host()
    put, fails, full = seat_records.put_allowance, [True], threading.Event()

    def full_once(db, user, allowance):
        full.wait(10)
        if fails and fails.pop():
            raise sqlite3.OperationalError("database or disk is full")
        put(db, user, allowance)

    monkeypatch.setattr(seat_records, "put_allowance", full_once)
    tried = asyncio.ensure_future(service.seating.allow("alice", Allowance(concurrent=7)))
    await asyncio.sleep(0.05)
    full.set()
    time.sleep(0.2)  # it has failed now, and whoever waits for it does not know yet
    pausing = asyncio.ensure_future(service.seating.allow("alice", Allowance(paused=True)))
    with pytest.raises(RecordsUnwritable):
        await tried
    await pausing
    await service.close()
    service = await host.host()
    assert of(service, "alice")["paused"]
    await service.close()


async def test_a_user_with_many_identities_has_no_more_connections_than_one(person, monkeypatch):
    monkeypatch.setattr(services, "MAX_CONNECTIONS_OF_ONE", 3)
    service = await person("host").host()
    guests = [person(f"alice-{number}") for number in range(4)]
    held = [await each.join(await seat(service, "alice", each)) for each in guests[:3]]
    with pytest.raises(Busy, match="3 connections"):
        await guests[3].join(await seat(service, "alice", guests[3]))
    bob = person("bob")
    held.append(await bob.join(await seat(service, "bob", bob)))
    await held[0].close()
    await until(lambda: len(service.activity()["guests"]) < 4)
    held[0] = await guests[3].join(await seat(service, "alice", guests[3]))
    for each in (*held, service):
        await each.close()


async def test_who_comes_back_to_a_seat_that_a_wrong_clock_made_forgotten_is_let_in(person):
    service = await person("host").host()
    alice = person("alice")
    granted = await seat(service, "alice", alice)
    service.seating.forget(time.time() + 7 * 86400)
    mesh = await alice.join(granted)
    assert "".join(await texts(mesh)) == "one two three"
    assert of(service, "alice")["tokens_today"] == 6
    assert await service.seating.end("alice") == 1
    with pytest.raises(Revoked):
        await texts(mesh)
    await mesh.close()
    await service.close()


async def test_one_seat_may_be_ended_and_the_users_others_go_on(person):
    service = await person("host").host(slow())
    home, lab = person("home"), person("lab")
    meshes = [await each.join(await seat(service, "alice", each)) for each in (home, lab)]
    kept, ended = Asking(meshes[0]), Asking(meshes[1])
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(kept.run)
        tasks.start_soon(ended.run)
        await until(lambda: kept.pieces > 5 and ended.pieces > 5)
        assert await service.seating.end("alice", lab.identity().peer_id) == 1
        await until(lambda: ended.error is not None)
        reached = kept.pieces
        await until(lambda: kept.pieces > reached + 5)
        assert kept.error is None
        tasks.cancel_scope.cancel()
    guests = [each["guest"] for each in of(service, "alice")["seats"]]
    assert guests == [home.identity().peer_id]
    for each in (*meshes, service):
        await each.close()


async def test_a_pause_takes_what_waits_out_of_the_queue(person):
    service = await person("host").host(slow(slots=1))
    first = await person("bob").join(await seat(service, "bob", person("bob")))
    mesh = await person("alice").join(await seat(service, "alice", person("alice")))
    running, waiting = Asking(first), Asking(mesh)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(running.run)
        await until(lambda: running.pieces > 5)
        tasks.start_soon(waiting.run)
        await until(lambda: of(service, "alice")["waiting"] == 1)
        await service.seating.allow("alice", Allowance(paused=True))
        await until(lambda: waiting.error is not None)
        assert type(waiting.error) is Paused
        assert of(service, "alice")["waiting"] == service.status()["waiting"] == 0
        assert of(service, "alice")["tokens_today"] == 0, "what never ran took nothing"
        tasks.cancel_scope.cancel()
    for each in (first, mesh, service):
        await each.close()


async def test_all_seats_of_a_user_wait_in_one_line_and_priority_goes_first(person):
    service = await person("host").host(Echo(slots=1, delay=0.002, repeat=True))
    seats = [("ann", "lab", 1), ("ann", "home", 1), ("ben", "ben", 1), ("zoe", "zoe", 4)]
    asked, meshes = [], []
    block = await person("blocker").join(await seat(service, "blocker", person("blocker")))
    blocker = Asking(block)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(blocker.run)
        await until(lambda: blocker.pieces > 5)
        for number, (user, name, priority) in enumerate(seats):
            granted = await seat(service, user, person(name), Allowance(priority=priority))
            meshes.append(await person(name).join(granted))
            asked.append(Asking(meshes[-1]))
            tasks.start_soon(asked[-1].run)
            await until(lambda number=number: service.status()["waiting"] == number + 1)
        # Zoe first; then ann and ben in turn, and ann's other seat only after ben.
        await until(lambda: [m.status()[0]["waiting"] for m in meshes] == [[1], [3], [2], [0]])
        tasks.cancel_scope.cancel()
    for each in (*meshes, block, service):
        await each.close()


async def test_a_seat_that_ended_is_forgotten_and_what_it_used_is_not(person, monkeypatch):
    host, alice = person("host"), person("alice")
    service = await host.host()
    mesh = await alice.join(await seat(service, "alice", alice))
    await texts(mesh)
    await until(lambda: of(service, "alice")["tokens_today"] == 6)
    await service.seating.end("alice")
    await mesh.close()
    await until(lambda: not service.activity()["guests"])
    monkeypatch.setattr(seat_records, "SEAT_KEPT", -3600.0)
    service.seating.forget(time.time() + 100)
    (user,) = service.usage()["users"]
    assert (user["seats"], user["requests"], user["prompt_tokens"]) == ([], 1, 3)
    assert of(service, "alice")["completion_tokens"] == 3
    await service.close()
    service = await host.host()
    (again,) = service.usage()["users"]
    assert again == user
    assert of(service, "alice")["tokens_month"] == 6
    await service.close()


async def test_a_pause_that_cannot_be_written_holds_and_is_written_later(person):
    host, alice = person("host"), person("alice")
    service = await host.host()
    mesh = await alice.join(await seat(service, "alice", alice))
    path = host.settings.host_dir / "ledger.db"
    in_the_way = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    await service.seating.allow("alice", Allowance(concurrent=7))
    in_the_way.execute(
        "CREATE TRIGGER full BEFORE UPDATE ON allowances BEGIN SELECT RAISE(ABORT, 'full'); END"
    )
    with pytest.raises(
        RecordsUnwritable, match=r"^This holds now, but could not be recorded yet\."
    ):
        await service.seating.allow("alice", Allowance(paused=True))
    with pytest.raises(Paused):
        await texts(mesh)
    in_the_way.execute("DROP TRIGGER full")
    in_the_way.close()
    await service.seating.allow("alice", Allowance(paused=True))
    await mesh.close()
    await service.close()
    service = await host.host()
    assert of(service, "alice")["allowance"] == {"paused": True}
    await service.close()


async def test_tokens_that_were_used_elsewhere_count(person):
    service = await person("host").host()
    alice = person("alice")
    mesh = await alice.join(await seat(service, "alice", alice, Allowance(tokens_per_day=100)))
    service.seating.used_elsewhere("alice", 97, 97)
    with pytest.raises(DayUsedUp, match="3 of your 100 tokens"):
        await texts(mesh)
    service.seating.used_elsewhere("alice", 50, 97)
    await texts(mesh)
    row = of(service, "alice")
    assert (row["tokens_today"], row["elsewhere"]) == (6, {"day": 50, "month": 97})
    assert row["left"] == {"day": 44, "month": None}
    await mesh.close()
    await service.close()


@pytest.mark.parametrize(
    ("user", "guest", "lifetime"),
    [
        ("", None, 900),
        ("half a letter \ud800", None, 900),
        ("a" * 256, None, 900),
        (b"alice", None, 900),
        ("alice", "12D3KooWnonsense", 900),
        ("alice", "", 900),
        ("alice", None, 0),
        ("alice", None, 10**12),
        ("alice", None, True),
        ("alice", None, 1.5),
    ],
)
async def test_nonsense_is_no_seat(person, user, guest, lifetime):
    service = await person("host").host()
    guest = person("alice").identity().peer_id if guest is None else guest
    with pytest.raises(OptionInvalid):
        await service.seating.seat(user, guest, NO_LIMITS, "Class", lifetime)
    assert service.seats() == []
    await service.close()
