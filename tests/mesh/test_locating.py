"""The race for a host: what wins it, what cannot hold it up, and what it says when it is lost."""

from __future__ import annotations

import asyncio
import errno
import gc
import socket
import sys
from pathlib import Path

import anyio
import pytest

from qmt_jupyter import errors
from qmt_jupyter.errors import (
    ConfigurationError,
    HostNotFound,
    OptionInvalid,
    UdpBlocked,
    VersionMismatch,
)
from qmt_jupyter.guest.places import Places
from qmt_jupyter.host import presence
from qmt_jupyter.identity import keys, link
from qmt_jupyter.mesh import addresses, blocked, lan, locate
from qmt_jupyter.mesh.endpoint import Endpoint
from qmt_jupyter.mesh.relay import NO_RELAY, PUBLIC_RELAYS, Relays, relay_option
from qmt_jupyter.wire import messages
from qmt_jupyter.words import reach_line
from tests.mesh import relay_server
from tests.mesh.conftest import REACH, bare, grant, texts, until

pytestmark = pytest.mark.anyio

NOBODY = keys.Identity.fresh().public_key


@pytest.fixture
def no_lan(monkeypatch):
    """Multicast DNS is there and finds nobody."""

    async def find(self, peer_id):
        await asyncio.Event().wait()

    monkeypatch.setattr(lan.Lan, "find", find)


@pytest.fixture
def dead():
    """An address where packets arrive and nobody answers."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{silent.getsockname()[1]}"


@pytest.fixture
def uncollected():
    """No collection of cycles meanwhile: a large process has one every few minutes."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def source(name, *places, after=0.0, then=None):
    """A source that knows these places, and what it does after them."""

    async def search(attempt):
        for place in places:
            await anyio.sleep(after)
            yield place
        if then is not None:
            await then()

    return locate.Source(name, search)


async def search(host_key, *others, hints=None, known=(), deadline=20.0):
    return await locate.locate(
        host_key, hints or link.Hints(), REACH, messages.ALPN,
        others=others, known=known, deadline=deadline,
    )  # fmt: skip


async def test_neither_silence_nor_dead_addresses_nor_a_flood_of_them_hold_up_a_good_one(
    person, dead, no_lan
):
    service = await person("host").host()
    good = locate.Place(service.addresses[0])
    flood = [locate.Place(f"127.0.0.{n}:9") for n in range(2, 250)]

    async def never():
        await asyncio.Event().wait()

    endpoint, connection = await search(
        service.presence.endpoint.public_key,
        source("silent", then=never),
        source("flooding", *flood, then=never),
        # The good address comes last of many from the same source.
        source("mixed", *flood[:60], locate.Place(dead), good, then=never),
        hints=link.Hints((dead, "127.0.0.1:9")),
    )
    assert connection.peer_key == service.presence.endpoint.public_key
    await endpoint.close()
    await service.close()


async def test_a_source_that_breaks_does_not_end_the_race(person, no_lan, caplog):
    async def breaks(attempt):
        yield locate.Place("127.0.0.1:9")
        raise RuntimeError("a network went away")

    broken = locate.Source("broken", breaks)
    service = await person("host").host()
    place = locate.Place(service.addresses[0])
    endpoint, _ = await search(
        service.presence.endpoint.public_key, broken, source("late", place, after=0.3)
    )
    await endpoint.close()
    await service.close()
    assert "a network went away" in caplog.text
    with pytest.raises(HostNotFound, match="broken: it failed here"):
        await search(NOBODY, broken, deadline=0.3)


async def test_a_place_that_one_source_has_spoiled_is_good_from_another(person, dead, no_lan):
    host = person("host")
    service = await host.host()
    place = locate.Place(service.addresses[0])
    key, port = service.presence.endpoint.public_key, int(place.at.rpartition(":")[2])
    await service.close()
    other = await Endpoint.bind(
        keys.Identity.fresh().seed, REACH, port=port, alpns=(messages.ALPN,)
    )
    started = []

    async def start():
        # By then the first source has met a wrong key there.
        await other.close()
        started.append(await host.host(port=port))

    async def late(attempt):
        await start()
        yield place

    endpoint, _ = await search(
        key, source("early", place), locate.Source("late", late), deadline=20.0
    )
    await endpoint.close()
    await started[0].close()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts in /proc")
