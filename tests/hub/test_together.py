"""Two desks of one Hub: each learns from the other what was used and changed there, once."""

from __future__ import annotations

import asyncio
import itertools
import logging
import socket
import time
from types import SimpleNamespace
from typing import ClassVar

import pytest

pytest.importorskip("jupyterhub", reason="the extra hub is not installed")

from tornado.httpserver import HTTPServer

from qmt_jupyter.errors import HomeNotWritable, HubRefused, RecordsUnwritable
from qmt_jupyter.hub import overrides, peers, together
from qmt_jupyter.hub.app import make_app
from qmt_jupyter.hub.desk import Desk
from qmt_jupyter.hub.options import Options
from qmt_jupyter.hub.overrides import Overrides
from qmt_jupyter.hub.person import NODE, Person
from qmt_jupyter.hub.policy import Policy
from qmt_jupyter.hub.together import Together, tell
from qmt_jupyter.identity.keys import Identity
from tests.hub.hub import ask

pytestmark = pytest.mark.anyio


class Host:
    """What a desk asks of its host, and nothing of a mesh."""

    def __init__(self):
        self.peer_id = Identity.fresh().peer_id
        self.counts = {}
        self.elsewhere = {}
        self.told = []
        self.allowed = {}

    async def seats(self):
        return [
            {"user": user, "tokens_today": day, "tokens_month": month}
            for user, (day, month) in self.counts.items()
        ]

    async def used_elsewhere(self, user, *, day, month):
        self.told.append(user)
        self.elsewhere[user] = (day, month)

    async def allow(self, user, allowance):
        self.allowed[user] = allowance


class Rights:
    """The Hub's answers: which token is whose."""

    people: ClassVar = {
        "qmt1-token": Person("qmt1", scopes=frozenset({NODE}), is_service=True),
        "qmt2-token": Person("qmt2", scopes=frozenset({NODE}), is_service=True),
        "ann-token": Person("ann", scopes=frozenset({"access:services"})),
    }

    async def ask(self, token, *, again=False):
        if token not in self.people:
            raise HubRefused("Nobody's.")
        return self.people[token]


class Node:
    """One service: a desk, its web application on loopback, and what keeps it together."""

    def __init__(self, folder, name, held, peers, zone="UTC"):
        self.port = held.getsockname()[1]
        options = Options(
            name=name, prefix=f"/services/{name}/", api_url="http://127.0.0.1:1/hub/api",
            api_token=f"{name}-token", peers=peers,
        )  # fmt: skip
        self.host = Host()
        self.desk = Desk(
            self.host, policy=Policy(zone=zone), overrides=Overrides(folder / f"{name}.json"),
            rights=Rights(), options=options,
        )  # fmt: skip
        self.together = Together(self.desk)
        self._held = held
        self.server = HTTPServer(make_app(self.desk))
        self.serve()

    def serve(self):
        self._held.listen(16)
        self._held.setblocking(False)
        self.server.add_socket(self._held)

    async def stop(self):
        self.server.stop()
        await self.server.close_all_connections()
        self.desk.peers.close()
        self._held.close()


@pytest.fixture
async def nodes(tmp_path):
    held = [socket.socket() for _ in range(2)]
    for each in held:
        each.bind(("127.0.0.1", 0))
    urls = tuple(
        f"http://127.0.0.1:{each.getsockname()[1]}/services/qmt{number}/"
        for number, each in enumerate(held, 1)
    )
    # Both are given all services, themselves too.
    made = [Node(tmp_path, f"qmt{number}", each, urls) for number, each in enumerate(held, 1)]
    yield made
    for each in made:
        await each.stop()


async def rounds(*nodes, times=2):
    for _ in range(times):
        for node in nodes:
            await node.together.look()


async def test_what_is_used_at_one_counts_at_the_other_and_goes_round_no_circle(nodes):
    one, two = nodes
    one.host.counts, two.host.counts = {"ann": (5, 50)}, {"ann": (7, 70), "ben": (0, 9)}
    await rounds(one, two, times=5)
    assert one.host.elsewhere == {"ann": (7, 70), "ben": (0, 9)}
    assert two.host.elsewhere == {"ann": (5, 50)}
    # The host is told what is new, and that something is not any more.
    assert sorted(one.host.told) == ["ann", "ben"]
    two.host.counts = {"ann": (8, 71)}
    await rounds(one, two)
    assert one.host.elsewhere == {"ann": (8, 71), "ben": (0, 0)}


