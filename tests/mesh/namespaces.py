"""Networks of one's own: machines, cables, routers and NATs, each machine a network namespace.

A machine lives as long as one small process, which ends with the test's. With it the kernel takes
away the namespace, its interfaces and its rules, whatever has happened; no name stays behind.
"""

from __future__ import annotations

import json
import os
import queue
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.mesh import relay_server

RELAY_PORT = 3340


def why_not() -> str | None:
    """Why no network can be made here; None where one can."""
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        return "needs root on Linux"
    missing = [tool for tool in ("unshare", "nsenter", "ip", "iptables") if not shutil.which(tool)]
    if missing:
        return f"needs {', '.join(missing)}"
    tried = subprocess.run(
        ["unshare", "--net", "sh", "-c", "ip link set lo up && iptables -t nat -A POSTROUTING -o lo -j MASQUERADE && ip link add eth0 type veth peer name eth1"],
        capture_output=True, text=True,
    )  # fmt: skip
    return None if tried.returncode == 0 else f"no namespaces here: {tried.stderr.strip()[-100:]}"


class Machine:
    """One computer on the network; commands run in it with :meth:`run` and :meth:`start`."""

    def __init__(self, name: str, home: Path) -> None:
        self.name = name
        self.home = home / name
        self.home.mkdir()
        self._processes: list[Process] = []
        # `cat` ends when this process does, however it does.
        self._holder = subprocess.Popen(
            ["unshare", "--net", "cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
        )
        own, deadline = Path("/proc/self/ns/net").readlink(), time.monotonic() + 20
        while Path(f"/proc/{self._holder.pid}/ns/net").readlink() == own:
            assert time.monotonic() < deadline and self._holder.poll() is None
            time.sleep(0.005)
        self.ip("link", "set", "lo", "up")

    def _inside(self, command: tuple[str, ...]) -> list[str]:
        return ["nsenter", f"--net=/proc/{self._holder.pid}/ns/net", "--", *command]

    def run(self, *command: str) -> str:
        """Run to its end and return what it printed; it has to succeed."""
        done = subprocess.run(self._inside(command), capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        return done.stdout

    def ip(self, *words: str) -> None:
        """Configure an interface, an address or a route."""
        self.run("ip", *words)

    def rule(self, *words: str) -> None:
        """Add a rule to the machine's firewall."""
        self.run("iptables", *words)

    def start(self, *command: str, **environment: str) -> Process:
        """Start a program that prints JSON lines; it is ended with the machine."""
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("QMT_", "JUPYTERHUB_"))}
        env = {**clean, "QMT_HOME": str(self.home), **environment}
        process = Process(f"{self.name}: {command[-1][:20]}", self._inside(command), env)
        self._processes.append(process)
        return process

    def close(self) -> None:
        """End what runs in it, then the machine itself."""
        for process in self._processes:
            process.kill()
        self._holder.stdin.close()
        self._holder.kill()
        self._holder.wait()


