"""The ledger: private, crash-safe, readable while it is written, and never overwritten."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
import subprocess
import sys
import threading
import time

import anyio
import pytest

from qmt_jupyter.errors import (
    AdmissionRefused,
    HomeNotWritable,
    InviteUsedUp,
    LedgerDamaged,
    LedgerNewer,
    MembershipEnded,
    NotHosting,
    RecordsUnwritable,
    Revoked,
)
from qmt_jupyter.host import ledger as ledgers
from qmt_jupyter.host import owner, records, seat_records
from qmt_jupyter.host.allowance import Allowance
from qmt_jupyter.host.calendar import QUARTER
from qmt_jupyter.host.granting import ReachFile, Terms
from qmt_jupyter.host.ledger import FILE, Ledger, open_for_reading, open_for_writing
from qmt_jupyter.host.limits import UNLIMITED, Limits
from qmt_jupyter.host.membership import Register
from qmt_jupyter.host.rows import InviteRecord, Membership, Request
from qmt_jupyter.identity import keys
from qmt_jupyter.identity.link import Hints

NOW = 1_700_000_000.0


def made(invite_id="invite-1", uses=0, limits=UNLIMITED):
    return InviteRecord(invite_id, "Team", NOW, 0, uses, limits)


def member(guest, invite_id="invite-1"):
    return Membership(f"member-{guest}", invite_id, guest, "", NOW)


def files(directory):
    return sorted(path.name for path in directory.iterdir())


async def open_ledger(directory, on_change=lambda changes: None):
    return (await Ledger.open(directory, on_change, NOW))[0]


def add(record):
    return lambda db: records.add_invite(db, record)


def test_only_its_owner_can_read_it(tmp_path):
    directory = tmp_path / "host"
    connection = open_for_writing(directory)
    records.add_invite(connection, made())
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert {"ledger.db", "ledger.db-wal", "ledger.db-shm"} <= set(files(directory))
    for path in directory.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert ledgers.version_of(connection) == len(records.MIGRATIONS)
    connection.close()


def test_what_was_written_is_read_back_whole(tmp_path):
    connection = open_for_writing(tmp_path)
    limits = Limits(tokens=100, models=("a",), per_guest=True)
    records.add_invite(connection, made(limits=limits))
    joined = records.admit(connection, member("g"))
    rows = [
        Request(1, "member-g", "a", NOW, 0.5, 0.9, 10, 20, False, NOW + 3, "completed"),
        Request(2, "member-g", "a", NOW + 1, None, None, 5, 0, True, None, None),
        Request(3, None, "a", NOW + 2, 0.0, 0.1, 1, 1, False, NOW + 4, "failed"),
    ]
    long_ago = Request(4, "member-g", "a", NOW - 90, 0.0, 0.1, 1, 1, False, NOW - 70, "completed")
    records.put_requests(connection, [long_ago])
    records.put_requests(connection, rows)
    records.put_requests(connection, rows)
    connection.close()
    with_rows = open_for_reading(tmp_path)
    snapshot = records.read(with_rows, since=NOW)
    with_rows.close()
    assert snapshot.invites == (made(limits=limits),)
    assert snapshot.memberships == (joined,)
    assert [row.request_id for row in snapshot.recent] == [1, 2, 3]
    total = snapshot.totals["member-g"]
    assert (total.requests, total.prompt_tokens, total.completion_tokens) == (3, 16, 21)
    assert (total.running, total.ended) == (1, {"completed": 2})
    assert snapshot.without_running().totals["member-g"].ended == {"completed": 2, "lost": 1}
    assert snapshot.totals[None].ended == {"failed": 1}
    assert snapshot.next_request_id == 5


def damage_header(path):
    path.write_bytes(b"not a database, " * 400)


def damage_pages(path):
    data = bytearray(path.read_bytes())
    data[4096:] = os.urandom(len(data) - 4096)
    path.write_bytes(data)


def damage_schema(path):
    path.unlink()
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE invites (something TEXT)")
        connection.execute(f"PRAGMA user_version = {len(records.MIGRATIONS)}")
    connection.close()


def damage_limits(path):
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE invites SET limits = '{\"tokens\": -5}'")
    connection.close()


@pytest.mark.parametrize("damage", [damage_header, damage_pages, damage_schema, damage_limits])
def test_a_damaged_file_is_set_aside_and_never_overwritten(tmp_path, damage):
    connection = open_for_writing(tmp_path)
    records.add_invite(connection, made())
    connection.close()
    path = tmp_path / FILE
    damage(path)
    before = path.read_bytes()
    if damage is not damage_limits:
        with pytest.raises(LedgerDamaged):
            open_for_reading(tmp_path)
        assert path.read_bytes() == before
    for count in (1, 2):
        with pytest.raises(LedgerDamaged, match=r"kept as ledger\.db\.damaged-.*Start again"):
            open_for_writing(tmp_path)
        kept = sorted(tmp_path.glob("ledger.db.damaged-*"))
        assert len([each for each in kept if each.suffix not in ("-wal", "-shm")]) >= count
        assert before in [each.read_bytes() for each in kept]
        path.write_bytes(before)
    path.unlink()
    open_for_writing(tmp_path).close()
    assert records.read(open_for_writing(tmp_path)).invites == ()


def test_a_newer_releases_file_is_left_alone(tmp_path):
    connection = open_for_writing(tmp_path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    before = (tmp_path / FILE).read_bytes()
    for opening in (open_for_writing, open_for_reading):
        with pytest.raises(LedgerNewer, match="Update qmt-jupyter"):
            opening(tmp_path)
    assert (tmp_path / FILE).read_bytes() == before
    assert list(tmp_path.glob("*.damaged-*")) == []


def test_an_older_releases_file_is_brought_up_to_date_with_what_it_holds(tmp_path, monkeypatch):
    connection = open_for_writing(tmp_path)
    records.add_invite(connection, made())
    connection.close()
    added = ("ALTER TABLE invites ADD COLUMN note TEXT NOT NULL DEFAULT 'old'",)
    monkeypatch.setattr(records, "MIGRATIONS", (*records.MIGRATIONS, added))
    connection = open_for_writing(tmp_path)
    assert connection.execute("SELECT invite_id, note FROM invites").fetchall() == [
        ("invite-1", "old")
    ]
    assert ledgers.version_of(connection) == len(records.MIGRATIONS)
    connection.close()


def test_a_migration_that_fails_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    open_for_writing(tmp_path).close()
    broken = ("ALTER TABLE invites ADD COLUMN note TEXT", "INSERT INTO nowhere VALUES (1)")
    released = records.MIGRATIONS
    monkeypatch.setattr(records, "MIGRATIONS", (*released, broken))
    with pytest.raises((LedgerDamaged, HomeNotWritable)):
        open_for_writing(tmp_path)
    monkeypatch.setattr(records, "MIGRATIONS", released)
    connection = sqlite3.connect(
        next(path for path in tmp_path.glob("ledger.db*") if path.suffix not in ("-wal", "-shm"))
    )
    assert "note" not in [row[1] for row in connection.execute("PRAGMA table_info(invites)")]
    connection.close()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_that_cannot_be_written_is_said_so(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(HomeNotWritable):
        open_for_writing(tmp_path)


def test_a_file_in_the_ledgers_place_is_said_so(tmp_path):
    (tmp_path / FILE).mkdir()
    with pytest.raises(HomeNotWritable):
        open_for_writing(tmp_path)


# Written from the loop ------------------------------------------------------------------------


@pytest.mark.anyio
async def test_what_is_awaited_is_there_for_another_process(tmp_path):
    ledger = await open_ledger(tmp_path)
    await ledger.write(add(made()), durable=True)
    code = (
        "import sys; from pathlib import Path; from qmt_jupyter.host import ledger, records\n"
        "print(records.read(ledger.open_for_reading(Path(sys.argv[1]))).invites[0].name)"
    )
    done = await anyio.run_process([sys.executable, "-c", code, str(tmp_path)])
    assert done.stdout == b"Team\n"
    await ledger.close()
    with pytest.raises(RecordsUnwritable):
        await ledger.write(add(made("late")))


@pytest.mark.anyio
async def test_a_refusal_leaves_the_rest_of_the_transaction(tmp_path):
    ledger = await open_ledger(tmp_path)
    writes = [ledger.write(add(made(uses=5)))]
    writes += [
        ledger.write(lambda db, n=n: records.admit(db, member(f"guest {n}"))) for n in range(50)
    ]
    results = await asyncio.gather(*writes, return_exceptions=True)
    assert sum(isinstance(each, Membership) for each in results) == 5
    assert sum(isinstance(each, InviteUsedUp) for each in results) == 45
    await ledger.close()
    connection = open_for_reading(tmp_path)
    assert len(records.read(connection).memberships) == 5
    connection.close()


@pytest.mark.anyio
async def test_the_loop_never_waits_for_the_disk(tmp_path):
    ledger = await open_ledger(tmp_path)
    await ledger.write(add(made()))
    other = sqlite3.connect(tmp_path / FILE, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    waiting = ledger.write(lambda db: records.admit(db, member("g")))
    for number in range(2000):
        row = Request(number + 1, None, "m", NOW)
        ledger.post(lambda db, row=row: records.put_requests(db, [row]))
    await asyncio.sleep(0.1)
    assert not waiting.done()
    other.execute("COMMIT")
    other.close()
    assert (await waiting).guest_id == "g"
    await ledger.close()
    connection = open_for_reading(tmp_path)
    assert records.read(connection).next_request_id == 2001
    connection.close()


@pytest.mark.anyio
async def test_a_disk_that_is_full_is_an_error_and_heals(tmp_path):
    ledger = await open_ledger(tmp_path)
    await ledger.write(add(made()))

    def fill(db):
        db.execute("PRAGMA max_page_count = 1")
        db.execute("CREATE TABLE filler (data BLOB)")
        db.execute("INSERT INTO filler VALUES (zeroblob(10000000))")

    with pytest.raises(RecordsUnwritable, match="cannot write"):
        await ledger.write(fill)
    ledger.post(lambda db: db.execute("PRAGMA max_page_count = 1000000"))
    assert (await ledger.write(lambda db: records.admit(db, member("g")))).guest_id == "g"
    await ledger.close()


@pytest.mark.anyio
async def test_other_processes_invites_and_revocations_are_noticed_once(tmp_path):
    keys.load_or_create(tmp_path / "identity.key")
    noticed = []
    ledger = await open_ledger(tmp_path, noticed.append)
    ledger.look_every = 0.02
    await ledger.write(add(made()))
    await ledger.write(lambda db: records.admit(db, member("g")))
    await asyncio.sleep(0.2)
    assert noticed == []
    link = await asyncio.to_thread(owner.make_invite, tmp_path, Terms("New", 1, 60))
    await asyncio.to_thread(owner.revoke, tmp_path, "invite-1")
    await asyncio.to_thread(owner.revoke, tmp_path, "member-g")
    with anyio.fail_after(5):
        while len([key for each in noticed for key in each.revoked]) < 2:
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.2)
    made_known = [key for each in noticed for key in each.invites]
    assert made_known.count(link.invite.invite_id) == 1
    assert sorted(key for each in noticed for key in each.revoked) == ["invite-1", "member-g"]
    await ledger.close()


@pytest.mark.anyio
async def test_closing_writes_what_is_waiting_and_ends_the_thread(tmp_path):
    ledger = await open_ledger(tmp_path)
    ledger.post(add(made()))
    await ledger.close()
    await ledger.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "qmt-ledger"]
    connection = open_for_reading(tmp_path)
    assert len(records.read(connection).invites) == 1
    connection.close()


# Another process of the owner's ---------------------------------------------------------------


def test_another_process_makes_an_invite_that_points_to_the_host(tmp_path):
    for what in (
        lambda: owner.make_invite(tmp_path, Terms("x", 1, 60)),
        lambda: owner.revoke(tmp_path, "x"),
        lambda: owner.usage(tmp_path),
    ):
        with pytest.raises(NotHosting):
            what()
    host = keys.load_or_create(tmp_path / "identity.key")
    assert owner.usage(tmp_path)["invites"] == []
    ReachFile(tmp_path).write(Hints(("127.0.0.1:5", "[::1]:6"), "https://relay.example/"))
    link = owner.make_invite(tmp_path, Terms("x", 1, 60, Limits(tokens=7)))
    assert link.invite.host_key == host.public_key
    assert link.hints == Hints(("127.0.0.1:5", "[::1]:6"), "https://relay.example/")
    (invite,) = owner.usage(tmp_path)["invites"]
    assert (invite["invite_id"], invite["limits"]) == (link.invite.invite_id, {"tokens": 7})
    (tmp_path / "reach.json").write_text('{"addresses": [5, "nonsense", null], "relay": 7}')
    assert ReachFile(tmp_path).read() == Hints()
    ReachFile(tmp_path).remove()
    ReachFile(tmp_path).remove()
    assert owner.make_invite(tmp_path, Terms("x", 1, 60)).hints.addresses == ()


def test_what_a_dead_host_left_running_counts_as_lost(tmp_path):
    keys.load_or_create(tmp_path / "identity.key")
    connection = open_for_writing(tmp_path)
    records.add_invite(connection, made())
    records.admit(connection, member("g"))
    records.put_requests(connection, [Request(1, "member-g", "m", NOW)])
    guest = owner.usage(tmp_path)["invites"][0]["guests"][0]
    assert (guest["running"], guest["ended"]) == (0, {"lost": 1})
    lock = keys.HostLock(tmp_path)
    lock.acquire()
    guest = owner.usage(tmp_path)["invites"][0]["guests"][0]
    assert (guest["running"], guest["ended"]) == (1, {})
    lock.release()
    connection.close()


def test_nothing_secret_is_written_down(tmp_path):
    keys.load_or_create(tmp_path / "identity.key")
    link = owner.make_invite(tmp_path, Terms("x", 1, 60))
    held = b"".join(path.read_bytes() for path in tmp_path.glob("ledger.db*"))
    assert link.invite.token[-64:] not in held
    assert link.invite.token_text().encode() not in held
    seed = (tmp_path / "identity.key").read_text().strip()
    assert seed.encode() not in held
    assert bytes.fromhex(seed) not in held


def test_a_writer_that_is_killed_loses_nothing_that_was_committed(tmp_path):
    code = (
        "import asyncio, os, signal, sys\n"
        "from pathlib import Path\n"
        "from qmt_jupyter.host import records, rows\n"
        "from qmt_jupyter.host.ledger import Ledger\n"
        "async def main():\n"
        "    ledger, _ = await Ledger.open(Path(sys.argv[1]), lambda changes: None, 0.0)\n"
        "    made = rows.InviteRecord('invite-1', 'x', 0.0, 0, 0)\n"
        "    await ledger.write(lambda db: records.add_invite(db, made))\n"
        "    for n in range(1000):\n"
        "        wanted = rows.Membership(str(n), 'invite-1', str(n), '', 0.0)\n"
        "        await ledger.write(lambda db: records.admit(db, wanted))\n"
        "        print(n, flush=True)\n"
        "        if n == 99: os.kill(os.getpid(), signal.SIGKILL)\n"
        "asyncio.run(main())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True
    )
    assert done.stdout.split()[-1] == "99", done.stderr
    connection = open_for_writing(tmp_path)
    assert len(records.read(connection).memberships) == 100
    connection.close()


@pytest.mark.anyio
async def test_a_write_that_fails_in_an_unforeseen_way_harms_no_later_one(tmp_path):
    ledger = await open_ledger(tmp_path)
    good = [ledger.write(add(made(f"invite {n}"))) for n in range(3)]
    bad = [
        ledger.write(lambda db: [][0]),
        ledger.write(lambda db: db.execute("SELECT ?", (2**70,))),
    ]
    good += [ledger.write(add(made(f"invite {n}"))) for n in range(3, 6)]
    results = await asyncio.gather(*good, *bad, return_exceptions=True)
    assert [isinstance(each, RecordsUnwritable) for each in results] == [False] * 6 + [True] * 2
    await ledger.write(add(made()))
    await ledger.close()
    connection = open_for_reading(tmp_path)
    assert len(records.read(connection).invites) == 7
    connection.close()


@pytest.mark.anyio
@pytest.mark.parametrize("closing", [False, True])
async def test_what_nobody_waited_for_is_written_when_the_file_can_be_again(
    tmp_path, monkeypatch, closing
):
    monkeypatch.setattr(ledgers, "_BUSY_TIMEOUT", 0.05)
    ledger = await open_ledger(tmp_path)
    other = sqlite3.connect(tmp_path / FILE, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    ledger.post(lambda db: records.put_requests(db, [Request(1, None, "m", NOW, how="completed")]))
    with pytest.raises(RecordsUnwritable):
        await ledger.write(add(made()))
    other.execute("COMMIT")
    other.close()
    if not closing:
        await ledger.write(add(made("later")))
    await ledger.close()
    connection = open_for_reading(tmp_path)
    assert records.read(connection).totals[None].ended == {"completed": 1}
    connection.close()


@pytest.mark.anyio
async def test_a_ledger_that_is_removed_under_a_host_is_noticed(tmp_path):
    ledger = await open_ledger(tmp_path)
    ledger.look_every = 0.02
    await ledger.write(add(made()))
    for path in tmp_path.glob("ledger.db*"):
        path.unlink()
    with anyio.fail_after(5):
        while not ledger._is_gone:
            await asyncio.sleep(0.02)
    with pytest.raises(RecordsUnwritable):
        await ledger.write(add(made("later")))
    await ledger.close()


@pytest.mark.anyio
async def test_opening_ends_what_a_host_that_died_left_running(tmp_path):
    connection = open_for_writing(tmp_path)
    records.put_requests(connection, [Request(1, None, "m", NOW - 5)])
    connection.close()
    ledger, snapshot = await Ledger.open(tmp_path, lambda changes: None, NOW)
    assert (snapshot.totals[None].running, snapshot.totals[None].ended) == (0, {"lost": 1})
    assert snapshot.recent[0].ended_at == NOW
    await ledger.close()


# Seats ----------------------------------------------------------------------------------------

DAY = 86400.0
FIRST_SCHEMA = records.MIGRATIONS[:1]


def seat(invite_id, user="alice", guest="lab", ends=NOW + 900, revoked_at=None):
    return InviteRecord(
        invite_id, "Class", NOW, int(ends), 1, UNLIMITED, revoked_at, user=user, guest=guest
    )


def sit(connection, invite_id, *asked_at, tokens=10, **facts):
    """A seat through which something was asked at these times."""
    made_seat = seat(invite_id, **facts)
    seat_records.put_seat(connection, made_seat)
    membership = Membership(f"member-{invite_id}", invite_id, made_seat.guest, "", NOW)
    connection.execute(
        "INSERT INTO memberships VALUES (?, ?, ?, ?, ?, NULL)",
        (membership.membership_id, invite_id, membership.guest_id, "", NOW),
    )
    first = records.read(connection).next_request_id
    rows = [
        Request(first + n, membership.membership_id, "a", when, 0.0, 0.1, tokens, 0, False, when, "completed")
        for n, when in enumerate(asked_at)
    ]  # fmt: skip
    records.put_requests(connection, rows)


def test_a_file_of_before_there_were_seats_is_brought_up_to_date(tmp_path, monkeypatch):
    keys.load_or_create(tmp_path / "identity.key")
    with monkeypatch.context() as earlier:
        earlier.setattr(records, "MIGRATIONS", FIRST_SCHEMA)
        earlier.setattr(records, "require_shape", lambda _: None)
        connection = open_for_writing(tmp_path)
        connection.execute(
            "INSERT INTO invites VALUES ('invite-1', 'Team', ?, 0, 3, '{\"tokens\": 5}', NULL)",
            (NOW,),
        )
        connection.execute(
            "INSERT INTO memberships VALUES ('m', 'invite-1', 'g', '', ?, NULL)", (NOW,)
        )
        connection.close()
    # Before a host has been started again, too.
    (invite,) = owner.usage(tmp_path)["invites"]
    assert (invite["uses"], invite["limits"]) == (1, {"tokens": 5})
    connection = open_for_writing(tmp_path)
    assert ledgers.version_of(connection) == len(records.MIGRATIONS)
    snapshot = records.read(connection)
    (kept,) = snapshot.invites
    assert (kept.user, kept.guest, kept.max_uses) == ("", "", 3)
    assert snapshot.seats.allowances == {}
    assert records.admit(connection, member("g")).membership_id == "m"
    seat_records.put_seat(connection, seat("seat-1"))
    connection.close()


def test_a_seat_admits_its_own_identity_alone_while_it_holds(tmp_path):
    connection = open_for_writing(tmp_path)
    seat_records.put_seat(connection, seat("seat-1"))
    for wanted, error in (
        (Membership("m", "seat-1", "mallory", "", NOW), AdmissionRefused),
        (Membership("m", "seat-1", "lab", "", NOW + 901), MembershipEnded),
    ):
        with pytest.raises(error):
            records.admit(connection, wanted)
    assert records.read(connection).memberships == ()
    first = records.admit(connection, Membership("m", "seat-1", "lab", "", NOW))
    seat_records.put_seat(connection, seat("seat-1", ends=NOW + 1800))
    seat_records.put_seat(connection, seat("seat-1", ends=NOW + 100))
    (kept,) = records.read(connection).invites
    assert (kept.expires_at, kept.user, kept.guest) == (NOW + 1800, "alice", "lab")
    again = records.admit(connection, Membership("other", "seat-1", "lab", "", NOW + 901))
    assert again.membership_id == first.membership_id
    records.revoke(connection, "seat-1", NOW + 902)
    seat_records.put_seat(connection, seat("seat-1", ends=NOW + 9000))
    with pytest.raises(Revoked):
        records.admit(connection, Membership("other", "seat-1", "lab", "", NOW + 903))
    connection.close()


def test_what_users_may_take_is_kept_as_it_was_set_last(tmp_path):
    connection = open_for_writing(tmp_path)
    name = "o'Brien; DROP TABLE invites --"
    seat_records.put_allowance(connection, name, Allowance(tokens_per_day=5))
    seat_records.put_allowance(connection, name, Allowance(paused=True, zone="Europe/Berlin"))
    seat_records.put_allowance(connection, "bob", Allowance())
    found = records.read(connection).seats.allowances
    assert found == {name: Allowance(paused=True, zone="Europe/Berlin"), "bob": Allowance()}
    # A zone that this machine does not know any more takes nobody's records away.
    connection.execute("UPDATE allowances SET allowance = replace(allowance, 'Berlin', 'Atlantis')")
    assert records.read(connection).seats.allowances[name] == Allowance(paused=True)
    connection.close()


def test_an_allowance_that_cannot_be_read_is_damage(tmp_path):
    for damage in ("nonsense", "[]", '{"tokens_per_day": -5}', '{"unknown": 1}'):
        connection = open_for_writing(tmp_path)
        connection.execute("INSERT INTO allowances VALUES ('alice', ?)", (damage,))
        connection.close()
        with pytest.raises(LedgerDamaged):
            open_for_writing(tmp_path)


def test_seats_that_are_over_are_not_read_and_their_users_keep_what_they_used(tmp_path):
    connection = open_for_writing(tmp_path)
    now = NOW + 40 * DAY
    sit(connection, "long-over", NOW, NOW + 60)
    sit(connection, "over", now - 5 * DAY, now - 5 * DAY + 100, ends=now - 4 * DAY)
    sit(connection, "still", now - 60, guest="home", ends=now + 900)
    sit(connection, "another", now - 60, user="bob", ends=now - 1)
    seat_records.put_seat(connection, seat("never-used", ends=NOW))
    seat_records.put_seat(connection, seat("not-used-yet", ends=now + 900))
    records.add_invite(connection, made())
    snapshot = records.read(connection, now=now)
    assert [each.invite_id for each in snapshot.invites] == [
        "still", "another", "not-used-yet", "invite-1",
    ]  # fmt: skip
    assert {each.invite_id for each in snapshot.memberships} == {"still", "another"}
    assert snapshot.seats.past["alice"].requests == 4
    assert "bob" not in snapshot.seats.past
    quarter = int((now - 60) // QUARTER)
    assert snapshot.seats.spent["bob"] == {quarter: 10}
    assert sum(snapshot.seats.spent["alice"].values()) == 30, "what is older is no month's any more"
    register = Register.from_snapshot(snapshot, wall=now, clock=0.0)
    for name, used in (("alice", 50), ("bob", 10)):
        assert register.users.of(name).usage().prompt_tokens == used
    before = {user.name: user.usage().as_dict() for user in register.users}
    register.forget_seats(now + 2 * DAY)
    assert [each.record.invite_id for each in register.granted] == ["invite-1"]
    assert {user.name: user.usage().as_dict() for user in register.users} == before
    seat_records.forget_unused(connection, now)
    kept = {each.invite_id for each in records.read(connection).invites}
    assert kept == {"long-over", "over", "still", "another", "not-used-yet", "invite-1"}
    connection.close()


@pytest.mark.anyio
async def test_a_host_that_comes_back_lets_go_of_seats_that_nobody_used(tmp_path):
    connection = open_for_writing(tmp_path)
    seat_records.put_seat(connection, seat("never-used", ends=NOW - DAY))
    connection.execute(
        "INSERT INTO memberships VALUES ('m', 'never-used', 'lab', '', ?, NULL)", (NOW,)
    )
    connection.close()
    await (await open_ledger(tmp_path)).close()
    connection = open_for_writing(tmp_path)
    assert records.read(connection).invites == ()
    connection.close()


@pytest.mark.anyio
async def test_a_seat_that_its_owner_revokes_from_elsewhere_is_noticed(tmp_path):
    keys.load_or_create(tmp_path / "identity.key")
    noticed = []
    ledger = await open_ledger(tmp_path, noticed.append)
    ledger.look_every = 0.02
    # The one that is over would fill every later look at what was revoked.
    for name, ends in (("seat-over", NOW), ("seat-here", time.time() + 900)):
        await ledger.write(
            lambda db, name=name, ends=ends: seat_records.put_seat(db, seat(name, ends=ends))
        )
        await asyncio.to_thread(owner.revoke, tmp_path, name)
    with anyio.fail_after(5):
        while not noticed:
            await asyncio.sleep(0.01)
    assert [key for each in noticed for key in each.revoked] == ["seat-here"]
    assert [key for each in noticed for key in each.invites] == []
    await ledger.close()
