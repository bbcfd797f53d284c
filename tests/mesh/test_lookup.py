"""The walk towards a key, in a world of plain functions: no packets, but every kind of answer."""

from __future__ import annotations

import asyncio
import time

import anyio
import pytest

from qmt_jupyter.identity import keys, whereabouts
from qmt_jupyter.identity.whereabouts import WhereaboutsInvalid
from qmt_jupyter.mesh import lookup
from qmt_jupyter.mesh.contact import Contact, distance, introduced, usable
from qmt_jupyter.mesh.lookup import Answer, Walk

pytestmark = pytest.mark.anyio

HOST = keys.Identity(b"h" * 32)
KEY = whereabouts.key_of(HOST.public_key)
NOW = 1_800_000_000


def record(sequence=1, identity=HOST, now=NOW):
    return whereabouts.create(identity, sequence=sequence, now=now, addresses=("192.0.2.1:4000",))


def read(data):
    try:
        return whereabouts.read(data, NOW, host_key=HOST.public_key)
    except WhereaboutsInvalid:
        return None


class World:
    """Nodes that answer as they are told; each knows some others, nearest to the key first."""

    def __init__(self, size=60):
        self.nodes = [Contact(f"10.0.{n // 200}.{n % 200 + 1}", 5000) for n in range(size)]
        self.nodes.sort(key=lambda each: distance(each, KEY))
        self.values = {}
        self.behaviour = {}
        self.asked = []

    def knows(self, contact):
        """Every node knows ten around half its own distance."""
        first = max(0, self.nodes.index(contact) // 2 - 5)
        return tuple(self.nodes[first : first + 10])

    async def ask(self, contact, key):
        self.asked.append(contact)
        await asyncio.sleep(0)
        if contact in self.behaviour:
            return await self.behaviour[contact](contact)
        if contact not in self.nodes:
            return None
        return Answer(self.knows(contact), self.values.get(contact), b"token")

    def walk(self, **changes):
        return Walk(KEY, self.ask, read, clock=time.monotonic, **changes)

    async def run(self, start=None, newer=None, **changes):
        with anyio.fail_after(30):
            return await self.walk(**changes).run(start or self.nodes[-3:], newer)


async def never(contact):
    await asyncio.Event().wait()


async def nothing(contact):
    return None


async def test_a_walk_finds_the_record_and_the_nearest_nodes():
    world = World()
    world.values[world.nodes[0]] = record().data
    outcome = await world.run()
    assert outcome.record == record()
    assert [contact for contact, _ in outcome.nearest] == world.nodes[: lookup.WIDTH]
    assert all(token == b"token" for _, token in outcome.nearest)
    assert 1 < outcome.hops < 8
    assert outcome.requests == len(world.asked) == len(set(world.asked))


async def test_without_a_record_it_says_so():
    outcome = await World().run()
    assert outcome.record is None
    assert len(outcome.nearest) == lookup.WIDTH


async def test_with_nobody_to_ask_it_is_over_at_once():
    outcome = await World(0).walk().run([])
    assert (outcome.record, outcome.nearest, outcome.requests) == (None, (), 0)


async def test_the_newest_valid_record_wins_and_each_newer_one_is_told():
    world = World()
    values = [record(5).data, record(9).data, record(7).data, b"noise", b""]
    values += [record(2**60, keys.Identity(b"x" * 32)).data, record(99, now=NOW - 7200).data]
    for node, value in zip(world.nodes, values, strict=False):
        world.values[node] = value
    told = []
    outcome = await world.run(newer=told.append)
    assert outcome.record == record(9)
    assert told[-1] == record(9)
    assert [each.sequence for each in told] == sorted({each.sequence for each in told})


async def test_nodes_that_never_answer_do_not_keep_it_from_the_record():
    world = World()
    world.values[world.nodes[0]] = record().data
    for node in world.nodes[1:40:2]:
        world.behaviour[node] = never
    outcome = await world.run()
    assert outcome.record == record()


async def test_it_starts_through_the_one_node_that_answers():
    world = World()
    world.values[world.nodes[0]] = record().data
    for node in world.nodes[41:]:
        world.behaviour[node] = never
    assert (await world.run(start=world.nodes[40:])).record == record()


async def test_an_answer_that_comes_late_still_counts():
    world = World(30)

    async def late(contact):
        await asyncio.sleep(1.0)
        return Answer((), record().data, b"")

    world.behaviour[world.nodes[0]] = late
    assert (await world.run()).record == record()


async def test_an_error_while_asking_is_no_answer():
    world = World(30)

    async def fails(contact):
        raise OSError("no route")

    world.behaviour[world.nodes[1]] = fails
    world.values[world.nodes[0]] = record().data
    assert (await world.run()).record == record()


@pytest.mark.parametrize("liars", [1, 6, 12])
async def test_made_up_contacts_do_not_block_it(liars):
    world = World()
    world.values[world.nodes[0]] = record().data
    pool = [Contact(f"172.16.{n // 250}.{n % 250 + 1}", 5000) for n in range(4000)]
    pool.sort(key=lambda each: distance(each, KEY))

    for at, liar in enumerate(world.nodes[2:40:3][:liars]):

        async def lie(contact, at=at):
            return Answer(tuple(pool[at::liars][:1000]), None, b"")

        world.behaviour[liar] = lie
    for each in pool:
        world.behaviour[each] = nothing
    outcome = await world.run()
    assert outcome.record == record()
    assert outcome.requests < lookup.MAX_REQUESTS


async def test_a_network_without_end_is_left_after_a_bounded_number_of_requests():
    world = World(3)
    counter = iter(range(10**6))

    async def endless(contact):
        made = [
            Contact(f"10.{next(counter) % 250}.{n}.{next(counter) % 250}", 5000) for n in range(12)
        ]
        nearest = sorted(made, key=lambda each: distance(each, KEY))
        for each in nearest:
            world.behaviour[each] = endless
        return Answer(tuple(nearest), None, b"")

    for node in world.nodes:
        world.behaviour[node] = endless
    assert (await world.run()).requests <= lookup.MAX_REQUESTS


async def test_of_one_address_few_nodes_are_asked():
    world = World()
    world.values[world.nodes[0]] = record().data
    crowd = [Contact("198.51.100.7", port) for port in range(2000, 4000)]

    async def answers(contact):
        return Answer(tuple(crowd), None, b"")

    for each in crowd:
        world.behaviour[each] = answers
    for liar in world.nodes[1:20:2]:
        world.behaviour[liar] = answers
    outcome = await world.run()
    assert outcome.record == record()
    assert sum(1 for each in world.asked if each in crowd) <= 2


async def test_made_up_ports_do_not_crowd_out_the_node_at_their_address():
    world = World()
    target = world.nodes[0]
    world.values[target] = record().data
    fakes = [Contact(target.ip, port) for port in range(2000, 2400)]
    for each in fakes:
        world.behaviour[each] = nothing

    async def lie(contact):
        return Answer(tuple(fakes), None, b"")

    for liar in world.nodes[5:9]:
        world.behaviour[liar] = lie
    assert (await world.run()).record == record()


async def test_a_cancelled_walk_leaves_nothing_running():
    world = World()
    for node in world.nodes:
        world.behaviour[node] = never
    before = asyncio.all_tasks()
    with anyio.move_on_after(0.2):
        await world.walk().run(world.nodes[-3:])
    assert asyncio.all_tasks() == before


async def test_it_does_not_ask_itself():
    world = World(20)
    await world.run(start=world.nodes, exclude=[world.nodes[4]])
    assert world.nodes[4] not in world.asked


# What an address tells ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ip", "port"),
    [
        ("", 1),
        ("localhost", 4000),
        ("1.2.3", 4000),
        ("1.2.3.4", 0),
        ("1.2.3.4", 65536),
        ("1.2.3.4", "4000"),
        ("0.0.0.0", 4000),
        ("224.0.0.1", 4000),
        ("255.255.255.255", 4000),
        ("0.1.2.3", 4000),
        ("fe80::1", 4000),
        ("fe80::1%eth0", 4000),
        ("ff02::1", 4000),
        ("::", 4000),
        ("::ffff:1.2.3.4", 4000),
        (b"1.2.3.4", 4000),
        (None, 4000),
        ("1" * 1000, 4000),
    ],
)
def test_an_address_that_no_node_has_is_no_contact(ip, port):
    assert usable(ip, port) is None