class Process:
    """A program that is told lines and says JSON lines."""

    def __init__(self, name: str, command: list[str], env: dict[str, str]) -> None:
        self.name = name
        self._popen = subprocess.Popen(
            command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self._said: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._errors: list[str] = []
        self._threads = [
            threading.Thread(target=self._listen, daemon=True),
            threading.Thread(target=self._note_errors, daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def _listen(self) -> None:
        for line in self._popen.stdout:
            self._said.put(line)
        self._said.put(None)

    def _note_errors(self) -> None:
        self._errors.extend(self._popen.stderr)

    def tell(self, line: str) -> None:
        """Write a line to its standard input."""
        self._popen.stdin.write(f"{line}\n")
        self._popen.stdin.flush()

    def hear(self, seconds: float = 60.0) -> dict:
        """The next object that it prints."""
        try:
            line = self._said.get(timeout=seconds)
        except queue.Empty:
            line = None
        assert line is not None, f"{self.name} said nothing; {''.join(self._errors)[-2000:]}"
        return json.loads(line)

    def ask(self, line: str, seconds: float = 90.0) -> dict:
        """Tell a line and hear what it says to it."""
        self.tell(line)
        return self.hear(seconds)

    @property
    def errors(self) -> str:
        """What it printed to standard error so far."""
        return "".join(self._errors)

    def kill(self) -> None:
        """End it, without asking."""
        self._popen.kill()
        self._popen.wait()
        for thread in self._threads:
            thread.join(timeout=10)
        for pipe in (self._popen.stdin, self._popen.stdout, self._popen.stderr):
            try:
                pipe.close()
            except OSError:  # what was still to be written has nobody to go to
                continue


class Network:
    """Machines and the cables between them."""

    def __init__(self, home: Path, stack: ExitStack) -> None:
        self._home = home
        self._stack = stack

    def machine(self, name: str) -> Machine:
        """Another computer, with nothing but loopback."""
        made = Machine(name, self._home)
        self._stack.callback(made.close)
        return made

    def cable(self, one: Machine, port: str, address: str, other: Machine, to: str, there: str) -> None:  # fmt: skip
        """Connect two machines: ``port`` of the one, with ``address`` (``IP/BITS``), to the other's."""
        one.ip("link", "add", port, "type", "veth", "peer", "name", to, "netns", str(other._holder.pid))  # fmt: skip
        for machine, name, own in ((one, port, address), (other, to, there)):
            machine.ip("address", "add", own, "dev", name)
            machine.ip("link", "set", name, "up")

    def lan(self, *machines: Machine) -> None:
        """Plug machines into one switch; the n-th gets 10.0.0.n, multicast and all."""
        switch = self.machine("switch")
        switch.ip("link", "add", "br0", "type", "bridge")
        switch.ip("link", "set", "br0", "up")
        for number, machine in enumerate(machines, 1):
            machine.ip("link", "add", "eth0", "type", "veth", "peer", "name", f"port{number}", "netns", str(switch._holder.pid))  # fmt: skip
            switch.ip("link", "set", f"port{number}", "up", "master", "br0")
            machine.ip("address", "add", f"10.0.0.{number}/24", "dev", "eth0")
            machine.ip("link", "set", "eth0", "up")
            machine.ip("route", "add", "224.0.0.0/4", "dev", "eth0")

    def routed(self, *machines: Machine, translate: tuple[Machine, ...] = ()) -> Machine:
        """Each machine behind a router of its own, the routers around one public network.

        The n-th machine is 10.0.n.2, its router 203.0.113.n outside; nothing carries multicast
        across. Routers of ``translate`` are NATs: they masquerade, and let nothing in that was
        not asked for. Returns the public network's middle, 203.0.113.100, where servers may be.
        """
        public = self.machine("public")
        public.ip("link", "add", "br0", "type", "bridge")
        public.ip("address", "add", "203.0.113.100/24", "dev", "br0")
        public.ip("link", "set", "br0", "up")
        for number, machine in enumerate(machines, 1):
            router = self.machine(f"router{number}")
            self.cable(machine, "eth0", f"10.0.{number}.2/24", router, "inside", f"10.0.{number}.1/24")  # fmt: skip
            machine.ip("route", "add", "default", "via", f"10.0.{number}.1")
            router.ip("link", "add", "outside", "type", "veth", "peer", "name", f"port{number}", "netns", str(public._holder.pid))  # fmt: skip
            public.ip("link", "set", f"port{number}", "up", "master", "br0")
            router.ip("address", "add", f"203.0.113.{number}/24", "dev", "outside")
            router.ip("link", "set", "outside", "up")
            router.run("sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
            if machine in translate:
                known = ("-m", "conntrack", "--ctstate", "ESTABLISHED,RELATED", "-j", "ACCEPT")
                router.rule("-t", "nat", "-A", "POSTROUTING", "-o", "outside", "-j", "MASQUERADE")
                for chain in ("INPUT", "FORWARD"):
                    router.rule("-A", chain, "-i", "outside", *known)
                    router.rule("-A", chain, "-i", "outside", "-j", "DROP")
                continue
            public.ip("route", "add", f"10.0.{number}.0/24", "via", f"203.0.113.{number}")
            for other in range(1, len(machines) + 1):
                if other != number and machines[other - 1] not in translate:
                    router.ip("route", "add", f"10.0.{other}.0/24", "via", f"203.0.113.{other}")
        return public

    def relay(self, machine: Machine, address: str) -> tuple[Process, str]:
        """Run a relay on a machine: the process, and the URL it listens at."""
        server = machine.start(*relay_server.command(machine.home, address, RELAY_PORT))
        deadline = time.monotonic() + 20
        while f":{RELAY_PORT:04X}" not in machine.run("cat", "/proc/net/tcp"):
            assert time.monotonic() < deadline, server.errors
            time.sleep(0.02)
        return server, f"http://{address}:{RELAY_PORT}/"


@contextmanager
def network(home: Path) -> Iterator[Network]:
    """An empty network; all of it is gone afterwards."""
    with ExitStack() as stack:
        yield Network(home, stack)
