"""Nodes of the DHT that keep to no rules, each kind in its own way, and a crowd of nodes.

Every node has an address of its own in 127.0.0.0/8, because of one address only a few count.
"""

from __future__ import annotations

import asyncio
import os
import random
import time

from qmt_jupyter.identity import keys, whereabouts
from qmt_jupyter.mesh.addresses import Reach
from qmt_jupyter.mesh.contact import Contact
from qmt_jupyter.mesh.node import DhtNode

ATTACKER = keys.Identity(b"attacker" * 4)


def address(number, network=64):
    """The ``number``-th address of a network that nobody else here uses."""
    return f"127.{network + number // 62500}.{number // 250 % 250 + 1}.{number % 250 + 1}"


def contact_of(node, ip):
    return Contact(ip, node.port)


class Hostile:
    """Spoils an honest node's answers. The base class lies about nothing."""

    def __init__(self, node: DhtNode, ip: str, crowd: Crowd) -> None:
        self.ip = ip
        self.crowd = crowd
        self.protocol = node._protocol
        honest = self.protocol.rpc_find_value
        self.protocol.rpc_find_value = lambda *given: self.answer(given[2], honest(*given))
        self.protocol.rpc_store = lambda *given: self.store(*given)

    def answer(self, key, honest):
        return honest

    def store(self, sender, nodeid, key, value, token=b""):
        """Says that it keeps the record, and does not."""
        return True


class Forger(Hostile):
    """Answers with a record of its own making: true in form, signed by the wrong key."""

    def answer(self, key, honest):
        made = whereabouts.create(
            ATTACKER, sequence=2**63, now=time.time(), addresses=("127.9.9.9:9",)
        )
        host = self.crowd.host_of.get(key)
        data = made.data
        if host is not None:
            data = data[:1] + host.public_key + data[33:]
        return {**honest, "value": data}


class Stale(Hostile):
    """Keeps answering with the record of an hour ago, and refuses the new one."""

    def answer(self, key, honest):
        host = self.crowd.host_of.get(key)
        if host is None:
            return honest
        made = whereabouts.create(
            host, sequence=2**62, now=time.time() - 7200, addresses=("127.9.9.9:9",)
        )
        return {**honest, "value": made.data}


class Replayer(Hostile):
    """Answers with an earlier record of the host's that is still valid."""

    def answer(self, key, honest):
        host = self.crowd.host_of.get(key)
        if host is None:
            return honest
        made = whereabouts.create(
            host, sequence=1, now=time.time() - 600, addresses=("127.9.9.9:9",)
        )
        return {**honest, "value": made.data}


class Huge(Hostile):
    """Answers with as much as fits a datagram."""

    def answer(self, key, honest):
        return {**honest, "value": os.urandom(40_000)}


class Silent(Hostile):
    """Says that it is there, and nothing else."""

    def answer(self, key, honest):
        raise TypeError("says nothing")

    def store(self, *given):
        raise TypeError("says nothing")


class Flooder(Hostile):
    """Names a flood of contacts that do not exist, all of them near to what is looked for."""

    def answer(self, key, honest):
        return {**honest, "value": None, "nodes": self.crowd.made_up(key, self)}


class Colluder(Hostile):
    """Names other hostile nodes only, and has never heard of the record."""

    def answer(self, key, honest):
        friends = [contact for contact in self.crowd.hostile_contacts if contact.ip != self.ip]
        friends.sort(key=lambda each: each.number ^ int.from_bytes(key, "big"))
        named = [(each.id, each.ip, each.port) for each in friends[:12]]
        return {"token": honest["token"], "nodes": named}


class Babbler(Hostile):
    """Answers with things of the wrong kind."""

    def answer(self, key, honest):
        return self.crowd.chance.choice(
            [
                None,
                [],
                "yes",
                {"value": 7, "nodes": 7, "token": 7},
                {"nodes": [[1], [b"", 5, "x"], [b"", "localhost", 80], None], "token": b""},
                {"nodes": [[b"", "127.1.1.1", 2**60]] * 9, "token": b"", "value": {}},
                {
                    "nodes": [[b"", "255.255.255.255", 5000], [b"", "8.8.8.8", 53]],
                    "token": b"x" * 99,
                },
            ]
        )


KINDS = [Forger, Stale, Replayer, Huge, Silent, Flooder, Colluder, Babbler]


class Crowd:
    """Many nodes on loopback in one process, some of them hostile. An async context manager.

    ``kinds`` are the hostile ones' kinds in turn; ``seed`` decides who is hostile and who knows
    whom at first. Nothing tends the nodes: they are as alive as their packets.
    """

    def __init__(self, size, hostile=0.3, kinds=KINDS, seed=1, network=64):
        self.chance = random.Random(seed)
        self.size = size
        self.network = network
        self.kinds = kinds
        self.hostile_numbers = set(self.chance.sample(range(1, size), round(size * hostile)))
        self.nodes: list[DhtNode] = []
        self.honest: list[DhtNode] = []
        self.hostile_contacts: list[Contact] = []
        self.host_of: dict[bytes, keys.Identity] = {}
        self._pool: list[Contact] = []

    async def __aenter__(self):
        try:
            for number in range(self.size):
                ip = address(number, self.network)
                node = await DhtNode.open(Reach((ip,), (), restricted=True))
                self.nodes.append(node)
                if number in self.hostile_numbers:
                    self.kinds[len(self.hostile_contacts) % len(self.kinds)](node, ip, self)
                    self.hostile_contacts.append(contact_of(node, ip))
                else:
                    self.honest.append(node)
            await self._meet()
        except BaseException:
            await self.close()
            raise
        return self

    async def _meet(self):
        """Each enters through two that came before it, a few at a time."""
        everybody = [contact_of(n, address(i, self.network)) for i, n in enumerate(self.nodes)]
        at = 1
        while at < self.size:
            step = max(1, min(50, at // 2))
            await asyncio.gather(
                *(
                    self.nodes[number].enter(
                        [everybody[0], *self.chance.sample(everybody[:at], min(at, 2))]
                    )
                    for number in range(at, min(at + step, self.size))
                )
            )
            at += step

    def made_up(self, key, by):
        """Addresses where nobody is; the nearest of many to ``key``, so others' are farther."""
        if not self._pool:
            self._pool = [
                Contact(address(number, 128), self.chance.randrange(1024, 65536))
                for number in range(3000)
            ]
        number = int.from_bytes(key, "big")
        mine = self.chance.sample(self._pool, 500)
        nearest = sorted(mine, key=lambda each: each.number ^ number)[:12]
        return [(each.id, each.ip, each.port) for each in nearest]

    def host(self, number=0):
        """An identity whose record the hostile nodes know how to spoil."""
        identity = keys.Identity(bytes([number % 256, number // 256]) + b"h" * 30)
        self.host_of[whereabouts.key_of(identity.public_key)] = identity
        return identity

    async def close(self):
        for node in self.nodes:
            await node.close()

    async def __aexit__(self, *_):
        await self.close()


def record(identity, sequence=None, addresses=("127.0.0.1:4000",), **changes):
    now = changes.pop("now", time.time())
    number = int(now * 1000) if sequence is None else sequence
    return whereabouts.create(identity, sequence=number, now=now, addresses=addresses, **changes)
