"""Only the token is handed over, and no multicast reaches the host: the DHT finds it.

Host, guest and bootstrap node are processes in network namespaces of their own. Each test prints
how long joining took: ``make test WORKERS=0 ARGS="-k by_token -s"``.
"""

from __future__ import annotations

import json
import sys
import time

import pytest

from tests.mesh import namespaces

WHY_NOT = namespaces.why_not()
pytestmark = pytest.mark.skipif(WHY_NOT is not None, reason=WHY_NOT or "")

BOOTSTRAP = "203.0.113.100:47471"

# Joins by the line it reads; then asks what it reads until it has an answer.
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
    began = time.monotonic()
    if line.strip() == "leave":
        mesh.leave()
        say(began, left=True)
        break
    while time.monotonic() - began < 70:
        try:
            say(began, text="".join(mesh.chat(line.strip())))
            break
        except qmt.QmtError as error:
            time.sleep(0.2)
    else:
        say(began, error=error.code, sentence=error.sentence)
"""
PROMPT = "found by token alone"


@pytest.fixture
def net(tmp_path):
    with namespaces.network(tmp_path) as made:
        yield made


@pytest.fixture
def report(request, capsys):
    def say(what, seconds):
        with capsys.disabled():
            print(f"\n{request.node.name}: {what} {seconds:.2f} s", end="")

    return say


def qmt(machine, *words, **environment):
    return machine.start(sys.executable, "-m", "qmt_jupyter.cli", *words, **environment)


def host(machine, **environment):
    process = qmt(machine, "host", "--json", "--model", "echo", "--uses", "0", **environment)
    return process, process.hear()


def bootstrap(machine):
    process = qmt(machine, "bootstrap", "--json")
    ready = process.hear()
    assert ready["setting"] == f"QMT_BOOTSTRAP={BOOTSTRAP}"
    return process


def token(ready):
    return ready["invite"].partition("?")[0]


def join(machine, link, timeout=30.0, **environment):
    process = machine.start(sys.executable, "-c", GUEST, str(timeout), **environment)
    return process, process.ask(link)


def move(machine, former, new, router):
    machine.ip("address", "del", former, "dev", "eth0")
    machine.ip("address", "add", new, "dev", "eth0")
    machine.ip("route", "replace", "default", "via", router)


def joined_in_time(joined):
    assert "error" not in joined, joined
    return joined["seconds"]


def test_a_guest_in_another_subnet_joins_by_the_token_alone(net, report):
    one, other = net.machine("host"), net.machine("guest")
    public = net.routed(one, other)
    bootstrap(public)
    _, ready = host(one, QMT_BOOTSTRAP=BOOTSTRAP)
    guest, joined = join(other, token(ready), QMT_BOOTSTRAP=BOOTSTRAP)
    report("joined in", joined_in_time(joined))
    assert guest.ask(PROMPT)["text"] == PROMPT
    # What it has met it remembers: the next time it needs no configuration.
    guest.tell("leave")
    assert guest.hear()["left"]
    assert BOOTSTRAP in json.loads((other.home / "nodes.json").read_text())["nodes"]
    (other.home / "guest" / "places.json").unlink(missing_ok=True)
    _, joined = join(other, token(ready))
    report("again, from memory, in", joined_in_time(joined))


def test_a_guest_behind_a_nat_joins_by_the_token_alone(net, report):
    other = net.machine("guest")
    public = net.routed(other, translate=(other,))
    bootstrap(public)
    _, ready = host(public, QMT_BOOTSTRAP=BOOTSTRAP, QMT_HOME=str(public.home / "host"))
    guest, joined = join(other, token(ready), QMT_BOOTSTRAP=BOOTSTRAP)
    report("joined in", joined_in_time(joined))
    assert guest.ask(PROMPT)["text"] == PROMPT


def test_a_link_names_nodes_that_know_the_host_when_it_has_moved(net, report):
    one, other = net.machine("host"), net.machine("guest")
    public = net.routed(one, other)
    bootstrap(public)
    _, ready = host(one, QMT_BOOTSTRAP=BOOTSTRAP)
    link = ready["invite"]
    assert f"d={BOOTSTRAP}" in link
    assert f"d={BOOTSTRAP}" in qmt(one, "invite", "--json").hear()["invite"]
    began = time.monotonic()
    move(one, "10.0.1.2/24", "10.0.1.77/24", "10.0.1.1")
    _, joined = join(other, link, timeout=60.0)
    joined_in_time(joined)
    report("found after the move in", time.monotonic() - began)
    assert time.monotonic() - began < 60


def test_a_host_and_its_one_guest_find_each_other_again_without_anybody_else(net, report):
    one, other = net.machine("host"), net.machine("guest")
    net.routed(one, other)
    _, ready = host(one)
    guest, joined = join(other, ready["invite"])
    joined_in_time(joined)
    assert guest.ask(PROMPT)["text"] == PROMPT
    # A moment for the host's record to arrive at the guest's node.
    time.sleep(5)
    move(one, "10.0.1.2/24", "10.0.1.77/24", "10.0.1.1")
    again = guest.ask(PROMPT, 90.0)
    assert again.get("text") == PROMPT, again
    report("answered after the move in", again["seconds"])


def test_without_any_node_it_is_said_and_nothing_is_sent(net):
    one, other = net.machine("host"), net.machine("guest")
    public = net.routed(one, other)
    bootstrap(public)
    _, ready = host(one, QMT_BOOTSTRAP=BOOTSTRAP)
    _, joined = join(other, token(ready), timeout=3.0)
    assert joined["error"] == "host-not-found"
    assert "DHT: no node is known" in joined["sentence"]
    _, joined = join(other, token(ready), timeout=3.0, QMT_BOOTSTRAP=BOOTSTRAP, QMT_DHT="off")
    assert "DHT: switched off by QMT_DHT" in joined["sentence"]
    _, joined = join(other, token(ready), timeout=4.0, QMT_BOOTSTRAP="203.0.113.77:9999")
    assert "DHT: no node that is known answers" in joined["sentence"]