async def test_a_new_day_begins_at_nothing_and_a_new_month_too(nodes, monkeypatch):
    one, two = nodes
    two.host.counts = {"ann": (7, 70)}
    await rounds(one)
    day = together.today("UTC", 0)
    monkeypatch.setattr(together, "today", lambda zone, now: day)
    await two.stop()  # what it told last is of a month that is over
    one.host.told.clear()
    await rounds(one)
    assert (one.host.elsewhere, one.host.told) == ({"ann": (0, 0)}, ["ann"])


async def test_the_same_number_on_the_next_day_is_told_anew(nodes, monkeypatch):
    one, two = nodes
    two.host.counts = {"ann": (7, 70)}
    await rounds(one)
    one.host.told.clear()  # the host forgets what it was told, when the day is over
    await rounds(one)
    assert one.host.told == []
    day = together.today("UTC", time.time() + 86400)
    monkeypatch.setattr(together, "today", lambda zone, now: day)
    await rounds(one)
    assert (one.host.elsewhere, one.host.told) == ({"ann": (7, 70)}, ["ann"])


async def test_a_pause_and_a_limit_hold_at_both_and_the_newest_wins(nodes):
    one, two = nodes
    one.desk.overrides.put("ann", overrides.Override(paused=True))
    await rounds(one, two)
    assert two.host.allowed["ann"].paused
    two.desk.overrides.put("ann", overrides.Override(limits={"tokens_per_day": 7}))
    await rounds(one, two)
    assert not one.host.allowed["ann"].paused and one.host.allowed["ann"].tokens_per_day == 7
    assert one.desk.overrides.changes() == two.desk.overrides.changes()
    # Taken over once: nothing is written or applied for what is known.
    one.host.allowed.clear()
    two.host.allowed.clear()
    await rounds(one, two, times=3)
    assert (one.host.allowed, two.host.allowed) == ({}, {})


async def test_a_clock_that_is_ahead_cannot_keep_its_word_for_ever(nodes, monkeypatch):
    one, two = nodes
    ahead = SimpleNamespace(time=lambda: 2_000_000_000.0)
    with monkeypatch.context() as wrong:
        wrong.setattr(overrides, "time", ahead)
        one.desk.overrides.put("ann", overrides.Override(paused=True))
    await rounds(two)
    assert two.host.allowed["ann"].paused
    two.desk.overrides.put("ann", overrides.Override(paused=False))
    await rounds(one, two)
    assert not one.host.allowed["ann"].paused
    assert one.desk.overrides.changes() == two.desk.overrides.changes()


async def test_counts_that_add_up_to_no_number_keep_nobody_elses_from_counting(nodes):
    one, two = nodes
    two.host.counts = {"ann": (2**53, 2**53), "ben": (7, 70)}
    three = peers._Peer("http://127.0.0.1:1/")
    three.heard(
        peers.Told(
            Identity.fresh().peer_id, together.today("UTC", time.time()),
            {"ann": peers.Used(2**53, 2**53)}, (),
        )
    )  # fmt: skip
    one.desk.peers._peers.append(three)
    await rounds(one)
    assert one.host.elsewhere == {"ann": (2**53, 2**53), "ben": (7, 70)}, "as a host takes them"


async def test_there_is_an_end_to_how_many_users_peers_can_make_up(nodes, monkeypatch):
    monkeypatch.setattr(together, "MOST", 5)
    one, two = nodes
    for round_ in range(4):
        two.host.counts = {"ann": (round_ + 1, 70)} | {f"u{round_}-{n}": (1, 1) for n in range(3)}
        await rounds(one)
    assert len(one.host.elsewhere) == 5
    assert one.host.elsewhere["ann"] == (4, 70), "who is known goes on being counted"