async def test_what_lost_the_race_and_what_was_cancelled_closes_its_sockets(
    person, dead, no_lan, uncollected
):
    """Soon, and not only when the collector of cycles happens to come by."""

    def sockets():
        return sum(is_socket(number) for number in Path("/proc/self/fd").iterdir())

    def is_socket(file):
        try:
            return str(file.readlink()).startswith("socket:")
        except OSError:
            return False

    service = await person("host").host()
    await until(lambda: service.presence.status()["lan"] == "announced")
    before = sockets()
    hints = link.Hints((dead, *service.addresses, "127.0.0.1:9"), "http://127.0.0.1:9/")
    for _ in range(3):
        endpoint, _ = await search(service.presence.endpoint.public_key, hints=hints)
        await endpoint.close()
    with anyio.move_on_after(0.2):
        await search(NOBODY, hints=hints)
    with anyio.move_on_after(0.001):
        await search(NOBODY, hints=hints)
    await until(lambda: sockets() <= before)
    await service.close()


async def test_a_host_that_is_nowhere_is_reported_source_by_source(dead, no_lan):
    hints = link.Hints((dead,), "http://127.0.0.1:9/")
    with pytest.raises(HostNotFound) as raised:
        await search(NOBODY, source("another way"), hints=hints, known=["127.0.0.1:8"], deadline=1.0)  # fmt: skip
    assert not isinstance(raised.value, UdpBlocked)
    report = {each["source"]: each["outcome"] for each in raised.value.report}
    assert report == {
        "addresses in the link": f"no answer from {dead}",
        "where it was last": "no answer from 127.0.0.1:8",
        "local network": "no host of that id answered",
        "relay": "no answer through http://127.0.0.1:9/",
        "another way": "no answer",
    }
    seconds = {each["source"]: each["seconds"] for each in raised.value.report}
    assert seconds["another way"] < seconds["local network"]
    for name, outcome in report.items():
        assert f"{name}: {outcome} (" in str(raised.value)


async def test_when_every_source_has_given_up_nobody_waits_for_the_deadline(monkeypatch):
    async def unavailable(self):
        raise lan.LanUnavailable("no multicast")

    monkeypatch.setattr(lan.Lan, "__aenter__", unavailable)
    with anyio.fail_after(30), pytest.raises(HostNotFound, match="no multicast"):
        await search(NOBODY, deadline=3000.0)


async def test_a_relay_that_cannot_be_one_is_said_and_harms_nothing(person):
    service = await person("host").host()
    wrong = link.Hints(service.addresses, "https://xn--a/")
    endpoint, _ = await search(service.presence.endpoint.public_key, hints=wrong)
    await endpoint.close()
    await service.close()
    with pytest.raises(HostNotFound, match="cannot be a relay's address"):
        await search(NOBODY, hints=link.Hints((), "https://xn--a/"), deadline=0.6)
    with pytest.raises(ConfigurationError, match="cannot be a relay's address"):
        await person("other").host(relays=Relays("https://xn--a/"))


# Relays ------------------------------------------------------------------------------------


@relay_server.needs_relay
async def test_the_relay_in_the_link_is_enough_and_a_direct_path_follows(person, tmp_path, no_lan):
    with relay_server.running(tmp_path) as url:
        service = await person("host").host(relays=relay_option(url))
        granted = await grant(service)
        assert granted.hints.relay == url
        assert service.status()["relay"] == {"url": url, "connected": True}
        assert f"come through {url}" in reach_line(service.status())
        only_relay = link.Link(granted.invite, link.Hints((), url))
        mesh = await person("guest").join(only_relay)
        assert "".join(await texts(mesh)) == "one two three"
        # Here nothing stands between the two, so the relay is soon left out.
        await until(lambda: mesh.status()[0]["path"] == "direct")
        await mesh.close()
        await service.close()


async def test_a_relay_that_is_down_costs_a_host_and_its_guests_nothing(person, monkeypatch):
    monkeypatch.setattr(presence, "RELAY_DEADLINE", 0.1)
    service = await person("host").host(relays=Relays("http://127.0.0.1:9/"))
    assert service.status()["relay"] == {"url": "http://127.0.0.1:9/", "connected": False}
    assert "has not answered yet" in reach_line(service.status())
    mesh = await person("guest").join(await grant(service))
    assert "".join(await texts(mesh)) == "one two three"
    assert mesh.status()[0]["path"] == "direct"
    await mesh.close()
    await service.close()


