"""The tunnel: the same connection by WebSocket, for whom the Hub knows, and for nobody else.

The guests here are on 127.0.0.9, between which and the host a firewall drops all UDP.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import socket
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace

import anyio
import pytest

from qmt_jupyter.errors import HostNotFound, Revoked
from qmt_jupyter.guest.hub import tunnel as way
from qmt_jupyter.hub import tunnel
from qmt_jupyter.providers.echo import Echo
from qmt_jupyter.settings import Settings
from tests.hub.tunnel_service import Hosted, Proxy, RawClient, TunnelService, by_tunnel
from tests.mesh import namespaces
from tests.mesh.conftest import Person, grant, texts, until
from tests.mesh.test_revocation import Asking

pytestmark = pytest.mark.anyio

GUEST = "127.0.0.9"
BINARY, PING = 2, 9


def files():
    """How many files and sockets this process has open."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


@pytest.fixture
def no_udp():
    """No UDP between the guests' address and the host's, in a network that is the tests' own."""
    if why := namespaces.why_not():
        pytest.skip(why)
    if [name for _, name in socket.if_nameindex()] != ["lo"]:
        pytest.skip("the machine's own firewall is left alone")
    drop = ("INPUT", "-p", "udp", "-j", "DROP")
    rules = (("iptables", *drop, "-s", GUEST, "-d", "127.0.0.1"), ("ip6tables", *drop))
    for tool, *rule in rules:
        subprocess.run([tool, "-A", *rule], check=True)
    yield
    for tool, *rule in rules:
        subprocess.run([tool, "-D", *rule], check=True)


@pytest.fixture
def guest(tmp_path):
    return SimpleNamespace(settings=Settings(tmp_path / "guest", (GUEST,)))


@pytest.fixture
async def host(tmp_path):
    started = await Person(tmp_path / "host").host(Echo(slots=8, delay=0.002, repeat=True))
    yield started
    await started.close()


@pytest.fixture
async def service(host, tmp_path):
    made = TunnelService(Hosted(host), tmp_path)
    yield made
    await made.close()


async def join(guest, service, granted):
    mesh = by_tunnel(granted, guest.settings, service.url)
    await mesh.add(granted)
    return mesh


async def test_a_guest_that_no_udp_reaches_joins_and_chats(no_udp, guest, host, service):
    granted = await grant(host)
    before = files()
    mesh = await join(guest, service, granted)
    status = mesh.status()[0]
    assert (status["connected"], status["path"], service.tunnels.count) == (True, "tunnel", 1)
    answer = await texts(mesh, text="word " * 200, max_tokens=300)
    assert len(answer) > 200
    await mesh.close()
    await until(lambda: service.tunnels.count == 0)
    assert not (guest.settings.guest_dir / "places.json").exists(), "its place leads nowhere later"
    gc.collect()
    await until(lambda: files() <= before)


async def test_a_direct_way_is_taken_where_there_is_one(guest, host, service):
    mesh = await join(guest, service, await grant(host))
    # On a slow machine the tunnel may have been first.
    await until(lambda: mesh.status()[0]["path"] == "direct")
    assert await texts(mesh, max_tokens=3)
    await mesh.close()
    await until(lambda: service.tunnels.count == 0)


async def test_revocation_arrives_in_mid_stream(no_udp, guest, host, service):
    granted = await grant(host)
    mesh = await join(guest, service, granted)
    async with anyio.create_task_group() as tasks:
        asking = Asking(mesh, tasks)
        await until(lambda: asking.pieces > 4)
        await host.revoke(granted.invite.invite_id)
        await until(lambda: asking.error is not None)
    assert isinstance(asking.error, Revoked)
    await mesh.close()
    await until(lambda: service.tunnels.count == 0)


async def test_a_connection_outlives_the_websocket_that_carries_it(no_udp, guest, host, service):
    proxy = await Proxy(service).start()
    mesh = await join(guest, proxy, await grant(host))
    async with anyio.create_task_group() as tasks:
        asking = Asking(mesh, tasks)
        await until(lambda: asking.pieces > 4)
        await proxy.stop()
        await until(lambda: service.tunnels.count == 0)
        await proxy.start(proxy.port)
        had = asking.pieces
        await until(lambda: asking.pieces > had + 100)
        assert asking.error is None
        await mesh.close()
    await proxy.stop()


