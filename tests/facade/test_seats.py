"""Seats as a service uses them: by the blocking and by the awaitable face of a host."""

from __future__ import annotations

import asyncio

import pytest

import qmt_jupyter as qmt
from qmt_jupyter import aio
from qmt_jupyter.errors import OptionInvalid, Paused, Revoked, Stopped
from qmt_jupyter.host.report import usage_rows
from qmt_jupyter.identity import keys
from qmt_jupyter.providers.echo import Echo
from qmt_jupyter.settings import Settings
from qmt_jupyter.tables import rows_csv, usage_table


@pytest.fixture
def guest():
    """The peer id of this process as a guest."""
    return keys.load_or_create(Settings.from_environment().guest_dir / "identity.key").peer_id


def test_a_seat_is_given_renewed_paused_and_ended(guest):
    with qmt.host(Echo(slots=2), name="Class") as host:
        first = host.seat("alice", guest, qmt.Allowance(tokens_per_day=1000))
        assert (first.name, first.max_uses) == ("Class", 1)
        with qmt.join(first.url) as mesh:
            mesh.chat("one two three").read()
            renewed = host.seat("alice", guest, qmt.Allowance(), name="Other", lifetime=3600)
            assert (renewed.invite_id, renewed.name) == (first.invite_id, "Other")
            assert renewed.expires_at > first.expires_at
            host.used_elsewhere("alice", day=5, month=7)
            (row,) = host.seats()
            assert row["elsewhere"] == {"day": 5, "month": 7}
            assert row["left"] == {"day": None, "month": None}
            host.allow("alice", qmt.Allowance(paused=True))
            with pytest.raises(Paused):
                mesh.chat("x").read()
            assert host.end_seat("alice", sentence="Goodbye.") == 1
            with pytest.raises(Revoked):
                mesh.chat("x").read()
        assert host.end_seat("nobody") == 0
        for wrong in ("", "half a letter \ud800", None):
            with pytest.raises(OptionInvalid):
                host.allow(wrong, qmt.Allowance())
        with pytest.raises(OptionInvalid):
            host.allow("alice", {"paused": False})
        with pytest.raises(OptionInvalid):
            host.used_elsewhere("alice", day=-1, month=0)
        assert host.invites == (host.invite,), "a seat is none of the host's own invites"
    with pytest.raises(Stopped):
        host.seat("alice", guest, qmt.Allowance())


def test_the_awaitable_face_does_the_same(guest):
    async def main():
        async with await aio.host(Echo(), name="Class") as host:
            made = await host.seat("alice", guest, qmt.Allowance(paused=True))
            await host.allow("alice", qmt.Allowance())
            async with await aio.join(made.url) as mesh:
                await mesh.chat("one two three").read()
            await host.used_elsewhere("alice", day=1, month=2)
            return made, await host.seats(), await host.end_seat("alice", guest)

    made, seats, ended = asyncio.run(main())
    assert ended == 1
    (row,) = seats
    assert (row["user"], row["paused"], row["requests"]) == ("alice", False, 1)
    assert [each["invite_id"] for each in row["seats"]] == [made.invite_id]
    assert made.url not in repr((made, seats))


def test_usage_counts_seats_by_their_users(guest):
    with qmt.host(Echo(), name="Class") as host:
        with qmt.join(host.seat("=cmd()", guest, qmt.Allowance(tokens_per_day=100)).url) as mesh:
            mesh.chat("one two three").read()
        usage = host.usage()
        (invite,), (user,) = usage["invites"], usage["users"]
        assert (invite["invite_id"], invite["requests"]) == (host.invite.invite_id, 0)
        assert (user["user"], user["prompt_tokens"], user["left"]["tokens"]) == ("=cmd()", 3, 94)
        rows = host.usage_rows()
        assert rows == usage_rows(usage)
        assert [(row["user"], row["requests"], row["tokens_left"]) for row in rows] == [
            (None, 0, None),
            ("=cmd()", 1, 94),
        ]
        assert len({tuple(row) for row in rows}) == 1, "all rows have the same columns"
        assert "'=cmd()" in rows_csv(rows), "no spreadsheet computes a user's name"
        heads, _, line = usage_table(usage).splitlines()[-3:]
        assert heads.split() == [
            "user", "seats", "asked", "now", "in", "out", "last", "broken", "off", "left",
        ]  # fmt: skip
        assert line.split()[:6] == ["=cmd()", "1", "1", "0", "3", "3"]
        assert line.endswith("94 tokens")