async def test_no_relay_is_contacted_where_a_direct_way_answers(person):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.setblocking(False)
        service = await person("host").host()
        assert "add --relay URL" in reach_line(service.status())
        granted = await grant(service)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        mesh = await person("guest").join(
            link.Link(granted.invite, link.Hints(granted.hints.addresses, url))
        )
        await anyio.sleep(2 * locate.RELAY_AFTER)
        with pytest.raises(BlockingIOError):
            listener.accept()
        await mesh.close()
        await service.close()


def test_a_relay_option_is_one_of_three_things():
    assert (relay_option("none"), relay_option("public")) == (NO_RELAY, PUBLIC_RELAYS)
    assert relay_option("https://relay.example") == Relays("https://relay.example/")
    for wrong in ("", "None", "PUBLIC", "relay.example", "ftp://relay.example", "https://u:p@h",
                  "https://h/path", "https://h?x", "https://h#x", "https://h:0", "https://h h",
                  "http://1.2.3", "http://0x7f.1", "https://" + "a" * 250):  # fmt: skip
        with pytest.raises(OptionInvalid, match="--relay|relay"):
            relay_option(wrong)


# Where UDP does not leave ---------------------------------------------------------------------


@pytest.fixture
def refused(monkeypatch):
    """A firewall of this machine's own that refuses to send."""

    def sendto(self, data, address):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(blocked.socket, "socket", type("Refusing", (socket.socket,), {"sendto": sendto}))  # fmt: skip


OUT = addresses.Reach(("192.0.2.1",), (), restricted=False)


def test_a_firewall_that_refuses_is_known_at_once(refused):
    assert "firewall" in blocked.udp_is_blocked(["192.0.2.2:5"], OUT)
    assert "firewall" in blocked.udp_is_blocked([], OUT)
    assert blocked.udp_is_blocked(["127.0.0.1:5"], REACH) is None, "this machine reaches itself"


def test_a_machine_that_sends_is_not_called_blocked(monkeypatch, dead):
    assert blocked.udp_is_blocked([dead], OUT) is None
    monkeypatch.setenv("JUPYTERHUB_API_TOKEN", "x")
    assert blocked.udp_is_blocked([dead], OUT) is None
    monkeypatch.setenv("BINDER_LAUNCH_HOST", "https://mybinder.example")
    assert "Binder" in blocked.udp_is_blocked([dead], OUT)


async def test_blocked_udp_is_said_at_once_and_what_to_ask_for(monkeypatch, dead, no_lan):
    monkeypatch.setattr(locate, "udp_is_blocked", lambda *_: "Binder lets no UDP out")
    with anyio.fail_after(30), pytest.raises(UdpBlocked, match=r"Binder.*names no relay.*--relay"):
        await search(NOBODY, hints=link.Hints((dead,)), deadline=3000.0)
    with pytest.raises(UdpBlocked, match="the relay http://127.0.0.1:9/ did not help"):
        await search(NOBODY, hints=link.Hints((), "http://127.0.0.1:9/"), deadline=0.5)


async def test_blocked_udp_does_not_keep_a_guest_from_a_host_on_its_own_machine(
    person, monkeypatch
):
    monkeypatch.setattr(locate, "udp_is_blocked", lambda *_: "Binder lets no UDP out")
    service = await person("host").host()
    mesh = await person("guest").join(await grant(service))
    await mesh.close()
    await service.close()


async def test_on_a_hub_a_lost_search_says_what_may_be_the_matter(monkeypatch, no_lan):
    monkeypatch.setenv("JUPYTERHUB_API_TOKEN", "x")
    with pytest.raises(HostNotFound, match="JupyterHub.*--relay"):
        await search(NOBODY, deadline=0.3)


# The last resort -------------------------------------------------------------------------------


class Carried:
    """A carrier that is at the host itself, and notes what is done with it."""

    def __init__(self, at):
        self.at = at
        self.ports = None
        self.kept = self.closed = False

    def serve(self, ports):
        self.ports = ports

    def keep(self):
        self.kept = True

    async def close(self):
        self.closed = True


def last_resort(carrier, searched):
    async def search(attempt):
        searched.append(attempt)
        yield locate.Place(carrier.at, carrier=carrier)
        await asyncio.Event().wait()

    return locate.Source("tunnel", search, last_resort=True)


def assert_by(connection, carrier):
    """What goes to the carrier goes by tunnel; a direct path may have been found already."""
    path = connection.path
    assert carrier.kept and path.way == ("tunnel" if path.address == carrier.at else "direct")


