"""Finding a host, being admitted or refused, and talking, over real QUIC."""

from __future__ import annotations

import os
import socket
import time

import anyio
import pytest

from qmt_jupyter.errors import (
    AdmissionRefused,
    HostGone,
    HostNotFound,
    IdentityInUse,
    InterfaceUnknown,
    InviteExpired,
    InviteUsedUp,
    MembershipEnded,
    ModelUnknown,
    NotJoined,
    PortInUse,
    RequestInvalid,
    Stopped,
    VersionMismatch,
)
from qmt_jupyter.host import session
from qmt_jupyter.host.granting import Terms, sign_invite
from qmt_jupyter.identity import keys, link
from qmt_jupyter.mesh import addresses
from qmt_jupyter.mesh.endpoint import Endpoint
from qmt_jupyter.mesh.locate import locate
from qmt_jupyter.providers.echo import Echo
from qmt_jupyter.wire import messages
from tests.mesh.conftest import REACH, RawGuest, at, bare, grant, question, texts, until

pytestmark = pytest.mark.anyio


async def test_a_guest_joins_by_the_hints_and_is_answered(person):
    service = await person("host").host()
    mesh = await person("guest").join(await grant(service))
    assert "".join(await texts(mesh)) == "one two three"
    assert mesh.models()[0]["name"] == "echo"
    status = mesh.status()[0]
    assert (status["connected"], status["path"]) == (True, "direct")
    await mesh.close()
    await service.close()


async def test_the_token_alone_is_enough_on_a_local_network(person):
    service = await person("host").host()
    mesh = await person("guest").join(bare(await grant(service)))
    assert "".join(await texts(mesh)) == "one two three"
    await mesh.close()
    await service.close()


async def test_wrong_hints_do_no_harm(person):
    service = await person("host").host()
    other = await person("other").host()
    wrong = link.Link(
        (await grant(service)).invite,
        link.Hints(("127.0.0.1:9", *(await grant(other)).hints.addresses)),
    )
    mesh = await person("guest").join(wrong)
    assert mesh.status()[0]["host"] == service.peer_id
    for each in (mesh, service, other):
        await each.close()


async def test_a_host_that_is_not_there_is_reported_with_what_was_tried(person):
    invite = sign_invite(keys.Identity.fresh(), Terms("Gone", 1, 60), time.time())
    with pytest.raises(HostNotFound) as raised:
        await person("guest").join(link.Link(invite, link.Hints(("127.0.0.1:9",))), deadline=1.0)
    for said in ("127.0.0.1:9", "local network", "same network"):
        assert said in str(raised.value)


async def test_an_expired_invite_is_refused_before_any_packet_leaves(person, monkeypatch):
    invite = sign_invite(keys.Identity.fresh(), Terms("Old", 1, 60), time.time() - 120)

    async def no_network(*_, **__):
        raise AssertionError("a packet would have left")

    monkeypatch.setattr("qmt_jupyter.mesh.locate.locate", no_network)
    monkeypatch.setattr(Endpoint, "connect", no_network)
    with pytest.raises(InviteExpired):
        await person("guest").join(link.Link(invite, link.Hints(("127.0.0.1:9",))))


async def test_an_invite_admits_as_many_guests_as_it_says_and_each_for_good(person):
    service = await person("host").host()
    granted = await grant(service, uses=2)
    first = await person("first").join(granted)
    second = await person("second").join(granted)
    with pytest.raises(InviteUsedUp, match="All 2 uses"):
        await person("third").join(granted)
    await first.close()
    again = await person("first").join(granted)
    assert service.usage()["invites"][0]["uses"] == 2
    for each in (again, second, service):
        await each.close()


async def test_one_person_may_host_and_join_on_one_machine(person):
    both = person("both")
    service = await both.host()
    mesh = await both.join(await grant(service))
    assert "".join(await texts(mesh)) == "one two three"
    await mesh.close()
    await service.close()


async def test_four_guests_chat_side_by_side(person):
    service = await person("host").host(Echo(slots=4, delay=0.002))
    granted = await grant(service)
    meshes = [await person(f"guest {n}").join(granted) for n in range(4)]
    answers = {}

    async def ask(number, mesh):
        answers[number] = "".join(await texts(mesh, text=f"guest {number} " * 50))

    async with anyio.create_task_group() as tasks:
        for number, mesh in enumerate(meshes):
            tasks.start_soon(ask, number, mesh)
        await until(lambda: service.providers[0].running == 4)
    assert answers == {n: f"guest {n} " * 50 for n in range(4)}
    for each in (*meshes, service):
        await each.close()