async def test_a_service_that_comes_late_is_waited_for(no_udp, guest, host, service):
    granted = await grant(host)
    proxy = await Proxy(service).start()
    await proxy.stop()
    async with anyio.create_task_group() as tasks:
        mesh = by_tunnel(granted, guest.settings, proxy.url)
        tasks.start_soon(mesh.add, granted)
        await anyio.sleep(1.0)
        assert not mesh.links
        await proxy.start(proxy.port)
        await until(lambda: bool(mesh.links))
    assert mesh.status()[0]["path"] == "tunnel"
    await mesh.close()
    await proxy.stop()


@pytest.mark.parametrize(
    ("token", "said"),
    [("token-of-nobody", "does not know the token"), ("token-of-ben", "no access")],
)
async def test_the_report_says_why_the_service_said_no(no_udp, guest, host, service, token, said):
    service.script.without_access.add("ben")
    granted = await grant(host)
    mesh = by_tunnel(granted, guest.settings, service.url, token)
    with pytest.raises(HostNotFound, match=said) as raised:
        await mesh.add(granted, deadline=1.5)
    assert raised.value.report[-1]["source"] == way.NAME
    assert token not in f"{raised.value!r} {raised.value.report}"
    assert service.tunnels.count == 0
    await mesh.close()


async def test_nobody_but_the_endpoint_can_speak_through_it(no_udp, guest, host, service):
    mesh = await join(guest, service, await grant(host))
    at = mesh.links[0]._live.connection.path.address
    ip, _, port = at.rpartition(":")
    handed = []
    send, tunnel._HostSocket.send = tunnel._HostSocket.send, lambda self, data: handed.append(data)
    try:
        for address in (GUEST, "127.0.0.1", "127.0.0.2"):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
                stranger.bind((address, 0))
                stranger.sendto(b"stranger", (ip, int(port)))
        # What the endpoint itself says comes after the strangers' words.
        mesh.links[0]._live.control.post(b"")
        await until(lambda: bool(handed))
    finally:
        tunnel._HostSocket.send = send
    assert b"stranger" not in handed
    await mesh.close()


# Who may, and for how long ----------------------------------------------------------------------


async def test_only_a_token_of_who_may_use_the_service_opens_it(service):
    service.script.without_access.add("ben")
    asked = {
        401: [{"token": ""}, {"token": "token-of-nobody"}, {"token": "", "Cookie": "jupyterhub-services=x"}],
        403: [{"token": "token-of-ben"}],
        400: [{"Origin": "http://hub"}, {"Origin": "null"}, {"Upgrade": "h2c"}],
    }  # fmt: skip
    for wanted, requests in asked.items():
        for request in requests:
            client, status, body = await RawClient.open(service, **request)
            assert status == wanted, request
            assert {*json.loads(body)} == {"code", "sentence", "next_step"}
            await client.close()
    assert service.tunnels.count == 0


async def test_a_right_that_is_gone_closes_it_and_a_silent_hub_does_not(service, monkeypatch):
    monkeypatch.setattr(tunnel, "_LAST_WORDS", 0.1)
    client, status, _ = await RawClient.open(service)
    assert status == 101
    service.script.status = 500
    await anyio.sleep(1.0)  # asked about it five times
    assert service.tunnels.count == 1
    service.script.status = 0
    service.script.without_access.add("ann")
    assert await client.end() == tunnel.RIGHT_GONE
    await until(lambda: service.tunnels.count == 0)
    await client.close()


async def test_a_guest_whose_right_is_gone_does_not_come_back(
    no_udp, guest, host, service, monkeypatch
):
    monkeypatch.setattr(tunnel, "_LAST_WORDS", 0.1)
    mesh = await join(guest, service, await grant(host))
    del service.known["token-of-ann"]
    await until(lambda: service.tunnels.count == 0)
    carrying = mesh.links[0]._live.endpoint._carrier
    await until(lambda: carrying.is_over)
    await mesh.close()


async def test_one_that_the_host_never_answers_is_closed(service, monkeypatch):
    monkeypatch.setattr(tunnel, "IDLE_AFTER", 0.5)
    client, _, _ = await RawClient.open(service)
    assert await client.end() == tunnel.IDLE
    await until(lambda: service.tunnels.count == 0)
    await client.close()


# Clients that keep to no rules ------------------------------------------------------------------


async def test_a_user_has_eight_and_all_together_no_more_than_there_are(service, monkeypatch):
    clients = [(await RawClient.open(service))[0] for _ in range(tunnel.MOST_OF_A_USER)]
    ninth, status, body = await RawClient.open(service)
    assert (status, json.loads(body)["code"]) == (429, "too-many-at-once")
    monkeypatch.setattr(tunnel, "MOST_IN_ALL", tunnel.MOST_OF_A_USER)
    other, status, body = await RawClient.open(service, "token-of-ben")
    assert (status, json.loads(body)["code"]) == (503, "busy")
    monkeypatch.undo()
    await clients.pop().close()
    await until(lambda: service.tunnels.count == tunnel.MOST_OF_A_USER - 1)
    again, status, _ = await RawClient.open(service)
    assert status == 101
    for client in (*clients, ninth, other, again):
        await client.close()
    await until(lambda: service.tunnels.count == 0)


