"""Whole networks: host and guest in processes and network namespaces of their own.

The guest is handed the token alone, and the relay where the host has one; no address. Each test
prints how long joining took: ``make test WORKERS=0 ARGS="-k networks -s"``.
"""

from __future__ import annotations

import sys
import time

import pytest

from qmt_jupyter.errors import HostNotFound, UdpBlocked
from tests.mesh import namespaces
from tests.mesh.relay_server import needs_relay

WHY_NOT = namespaces.why_not()
pytestmark = pytest.mark.skipif(WHY_NOT is not None, reason=WHY_NOT or "")

# Joins, then answers each line: "status" or a prompt. Says how long each took.
GUEST = r"""
import json, sys, time
import qmt_jupyter as qmt

def say(began, **facts):
    print(json.dumps({"seconds": round(time.monotonic() - began, 3), **facts}), flush=True)

began = time.monotonic()
try:
    mesh = qmt.join(sys.stdin.readline().strip(), timeout=float(sys.argv[1]))
except qmt.QmtError as error:
    say(began, error=error.code, sentence=error.sentence)
    sys.exit()
say(began, **mesh.status()[0])
for line in sys.stdin:
    began, waited, pieces = time.monotonic(), False, 0
    if line.strip() == "status":
        say(began, **mesh.status()[0])
        continue
    answer = mesh.chat(line.strip())
    for piece in answer.updates():
        waited = waited or answer.patience is not None
        pieces += bool(piece)
    say(began, text=answer.text, pieces=pieces, waited=waited, **mesh.status()[0])
"""
PROMPT = "several words that come one by one"


@pytest.fixture
def net(tmp_path):
    with namespaces.network(tmp_path) as made:
        yield made


@pytest.fixture
def report(request, capsys):
    """Say a figure where a person watches."""

    def say(what, joined):
        with capsys.disabled():
            print(f"\n{request.node.name}: {what} {joined['seconds']} s, {joined['path']}", end="")

    return say


def host(machine, relay="none"):
    """A real ``qmt host`` with the echo provider, and what it says when it is ready."""
    process = machine.start(
        sys.executable, "-m", "qmt_jupyter.cli",
        "host", "--json", "--model", "echo", "--uses", "0", "--relay", relay,
    )  # fmt: skip
    return process, process.hear()


def token(ready, relay=None):
    """The link without any address."""
    bare = ready["invite"].partition("?")[0]
    return f"{bare}?r={relay}" if relay else bare


def join(machine, link, timeout=30.0, **environment):
    """A guest that has joined by the link, or said why not."""
    process = machine.start(sys.executable, "-c", GUEST, str(timeout), **environment)
    return process, process.ask(link)


def move(machine, former, new):
    """Give a machine another address, as a router does that has restarted."""
    machine.ip("address", "del", former, "dev", "eth0")
    machine.ip("address", "add", new, "dev", "eth0")
    machine.ip("route", "replace", "224.0.0.0/4", "dev", "eth0")


def wait_for(guest, condition, seconds=60.0):
    """Ask for the guest's status until it is as wanted."""
    deadline = time.monotonic() + seconds
    while not condition(status := guest.ask("status")):
        assert time.monotonic() < deadline, status
        time.sleep(0.1)
    return status


def assert_chats(guest):
    said = guest.ask(PROMPT)
    assert said["text"] == PROMPT
    assert said["pieces"] > 1, "it was streamed"
    return said


def test_one_lan(net, report):
    one, other = net.machine("host"), net.machine("guest")
    net.lan(one, other)
    _, ready = host(one)
    assert ready["addresses"] and all(each.startswith("10.0.0.1:") for each in ready["addresses"])
    guest, joined = join(other, token(ready))
    report("joined in", joined)
    assert joined["path"] == "direct"
    assert_chats(guest)


def test_a_lan_that_loses_five_packets_in_a_hundred(net, report):
    one, other = net.machine("host"), net.machine("guest")
    net.lan(one, other)
    for machine in (one, other):
        machine.rule("-A", "INPUT", "-p", "udp", "-m", "statistic", "--mode", "random", "--probability", "0.05", "-j", "DROP")  # fmt: skip
    _, ready = host(one)
    guest, joined = join(other, token(ready))
    report("joined in", joined)
    for _ in range(20):
        assert_chats(guest)
    long = "word " * 3000
    assert guest.ask(long)["text"] == long.strip()