async def test_a_waiting_guest_learns_its_position(person):
    service = await person("host").host(Echo(slots=1, delay=0.005, repeat=True))
    mesh = await person("guest").join(await grant(service))
    positions = []

    async def ask():
        async for reply in mesh.answer(question(max_tokens=60)):
            if isinstance(reply, messages.Queued):
                positions.append(reply.position)

    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(ask)
    assert sorted(set(positions)) == [0, 1]
    assert len(positions) >= 3
    await mesh.close()
    await service.close()


async def test_closing_an_answer_stops_the_provider(person):
    provider = Echo(delay=0.01, repeat=True)
    service = await person("host").host(provider)
    mesh = await person("guest").join(await grant(service))
    replies = mesh.answer(question(max_tokens=100_000))
    async for reply in replies:
        if isinstance(reply, messages.Delta) and reply.seq > 3:
            break
    await replies.aclose()
    await until(lambda: provider.running == 0)
    assert (provider.cancelled, provider.completed) == (1, 0)
    guest = service.usage()["invites"][0]["guests"][0]
    assert guest["completion_tokens"] >= 2
    assert guest["ended"] == {"cancelled": 1}
    assert "".join(await texts(mesh)) == "one two three", "the link is as good as before"
    await mesh.close()
    await service.close()


async def test_a_host_that_stops_says_so_to_those_who_wait(person):
    service = await person("host").host(Echo(delay=0.01, repeat=True))
    mesh = await person("guest").join(await grant(service))
    with pytest.raises(Stopped, match="stopped hosting"):
        async for reply in mesh.answer(question(max_tokens=100_000)):
            if isinstance(reply, messages.Delta) and reply.seq == 3:
                await service.close()
    await mesh.close()


async def test_an_invite_that_expires_ends_what_it_admitted(person, monkeypatch):
    service = await person("host").host()
    mesh = await person("guest").join(await grant(service, lifetime=3600))
    later = time.time() + 7200
    monkeypatch.setattr(session.time, "time", lambda: later)
    with pytest.raises(MembershipEnded, match="expired"):
        await texts(mesh)
    await mesh.close()
    await service.close()


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"base_url": "http://198.51.100.1"}, "'base_url' is not allowed"),
        ({"extra_headers": {"Authorization": "x"}}, "'extra_headers'"),
        ({"api_key": "x"}, "'api_key'"),
        ({"slot_id": 1}, "'slot_id'"),
        ({"temperature": "hot"}, "'temperature' has a value"),
        ({"max_tokens": -1}, "'max_tokens'"),
    ],
)
async def test_a_parameter_outside_the_allowlist_is_refused_by_name(person, parameters, said):
    service = await person("host").host()
    mesh = await person("guest").join(await grant(service))
    with pytest.raises(RequestInvalid, match=said):
        await texts(mesh, **parameters)
    await mesh.close()
    await service.close()


async def test_a_model_that_nobody_offers_is_named_with_those_that_are(person):
    service = await person("host").host()
    mesh = await person("guest").join(await grant(service))
    with pytest.raises(ModelUnknown, match=r"'gpt-9'.*echo"):
        await texts(mesh, model="gpt-9")
    await mesh.close()
    with pytest.raises(NotJoined):
        await texts(mesh)
    await service.close()


async def test_a_request_too_large_is_refused_before_it_is_sent(person):
    service = await person("host").host()
    mesh = await person("guest").join(await grant(service))
    with pytest.raises(RequestInvalid, match="bytes"):
        await texts(mesh, text="x" * (5 * 1024 * 1024))
    with pytest.raises(RequestInvalid, match="JSON"):
        await texts(mesh, stop=object())
    await mesh.close()
    await service.close()


async def test_a_port_in_use_is_said_so(person):
    address = REACH.binds[0]
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as taken:
        taken.bind((address, 0))
        with pytest.raises(PortInUse, match="--port"):
            await person("host").host(port=taken.getsockname()[1])


async def test_a_port_is_free_again_once_its_host_has_closed(person):
    host = person("host")
    service = await host.host(Echo(delay=0.01, repeat=True))
    port = service.addresses[0].rpartition(":")[2]
    for _ in range(3):
        mesh = await person("guest").join(await grant(service))
        with pytest.raises(Stopped):
            async for reply in mesh.answer(question(max_tokens=100_000)):
                if isinstance(reply, messages.Delta) and reply.seq == 3:
                    await service.close()
        service = await host.host(Echo(delay=0.01, repeat=True), port=int(port))
        await mesh.close()
    await service.close()


