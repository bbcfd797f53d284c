"""The DHT over real UDP on loopback: a third of the nodes hostile, and strangers with raw packets."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import sys
import time
from collections import Counter
from pathlib import Path

import anyio
import pytest
import umsgpack

from qmt_jupyter.errors import ConfigurationError, PortInUse
from qmt_jupyter.identity import keys, whereabouts
from qmt_jupyter.mesh import dht
from qmt_jupyter.mesh.addresses import Reach
from qmt_jupyter.mesh.contact import Contact
from qmt_jupyter.mesh.node import DhtNode
from qmt_jupyter.mesh.tokens import LASTS, Tokens
from tests.mesh.conftest import until
from tests.mesh.hostile_nodes import KINDS, Crowd, record

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(sys.platform == "darwin", reason="macOS has one loopback address only"),
]


class Stranger(asyncio.DatagramProtocol):
    """Somebody with a socket, who sends what it likes and keeps what it gets."""

    def __init__(self):
        self.got = []
        self.answers = {}

    def datagram_received(self, data, addr):
        self.got.append((data, addr))
        if data[:1] == b"\1":
            self.answers[data[1:21]] = umsgpack.unpackb(data[21:])

    def send(self, data, node):
        self.transport.sendto(data, ("127.80.0.1", node.port))

    def post(self, node, method, *arguments):
        """Send a request; its message id, and how many bytes it had."""
        message_id = os.urandom(20)
        data = b"\0" + message_id + umsgpack.packb([method, list(arguments)])
        self.send(data, node)
        return message_id, len(data)

    async def ask(self, node, method, *arguments):
        """A request's answer, asked for again where a packet was lost; None if none comes."""
        for _ in range(10):
            message_id, _ = self.post(node, method, *arguments)
            with anyio.move_on_after(1.0):
                while message_id not in self.answers:
                    await anyio.sleep(0.005)
                return self.answers[message_id]
        return None

    @property
    def contact(self):
        return Contact(*self.transport.get_extra_info("sockname"))


@contextlib.asynccontextmanager
async def stranger(ip="127.0.0.1"):
    transport, protocol = await asyncio.get_running_loop().create_datagram_endpoint(
        Stranger, local_addr=(ip, 0)
    )
    protocol.transport = transport
    try:
        yield protocol
    finally:
        transport.abort()
        await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def lone_node(ip="127.80.0.1"):
    node = await DhtNode.open(Reach((ip,), (), restricted=True))
    try:
        yield node
    finally:
        await node.close()


ID = b"i" * 20
HOST = keys.Identity(b"h" * 32)
KEY = whereabouts.key_of(HOST.public_key)


# A network with hostile nodes ------------------------------------------------------------------


async def look_up_all(crowd, lookups):
    """Hosts publish, others search; how many records were found. A wrong one fails at once."""
    found = 0
    for number in range(lookups):
        host = crowd.host(number)
        made = record(host)
        published = await crowd.chance.choice(crowd.honest).publish(made)
        assert published.nodes > 0
        told = []
        outcome = await crowd.chance.choice(crowd.honest).search(host.public_key, told.append)
        assert all(each.host_key == host.public_key for each in told)
        assert outcome.record is None or outcome.record.host_key == host.public_key
        assert outcome.record is None or outcome.record.addresses in {
            made.addresses,
            ("127.9.9.9:9",),  # what the host itself signed a while ago
        }
        found += outcome.record == made
    return found


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
async def test_the_record_is_found_among_hostile_nodes_of_one_kind(kind):
    async with Crowd(40, hostile=0.3, kinds=[kind], seed=7) as crowd:
        assert await look_up_all(crowd, 5) == 5


async def test_the_record_is_found_among_hostile_nodes_of_all_kinds():
    async with Crowd(60, hostile=0.3, seed=3) as crowd:
        assert await look_up_all(crowd, 10) == 10


async def test_a_host_that_never_published_is_not_found_and_nobody_else_is_instead():
    async with Crowd(40, hostile=0.3, seed=5) as crowd:
        host = crowd.host(0)
        published_by_another = record(crowd.host(1))
        await crowd.honest[0].publish(published_by_another)
        told = []
        outcome = await crowd.honest[-1].search(host.public_key, told.append)
        # A replayed record would be the host's own, from another time.
        assert all(each.addresses == ("127.9.9.9:9",) for each in told)
        assert outcome.record is None or outcome.record.addresses == ("127.9.9.9:9",)
        assert {each.host_key for each in told} <= {host.public_key}