async def test_a_last_resort_that_wins_goes_with_the_endpoint(person, no_lan):
    service = await person("host").host()
    carrier, searched = Carried(service.addresses[0]), []
    endpoint, connection = await search(
        service.presence.endpoint.public_key, last_resort(carrier, searched)
    )
    assert carrier.ports == endpoint.ports
    assert not carrier.closed
    assert_by(connection, carrier)
    await endpoint.close()
    assert carrier.closed
    await service.close()


async def test_a_last_resort_waits_for_direct_ways_unless_udp_is_blocked(
    person, monkeypatch, no_lan
):
    monkeypatch.setattr(locate, "LAST_RESORT_AFTER", 1000.0)
    service = await person("host").host()
    key, searched = service.presence.endpoint.public_key, []
    carrier = Carried(service.addresses[0])
    resort = last_resort(carrier, searched)
    endpoint, connection = await search(key, resort, hints=link.Hints(service.addresses))
    assert connection.path.direct and not searched and not carrier.kept
    await endpoint.close()
    monkeypatch.setattr(locate, "udp_is_blocked", lambda *_: "Binder lets no UDP out")
    endpoint, connection = await search(key, resort)
    assert_by(connection, carrier)
    assert len(searched) == 1
    await endpoint.close()
    await service.close()


async def test_blocked_udp_is_no_reason_to_give_up_where_there_is_a_last_resort(
    monkeypatch, dead, no_lan
):
    monkeypatch.setattr(locate, "udp_is_blocked", lambda *_: "Binder lets no UDP out")
    monkeypatch.setattr(locate, "BLOCKED_GRACE", 0.0)
    with pytest.raises(HostNotFound, match=r"Binder.*tunnel: no answer") as raised:
        await search(NOBODY, last_resort(Carried(dead), []), deadline=1.0)
    assert not isinstance(raised.value, UdpBlocked), "it may pass, and is worth waiting for"
    assert raised.value.report[-1]["seconds"] > 0.5


# What is remembered ----------------------------------------------------------------------------


async def test_a_guest_finds_a_host_again_where_it_was_last(person, no_lan):
    host, guest = person("host"), person("guest")
    service = await host.host()
    granted = await grant(service)
    mesh = await guest.join(granted)
    places = Places(guest.settings.guest_dir)
    await until(lambda: places.of(service.peer_id) != ())
    await mesh.close()
    again = await guest.join(bare(granted))
    assert "".join(await texts(again)) == "one two three"
    await again.close()
    await service.close()


def test_remembered_places_are_bounded_and_survive_damage(tmp_path):
    places = Places(tmp_path)
    for port in range(1, 9):
        places.note("host", f"192.0.2.1:{port}")
    assert places.of("host") == ("192.0.2.1:8", "192.0.2.1:7", "192.0.2.1:6")
    places.note("host", "https://relay.example/")
    places.note("host", "224.0.0.1:5")
    assert places.of("host")[0] == "192.0.2.1:8"
    for number in range(60):
        places.note(f"host {number}", "192.0.2.2:5")
    assert places.of("host") == () and places.of("host 59") == ("192.0.2.2:5",)
    for damage in (b"", b"\xff", b"[]", b'{"places": 5}', b'{"places": {"host": "x", "h": [5]}}'):
        (tmp_path / "places.json").write_bytes(damage)
        assert places.of("host") == () == places.of("h")
    (tmp_path / "places.json").unlink()
    (tmp_path / "places.json").mkdir()
    places.note("host", "192.0.2.1:8")


# Where a host says it is -----------------------------------------------------------------------


def adapters(**named):
    import ifaddr

    return [
        ifaddr.Adapter(
            name, name, [ifaddr.IP(ip if ":" not in ip else (ip, 0, 0), 24, name) for ip in ips]
        )
        for name, ips in named.items()
    ]