async def test_a_second_host_on_one_identity_is_refused_and_the_first_goes_on(person):
    first = await person("host").host()
    with pytest.raises(IdentityInUse, match="QMT_HOME"):
        await person("host").host()
    mesh = await person("guest").join(await grant(first))
    await mesh.close()
    await first.close()
    second = await person("host").host()
    assert second.peer_id == first.peer_id
    await second.close()


async def test_an_interface_that_does_not_exist_is_said_so():
    with pytest.raises(InterfaceUnknown, match="QMT_INTERFACES"):
        addresses.reach(("eth77",))
    assert addresses.reach(("127.0.0.1",)).loopback_only


def test_only_what_is_allowed_is_bound():
    assert addresses.Reach(("127.0.0.1",), (), restricted=True).binds == ("127.0.0.1", "::1")
    lan = addresses.Reach(("192.0.2.1",), ("2001:db8::1",), restricted=True)
    assert lan.binds == ("192.0.2.1", "2001:db8::1")
    assert addresses.Reach((), ("2001:db8::1",), restricted=True).binds == (
        "127.0.0.1",
        "2001:db8::1",
    )
    assert addresses.Reach(("192.0.2.1",), (), restricted=False).binds == ("0.0.0.0", "::")


async def test_a_link_comes_back_by_itself_after_a_loss(person):
    host = person("host")
    service = await host.host()
    mesh = await person("guest").join(bare(await grant(service, uses=1)))
    await service.close()
    service = await host.host()
    assert "".join(await texts(mesh)) == "one two three"
    await mesh.close()
    await service.close()


async def test_a_guest_of_another_version_is_told_which_side_to_update(person):
    service = await person("host").host()
    granted = await grant(service)
    raw = await RawGuest.connect(granted)
    answer = await raw.greet(raw.greeting(granted.invite.token, version=2))
    assert answer.code == VersionMismatch.code
    assert "on the host's side" in answer.sentence
    await raw.close()
    with pytest.raises(VersionMismatch, match="both sides"):
        await locate(granted.invite.host_key, granted.hints, REACH, b"qmt/2", deadline=1.5)
    await service.close()


async def test_another_hosts_invite_and_a_foreign_statement_are_refused(person):
    service, other = await person("host").host(), await person("other").host()
    granted = await grant(service)
    raw = await RawGuest.connect(granted)
    answer = await raw.greet(raw.greeting((await grant(other)).invite.token))
    assert (answer.code, answer.sentence) == (
        AdmissionRefused.code,
        "This invite is another host's.",
    )
    await raw.close()
    raw = await RawGuest.connect(granted)
    stolen = raw.greeting(granted.invite.token, endpoint_key=keys.Identity.fresh().public_key)
    assert "another connection" in (await raw.greet(stolen)).sentence
    await raw.close()
    raw = await RawGuest.connect(granted)
    only_id = messages.Greeting(version=1, token=granted.invite.token[1:17], statement=b"x" * 176)
    assert (await raw.greet(only_id)).code == "invite-malformed"
    await raw.close()
    assert service.usage()["invites"][0]["uses"] == 0
    await service.close()
    await other.close()


def test_host_gone_has_a_next_step():
    assert "host is back" in str(HostGone("The host is gone."))


async def test_bytes_cross_unchanged_whatever_their_number(person):
    endpoint = await Endpoint.bind(keys.Identity.fresh().seed, REACH, alpns=(b"bytes",))
    other = await Endpoint.bind(keys.Identity.fresh().seed, REACH)

    async def give_back():
        async for connection in endpoint.connections():
            stream = await connection.accept_stream()
            while data := await stream.read():
                await stream.write(data)
            await stream.finish()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(give_back)
        connection = await other.connect(endpoint.public_key, (at(endpoint),), b"bytes")
        stream = await connection.open_stream()
        for size in (1, 2, 255, 256, 65_537, 1_000_003):
            sent, back = os.urandom(size), b""
            tasks.start_soon(stream.write, sent)
            while len(back) < size:
                back += await stream.read()
            assert back == sent
        tasks.cancel_scope.cancel()
    await other.close()
    await endpoint.close()