async def test_a_host_that_moves_is_found_at_its_new_address():
    async with Crowd(30, hostile=0.3, seed=9) as crowd:
        host = crowd.host(0)
        publisher, searcher = crowd.honest[3], crowd.honest[-1]
        await publisher.publish(record(host, addresses=("127.0.0.1:4000",)))
        moved = record(host, addresses=("127.0.0.2:4000",))
        published = await publisher.publish(moved)
        assert published.nodes > 0
        assert (await searcher.search(host.public_key)).record == moved


async def test_the_first_answer_does_not_wait_for_the_slow_ones():
    """The record is told of while silent nodes are still being waited for."""
    async with Crowd(30, hostile=0.3, kinds=[KINDS[4]], seed=4) as crowd:
        host = crowd.host(0)
        await crowd.honest[0].publish(record(host))
        told = asyncio.Event()
        search = asyncio.ensure_future(
            crowd.honest[-1].search(host.public_key, lambda _: told.set())
        )
        with anyio.fail_after(10):
            await told.wait()
            await search


# Stores ----------------------------------------------------------------------------------------


async def token_of(somebody, node):
    answer = await somebody.ask(node, "find_value", ID, KEY, bytes(300))
    return answer["token"]


async def test_a_record_is_stored_with_a_token_and_read_by_anybody():
    async with lone_node() as node, stranger() as somebody, stranger("127.0.0.9") as other:
        made = record(HOST)
        token = await token_of(somebody, node)
        assert await somebody.ask(node, "store", ID, KEY, made.data, token) is True
        answer = await other.ask(node, "find_value", ID, KEY, bytes(300))
        assert answer["value"] == made.data


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"unsigned" * 20,
        record(HOST).data[:-64] + bytes(64),
        record(keys.Identity(b"o" * 32)).data,
        record(HOST, now=time.time() - 7200).data,
        record(HOST, now=time.time() + 7200).data,
        record(HOST).data + bytes(400),
    ],
    ids=["empty", "noise", "badly signed", "another key", "stale", "future", "oversized"],
)
async def test_what_is_no_valid_record_is_not_stored(value):
    async with lone_node() as node, stranger() as somebody:
        token = await token_of(somebody, node)
        assert await somebody.ask(node, "store", ID, KEY, value, token) is False
        assert node.records == 0


async def test_an_older_record_does_not_replace_a_newer_one():
    async with lone_node() as node, stranger() as somebody:
        token = await token_of(somebody, node)
        newer = record(HOST, sequence=9)
        assert await somebody.ask(node, "store", ID, KEY, newer.data, token) is True
        older = record(HOST, sequence=8)
        assert await somebody.ask(node, "store", ID, KEY, older.data, token) is False
        answer = await somebody.ask(node, "find_value", ID, KEY, bytes(300))
        assert answer["value"] == newer.data


async def test_who_forges_its_address_cannot_store():
    """A store needs the token that went to the address it comes from."""
    async with lone_node() as node, stranger() as somebody, stranger("127.0.0.9") as other:
        token = await token_of(other, node)
        for wrong in (token, b"", bytes(8)):
            answer = await somebody.ask(node, "store", ID, KEY, record(HOST).data, wrong)
            assert answer is False
        assert node.records == 0


def test_a_token_is_good_for_its_address_and_for_a_while():
    tokens = Tokens(0.0)
    given = tokens.of("192.0.2.1", 1.0)
    assert tokens.is_of(given, "192.0.2.1", LASTS)
    assert not tokens.is_of(given, "192.0.2.2", LASTS)
    assert tokens.is_of(given, "192.0.2.1", LASTS + 2)
    assert not tokens.is_of(given, "192.0.2.1", 2 * LASTS + 4)
    silent = Tokens(0.0)
    given = silent.of("192.0.2.1", 1.0)
    assert not silent.is_of(given, "192.0.2.1", 5 * LASTS)


async def test_one_sender_fills_its_share_and_no_more():
    async with lone_node() as node, stranger() as somebody, stranger("127.0.0.9") as other:
        token = await token_of(somebody, node)
        for number in range(100):
            host = keys.Identity(bytes([number]) + b"x" * 31)
            made = record(host)
            somebody.post(node, "store", ID, made.key, made.data, token)
        await until(lambda: node.records >= 20)
        await somebody.ask(node, "ping", ID)
        assert node.records <= 64
        token = await token_of(other, node)
        assert await other.ask(node, "store", ID, KEY, record(HOST).data, token) is True


