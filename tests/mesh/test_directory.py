"""Hosts and guests with the DHT between them: who learns of whom, what is published, what is not."""

from __future__ import annotations

import asyncio
import contextlib
import time

import anyio
import pytest

from qmt_jupyter.errors import HostNotFound, InviteExpired, OptionInvalid, PortInUse
from qmt_jupyter.identity import keys, link, whereabouts
from qmt_jupyter.mesh import directory as directories
from qmt_jupyter.mesh import lan
from qmt_jupyter.mesh.bootstrap import BootstrapNode
from qmt_jupyter.mesh.directory import Directory, Neighbours
from qmt_jupyter.mesh.lan import LanUnavailable
from qmt_jupyter.mesh.locate import Attempt, Place
from qmt_jupyter.mesh.node import DhtNode
from qmt_jupyter.settings import Settings
from qmt_jupyter.wire import messages
from qmt_jupyter.wire.frames import FrameError
from tests.mesh.conftest import bare, grant, texts, until
from tests.mesh.hostile_nodes import record

pytestmark = pytest.mark.anyio


@pytest.fixture
def no_lan(monkeypatch):
    """No multicast here, as behind most routers."""

    async def refuse(self):
        raise LanUnavailable("switched off for the test")

    monkeypatch.setattr(lan.Lan, "__aenter__", refuse)


@pytest.fixture
async def bootstrap(tmp_path):
    node = await BootstrapNode.start(Settings(tmp_path / "bootstrap", ("127.0.0.1",)), port=0)
    yield node
    await node.close()


@contextlib.asynccontextmanager
async def directory(home, **options):
    opened = await Directory.open(Settings(home, ("127.0.0.1",), **options))
    try:
        yield opened
    finally:
        await opened.close()


def knowing(somebody, node):
    """The same person, who has a bootstrap node in the configuration."""
    somebody.settings = Settings(
        somebody.settings.home, ("127.0.0.1",), bootstrap=(f"127.0.0.1:{node.port}",)
    )
    return somebody


async def test_a_guest_finds_the_host_by_its_token_through_a_bootstrap_node(
    person, no_lan, bootstrap
):
    service = await knowing(person("host"), bootstrap).host()
    granted = await grant(service)
    mesh = await knowing(person("guest"), bootstrap).join(bare(granted))
    assert "".join(await texts(mesh)) == "one two three"
    assert bootstrap.status() == {"nodes": 2, "records": 1}
    await mesh.close()
    await service.close()


async def test_a_link_names_nodes_and_a_guest_finds_the_host_by_them_alone(
    person, no_lan, bootstrap
):
    service = await knowing(person("host"), bootstrap).host()
    granted = await grant(service)
    assert granted.hints.nodes == (f"127.0.0.1:{bootstrap.port}",)
    again = link.read(granted.url)
    assert again.hints == granted.hints
    only_nodes = link.Link(again.invite, link.Hints(nodes=again.hints.nodes))
    mesh = await person("guest").join(only_nodes)
    assert await texts(mesh)
    await mesh.close()
    await service.close()


async def test_a_guest_takes_over_the_nodes_of_its_host(person, no_lan):
    """And the host the guest's: between them they can find each other after a move."""
    service = await person("host").host()
    guest = person("guest")
    mesh = await guest.join(await grant(service))
    await until(lambda: service.status()["dht"]["nodes"] == 1)
    await until(lambda: service.status()["dht"]["state"] == "published to 1 node")
    assert mesh._finder._directory.status()["records"] == 1
    await mesh.close()
    await service.close()
    assert (guest.settings.home / "nodes.json").exists()


async def test_nodes_on_the_local_network_find_each_other(person, tmp_path, monkeypatch):
    """A host and a bootstrap node are announced, and a guest that knows nobody seeks them."""
    monkeypatch.setattr(directories, "SOUGHT_AFTER", 0.1)
    service = await person("host").host()
    settings = Settings(tmp_path / "guest", ("127.0.0.1",))
    guest = await Directory.open(settings, Neighbours.SOUGHT)
    await until(lambda: guest.status()["nodes"], 40)
    assert guest.nodes() == (f"127.0.0.1:{service.status()['dht']['port']}",)
    await until(lambda: service.status()["dht"]["nodes"])
    node = await BootstrapNode.start(Settings(tmp_path / "lab", ("127.0.0.1",)), port=0)
    await until(lambda: node.status()["nodes"], 30)
    for each in (node, guest, service):
        await each.close()