def test_bridges_and_link_local_addresses_do_not_fill_the_links(monkeypatch):
    many = {f"docker{n}": [f"172.{n}.0.1"] for n in range(17, 31)}
    many |= {f"br-{n}abc": [f"10.{n}.0.1"] for n in range(20)} | {f"veth{n}": [f"10.99.{n}.1"] for n in range(20)}  # fmt: skip
    found = adapters(
        lo=["127.0.0.1", "::1"],
        tailscale0=["100.101.1.2"],
        eth0=["169.254.3.4", "192.168.1.5", "fe80::1", "2001:4860::5", "fd00::5"],
        eth1=["8.8.4.4"],
        **many,
    )
    monkeypatch.setattr(addresses.ifaddr, "get_adapters", lambda: found)
    reach = addresses.reach(())
    assert reach.v4 == ("192.168.1.5", "8.8.4.4", "100.101.1.2")
    assert reach.v6 == ("2001:4860::5", "fd00::5")
    assert addresses.sockets(reach, 5, 6, 4) == (
        "192.168.1.5:5", "8.8.4.4:5", "[2001:4860::5]:6", "[fd00::5]:6",
    )  # fmt: skip
    assert addresses.sockets(reach, None, 6, 1) == ("[2001:4860::5]:6",)
    assert addresses.is_outside("8.8.8.8:5", reach) and not addresses.is_outside("8.8.4.4:5", reach)
    assert not addresses.is_outside("172.17.0.1:5", reach)


async def test_a_host_whose_address_changes_says_so_in_new_links_and_on_the_network(
    person, monkeypatch
):
    monkeypatch.setattr(presence, "LOOK_EVERY", 0.05)
    host = person("host")
    service = await host.host()
    seen = []

    async def watch():
        async for hints in service.presence.changes():
            seen.append(hints)

    before = (await grant(service)).hints
    monkeypatch.setattr(
        addresses, "reach", lambda _: addresses.Reach(("127.0.0.2",), (), restricted=True)
    )
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch)
        await until(lambda: len(seen) == 2 or (seen and seen[0] != before))
        await until(lambda: service.presence.status()["lan"] == "announced")
        tasks.cancel_scope.cancel()
    after = (await grant(service)).hints
    assert before.addresses[0].startswith("127.0.0.1:")
    assert after.addresses[0].startswith("127.0.0.2:")
    assert '"127.0.0.2:' in (host.settings.host_dir / "reach.json").read_text()
    async with lan.Lan(addresses.reach(())) as network:
        with anyio.fail_after(20):
            while (found := await network.find(service.peer_id))[0] != after.addresses[0]:
                await anyio.sleep(0.05)
    assert found == after.addresses
    await service.close()


async def test_another_version_is_said_even_by_the_last_of_several_sources(person, no_lan):
    service = await person("host").host()
    place = locate.Place(service.addresses[0])
    with pytest.raises(VersionMismatch):
        await locate.locate(
            service.presence.endpoint.public_key, link.Hints(), REACH, b"qmt/9",
            others=[source("late", place, after=0.2)], deadline=1.0,
        )  # fmt: skip
    await service.close()


async def test_places_that_come_in_a_burst_are_not_all_tried_at_once(dead, no_lan, monkeypatch):
    """A try that had been given up already opened its sockets all the same."""
    opened = []
    bind = Endpoint.bind.__func__

    async def counted(cls, *arguments, **options):
        opened.append(1)
        return await bind(cls, *arguments, **options)

    monkeypatch.setattr(Endpoint, "bind", classmethod(counted))
    places = [f"127.0.0.1:{port}" for port in range(20001, 20401)]

    async def burst(_attempt):
        for place in places:
            yield locate.Place(place)

    flood = locate.Source("flood", burst)
    with pytest.raises(HostNotFound):
        await search(keys.Identity.fresh().public_key, flood, deadline=1.0)
    assert 1 <= len(opened) <= 2 * locate.TRIES_AT_ONCE


def test_addresses_that_cannot_be_read_for_a_moment_are_no_crash(monkeypatch):
    """Out of file descriptors, the library raises a bare OSError; who watches must go on."""

    def exhausted():
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(addresses.ifaddr, "get_adapters", exhausted)
    with pytest.raises(errors.InterfaceUnknown, match="cannot be read"):
        addresses.reach(())


async def test_a_search_that_is_cancelled_as_it_is_won_closes_what_it_has_won(no_lan, monkeypatch):
    """The host kept a connection that nobody greeted over."""
    closed = asyncio.Event()

    class Won:
        async def close(self):
            closed.set()

    async def won_and_cancelled(race, _sources, _deadline):
        race.winner = (Won(), None)
        raise asyncio.CancelledError

    monkeypatch.setattr(locate._Race, "run", won_and_cancelled)
    with pytest.raises(asyncio.CancelledError):
        await search(NOBODY)
    await asyncio.wait_for(closed.wait(), 5)
