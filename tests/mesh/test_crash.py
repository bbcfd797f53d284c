"""A host that is killed at random moments, fifty times, under load: its ledger keeps its promises."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import socket
import subprocess
import sys
import time
from collections import Counter

import anyio
import pytest

from qmt_jupyter.errors import InviteUsedUp, QmtError
from qmt_jupyter.host import owner, records
from qmt_jupyter.host.granting import Terms
from qmt_jupyter.host.ledger import open_for_reading
from qmt_jupyter.host.rows import Total
from qmt_jupyter.identity import link
from qmt_jupyter.wire import messages
from tests.mesh.conftest import question

pytestmark = pytest.mark.anyio

KILLS = 50
GUESTS = 8
NEWCOMERS, USES = 4, 2

HOST = """
import json, sys, time
import qmt_jupyter as qmt
from qmt_jupyter.providers.echo import Echo
host = qmt.host(Echo(slots=4, delay=0.003, repeat=True), uses=8, port=int(sys.argv[1]))
print(json.dumps({"invite": host.invite.url}), flush=True)
time.sleep(120)
"""


class Guest:
    """Asks and asks; remembers what it was told and when."""

    def __init__(self, person) -> None:
        self.person = person
        self.id = person.identity().peer_id
        self.asked = 0
        self.started = 0
        self.pieces: list[float] = []

    @property
    def has_heard_enough(self) -> bool:
        return len(self.pieces) > 100

    async def run(self, granted) -> None:
        mesh = await self.person.join(granted)
        try:
            while True:
                self.asked += 1
                async for reply in mesh.answer(question(max_tokens=random.randint(1, 150))):
                    self.started += isinstance(reply, messages.Started)
                    if isinstance(reply, messages.Delta) and reply.choices[0]["delta"].get(
                        "content"
                    ):
                        self.pieces.append(time.monotonic())
        finally:
            with anyio.CancelScope(shield=True):
                await mesh.close()


@pytest.mark.timeout(600)
async def test_fifty_kills_lose_no_admission_no_request_and_a_second_of_counts_at_most(person):
    chance = random.Random()
    home = person("host").settings
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "QMT_HOME": str(home.home)}
    guests = [Guest(person(f"guest {n}")) for n in range(GUESTS)]
    told: dict[str, set[str]] = {}
    lasting = None
    # A slow machine needs some more lives until everybody has heard enough to be counted by.
    for kill in range(2 * KILLS):
        if kill >= KILLS and all(guest.has_heard_enough for guest in guests):
            break
        process = await anyio.to_thread.run_sync(
            lambda: subprocess.Popen(
                [sys.executable, "-c", HOST, str(port)],
                stdout=subprocess.PIPE,
                env=environment,
                text=True,
            )
        )
        try:
            ready = json.loads(await anyio.to_thread.run_sync(process.stdout.readline))
            lasting = lasting or link.read(ready["invite"])
            fresh = await anyio.to_thread.run_sync(
                owner.make_invite, home.host_dir, Terms("Fresh", USES, 600)
            )
            told[fresh.invite.invite_id] = set()

            async def arrive(number, granted=fresh, kill=kill):
                newcomer = person(f"newcomer {kill} {number}")
                await asyncio.sleep(chance.uniform(0, 0.6))
                with contextlib.suppress(InviteUsedUp):
                    mesh = await newcomer.join(granted)
                    told[granted.invite.invite_id].add(newcomer.identity().peer_id)
                    await mesh.close()

            async with anyio.create_task_group() as tasks:
                for guest in guests:
                    tasks.start_soon(quietly, guest.run, lasting)
                for number in range(NEWCOMERS):
                    tasks.start_soon(quietly, arrive, number)
                await asyncio.sleep(chance.uniform(0.1, 1.6))
                process.kill()
                killed = time.monotonic()
                await anyio.to_thread.run_sync(process.wait)
                tasks.cancel_scope.cancel()
        finally:
            process.kill()
            process.communicate()
        check(home.host_dir, guests, told, killed)
    assert sum(guest.started for guest in guests) > KILLS
    assert sum(len(each) for each in told.values()) > KILLS / 2
    assert all(guest.has_heard_enough for guest in guests)


async def quietly(run, *arguments):
    """A guest whose host is killed meets errors; they are another test's."""
    with contextlib.suppress(QmtError):
        await run(*arguments)


def check(directory, guests, told, killed):
    connection = open_for_reading(directory)
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    snapshot = records.read(connection)
    admitted = Counter(each.invite_id for each in snapshot.memberships)
    for invite in snapshot.invites:
        assert not invite.max_uses or admitted[invite.invite_id] <= invite.max_uses
    there = {(each.invite_id, each.guest_id) for each in snapshot.memberships}
    for invite_id, guest_ids in told.items():
        assert {(invite_id, guest_id) for guest_id in guest_ids} <= there
    for guest in guests:
        mine = [each for each in snapshot.memberships if each.guest_id == guest.id]
        total = snapshot.totals.get(mine[0].membership_id, Total()) if mine else Total()
        assert len(mine) <= 1, "coming back is no new use"
        assert guest.started <= total.requests <= guest.asked
        # Of each life of the host, all but the last second.
        guest.pieces = [came for came in guest.pieces if came < killed - 1.0]
        assert total.completion_tokens >= len(guest.pieces)
    connection.close()