async def test_without_a_node_everything_else_works_and_the_report_says_so(person, no_lan):
    service = await person("host").host()
    granted = await grant(service)
    mesh = await person("guest").join(granted)
    assert await texts(mesh)
    await mesh.close()
    with pytest.raises(HostNotFound, match="DHT: no node is known"):
        await person("another").join(bare(granted), deadline=1.0)
    await service.close()


async def test_switched_off_there_is_no_node(person, no_lan, bootstrap):
    somebody = knowing(person("host"), bootstrap)
    somebody.settings = Settings(
        somebody.settings.home, ("127.0.0.1",), bootstrap=somebody.settings.bootstrap, dht=False
    )
    service = await somebody.host()
    assert service.status()["dht"] == {
        "state": "switched off by QMT_DHT",
        "nodes": 0,
        "records": 0,
        "port": 0,
    }
    granted = await grant(service)
    assert granted.hints.nodes == ()
    mesh = await person("guest").join(granted)
    assert await texts(mesh)
    assert bootstrap.status() == {"nodes": 0, "records": 0}
    await mesh.close()
    await service.close()


async def test_an_expired_invite_opens_no_node(person, monkeypatch):
    async def opened(*_given, **_options):
        raise AssertionError("a node was opened for an expired invite")

    service = await person("host").host()
    granted = await grant(service, lifetime=-10)
    monkeypatch.setattr(Directory, "open", opened)
    with pytest.raises(InviteExpired):
        await person("guest").join(granted)
    await service.close()


async def test_a_configuration_that_cannot_be_read_is_said_and_nothing_stays_open(person):
    somebody = person("host")
    somebody.settings = Settings(somebody.settings.home, ("127.0.0.1",), bootstrap=("nonsense",))
    with pytest.raises(OptionInvalid, match="bootstrap node"):
        await somebody.host()
    somebody.settings = Settings(somebody.settings.home, ("127.0.0.1",))
    service = await somebody.host()
    await service.close()


async def test_a_node_that_cannot_be_opened_keeps_no_host_from_hosting(person, monkeypatch, no_lan):
    async def fails(*_given, **_options):
        raise PortInUse("UDP port 1 is already in use.")

    monkeypatch.setattr(DhtNode, "open", fails)
    service = await person("host").host()
    assert service.status()["dht"]["state"] == "UDP port 1 is already in use."
    mesh = await person("guest").join(await grant(service))
    assert await texts(mesh)
    await mesh.close()
    await service.close()


async def test_a_bootstrap_node_whose_port_is_taken_says_so(tmp_path, bootstrap):
    with pytest.raises(PortInUse):
        await BootstrapNode.start(Settings(tmp_path, ("127.0.0.1",)), port=bootstrap.port)


async def test_places_come_from_the_newest_record_and_again_when_it_changes(
    tmp_path, no_lan, bootstrap
):
    host = keys.Identity(b"h" * 32)
    where = {"now": link.Hints(("127.0.0.1:4001",))}
    known = {"bootstrap": (f"127.0.0.1:{bootstrap.port}",)}
    async with directory(tmp_path / "a", **known) as one, directory(tmp_path / "b", **known) as two:
        announcing = asyncio.ensure_future(one.announce(host, lambda: where["now"]))
        attempt = Attempt("DHT")
        places = two._places(host.public_key, attempt)
        try:
            with anyio.fail_after(30):
                assert await anext(places) == Place("127.0.0.1:4001")
                where["now"] = link.Hints(("127.0.0.1:4002",), "https://relay.example/")
                assert await anext(places) == Place("127.0.0.1:4002")
                assert await anext(places) == Place("https://relay.example/", is_relay=True)
                assert "127.0.0.1:4002" in attempt.outcome
        finally:
            await places.aclose()
            announcing.cancel()
            await asyncio.wait([announcing])