# Answers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("padding", [0, 50, 288])
async def test_an_answer_is_at_most_three_times_its_question(padding):
    async with Crowd(30, hostile=0) as crowd, stranger() as somebody:
        node = crowd.nodes[0]
        await node.publish(record(HOST, addresses=tuple(f"192.0.2.{n}:4000" for n in range(1, 9))))
        message_id = os.urandom(20)
        data = b"\0" + message_id + umsgpack.packb(["find_value", [ID, KEY, bytes(padding)]])
        somebody.transport.sendto(data, ("127.64.1.1", node.port))
        await until(lambda: message_id in somebody.answers)
        answered = [len(got) for got, _ in somebody.got if got[1:21] == message_id]
        assert len(answered) == 1
        assert answered[0] <= 3 * len(data)


async def test_a_sender_is_answered_at_a_bounded_rate():
    async with lone_node() as node, stranger() as somebody, stranger("127.0.0.9") as other:
        for _ in range(600):
            somebody.post(node, "ping", ID)
        assert await other.ask(node, "ping", ID) is not None
        answered = len(somebody.answers)
        assert 0 < answered <= dht.REQUESTS_AT_ONCE + 10 * dht.REQUESTS_PER_SECOND


async def test_noise_and_requests_of_wrong_kinds_are_not_answered_and_do_no_harm():
    chance = random.Random(11)
    async with lone_node() as node, stranger("127.0.0.5") as honest:
        senders = []
        async with contextlib.AsyncExitStack() as stack:
            for number in range(8):
                senders.append(await stack.enter_async_context(stranger(f"127.0.1.{number + 1}")))
            packets = [chance.randbytes(chance.randrange(0, 1500)) for _ in range(100)]
            packets += [
                bytes([kind]) + chance.randbytes(200) for kind in range(4) for _ in range(20)
            ]
            packets += [
                b"\0" + bytes(20) + b"\x91" * 1300,
                b"\0" + bytes(20) + b"\xdd\xff\xff\xff\xff",
            ]
            for at, packet in enumerate(packets):
                senders[at % 8].send(packet, node)
            wrong = [
                ("ping",),
                ("ping", 5),
                ("ping", b"short"),
                ("ping", ID, ID, ID),
                ("find_value", ID),
                ("find_value", ID, 7),
                ("find_value", ID, "text" * 5),
                ("find_value", ID, b"k" * 19),
                ("find_value", ID, KEY, 4),
                ("store", ID, KEY),
                ("store", ID, [1], {}, b""),
                ("store", 1, 2, 3, 4),
                ("__class__", ID),
                ("_admit", ID),
                ("close",),
                ("welcome_if_new", ID),
                (["ping"], ID),
                ({}, ID),
            ]
            ids = [senders[at % 8].post(node, *each)[0] for at, each in enumerate(wrong)]
            assert await honest.ask(node, "ping", ID) is not None
            assert not any(each in sender.answers for each in ids for sender in senders)
        assert await honest.ask(node, "ping", ID) is not None


async def test_only_the_node_that_was_asked_can_answer():
    async with lone_node() as node, stranger() as asked, stranger("127.0.0.9") as other:
        checking = asyncio.ensure_future(node.check([asked.contact]))
        await until(lambda: asked.got)
        message_id = asked.got[0][0][1:21]
        other.send(b"\1" + message_id + umsgpack.packb(ID), node)
        assert await checking == 0
        assert node.contacts == ()


async def test_a_late_or_doubled_answer_does_no_harm():
    async with lone_node() as node, stranger() as asked:
        checking = asyncio.ensure_future(node.check([asked.contact]))
        await until(lambda: asked.got)
        answer = b"\1" + asked.got[0][0][1:21] + umsgpack.packb(ID)
        for _ in range(3):
            asked.send(answer, node)
        assert await checking == 1
        asked.send(answer, node)
        assert await asked.ask(node, "ping", ID) is not None


async def test_a_check_that_is_given_up_leaves_nothing_behind():
    async with lone_node() as node, stranger() as asked:
        checking = asyncio.ensure_future(node.check([asked.contact]))
        await until(lambda: asked.got)
        checking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await checking
        asked.send(b"\1" + asked.got[0][0][1:21] + umsgpack.packb(ID), node)
        assert await asked.ask(node, "ping", ID) is not None
        assert node._protocol._outstanding == {}


# The table -------------------------------------------------------------------------------------


async def test_who_asks_and_answers_at_its_address_gets_into_the_table():
    async with lone_node() as node, lone_node("127.80.0.2") as newcomer:
        await newcomer.enter([Contact("127.80.0.1", node.port)])
        await until(lambda: node.contacts)
        assert node.contacts == (Contact("127.80.0.2", newcomer.port),)


