"""A link that was lost comes back by itself, and whoever asks meanwhile waits for it."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys

import anyio
import pytest

from qmt_jupyter.answers import AnswerState
from qmt_jupyter.errors import (
    Busy,
    HostGone,
    HostNotFound,
    InviteExpired,
    NotJoined,
    OptionInvalid,
    Refused,
    Revoked,
    Stopped,
    TooManyAtOnce,
    UdpBlocked,
    VersionMismatch,
)
from qmt_jupyter.guest import live, returning
from qmt_jupyter.guest.returning import Away, Backoff, Pulse
from qmt_jupyter.identity import link
from qmt_jupyter.wire import messages
from tests.mesh.conftest import bare, grant, question, texts, until

pytestmark = pytest.mark.anyio


HOST = """
import sys, qmt_jupyter as qmt
from qmt_jupyter.providers.echo import Echo
with qmt.host(Echo(delay=0.02, repeat=True), uses=0) as host:
    print(host.invite.url, flush=True)
    sys.stdin.read()
"""


class Frozen:
    """A host in a process of its own that can be frozen: it is there, and says nothing."""

    def __init__(self, home):
        self.is_frozen = False
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOST], env={**os.environ, "QMT_HOME": str(home)},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    async def granted(self):
        return link.read(await anyio.to_thread.run_sync(self.process.stdout.readline))

    def freeze(self):
        if self.is_frozen:
            return
        self.is_frozen = True
        self.process.send_signal(signal.SIGSTOP)
        # It may run on for a moment, and begin an answer.
        os.waitpid(self.process.pid, os.WUNTRACED)

    def thaw(self):
        self.is_frozen = False
        self.process.send_signal(signal.SIGCONT)

    def close(self):
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


@pytest.fixture
def frozen(tmp_path):
    if not hasattr(signal, "SIGSTOP"):
        pytest.skip("no process can be frozen here")
    host = Frozen(tmp_path / "apart")
    yield host
    host.close()


async def test_a_link_comes_back_without_being_asked_and_without_another_use(person):
    host, guest = person("host"), person("guest")
    service = await host.host()
    mesh = await guest.join(bare(await grant(service, uses=1)))
    for _ in range(2):
        await service.close()
        await until(lambda: mesh.status()[0]["returning"])
        assert not mesh.status()[0]["connected"]
        service = await host.host()  # on another port
        await until(lambda: mesh.status()[0]["connected"], seconds=60)
        assert not mesh.status()[0]["returning"]
    assert service.usage()["invites"][0]["uses"] == 1
    assert "".join(await texts(mesh)) == "one two three"
    await mesh.close()
    await service.close()


async def test_a_chat_waits_for_its_host_and_says_so(person):
    host = person("host")
    service = await host.host()
    mesh = await person("guest").join(bare(await grant(service)))
    await service.close()
    await until(lambda: not mesh.status()[0]["connected"])
    seen, services = [], []

    async def ask():
        async for event in mesh.answer(question(), patience=60.0):
            seen.append(event)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask)
        await until(lambda: any(isinstance(each, Away) for each in seen))
        services.append(await host.host())
    away = next(each for each in seen if isinstance(each, Away))
    assert away.host_id == service.peer_id and 0 < away.seconds <= returning.PATIENCE
    assert isinstance(seen[-1], messages.Done)
    await mesh.close()
    await services[0].close()


async def test_a_host_that_does_not_come_back_is_given_up_in_time(person):
    service = await person("host").host()
    mesh = await person("guest").join(await grant(service))
    (joined,) = mesh.links
    await service.close()
    await until(lambda: not joined.is_connected)
    with anyio.fail_after(30), pytest.raises(HostNotFound):
        async for _ in joined.ask(question(), patience=1.0):
            pass
    await mesh.close()
    with pytest.raises(NotJoined):
        async for _ in joined.ask(question()):
            pass


async def test_leaving_ends_the_search(person):
    service = await person("host").host()
    mesh = await person("guest").join(await grant(service))
    (joined,) = mesh.links
    await service.close()
    await until(lambda: joined.is_returning)
    await mesh.close()
    assert not joined.is_returning


async def test_a_guest_whose_membership_is_revoked_does_not_come_back(person):
    service = await person("host").host()
    mesh = await person("guest").join(await grant(service))
    (joined,) = mesh.links
    await service.revoke(service.usage()["invites"][0]["invite_id"])
    await until(lambda: not joined.is_connected and not joined.is_returning)
    with pytest.raises(Revoked):
        await texts(mesh)
    await mesh.close()
    await service.close()


async def test_a_host_that_falls_silent_is_noticed_without_a_request(person, frozen, monkeypatch):
    monkeypatch.setattr(returning, "QUIET", 0.5)
    mesh = await person("guest").join(await frozen.granted())
    (joined,) = mesh.links
    frozen.freeze()
    await until(lambda: not joined.is_connected, seconds=30)
    frozen.thaw()
    await until(lambda: joined.is_connected, seconds=60)
    assert "".join(await texts(mesh, max_tokens=3)).split() == ["one", "two", "three"]
    await mesh.close()


async def test_a_request_that_is_lost_before_its_answer_began_is_asked_again(person, frozen):
    mesh = await person("guest").join(await frozen.granted())
    seen = []

    async def ask():
        async for event in mesh.answer(question(max_tokens=3), patience=60.0):
            seen.append(event)

    frozen.freeze()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask)
        await until(lambda: any(isinstance(each, Away) for each in seen), seconds=30)
        frozen.thaw()
    assert isinstance(seen[-1], messages.Done)
    assert sum(isinstance(each, messages.Started) for each in seen) == 1
    await mesh.close()


async def test_a_request_asked_again_waits_for_its_forerunner_to_be_given_up(
    person, frozen, monkeypatch
):
    """The invite allows one at a time, and the host still has the one whose guest was lost."""
    mesh = await person("guest").join(await frozen.granted())
    (joined,) = mesh.links
    once = joined._ask_once
    refusals = [HostGone("The host has stopped answering."), *[TooManyAtOnce("One runs.")] * 2]

    async def ask(frame):
        if refusals:
            if isinstance(refusals[0], HostGone):
                await joined._drop()
            raise refusals.pop(0)
        async for reply in once(frame):
            yield reply

    monkeypatch.setattr(joined, "_ask_once", ask)
    seen = [event async for event in mesh.answer(question(max_tokens=3), patience=60.0)]
    assert refusals == [] and isinstance(seen[-1], messages.Done)
    refusals.append(TooManyAtOnce("One runs."))
    with pytest.raises(TooManyAtOnce):
        await texts(mesh, max_tokens=3)
    await mesh.close()


async def test_an_answer_that_had_begun_is_not_asked_for_again(person, frozen):
    mesh = await person("guest").join(await frozen.granted())
    with pytest.raises(HostGone, match="stopped answering"):
        async for event in mesh.answer(question(max_tokens=100_000), patience=60.0):
            if isinstance(event, messages.Delta):
                frozen.freeze()
    frozen.thaw()
    await mesh.close()


def test_a_sleep_is_told_from_a_pause(monkeypatch):
    now = {"wall": 1000.0, "process": 50.0}
    monkeypatch.setattr(live.time, "time", lambda: now["wall"])
    monkeypatch.setattr(live.time, "monotonic", lambda: now["process"])
    clocks = live.Clocks()
    now.update(wall=1100.0, process=150.0)
    assert not clocks.have_slept()
    now.update(wall=5000.0, process=151.0)
    assert clocks.have_slept()
    assert not clocks.have_slept()
    now.update(wall=4000.0)
    assert not clocks.have_slept(), "a clock that is set back is no sleep"


def test_pauses_double_to_a_longest_one_and_differ():
    backoff = Backoff(longest=8.0, chance=random.Random(1))
    pauses = [backoff.pause() for _ in range(200)]
    for pause, whole in zip(pauses, [0.5, 1, 2, 4, *[8] * 196], strict=True):
        assert whole / 2 < pause <= whole
    assert len(set(pauses)) == 200
    backoff.reset()
    assert backoff.pause() <= 0.5


def test_a_pulse_asks_once_and_is_lost_only_without_an_answer():
    pulse = Pulse(0.0)
    assert not pulse.wants_to_ask(returning.QUIET)
    assert pulse.wants_to_ask(returning.QUIET + 0.1)
    assert not pulse.wants_to_ask(returning.QUIET + 0.2)
    assert not pulse.is_lost(returning.QUIET + returning.ANSWER_WITHIN)
    pulse.hear(1, 9.0)
    assert not pulse.is_lost(100.0)
    pulse.doubt()
    assert pulse.wants_to_ask(9.1) and not pulse.is_lost(9.1 + returning.ANSWER_WITHIN)
    pulse.hear(1, 9.2)
    assert pulse.is_lost(9.2 + returning.ANSWER_WITHIN), "nothing new was heard"


@pytest.mark.parametrize(
    ("error", "passes", "is_waited_for"),
    [
        (HostNotFound, True, True),
        (HostGone, True, True),
        (Stopped, True, True),
        (Busy, True, True),
        (UdpBlocked, True, False),
        (OptionInvalid, True, False),
        (Revoked, False, False),
        (Refused, False, False),
        (InviteExpired, False, False),
        (VersionMismatch, False, False),
    ],
)
def test_what_waiting_can_mend(error, passes, is_waited_for):
    assert returning.may_pass(error("x")) == passes
    assert returning.is_worth_waiting(error("x")) == is_waited_for


def test_an_answer_tells_for_how_long_its_host_is_waited_for():
    answer = AnswerState(events=None)
    assert answer._take(Away("host", 60.0)) == "" and answer.patience == 60.0
    answer._take(messages.Queued(position=2))
    assert (answer.patience, answer.position) == (None, 2)


async def test_leaving_ends_the_search_of_whoever_waits(person):
    """One look takes ten seconds; the one who waits is told at once."""
    service = await person("host").host()
    mesh = await person("guest").join(await grant(service))
    await service.close()
    await until(lambda: not mesh.status()[0]["connected"])

    async def ask():
        with pytest.raises(NotJoined):
            async for _ in mesh.answer(question(), patience=60.0):
                pass

    with anyio.fail_after(8):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask)
            await until(lambda: mesh.links[0]._search is not None)
            await mesh.close()


async def test_leaving_ends_what_is_about_to_be_joined(person, tmp_path):
    service = await person("host").host()
    mesh = await person("guest").join(await grant(service))
    gone = await person("gone").host()
    granted = await grant(gone)
    await gone.close()
    async with anyio.create_task_group() as tasks:

        async def add():
            with pytest.raises(NotJoined), anyio.fail_after(8):
                await mesh.add(granted)

        tasks.start_soon(add)
        await until(lambda: mesh._adding and next(iter(mesh._adding))._search is not None)
        await mesh.close()
    await service.close()


async def test_a_host_that_loses_every_request_is_not_come_back_to_ever_faster(person, monkeypatch):
    service = await person("host").host()
    mesh = await person("guest").join(await grant(service))
    link = mesh.links[0]
    rounds = []

    async def lost(_frame):
        rounds.append(1)
        link._live.connection.close()
        raise HostGone("The connection was lost.")
        yield

    monkeypatch.setattr(link, "_ask_once", lost)
    with pytest.raises((HostGone, HostNotFound)):
        async for _ in mesh.answer(question(), patience=4.0):
            pass
    assert 2 <= len(rounds) <= 8
    await mesh.close()
    await service.close()