async def test_a_host_publishes_where_it_is_and_no_more(person, no_lan, bootstrap):
    service = await knowing(person("host"), bootstrap).host()
    granted = await grant(service)
    await until(lambda: bootstrap.status()["records"] == 1)
    stored = bootstrap._directory._node._store.get(whereabouts.key_of(granted.invite.host_key))
    read = whereabouts.read(stored.data, time.time())
    assert read.addresses == service.addresses
    for secret in (b"Test", granted.invite.token, granted.invite.invite_id.encode(), b"echo"):
        assert secret not in stored.data
    await service.close()


async def test_a_guest_publishes_nothing(person, no_lan, bootstrap):
    service = await person("host").host()
    guest = knowing(person("guest"), bootstrap)
    mesh = await guest.join(await grant(service))
    await until(lambda: bootstrap.status()["nodes"] >= 1)
    await anyio.sleep(0.3)
    stored = bootstrap._directory._node._store
    assert stored.get(whereabouts.key_of(guest.identity().public_key)) is None
    await mesh.close()
    await service.close()


def test_a_welcome_names_a_bounded_number_of_nodes():
    def welcome(**fields):
        made = messages.Welcome(version=1, membership="m", models=[], **fields)
        return messages.decode_to_guest(messages.encode(made)[4:])

    assert welcome().nodes == [] and welcome().dht_port == 0
    assert welcome(dht_port=65535, nodes=["192.0.2.1:5000"] * 16).dht_port == 65535
    for wrong in (
        {"dht_port": 65536},
        {"dht_port": -1},
        {"nodes": ["x"] * 17},
        {"nodes": ["x" * 65]},
    ):
        with pytest.raises(FrameError):
            welcome(**wrong)


async def test_what_a_hostile_host_calls_nodes_is_skipped(tmp_path, no_lan):
    async with directory(tmp_path) as opened:
        opened.name(["", "x", "lab.example:53", "224.0.0.1:5353", "255.255.255.255:1", "1.2.3.4"])
        assert not opened._table.some_are_known
        # Kept to loopback, it asks nobody elsewhere.
        opened.name(["192.0.2.1:5000"])
        await anyio.sleep(0.2)
        assert opened._node.packets == (0, 0)


async def test_records_of_another_host_lead_nowhere(tmp_path, no_lan, bootstrap):
    host, other = keys.Identity(b"h" * 32), keys.Identity(b"o" * 32)
    known = {"bootstrap": (f"127.0.0.1:{bootstrap.port}",)}
    async with directory(tmp_path, **known) as opened:
        await opened.settled(10)
        await opened._node.publish(record(other))
        places = opened._places(host.public_key, Attempt("DHT"))
        with pytest.raises(TimeoutError):
            with anyio.fail_after(1.0):
                await anext(places)
        await places.aclose()


async def test_a_host_points_to_nowhere_nearer_than_it_is_and_to_no_others_services(tmp_path):
    directory = await Directory.open(Settings(tmp_path, ("127.0.0.1",)))
    told = []
    directory._table.name = lambda contacts: told.extend(str(each) for each in contacts)
    texts = ["127.0.0.1:53", "127.0.0.1:5000", "192.168.1.5:5000", "8.8.8.8:5000", "x"]
    for place, kept in (
        ("127.0.0.1:9999", texts[1:4]),
        ("192.168.1.9:9999", texts[2:4]),
        ("9.9.9.9:9999", texts[3:4]),
        ("", texts[3:4]),
    ):
        told.clear()
        directory.name_by(place, texts)
        assert told == kept
    await directory.close()


async def test_no_link_and_no_welcome_tells_of_another_guest(person, no_lan):
    service = await person("host").host()
    mesh = await person("guest").join(await grant(service))
    await until(lambda: service.status()["dht"]["nodes"] == 1)
    assert (await grant(service)).hints.nodes == ()
    port = mesh._finder._directory.port
    assert not [each for each in service.presence.nodes()[1] if each.endswith(f":{port}")]
    await mesh.close()
    await service.close()