@pytest.mark.parametrize(
    ("opcode", "data", "code"),
    [(1, b"text", tunnel.TEXT), (BINARY, b"x" * 2049, 1009), (BINARY, b"x" * 10_000_000, None)],
)
async def test_what_is_no_datagram_ends_it(service, opcode, data, code):
    client, _, _ = await RawClient.open(service)
    with contextlib.suppress(ConnectionError):
        await client.send(opcode, data)
        assert await client.end() in (code, None)
    await client.close()
    await until(lambda: service.tunnels.count == 0)


async def test_a_flood_of_pings_ends_it_even_if_nobody_reads_the_answers(service, monkeypatch):
    monkeypatch.setattr(tunnel, "MOST_A_SECOND", 200)
    client, _, _ = await RawClient.open(service)
    with contextlib.suppress(ConnectionError):
        for _ in range(400):
            await client.send(PING, b"x" * 100, times=100)
    await until(lambda: service.tunnels.count == 0)
    await client.close()


async def test_who_sends_too_much_is_read_slowly_and_others_are_not(
    no_udp, guest, host, service, monkeypatch
):
    handed = 0
    send = tunnel._HostSocket.send

    def counted(socket_, data):
        nonlocal handed
        handed += data == b"flood"
        if data != b"flood":
            send(socket_, data)

    monkeypatch.setattr(tunnel._HostSocket, "send", counted)
    monkeypatch.setattr(tunnel, "MOST_A_SECOND", 500)
    client, _, _ = await RawClient.open(service, "token-of-ben")

    async def flood():
        with contextlib.suppress(ConnectionError):
            while True:
                await client.send(BINARY, b"flood", times=1000)

    began = time.monotonic()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(flood)
        mesh = await join(guest, service, await grant(host))
        assert len(await texts(mesh, max_tokens=50)) > 40
        await mesh.close()
        tasks.cancel_scope.cancel()
    # What was there at the start, what has been gained since, and a turn.
    assert 500 <= handed <= 500 + 500 * (time.monotonic() - began) + 64
    await client.close()


async def test_who_does_not_read_loses_datagrams_and_nobody_else_does(service, host, monkeypatch):
    """The host is one that says whatever it is told to, to both."""
    loop = asyncio.get_running_loop()
    peers = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as talking:
        talking.bind(("127.0.0.1", 0))
        talking.setblocking(False)
        where = {"addresses": [f"127.0.0.1:{talking.getsockname()[1]}"]}
        monkeypatch.setattr(host, "status", lambda: where)
        handlers = []
        open_one = tunnel.TunnelHandler.open
        monkeypatch.setattr(
            tunnel.TunnelHandler, "open",
            lambda self, *a, **k: (handlers.append(self), open_one(self, *a, **k))[1],
        )  # fmt: skip
        slow, _, _ = await RawClient.open(service)
        reading, _, _ = await RawClient.open(service, "token-of-ben")
        for client in (slow, reading):
            await client.send(BINARY, b"here")
            _, peer = await loop.sock_recvfrom(talking, 100)
            peers.append(peer)
        most = 0
        for _ in range(30_000):
            await loop.sock_sendto(talking, b"z" * 1400, peers[0])
            await asyncio.sleep(0)
            most = max(most, handlers[0]._unsent)
        assert 100_000 < most <= 128 * 1024
        for number in range(20):
            await loop.sock_sendto(talking, b"%d" % number, peers[1])
            assert await reading.receive() == (BINARY, b"%d" % number)
    for client in (slow, reading):
        await client.close()


# Where it begins ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("addresses_", "interfaces", "expected"),
    [
        (["10.0.0.5:4000", "[fd00::5]:4001"], (), ("127.0.0.1", 4000)),
        (["10.0.0.5:4000"], ("10.0.0.5",), ("10.0.0.5", 4000)),
        (["[fd00::5]:4001"], (), ("fd00::5", 4001)),
        (["127.0.0.1:4000"], ("lo",), ("127.0.0.1", 4000)),
    ],
)
def test_the_host_is_reached_where_it_is_bound(tmp_path, addresses_, interfaces, expected):
    settings = Settings(tmp_path, interfaces)
    assert tunnel.host_address({"addresses": addresses_}, settings) == expected
