"""Who is known, from where, and what happens when they go: bootstrap, memory, renewal, silence."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import stat
import sys
import time

import anyio
import pytest

from qmt_jupyter.errors import OptionInvalid
from qmt_jupyter.identity import keys, link, whereabouts
from qmt_jupyter.mesh import announcing
from qmt_jupyter.mesh.addresses import Reach
from qmt_jupyter.mesh.announcing import Announcer
from qmt_jupyter.mesh.bootstrap import BootstrapNode
from qmt_jupyter.mesh.contact import Contact
from qmt_jupyter.mesh.node import DhtNode
from qmt_jupyter.mesh.table import MAX_NAMED, Remembered, Table, configured, contact_at
from qmt_jupyter.settings import Settings
from tests.mesh.conftest import until
from tests.mesh.hostile_nodes import record

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(sys.platform == "darwin", reason="macOS has one loopback address only"),
]

HOST = keys.Identity(b"h" * 32)
HINTS = link.Hints(("127.0.0.1:4000",))


@contextlib.asynccontextmanager
async def node_at(ip, port=0):
    node = await DhtNode.open(Reach((ip,), (), restricted=True), port=port)
    try:
        yield node
    finally:
        await node.close()


@contextlib.asynccontextmanager
async def kept(node, **options):
    """A table that is kept meanwhile, at a quick beat."""
    table = Table(node, look_every=0.1, **options)
    keeping = asyncio.ensure_future(table.keep())
    try:
        yield table
    finally:
        keeping.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await keeping


@contextlib.asynccontextmanager
async def announced(node, where=lambda: HINTS, **options):
    announcer = Announcer(node, HOST, where, look_every=0.05, **options)
    running = asyncio.ensure_future(announcer.run())
    try:
        yield announcer
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


def at(ip, node):
    return f"{ip}:{node.port}"


async def found_by(node, identity=HOST):
    return (await node.search(identity.public_key)).record


# What is configured and remembered -------------------------------------------------------------


def test_bootstrap_nodes_are_hosts_with_ports():
    assert configured(["192.0.2.1:4000", "[2001:db8::1]:5000", "lab.example:6000"]) == (
        ("192.0.2.1", 4000),
        ("2001:db8::1", 5000),
        ("lab.example", 6000),
    )


@pytest.mark.parametrize(
    "text",
    ["lab.example", "lab.example:", ":4000", "lab:0", "lab:65536", "lab:x", "lab:٤", "a\tb:1"],
)
def test_what_is_no_address_of_a_bootstrap_node_is_said(text):
    with pytest.raises(OptionInvalid, match="QMT_BOOTSTRAP"):
        configured([text])


def test_the_configuration_is_bounded():
    with pytest.raises(OptionInvalid, match="16 are possible"):
        configured(f"192.0.2.{n}:4000" for n in range(17))


def test_the_environment_names_bootstrap_nodes_and_switches_the_dht_off(monkeypatch):
    assert Settings.from_environment().dht
    monkeypatch.setenv("QMT_BOOTSTRAP", " lab.example:1, 192.0.2.1:2 ,")
    monkeypatch.setenv("QMT_DHT", "off")
    settings = Settings.from_environment()
    assert settings.bootstrap == ("lab.example:1", "192.0.2.1:2")
    assert not settings.dht
    monkeypatch.setenv("QMT_DHT", "offf")
    with pytest.raises(OptionInvalid, match="QMT_DHT"):
        Settings.from_environment()


def test_no_node_is_known_by_default():
    assert Settings.from_environment().bootstrap == ()


def test_remembered_nodes_are_private_bounded_and_the_newest_first(tmp_path):
    remembered = Remembered(tmp_path / "home" / "nodes.json")
    assert remembered.read() == []
    first = [Contact(f"192.0.2.{n}", 5000) for n in range(1, 60)]
    second = [Contact(f"198.51.100.{n}", 5000) for n in range(1, 60)]
    remembered.note(first)
    remembered.note(second)
    assert remembered.read() == [*second, *first][:64]
    if os.name == "posix":
        assert stat.S_IMODE((tmp_path / "home" / "nodes.json").stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '{"nodes": 5}',
        '{"nodes": [1, null, {}, "x", "1.2.3.4", "1.2.3.4:0", "224.0.0.1:5", "0.0.0.0:5"]}',
        '{"nodes": {"a": 1}}',
        "[" * 5000,
        json.dumps({"nodes": ["192.0.2.1:5000"] * 10_000}),
    ],
)
def test_a_damaged_memory_is_no_memory(tmp_path, text):
    path = tmp_path / "nodes.json"
    path.write_text(text)
    assert Remembered(path).read() == []


def test_a_contact_is_read_from_a_hint():
    assert contact_at("192.0.2.1:5000") == Contact("192.0.2.1", 5000)
    assert contact_at("[2001:db8::1]:5000") == Contact("2001:db8::1", 5000)
    for text in (
        "",
        "x",
        "lab.example:5000",
        "192.0.2.1",
        "224.0.0.1:5000",
        "255.255.255.255:5000",
    ):
        assert contact_at(text) is None


# Keeping in touch ------------------------------------------------------------------------------


async def test_while_nobody_is_known_not_one_packet_is_sent(tmp_path):
    async with (
        node_at("127.81.0.1") as node,
        kept(node, remember=tmp_path / "nodes.json") as table,
        announced(node) as announcer,
    ):
        await anyio.sleep(0.5)
        assert node.packets == (0, 0)
        assert not table.some_are_known
        assert announcer.state == "quiet"
        assert not (tmp_path / "nodes.json").exists()


@pytest.mark.parametrize("source", ["configured", "configured by name", "named", "remembered"])
async def test_a_node_enters_by_every_source(source, tmp_path):
    path = tmp_path / "nodes.json"
    async with node_at("127.0.0.1") as there, node_at("127.0.0.2") as node:
        known = contact_at(at("127.0.0.1", there))
        options = {"remember": path}
        if source == "remembered":
            Remembered(path).note([known])
        elif source.startswith("configured"):
            name = "localhost" if source.endswith("name") else "127.0.0.1"
            options["bootstrap"] = [f"{name}:{there.port}"]
        async with kept(node, **options) as table:
            if source == "named":
                table.name([known])
            await until(lambda: node.contacts == (known,))
            await until(lambda: there.contacts != ())
            assert table.some_are_known
            await table.entered.wait()
        assert Remembered(path).read() == [known]


async def test_a_name_that_is_not_found_does_not_keep_others_from_being_tried(monkeypatch):
    def unknown(*_given, **_options):
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    async with node_at("127.0.0.1") as there, node_at("127.0.0.2") as node:
        bootstrap = ["no-such-name.invalid:4000", at("127.0.0.1", there)]
        async with kept(node, bootstrap=bootstrap):
            await until(lambda: node.contacts, 20)


async def test_a_node_comes_back_when_its_bootstrap_node_does():
    async with node_at("127.81.0.2") as node:
        async with node_at("127.81.0.1") as there:
            port = there.port
            async with kept(node, bootstrap=[f"127.81.0.1:{port}"]):
                await until(lambda: node.contacts)
        assert node.contacts
        # Whoever was there has gone without a word; nobody answers at first.
        async with kept(node, bootstrap=[f"127.81.0.1:{port}"]) as table:
            node._protocol._heard.clear()
            table.lost()
            await until(lambda: not node.contacts, 30)
            async with node_at("127.81.0.1", port):
                await until(lambda: node.contacts, 30)


async def test_nodes_named_later_join_two_networks():
    async with contextlib.AsyncExitStack() as stack:
        nodes = [await stack.enter_async_context(node_at(f"127.81.1.{n}")) for n in range(1, 5)]
        here, there = nodes[:2], nodes[2:]
        await here[1].enter([contact_at(at("127.81.1.1", here[0]))])
        await there[1].enter([contact_at(at("127.81.1.3", there[0]))])
        await until(lambda: all(node.contacts for node in nodes))
        assert await there[1].publish(record(HOST))
        assert await found_by(here[0]) is None
        table = await stack.enter_async_context(kept(here[0]))
        table.name([contact_at(at("127.81.1.3", there[0]))])
        await until(lambda: len(here[0].contacts) == 3)
        assert await found_by(here[0]) is not None


async def test_a_flood_of_named_nodes_is_bounded():
    async with node_at("127.81.0.1") as node:
        table = Table(node)
        for n in range(1000):
            table.name([Contact(f"127.82.{n // 250}.{n % 250 + 1}", 5000)])
        assert len(table._named) == len(table._untried) == MAX_NAMED


# Announcing ------------------------------------------------------------------------------------


async def test_a_host_publishes_as_soon_as_somebody_is_known():
    async with (
        node_at("127.81.0.1") as there,
        node_at("127.81.0.2") as node,
        kept(node) as table,
        announced(node, lost=table.lost) as announcer,
    ):
        table.name([contact_at(at("127.81.0.1", there))])
        await until(lambda: announcer.keepers == 1)
        assert announcer.state == "published to 1 node"
        found = await found_by(there)
        assert found.addresses == HINTS.addresses
        assert found.ends_at - found.issued_at == 1800


async def test_a_host_whose_address_changes_is_published_anew():
    where = {"now": HINTS}
    async with (
        node_at("127.81.0.1") as there,
        node_at("127.81.0.2") as node,
        announced(node, lambda: where["now"]),
    ):
        await node.enter([contact_at(at("127.81.0.1", there))])
        await until(lambda: there.records)
        first = await found_by(there)
        where["now"] = link.Hints(("127.0.0.7:4007",), "https://relay.example/")
        with anyio.fail_after(20):
            while (found := await found_by(there)).sequence == first.sequence:
                await anyio.sleep(0.05)
        assert (found.addresses, found.relay) == (("127.0.0.7:4007",), "https://relay.example/")
        assert found.sequence > first.sequence


async def test_a_record_is_renewed_long_before_it_ends(monkeypatch):
    monkeypatch.setattr(announcing, "RENEW_AFTER", 0.3)
    assert announcing.RENEW_AFTER < whereabouts.LIFETIME / 2
    async with node_at("127.81.0.1") as there, node_at("127.81.0.2") as node:
        await node.enter([contact_at(at("127.81.0.1", there))])
        async with announced(node):
            await until(lambda: there.records)
            first = (await found_by(there)).sequence
            with anyio.fail_after(20):
                while (await found_by(there)).sequence == first:
                    await anyio.sleep(0.05)


async def test_a_host_whose_clock_was_ahead_goes_on_above_its_former_record():
    async with node_at("127.81.0.1") as there, node_at("127.81.0.2") as node:
        await node.enter([contact_at(at("127.81.0.1", there))])
        ahead = record(HOST, sequence=int(time.time() * 1000) + 10**9, addresses=("127.0.0.3:3",))
        await node.publish(ahead)
        async with announced(node):
            with anyio.fail_after(20):
                while (found := await found_by(there)).sequence <= ahead.sequence:
                    await anyio.sleep(0.05)
        assert found.addresses == HINTS.addresses


async def test_when_nobody_takes_the_record_others_are_looked_for():
    lost = []
    async with node_at("127.81.0.2") as node:
        async with node_at("127.81.0.1") as there:
            await node.enter([contact_at(at("127.81.0.1", there))])
        async with announced(node, lost=lambda: lost.append(1)) as announcer:
            await until(lambda: lost, 30)
            assert announcer.keepers == 0
            assert announcer.state == "no node has taken the record yet"


# A bootstrap node ------------------------------------------------------------------------------


async def test_two_that_know_only_a_bootstrap_node_find_each_other(tmp_path):
    settings = Settings(tmp_path / "bootstrap", ("127.0.0.1",))
    bootstrap = await BootstrapNode.start(settings, port=0)
    try:
        address = f"127.0.0.1:{bootstrap.port}"
        assert bootstrap.addresses == (address,)
        async with (
            node_at("127.81.0.1") as host,
            node_at("127.81.0.2") as guest,
            kept(host, bootstrap=[address]),
            announced(host) as announcer,
        ):
            await until(lambda: announcer.keepers)
            async with kept(guest, bootstrap=[address]) as table:
                await table.entered.wait()
                assert (await found_by(guest)).addresses == HINTS.addresses
                await until(lambda: bootstrap.status()["nodes"] == 2)
                assert bootstrap.status()["records"] == 1
    finally:
        await bootstrap.close()
        await bootstrap.close()
    assert len(Remembered(settings.home / "nodes.json").read()) == 2


async def test_a_bootstrap_node_that_is_misconfigured_leaves_no_socket(tmp_path):
    settings = Settings(tmp_path, ("127.0.0.1",), bootstrap=("nonsense",))
    with pytest.raises(OptionInvalid):
        await BootstrapNode.start(settings, port=0)
