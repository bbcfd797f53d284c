"""What leaves the machine when it is told to stay, watched on its only way out.

The transport asks the network's router to map its port, and its Python side cannot be told not
to. That is all that may be seen.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

# A namespace of our own with a network that leads to a router which is us, listening.
INSIDE = r"""
import os, socket, subprocess, sys, threading

def ip(*words):
    subprocess.run(["ip", *words], check=True)

ip("link", "set", "lo", "up")
ip("link", "add", "inside", "type", "veth", "peer", "name", "outside")
for name in ("inside", "outside"):
    with open(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6", "w") as file:
        file.write("1")
    ip("link", "set", name, "up")
ip("address", "add", "198.51.100.2/24", "dev", "inside")
ip("route", "add", "default", "via", "198.51.100.1", "dev", "inside")
watch = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.ntohs(3))
watch.bind(("outside", 0))
watch.settimeout(1.5)
seen = []

def listen():
    while True:
        try:
            packet = watch.recv(2048)
            if packet[12:14] == b"\x08\x00":
                to = socket.inet_ntoa(packet[30:34])
                seen.append(f"{to}:{int.from_bytes(packet[36:38], 'big')}")
            elif packet[12:14] != b"\x08\x06":  # not the question where the router is
                seen.append(packet[12:14].hex())
        except TimeoutError:
            if done.is_set():
                return

done = threading.Event()
thread = threading.Thread(target=listen)
thread.start()
status = subprocess.run(sys.argv[1:]).returncode
done.set()
thread.join()
print("SEEN", *sorted(set(seen)))
sys.exit(status)
"""


def in_a_namespace(*command, interfaces, home):
    return subprocess.run(
        ["unshare", "--net", sys.executable, "-c", INSIDE, *command],
        env={**os.environ, "QMT_INTERFACES": interfaces, "QMT_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=90,
    )


def _namespaces_work():
    if not (shutil.which("unshare") and shutil.which("ip")):
        return False
    tried = subprocess.run(
        ["unshare", "--net", "ip", "link", "set", "lo", "up"], capture_output=True
    )
    return tried.returncode == 0


ROUTER_QUESTIONS = {"239.255.255.250:1900", "198.51.100.1:5351"}
MULTICAST_DNS = "224.0.0.251:5353"


def seen(done):
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split()[1:])


@pytest.mark.skipif(not _namespaces_work(), reason="needs root, unshare and ip")
def test_nothing_but_the_question_to_the_router_leaves_when_told_to_stay(tmp_path):
    demo = (sys.executable, "-m", "qmt_jupyter.cli", "demo", "--model", "echo", "--json")
    done = in_a_namespace(*demo, interfaces="127.0.0.1", home=tmp_path)
    assert seen(done) <= ROUTER_QUESTIONS

    # The watch works: a host for the network is heard.
    code = "import qmt_jupyter as qmt, time; h = qmt.host('echo'); time.sleep(3); h.close()"
    heard = in_a_namespace(sys.executable, "-c", code, interfaces="", home=tmp_path)
    assert MULTICAST_DNS in seen(heard)