@needs_relay
def test_two_nats_and_a_relay_between_them(net, report):
    one, other = net.machine("host"), net.machine("guest")
    public = net.routed(one, other, translate=(one, other))
    _, url = net.relay(public, "203.0.113.100")
    _, ready = host(one, relay=url)
    assert ready["relay"] == {"url": url, "connected": True}
    assert ready["invite"].endswith(f"r={url}")
    guest, joined = join(other, token(ready, url))
    report("joined in", joined)
    assert_chats(guest)
    # Without the relay there is no way at all.
    _, lost = join(other, token(ready), timeout=3.0)
    assert lost["error"] == HostNotFound.code


@needs_relay
def test_a_direct_path_takes_over_from_the_relay_and_outlives_it(net, report):
    one, other = net.machine("host"), net.machine("guest")
    public = net.routed(one, other)
    server, url = net.relay(public, "203.0.113.100")
    _, ready = host(one, relay=url)
    guest, joined = join(other, token(ready, url))
    report("joined in", joined)
    direct = wait_for(guest, lambda status: status["path"] == "direct")
    assert direct["rtt_ms"] is not None
    server.kill()
    assert_chats(guest)
    time.sleep(5)
    said = assert_chats(guest)
    assert (said["path"], said["waited"]) == ("direct", False)


def test_a_host_whose_address_changes_under_its_guest(net, report):
    one, other = net.machine("host"), net.machine("guest")
    net.lan(one, other)
    _, ready = host(one)
    guest, _ = join(other, token(ready))
    assert_chats(guest)
    move(one, "10.0.0.1/24", "10.0.0.77/24")
    said = assert_chats(guest)
    report("answered after the change in", said)
    # And it is not the old path that was kept alive: nobody answers there.
    _, joined = join(other, token(ready))
    report("another guest joined in", joined)
    assert joined["path"] == "direct"


def test_a_host_that_restarts_elsewhere_is_found_without_being_asked_for(net, report):
    one, other = net.machine("host"), net.machine("guest")
    net.lan(one, other)
    running, ready = host(one)
    guest, joined = join(other, token(ready))
    assert joined["connected"]
    running.kill()
    move(one, "10.0.0.1/24", "10.0.0.77/24")
    wait_for(guest, lambda status: not status["connected"])
    began = time.monotonic()
    host(one)
    back = wait_for(guest, lambda status: status["connected"])
    report("back after", {**back, "seconds": round(time.monotonic() - began, 1)})
    assert_chats(guest)


@needs_relay
def test_blocked_udp_is_said_at_once_and_a_relay_gets_through(net, report):
    one, other = net.machine("host"), net.machine("guest")
    public = net.routed(one, other)
    _, url = net.relay(public, "203.0.113.100")
    _, ready = host(one, relay=url)
    other.rule("-A", "OUTPUT", "-p", "udp", "-j", "DROP")
    guest, joined = join(other, token(ready, url))
    report("joined in", joined)
    assert joined["path"] == "relayed"
    assert_chats(guest)
    refused, lost = join(other, ready["invite"].partition("&r=")[0], timeout=60.0)
    assert lost["error"] == UdpBlocked.code and "firewall" in lost["sentence"]
    assert lost["seconds"] < 30, "it was not waited for to the end"
    assert refused.errors == "", "no library complains beside the one sentence"


@needs_relay
def test_udp_that_is_dropped_on_the_way_leaves_the_relay(net, report):
    one, other = net.machine("host"), net.machine("guest")
    public = net.routed(one, other)
    _, url = net.relay(public, "203.0.113.100")
    _, ready = host(one, relay=url)
    for machine in (one, other):
        machine.rule("-A", "INPUT", "-i", "eth0", "-p", "udp", "-j", "DROP")
    guest, joined = join(other, ready["invite"])
    report("joined in", joined)
    assert joined["path"] == "relayed"
    assert_chats(guest)


def test_a_machine_and_all_that_runs_in_it_is_gone_afterwards(tmp_path):
    with pytest.raises(RuntimeError, match="on purpose"), namespaces.network(tmp_path) as net:
        machine = net.machine("short")
        sleeping = machine.start("sleep", "1000")
        raise RuntimeError("on purpose")
    assert machine._holder.poll() is not None
    assert sleeping._popen.poll() is not None
