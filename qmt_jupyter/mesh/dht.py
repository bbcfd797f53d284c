"""The DHT's protocol: Kademlia over UDP, through the package ``kademlia``.

The one module that knows the package. Packets, requests and the routing table are the package's;
what is added is distrust. It stores without a check, takes ids and contacts as they are told,
answers whoever asks with as much as there is, and lets anybody who sends a packet into the table.
Here a node's id is the hash of the address it is seen at, who wants into the table must answer at
its address, an answer is at most three times as long as its question, and only what
:mod:`.record_store` takes is kept.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
import secrets
import time
from collections import Counter, OrderedDict
from collections.abc import Iterable
from typing import Any

from kademlia.node import Node
from kademlia.protocol import KademliaProtocol

from ..identity.whereabouts import KEY_SIZE, MAX_SIZE
from .addresses import Reach
from .contact import GROUP_LIMIT, ID_SIZE, Contact, group, introduced, usable
from .datagrams import Address, Datagrams
from .lookup import WIDTH, Answer
from .pace import Pace
from .record_store import RecordStore, StoreRefused
from .tokens import Tokens

TIMEOUT = 1.5
REQUESTS_PER_SECOND = 30.0
REQUESTS_AT_ONCE = 120.0
ALL_REQUESTS_PER_SECOND = 1500.0

_QUESTION_SIZE = 384
_STRIKES = 2
_CHECKS_AT_ONCE = 16
_CHECKED_AGAIN_AFTER = 60.0
_REMEMBERED_CHECKS = 1024
_REQUEST, _RESPONSE = b"\x00", b"\x01"
_METHODS = frozenset(("ping", "stun", "find_node", "find_value", "store"))
# What the package's framing adds: kind, message id, names of methods, lengths.
_FRAME = 96
_CONTACT_FRAME = 12

log = logging.getLogger(__name__)


class Nonsense(ValueError):
    """A packet that no honest node sends; it is dropped."""


class Protocol(KademliaProtocol):  # type: ignore[misc]  # the package ships no types
    """One node's end of the DHT. Everything happens in one event loop.

    It never sends of itself but to answer, and to check whoever asked and wants into the table.
    """

    def __init__(self, store: RecordStore) -> None:
        self.source_node: Node
        super().__init__(Node(secrets.token_bytes(ID_SIZE)), store, WIDTH)
        self._wait_timeout = TIMEOUT
        self._datagrams = Datagrams(self._received)
        self.transport = self._datagrams
        self._asked: dict[bytes, Address] = {}
        self._pace = Pace(REQUESTS_PER_SECOND, REQUESTS_AT_ONCE)
        self._all_pace = Pace(ALL_REQUESTS_PER_SECOND, ALL_REQUESTS_PER_SECOND, senders=1)
        self._strikes: Counter[bytes] = Counter()
        self._heard: dict[Contact, float] = {}
        self._checks: set[asyncio.Task[Any]] = set()
        self._checked: OrderedDict[Contact, float] = OrderedDict()
        self._tokens = Tokens(time.monotonic())
        self.sent = 0
        self.received = 0

    async def open(self, reach: Reach, port: int = 0) -> None:
        """Open the sockets; errors as :meth:`.datagrams.Datagrams.open`."""
        self._datagrams = await Datagrams.open(reach, self._received, port=port)
        self.transport = self._datagrams

    async def rebind(self, reach: Reach) -> None:
        """Follow this machine's addresses, see :meth:`.datagrams.Datagrams.rebind`."""
        await self._datagrams.rebind(reach)

    @property
    def port(self) -> int:
        """The UDP port, 0 before it is open."""
        return self._datagrams.port

    async def close(self) -> None:
        """Close the sockets and end what is under way; safe to call twice."""
        for task in tuple(self._checks):
            task.cancel()
        await asyncio.gather(*self._checks, return_exceptions=True)
        for future, timer in tuple(self._outstanding.values()):
            timer.cancel()
            if not future.done():
                future.set_result((False, None))
        self._outstanding.clear()
        await self._datagrams.close()

    # Packets in --------------------------------------------------------------------------------

    def _received(self, data: bytes, address: Address) -> None:
        self.received += 1
        kind, message_id = data[:1], data[1:21]
        if kind == _RESPONSE:
            # Only from where the question went.
            if self._asked.get(message_id) != address:
                return
        elif kind == _REQUEST:
            now = time.monotonic()
            if not self._all_pace.allows("", now) or not self._pace.allows(group(address[0]), now):
                return
        else:
            return
        self.datagram_received(data, address)

    async def _solve_datagram(self, datagram: bytes, address: Address) -> None:
        try:
            await super()._solve_datagram(datagram, address)
        # The decoder has many ways to fail on hostile bytes, the recursion limit among them.
        except Exception as error:
            log.debug("a packet from %s is not readable: %s", address, type(error).__name__)

    async def _accept_request(self, msg_id: bytes, data: Any, address: Address) -> None:
        if (
            not isinstance(data, list)
            or len(data) != 2
            or not isinstance(data[0], str)
            or data[0] not in _METHODS
            or not isinstance(data[1], list)
        ):
            return
        try:
            await super()._accept_request(msg_id, data, address)
        # Arguments of a wrong number or kind, mostly; whatever it is must not show to the user.
        except Exception as error:
            log.debug("a request from %s is not answered: %r", address, error)

    def _accept_response(self, msg_id: bytes, data: Any, address: Address) -> None:
        if msg_id in self._outstanding:
            super()._accept_response(msg_id, data, address)

    def _timeout(self, msg_id: bytes) -> None:
        future, _ = self._outstanding.pop(msg_id)
        if not future.done():
            future.set_result((False, None))

    # Answering ---------------------------------------------------------------------------------

    def rpc_ping(self, sender: Address, nodeid: Any) -> bytes:
        """Say who is here."""
        self._consider(sender, nodeid)
        return bytes(self.source_node.id)

    def rpc_find_node(
        self, sender: Address, nodeid: Any, key: Any, padding: Any = b""
    ) -> dict[str, Any]:
        """Contacts near ``key``."""
        return self._near(sender, nodeid, key, padding, None)

    def rpc_find_value(
        self, sender: Address, nodeid: Any, key: Any, padding: Any = b""
    ) -> dict[str, Any]:
        """Contacts near ``key``, and the record under it where there is one."""
        record = self.storage.get(key) if isinstance(key, bytes) else None
        return self._near(sender, nodeid, key, padding, record and record.data)

    def rpc_store(
        self, sender: Address, nodeid: Any, key: Any, value: Any, token: Any = b""
    ) -> bool:
        """Keep a record, if it is one and the sender is where it says it is."""
        if not (isinstance(key, bytes) and isinstance(value, bytes) and isinstance(token, bytes)):
            raise Nonsense("not a record to store")
        if not self._tokens.is_of(token, sender[0], time.monotonic()):
            return False
        self._consider(sender, nodeid)
        try:
            self.storage.put(key, value, group(sender[0]))
        except StoreRefused as refusal:
            log.debug("a record from %s is refused: %s", sender, refusal)
            return False
        return True

    def _near(
        self, sender: Address, nodeid: Any, key: Any, padding: Any, value: bytes | None
    ) -> dict[str, Any]:
        if not isinstance(key, bytes) or len(key) != KEY_SIZE or not isinstance(padding, bytes):
            raise Nonsense("not a key")
        asker = usable(*sender)
        if asker is None:
            raise Nonsense("not an address that a node has")
        self._consider(sender, nodeid)
        # Whoever forges a sender's address gains little traffic by it.
        room = 3 * (_FRAME + len(padding)) - _FRAME
        answer: dict[str, Any] = {"token": self._tokens.of(sender[0], time.monotonic())}
        if value is not None and len(value) <= room:
            answer["value"] = value
            room -= len(value)
        nodes = []
        for contact in self.nearest(key, exclude=asker):
            size = ID_SIZE + len(contact.ip) + _CONTACT_FRAME
            if contact.scope >= asker.scope and size <= room:
                room -= size
                nodes.append((contact.id, contact.ip, contact.port))
        answer["nodes"] = nodes
        return answer

    # Asking ------------------------------------------------------------------------------------

    async def ask(self, contact: Contact, key: bytes) -> Answer | None:
        """Ask one node for ``key``; None when it says nothing, or nothing of sense."""
        data = await self._request("find_value", contact, key, bytes(_QUESTION_SIZE - _FRAME))
        if not isinstance(data, dict):
            return None
        value, nodes, token = data.get("value"), data.get("nodes"), data.get("token")
        if not isinstance(nodes, list) or not isinstance(token, bytes) or len(token) > 32:
            return None
        named = [
            introduced(each[1], each[2], contact)
            for each in nodes
            if isinstance(each, list) and len(each) == 3
        ]
        return Answer(
            contacts=tuple(each for each in named if each and self._datagrams.reaches(each.ip)),
            value=value if isinstance(value, bytes) and len(value) <= MAX_SIZE else None,
            token=token,
        )

    async def ask_to_store(self, contact: Contact, token: bytes, key: bytes, data: bytes) -> bool:
        """Have one node keep a record; whether it says that it does."""
        return await self._request("store", contact, key, data, token) is True

    async def check(self, contact: Contact) -> bool:
        """Whether a node answers at ``contact``."""
        return isinstance(await self._request("ping", contact), bytes)

    async def _request(self, method: str, contact: Contact, *arguments: bytes) -> Any:
        """One request's answer, None for none; the table learns from either."""
        if not self._datagrams.reaches(contact.ip) or self.own_contact(contact) == contact:
            return None
        address = (contact.ip, contact.port)
        self.sent += 1
        # The package makes the method of this name, and remembers whom it waits for.
        future = getattr(self, method)(address, self._claim(contact), *arguments)
        message_id = next(reversed(self._outstanding))
        self._asked[message_id] = address
        try:
            answered, data = await future
        finally:
            del self._asked[message_id]
            waiting = self._outstanding.pop(message_id, None)
            if waiting is not None:
                waiting[1].cancel()
        if answered:
            self._admit(contact)
            return data
        self._strike(contact)
        return None

    def _claim(self, contact: Contact) -> bytes:
        """The id that ``contact`` sees this node under, if nothing translates its address.

        Where something does, the claim does not fit what is seen, and the node asked leaves this
        one out of its table: others could not come in.
        """
        own = self.own_contact(contact)
        return own.id if own else bytes(self.source_node.id)

    # The table ---------------------------------------------------------------------------------

    @property
    def contacts(self) -> tuple[Contact, ...]:
        """Who is in the table."""
        return tuple(self._in_table())

    def silent(self, longer_than: float) -> list[Contact]:
        """The contacts not heard of for so many seconds, longest silent first."""
        since = time.monotonic() - longer_than
        found = [each for each in self._in_table() if self._heard.get(each, 0.0) < since]
        return sorted(found, key=lambda each: self._heard.get(each, 0.0))

    def nearest(self, key: bytes, *, exclude: Contact | None = None) -> list[Contact]:
        """The contacts nearest to ``key``, few of one group."""
        chosen: list[Contact] = []
        groups: Counter[str] = Counter()
        number = int.from_bytes(key, "big")
        by_distance = heapq.nsmallest(2 * WIDTH, self._in_table(), lambda c: c.number ^ number)
        for contact in by_distance:
            if contact != exclude and groups[contact.group] < GROUP_LIMIT:
                groups[contact.group] += 1
                chosen.append(contact)
        return chosen[:WIDTH]

    def _in_table(self) -> Iterable[Contact]:
        return (node.contact for bucket in self.router.buckets for node in bucket.get_nodes())

    def place(self, own: Contact) -> None:
        """Arrange the table around this node's own address."""
        if own.id == self.source_node.id:
            return
        kept = self.contacts
        self.source_node = Node(own.id, own.ip, own.port)
        self.router.node = self.source_node
        self.router.flush()
        for contact in kept:
            self.router.add_contact(_TableNode(contact))

    def own_contact(self, towards: Contact) -> Contact | None:
        """This node as ``towards`` would see it with nothing between them."""
        own = self._datagrams.source_for(towards.ip)
        return Contact(own, self.port) if own else None

    def _consider(self, sender: Address, claimed: Any) -> None:
        """Check a node that asked something and is not known; only then it gets into the table."""
        if not isinstance(claimed, bytes) or len(claimed) != ID_SIZE:
            raise Nonsense("not an id")
        contact = usable(*sender)
        if contact is None or claimed != contact.id or not self._has_room_for(contact):
            return
        now = time.monotonic()
        if now - self._checked.get(contact, -_CHECKED_AGAIN_AFTER) < _CHECKED_AGAIN_AFTER:
            return
        if len(self._checks) >= _CHECKS_AT_ONCE:
            return
        self._checked[contact] = now
        self._checked.move_to_end(contact)
        if len(self._checked) > _REMEMBERED_CHECKS:
            self._checked.popitem(last=False)
        self._start_check(contact)

    def _start_check(self, contact: Contact) -> None:
        task = asyncio.ensure_future(self.check(contact))
        self._checks.add(task)
        task.add_done_callback(self._checks.discard)

    def _has_room_for(self, contact: Contact) -> bool:
        if not self.router.is_new_node(_TableNode(contact)):
            return False
        mates = sum(1 for each in self._in_table() if each.group == contact.group)
        return mates < GROUP_LIMIT

    def _admit(self, contact: Contact) -> None:
        """A node has answered: it stays in the table, or gets in if there is room."""
        self._strikes.pop(contact.id, None)
        node = _TableNode(contact)
        if self._has_room_for(contact):
            self.router.add_contact(node)
        if not self.router.is_new_node(node):
            self._heard[contact] = time.monotonic()
        if len(self._heard) > _REMEMBERED_CHECKS:
            self._heard = {each: self._heard.get(each, 0.0) for each in self._in_table()}

    def _strike(self, contact: Contact) -> None:
        """A node has not answered; one lost packet is forgiven."""
        node = _TableNode(contact)
        if self.router.is_new_node(node):
            self.router.remove_contact(node)
            return
        self._strikes[contact.id] += 1
        if self._strikes[contact.id] >= _STRIKES:
            self.forget(contact)

    def forget(self, contact: Contact) -> None:
        """Take a node out of the table."""
        del self._strikes[contact.id]
        self._heard.pop(contact, None)
        self.router.remove_contact(_TableNode(contact))

    async def call_ping(self, node_to_ask: Node) -> None:
        """The package asks for this when a bucket is full: does its oldest still answer?"""
        contact = node_to_ask.contact
        silent = time.monotonic() - self._heard.get(contact, 0.0)
        if silent > _CHECKED_AGAIN_AFTER and len(self._checks) < _CHECKS_AT_ONCE:
            self._start_check(contact)

    def welcome_if_new(self, _node: Node) -> None:
        """The package's way into the table; here there is another, see :meth:`_consider`."""
        raise AssertionError("nobody gets into the table unchecked")


class _TableNode(Node):  # type: ignore[misc]  # the package ships no types
    """A contact as the package's table holds it."""

    def __init__(self, contact: Contact) -> None:
        super().__init__(contact.id, contact.ip, contact.port)
        self.contact = contact