async def test_a_full_disk_stops_no_counting(nodes, monkeypatch):
    one, two = nodes
    two.host.counts = {"ann": (7, 70)}
    two.desk.overrides.put("ben", overrides.Override(paused=True))

    def no_room(*_):
        raise HomeNotWritable("no room")

    with monkeypatch.context() as full:
        full.setattr(overrides, "write_private", no_room)
        await rounds(one)
    assert one.host.elsewhere == {"ann": (7, 70)}
    await rounds(one)
    assert one.host.allowed["ben"].paused, "it is tried again"


async def test_what_the_host_cannot_record_for_one_holds_for_all(nodes, monkeypatch, caplog):
    one, two = nodes
    for user in ("ann", "ben"):
        two.desk.overrides.put(user, overrides.Override(paused=True))
    allow = one.host.allow

    async def unwritable(user, allowance):
        await allow(user, allowance)
        raise RecordsUnwritable("This holds now, but could not be recorded yet.")

    monkeypatch.setattr(one.host, "allow", unwritable)
    await rounds(one)
    assert {user for user, each in one.host.allowed.items() if each.paused} == {"ann", "ben"}
    assert "could not be recorded yet" in caplog.text
    with pytest.raises(RecordsUnwritable):  # as the page says it to an administrator
        await one.desk.change("ann", paused=False)
    assert not one.host.allowed["ann"].paused


async def test_only_a_service_with_the_scope_is_told(nodes):
    one, _ = nodes
    address = f"http://127.0.0.1:{one.port}/services/qmt1/api/node"

    async def status(token):
        import anyio

        return (await anyio.to_thread.run_sync(lambda: ask("GET", address, token=token))).status

    assert await status("qmt2-token") == 200
    assert await status("ann-token") == 403
    assert await status("nobody's") in (401, 403)
    assert await status(None) == 401


async def test_an_administrator_sees_who_does_not_answer(nodes):
    one, two = nodes
    await rounds(one)
    assert [each["answers"] for each in one.desk.peers.report()] == [True, True]
    await two.stop()
    await rounds(one)
    mine, other = one.desk.peers.report()
    assert mine["peer_id"] == one.host.peer_id and mine["answers"]
    assert not other["answers"] and other["peer_id"] == two.host.peer_id


async def test_a_peer_that_goes_and_comes_is_said_once_each(nodes, caplog):
    caplog.set_level(logging.INFO, logger="qmt_jupyter.hub.together")
    one, _ = nodes
    peers_of_one, away = one.desk.peers, [True]
    report = peers_of_one.report

    def told_of():
        mine, other = report()
        return [mine, {**other, "answers": not away[0], "trouble": "it does not answer"}]

    peers_of_one.report = told_of
    await rounds(one, times=3)
    (said,) = caplog.messages
    assert "it does not answer" in said and "qmt2" in said
    away[0] = False
    await rounds(one, times=3)
    assert len(caplog.messages) == 2 and "answers again" in caplog.messages[1]


async def test_what_cannot_be_kept_is_said_once(nodes, monkeypatch, caplog):
    one, two = nodes
    two.desk.overrides.put("ben", overrides.Override(paused=True))

    def no_room(*_):
        raise HomeNotWritable("There is no room.")

    monkeypatch.setattr(overrides, "write_private", no_room)
    await rounds(one, times=3)
    assert [each for each in caplog.messages if "no room" in each] == [
        "What was changed at another service: There is no room."
    ]


async def test_there_is_a_pause_between_two_rounds(nodes, caplog):
    one, _ = nodes
    looked, every = [], 0.1
    one.together = Together(one.desk, every=every)

    async def look():
        looked.append(time.monotonic())
        raise RuntimeError("which must not end it")

    one.together.look = look
    running = asyncio.ensure_future(one.together.run())
    while len(looked) < 4:
        assert not running.done()
        await asyncio.sleep(0.01)
    running.cancel()
    assert "which must not end it" in caplog.text
    assert min(after - before for before, after in itertools.pairwise(looked)) >= 0.9 * every


async def test_users_without_tokens_this_month_are_not_told_of(nodes):
    one, _ = nodes
    one.host.counts = {"ann": (0, 0), "ben": (1, 1)}
    assert set((await tell(one.desk))["users"]) == {"ben"}


async def test_a_day_is_the_zones():
    assert together.today("UTC", 1796083200.0) == "2026-12-01"
    assert together.today("America/New_York", 1796083200.0) == "2026-11-30"