async def test_who_does_not_answer_stays_out_of_the_table():
    async with lone_node() as node, stranger() as somebody:
        assert await somebody.ask(node, "ping", somebody.contact.id) is not None
        # It was asked whether it is there, once, and says nothing.
        await until(lambda: any(data[:1] == b"\0" for data, _ in somebody.got))
        for _ in range(5):
            await somebody.ask(node, "ping", somebody.contact.id)
        assert sum(1 for data, _ in somebody.got if data[:1] == b"\0") == 1
        assert node.contacts == ()


async def test_who_claims_another_address_than_it_is_seen_at_is_not_even_checked():
    """So is a node behind a NAT: others could not reach it."""
    async with lone_node() as node, stranger() as somebody:
        for claimed in (ID, Contact("127.0.0.77", 5000).id):
            assert await somebody.ask(node, "ping", claimed) is not None
        await anyio.sleep(0.05)
        assert [data for data, _ in somebody.got if data[:1] == b"\0"] == []


async def test_of_one_address_few_get_into_the_table():
    async with contextlib.AsyncExitStack() as stack:
        node = await stack.enter_async_context(lone_node())
        crowd = [await stack.enter_async_context(lone_node("127.80.0.2")) for _ in range(6)]
        for each in crowd:
            await each.enter([Contact("127.80.0.1", node.port)])
        await until(lambda: len(node.contacts) == 2)
        assert await node.check([Contact("127.80.0.2", each.port) for each in crowd]) == 6
        assert len(node.contacts) == 2


async def test_the_table_and_every_answer_hold_few_of_one_address():
    async with Crowd(40, hostile=0.3, seed=2) as crowd:
        for node in crowd.honest:
            groups = Counter(contact.group for contact in node.contacts)
            assert max(groups.values()) <= 2


async def test_a_node_that_has_gone_leaves_the_table_and_one_lost_packet_is_forgiven():
    async with lone_node() as node, lone_node("127.80.0.2") as other:
        there = Contact("127.80.0.2", other.port)
        await node.check([there])
        assert node.contacts == (there,)
        await other.close()
        assert await node.check([there]) == 0
        assert node.contacts == (there,)
        assert await node.check([there]) == 0
        assert node.contacts == ()


# The sockets -----------------------------------------------------------------------------------


async def test_a_node_says_nothing_of_itself():
    async with lone_node() as node:
        await node.look_around()
        await node.search(HOST.public_key)
        await node.publish(record(HOST))
        assert node.packets == (0, 0)


async def test_its_own_record_is_found_without_anybody():
    async with lone_node() as node:
        made = record(HOST)
        await node.publish(made)
        told = []
        assert (await node.search(HOST.public_key, told.append)).record == made
        assert told == [made]


async def test_a_port_that_is_taken_is_said():
    async with lone_node() as node:
        with pytest.raises(PortInUse):
            await DhtNode.open(Reach(("127.80.0.1",), (), restricted=True), port=node.port)


async def test_an_address_that_is_not_here_is_said():
    with pytest.raises(ConfigurationError):
        await DhtNode.open(Reach(("192.0.2.77",), (), restricted=True))


async def test_a_node_kept_to_loopback_sends_nothing_elsewhere():
    async with lone_node("127.0.0.1") as node:
        assert await node.check([Contact("192.0.2.1", 5000), Contact("2001:db8::1", 5000)]) == 0
        assert node.packets == (0, 0)


async def test_a_socket_that_fails_is_opened_again_on_its_port():
    async with lone_node() as node, stranger() as somebody:
        port = node.port
        bound = node._protocol._datagrams._bound[0]
        protocol = bound.transport.get_protocol()
        for _ in range(5):
            protocol.connection_lost(ConnectionResetError("unreachable"))
        await until(lambda: bound.transport.is_closing())
        await until(lambda: node._protocol._datagrams._bound)
        assert node.port == port
        assert await somebody.ask(node, "ping", ID) is not None


@pytest.mark.skipif(not Path("/proc/net/if_inet6").exists(), reason="this machine has no IPv6")
async def test_nodes_meet_over_ipv6_too():
    both = Reach(("127.0.0.1",), ("::1",), restricted=True)
    try:
        first = await DhtNode.open(both)
    except ConfigurationError:
        pytest.skip("IPv6 is switched off here")
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(first.close)
        second = await DhtNode.open(both)
        stack.push_async_callback(second.close)
        if not await second.enter([Contact("::1", first.port)]):
            pytest.skip("IPv6 is switched off here")
        made = record(HOST)
        assert (await first.publish(made)).nodes == 0 or second.records == 1
        await second.publish(made)
        assert (await first.search(HOST.public_key)).record == made
