"""Contacts: the nodes of the DHT as others see them, and what an address tells of a node.

A node's id is the hash of its address, so nobody chooses one: who wants to sit next to a host's
record needs the address that hashes there. Of one group of addresses (an IPv4 address, an IPv6
/64) few nodes count.
"""

from __future__ import annotations

import hashlib
import ipaddress
from dataclasses import dataclass
from functools import cached_property, lru_cache

ID_SIZE = 20
GROUP_LIMIT = 2
_CONTEXT = b"qmt dht node 1\0"
_LOWEST_PORT = 1024

LOOPBACK, LOCAL, GLOBAL = range(3)

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True)
class Contact:
    """A node at ``ip`` (canonical text) and ``port``. Equal addresses are one contact."""

    ip: str
    port: int

    @cached_property
    def id(self) -> bytes:
        """The 20 bytes that stand for this address among keys."""
        return _identify(self.ip, self.port)

    @cached_property
    def number(self) -> int:
        """The id as a number, to measure distances with."""
        return int.from_bytes(self.id, "big")

    @property
    def group(self) -> str:
        """Whose address it is: those who have one of a group may have them all."""
        return group(self.ip)

    @property
    def scope(self) -> int:
        """From where the address can be reached: this machine, its networks, everywhere."""
        return _scope(self.ip)

    def __str__(self) -> str:
        return f"[{self.ip}]:{self.port}" if ":" in self.ip else f"{self.ip}:{self.port}"


@lru_cache(maxsize=8192)
def _identify(ip: str, port: int) -> bytes:
    packed = ipaddress.ip_address(ip).packed
    return hashlib.sha256(_CONTEXT + packed + port.to_bytes(2, "big")).digest()[:ID_SIZE]


@lru_cache(maxsize=8192)
def group(ip: str) -> str:
    """The group of an address: the address itself, or the /64 of an IPv6 one."""
    address = ipaddress.ip_address(ip)
    if address.version == 4:
        return ip
    return str(ipaddress.ip_network((int(address) >> 64 << 64, 64)))


@lru_cache(maxsize=8192)
def _scope(ip: str) -> int:
    address = ipaddress.ip_address(ip)
    if address.is_loopback:
        return LOOPBACK
    return GLOBAL if address.is_global else LOCAL


def usable(ip: object, port: object) -> Contact | None:
    """The contact of an address that came from somewhere, or None for one that no node has."""
    if not isinstance(ip, str) or not isinstance(port, int) or not 0 < port < 65536:
        return None
    if len(ip) > 45:
        return None
    try:
        address = ipaddress.ip_address(ip)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id or address.ipv4_mapped:
            return None
    elif address.packed[0] == 0:
        return None
    if address.is_multicast or address.is_unspecified or address.is_link_local:
        return None
    if address.is_reserved and not address.is_loopback:
        return None
    return Contact(str(address), port)


def introduced(ip: object, port: object, by: Contact) -> Contact | None:
    """A contact that the node ``by`` named, or None where following it would be unwise.

    From far away nobody names an address of this machine or of its own networks, and no node
    lives on a port where the services of others do: a hostile one could point there.
    """
    named = usable(ip, port)
    if named is None or named.port < _LOWEST_PORT or named.scope < by.scope:
        return None
    return named


def distance(contact: Contact, key: bytes) -> int:
    """How far a node is from a key, in Kademlia's metric."""
    return contact.number ^ int.from_bytes(key, "big")
