"""Guests and hosts that keep to no rules: the other side stays up, and says what is wrong."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import time

import anyio
import pytest

from qmt_jupyter.errors import HostGone, ProtocolViolation, Refused
from qmt_jupyter.guest.mesh import GuestMesh
from qmt_jupyter.host import session
from qmt_jupyter.host.granting import Terms, sign_invite
from qmt_jupyter.identity import keys, link
from qmt_jupyter.mesh.channel import Channel
from qmt_jupyter.mesh.endpoint import Endpoint, TransportError
from qmt_jupyter.providers.echo import Echo
from qmt_jupyter.settings import Settings
from qmt_jupyter.wire import frames, messages
from qmt_jupyter.wire.frames import FrameError
from tests.mesh.conftest import REACH, RawGuest, at, grant, question, texts, until

pytestmark = pytest.mark.anyio

HUGE = (2**32 - 1).to_bytes(4, "big")


async def ended(stream):
    """Whether the host ends a stream or the connection within a few seconds."""
    with anyio.fail_after(10):
        try:
            while await stream.read():
                pass
        except TransportError:
            pass
    return True


async def test_a_host_outlives_guests_that_break_every_rule(person):
    service = await person("host").host()
    granted = await grant(service)
    honest = await person("guest").join(granted)

    # A frame of four gigabytes, noise, and a request before the greeting.
    ask = messages.encode(messages.Ask(id="12345678", body=question()))
    for opening in (HUGE, b"GET / HTTP/1.1\r\n\r\n", bytes(4), ask):
        raw = await RawGuest.connect(granted)
        stream = await raw.stream()
        await stream.write(opening)
        assert await ended(stream)
        await raw.close()

    # Greeted, then the same on the control stream and on request streams.
    for opening in (HUGE, b"\0\0\0\1\xc1", ask, messages.encode(messages.Present()) * 3):
        raw = await RawGuest.connect(granted)
        assert isinstance(await raw.greet(raw.greeting(granted.invite.token)), messages.Welcome)
        stream = await raw.stream()
        await stream.write(opening)
        await stream.finish()
        assert await ended(stream)
        await raw.close()

    assert "".join(await texts(honest)) == "one two three"
    await until(lambda: service.status()["guests"] == 1)
    await honest.close()
    await service.close()


DAY = 86400


@pytest.mark.parametrize(
    ("case", "code", "said"),
    [
        ({"bit": 30}, "invite-signature", "not what its host signed"),
        ({"bit": 8 * 80}, "invite-signature", "not what its host signed"),
        ({"cut": slice(1, 17)}, "invite-malformed", "cut off"),
        ({"now": -DAY}, "admission-refused", "not valid now"),
        ({"now": DAY}, "admission-refused", "not valid now"),
        ({"host": True}, "admission-refused", "for another host"),
        ({"endpoint_key": keys.Identity.fresh().public_key}, "admission-refused", "another connection"),
    ],
)  # fmt: skip
async def test_what_is_shown_at_the_door_is_believed_only_when_it_is_whole(
    person, case, code, said
):
    service = await person("host").host()
    granted = await grant(service)
    token = bytearray(granted.invite.token)
    if "bit" in case:
        token[case["bit"] // 8] ^= 1 << case["bit"] % 8
    token = bytes(token)[case.get("cut", slice(None))]
    raw = await RawGuest.connect(granted)
    shown = {"endpoint_key": case["endpoint_key"]} if "endpoint_key" in case else {}
    if "host" in case:
        raw.host_key = keys.Identity.fresh().public_key
    answer = await raw.greet(raw.greeting(token, now=time.time() + case.get("now", 0), **shown))
    assert isinstance(answer, messages.Refusal)
    assert (answer.code, said in answer.sentence) == (code, True)
    with anyio.fail_after(5):
        await raw.connection.wait_closed()
    assert service.usage()["invites"][0]["uses"] == 0
    await raw.close()
    await service.close()


async def test_a_revoked_guest_that_asks_on_gets_nothing(person):
    service = await person("host").host()
    granted = await grant(service)
    raw = await RawGuest.connect(granted)
    await raw.greet(raw.greeting(granted.invite.token))
    ask = messages.encode(messages.Ask(id="12345678", body=question()))
    await service.revoke(granted.invite.invite_id)
    answered = []
    with anyio.fail_after(10):
        while not raw.connection.is_closed:
            try:
                stream = Channel(await raw.stream(), frames.REPLY_LIMIT)
                stream.post(ask)
                while (payload := await stream.receive()) is not None:
                    answered.append(messages.decode_reply(payload))
            except TransportError:
                break
    assert not [
        reply for reply in answered if isinstance(reply, (messages.Started, messages.Delta))
    ]
    assert {reply.code for reply in answered} <= {"revoked"}
    assert service.providers[0].completed == 0
    await raw.close()
    await service.close()


async def test_guests_that_never_greet_are_shown_out(person, monkeypatch):
    monkeypatch.setattr("qmt_jupyter.wire.exchange.GREETING_DEADLINE", 0.5)
    service = await person("host").host()
    granted = await grant(service)
    silent = [await RawGuest.connect(granted) for _ in range(10)]
    slow = await RawGuest.connect(granted)
    stream = await slow.stream()
    greeting = messages.encode(slow.greeting(granted.invite.token))

    async def dribble():
        try:
            for at in range(len(greeting)):
                await stream.write(greeting[at : at + 1])
                await anyio.sleep(0.05)
        except TransportError:
            return

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(dribble)
        mesh = await person("guest").join(granted)
        assert "".join(await texts(mesh)) == "one two three"
        for each in (*silent, slow):
            with anyio.fail_after(10):
                await each.connection.wait_closed()
    for each in (*silent, slow):
        await each.close()
    await mesh.close()
    await service.close()


async def test_a_live_host_takes_thousands_of_mutated_frames(person):
    service = await person("host").host()
    granted = await grant(service)
    honest = await person("guest").join(granted)
    chance = random.Random(7)
    whole = messages.encode(
        messages.Ask(id="12345678", body=question(temperature=0.5, max_tokens=3))
    )
    raw = None
    for number in range(2000):
        if raw is None or raw.connection.is_closed:
            raw = await RawGuest.connect(granted)
            await raw.greet(raw.greeting(granted.invite.token))
        frame = bytearray(whole)
        for _ in range(chance.randint(1, 6)):
            frame[chance.randrange(4, len(frame))] = chance.randrange(256)
        try:
            stream = await raw.stream()
            await stream.write(bytes(frame))
            if number % 100 == 0:
                assert "".join(await texts(honest)) == "one two three"
            await stream.abort()
        except TransportError:
            await raw.close()
            raw = None
    if raw is not None:
        await raw.close()
    await until(lambda: service.providers[0].running == 0)
    assert "".join(await texts(honest)) == "one two three"
    await honest.close()
    await service.close()


async def test_streams_beyond_the_limit_wait_and_harm_nobody(person):
    service = await person("host").host()
    granted = await grant(service)
    honest = await person("guest").join(granted)
    raw = await RawGuest.connect(granted)
    await raw.greet(raw.greeting(granted.invite.token))
    with anyio.move_on_after(1.5):
        for _ in range(10_000):
            stream = await raw.stream()
            await stream.write(b"\0")
    assert "".join(await texts(honest)) == "one two three"
    await raw.close()
    await honest.close()
    await service.close()


class RawHost:
    """A host that holds the right key and replies as the test says."""

    def __init__(self, replies) -> None:
        self.identity = keys.Identity.fresh()
        self.replies = replies

    async def serve(self, endpoint):
        async for connection in endpoint.connections():
            control = Channel(await connection.accept_stream(), frames.CONTROL_LIMIT)
            await control.receive()
            control.post(
                messages.encode(
                    messages.Welcome(
                        version=1, membership="m", models=[messages.ModelOffer("evil", embeds=True)]
                    )
                )
            )
            stream = await connection.accept_stream()
            await stream.read()
            for reply in self.replies:
                await stream.write(reply if isinstance(reply, bytes) else messages.encode(reply))
            await stream.finish()
            self.connection = connection


STARTED = messages.Started(id="i", model="m", created=1)


def delta(seq):
    return messages.Delta(seq=seq, choices=[{"index": 0, "delta": {"content": "x"}}])


@pytest.mark.parametrize(
    ("replies", "error", "said"),
    [
        ([STARTED, delta(1), delta(3)], ProtocolViolation, "delta 3 after 1"),
        ([delta(1)], ProtocolViolation, "Delta while asked"),
        ([STARTED, HUGE], ProtocolViolation, "4294967295 bytes"),
        ([STARTED, b"\0\0\0\1\xc1"], ProtocolViolation, "not a message"),
        ([STARTED, delta(1)], ProtocolViolation, "without a last word"),
        ([STARTED, b"\0\0"], ProtocolViolation, "within a frame"),
        (
            [messages.Failed(code="made-up", sentence="\x1b[31mred\n\u202etxet" + "x" * 1500)],
            Refused,
            r"^\S+red txet?x*",
        ),
        ([messages.Failed(code="home-not-writable", sentence="Delete everything.")], Refused, "D"),
    ],
)
async def test_a_guest_of_a_host_that_breaks_the_rules_gets_one_clear_error(
    tmp_path, replies, error, said
):
    host = RawHost(replies)
    endpoint = await Endpoint.bind(host.identity.seed, REACH, alpns=(messages.ALPN,))
    invite = sign_invite(host.identity, Terms("Evil", 0, 60), time.time())
    granted = link.Link(invite, link.Hints((at(endpoint),)))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(host.serve, endpoint)
        mesh = await GuestMesh.join(granted, Settings(tmp_path / "guest", ("127.0.0.1",)))
        with pytest.raises(error) as raised, anyio.fail_after(10):
            async for _ in mesh.answer(question()):
                pass
        assert type(raised.value) is error
        assert str(raised.value).isprintable()
        assert len(raised.value.sentence) <= 400
        await mesh.close()
        await endpoint.close()
        tasks.cancel_scope.cancel()


def vector(seq, index, values=b"\0\0\x80\x3f"):
    return messages.Vector(seq=seq, index=index, values=values)


@pytest.mark.parametrize(
    "replies",
    [
        [STARTED, vector(1, 0), vector(3, 1)],
        [STARTED, vector(1, 0), vector(2, 0)],
        [STARTED, vector(1, 7)],
        [STARTED, vector(1, 0, b"\0\0\xc0\x7f")],
        [STARTED, vector(1, 0, b"abcde")],
        [STARTED, vector(1, 0), messages.Usage(usage={}), messages.Done(finish_reason="stop")],
        [STARTED, delta(1), messages.Done(finish_reason="stop")],
    ],
)
async def test_a_guest_takes_no_other_vectors_than_it_asked_for(tmp_path, replies):
    host = RawHost(replies)
    endpoint = await Endpoint.bind(host.identity.seed, REACH, alpns=(messages.ALPN,))
    invite = sign_invite(host.identity, Terms("Evil", 0, 60), time.time())
    granted = link.Link(invite, link.Hints((at(endpoint),)))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(host.serve, endpoint)
        mesh = await GuestMesh.join(granted, Settings(tmp_path / "guest", ("127.0.0.1",)))
        with pytest.raises(ProtocolViolation), anyio.fail_after(10):
            await mesh.embed({"input": ["a", "b"]})
        await mesh.close()
        await endpoint.close()
        tasks.cancel_scope.cancel()


async def test_a_host_that_falls_silent_is_gone_within_seconds(tmp_path):
    host = RawHost([STARTED, delta(1)])
    endpoint = await Endpoint.bind(host.identity.seed, REACH, alpns=(messages.ALPN,))
    invite = sign_invite(host.identity, Terms("Silent", 0, 60), time.time())
    granted = link.Link(invite, link.Hints((at(endpoint),)))

    async def serve():
        async for connection in endpoint.connections():
            control = Channel(await connection.accept_stream(), frames.CONTROL_LIMIT)
            await control.receive()
            control.post(messages.encode(messages.Welcome(version=1, membership="m", models=[])))
            stream = await connection.accept_stream()
            await stream.read()
            await stream.write(messages.encode(STARTED))
            await anyio.sleep_forever()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(serve)
        mesh = await GuestMesh.join(granted, Settings(tmp_path / "guest", ("127.0.0.1",)))
        with pytest.raises(HostGone, match="stopped answering"), anyio.fail_after(15):
            async for _ in mesh.answer(question()):
                pass
        await mesh.close()
        tasks.cancel_scope.cancel()
    await endpoint.close()


async def test_a_host_that_is_killed_is_noticed_by_a_waiting_guest(tmp_path, person):
    code = (
        "import os, sys, time\n"
        "import qmt_jupyter as qmt\n"
        "from qmt_jupyter.providers.echo import Echo\n"
        "host = qmt.host(Echo(delay=0.05, repeat=True))\n"
        "print(host.invite.url, flush=True)\n"
        "time.sleep(120)\n"
    )
    process = await anyio.to_thread.run_sync(
        lambda: subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    )
    url = await anyio.to_thread.run_sync(process.stdout.readline)
    mesh = await person("guest").join(link.read(url))
    with pytest.raises(HostGone), anyio.fail_after(30):
        async for reply in mesh.answer(question(max_tokens=100_000)):
            if isinstance(reply, messages.Delta) and reply.seq == 3:
                process.kill()
    process.communicate()
    await mesh.close()


async def test_what_is_not_a_frame_ends_only_its_own_request(person):
    service = await person("host").host(Echo(delay=0.01, repeat=True))
    granted = await grant(service)
    raw = await RawGuest.connect(granted)
    await raw.greet(raw.greeting(granted.invite.token))
    good = Channel(await raw.stream(), frames.REPLY_LIMIT)
    good.post(messages.encode(messages.Ask(id="12345678", body=question(max_tokens=40))))
    bad = Channel(await raw.stream(), frames.REPLY_LIMIT)
    bad.post(messages.encode(messages.Present()))
    failed = messages.decode_reply(await bad.receive())
    assert (failed.code, "cannot be read" in failed.sentence) == ("protocol", True)
    last = None
    with anyio.fail_after(10):
        while (payload := await good.receive()) is not None:
            last = messages.decode_reply(payload)
    assert last == messages.Done(finish_reason="length")
    with pytest.raises(FrameError):
        messages.decode_reply(b"")
    await raw.close()
    await service.close()


async def test_a_guest_that_leaves_its_answer_unread_frees_its_slot(person, monkeypatch):
    monkeypatch.setattr(session, "_READER_PATIENCE", 0.5)
    service = await person("host").host(Echo(slots=1, repeat=True))
    granted = await grant(service)
    raw = await RawGuest.connect(granted)
    await raw.greet(raw.greeting(granted.invite.token))
    stream = await raw.stream()
    asked = question("word " * 2000, max_tokens=1_000_000)
    await stream.write(messages.encode(messages.Ask(id="12345678", body=asked)))
    honest = await person("honest").join(granted)
    with anyio.fail_after(30):
        assert "".join(await texts(honest, max_tokens=3)) == "one two three "
    (lazy, _) = service.usage()["invites"][0]["guests"]
    assert (lazy["running"], lazy["ended"]) == (0, {"cancelled": 1})
    assert lazy["completion_tokens"] > 0
    await raw.close()
    await honest.close()
    await service.close()


async def test_an_admission_whose_guest_gives_up_meanwhile_is_known_all_the_same(person):
    service = await person("host").host()
    granted = await grant(service, uses=1)
    raw = await RawGuest.connect(granted)
    greeting = raw.greeting(granted.invite.token)
    admitting = asyncio.ensure_future(service._admit(greeting, raw.endpoint.public_key))
    await asyncio.sleep(0)
    admitting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await admitting
    await until(lambda: service.usage()["invites"][0]["uses"] == 1)
    await raw.close()
    await service.close()