def test_one_address_is_one_contact_however_it_is_written():
    assert usable("2001:DB8:0::1", 4000) == usable("2001:db8::1", 4000)


def test_the_id_of_a_node_is_its_address():
    assert Contact("192.0.2.1", 4000).id == Contact("192.0.2.1", 4000).id
    assert len({Contact("192.0.2.1", port).id for port in range(1, 1000)}) == 999


def test_an_ipv6_network_is_one_group():
    one, other = Contact("2001:db8::1", 1), Contact("2001:db8::ffff:1", 2)
    assert one.group == other.group != Contact("2001:db8:0:1::1", 1).group
    assert Contact("192.0.2.1", 1).group != Contact("192.0.2.2", 1).group


@pytest.mark.parametrize(
    ("ip", "by", "followed"),
    [
        ("127.0.0.1", "192.168.1.1", False),
        ("127.0.0.1", "8.8.8.8", False),
        ("192.168.1.2", "8.8.8.8", False),
        ("10.0.0.1", "2600::1", False),
        ("192.168.1.2", "192.168.1.1", True),
        ("8.8.4.4", "192.168.1.1", True),
        ("127.0.0.2", "127.0.0.1", True),
        ("8.8.4.4", "8.8.8.8", True),
    ],
)
def test_nobody_far_away_names_an_address_that_is_near(ip, by, followed):
    assert (introduced(ip, 5000, Contact(by, 5000)) is not None) is followed


def test_nobody_names_a_port_where_other_services_are():
    by = Contact("8.8.8.8", 5000)
    assert introduced("8.8.4.4", 53, by) is None
    assert introduced("8.8.4.4", 5353, by) is not None
