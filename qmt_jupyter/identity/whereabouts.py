"""Whereabouts: the signed record that says where a host is now, as it stands in the DHT.

At most :data:`MAX_SIZE` bytes, so that it fits one UDP packet with room to spare; big-endian,

    version 01 | host public key, 32 | sequence u64 | issued at u64 (seconds since 1970)
    | lifetime u16 (seconds) | number of addresses u8
    | per address: family u8 (4 or 6), IP (4 or 16 bytes), port u16
    | length u8 and ASCII text of a relay's URL (length 0: none)

followed by the 64-byte Ed25519 signature by the host's key over ``"qmt whereabouts 1\\0"`` and all
of it. Of several valid records the one with the highest sequence number wins. The record lies in
the DHT under :func:`key_of` its host. Pure: the time is an argument.
"""

from __future__ import annotations

import hashlib
import ipaddress
import struct
from dataclasses import dataclass

from . import keys, link, peer_id

VERSION = 1
LIFETIME = 1800
LONGEST_LIFETIME = 3600
CLOCK_TOLERANCE = 300
MAX_ADDRESSES = 8
MAX_RELAY = 200

_CONTEXT = b"qmt whereabouts 1\0"
_HEAD = struct.Struct(">B32sQQHB")
_PORT = struct.Struct(">H")
_IP_SIZES = {4: 4, 6: 16}
MAX_SIZE = _HEAD.size + MAX_ADDRESSES * (1 + 16 + 2) + 1 + MAX_RELAY + keys.SIGNATURE_SIZE
KEY_SIZE = 20


class WhereaboutsInvalid(ValueError):
    """The bytes are no record to believe; the message says why, for logs and tests."""


@dataclass(frozen=True)
class Whereabouts:
    """A verified record. ``addresses`` are ``IP:PORT`` texts, times are seconds since 1970."""

    host_key: bytes
    sequence: int
    issued_at: int
    lifetime: int
    addresses: tuple[str, ...]
    relay: str | None
    data: bytes

    @property
    def key(self) -> bytes:
        """The DHT's key of this record."""
        return key_of(self.host_key)

    @property
    def ends_at(self) -> int:
        """When it must not be believed any more."""
        return self.issued_at + self.lifetime


def key_of(host_key: bytes) -> bytes:
    """The 20-byte DHT key under which a host's record lies."""
    return hashlib.sha256(_CONTEXT + peer_id.to_binary(host_key)).digest()[:KEY_SIZE]


def create(
    identity: keys.Identity,
    *,
    sequence: int,
    now: float,
    addresses: tuple[str, ...] = (),
    relay: str | None = None,
    lifetime: int = LIFETIME,
) -> Whereabouts:
    """Sign a record. ValueError when a field does not fit the format; the first addresses count."""
    if not 0 <= sequence < 2**64 or not 0 < lifetime <= LONGEST_LIFETIME:
        raise ValueError("the sequence number or the lifetime is out of range")
    kept = tuple(dict.fromkeys(addresses))[:MAX_ADDRESSES]
    packed = b"".join(_pack(address) for address in kept)
    if relay is not None and link.relay_url(relay) != relay:
        raise ValueError("not the URL of a relay")
    url = (relay or "").encode("ascii")
    body = (
        _HEAD.pack(VERSION, identity.public_key, sequence, int(now), lifetime, len(kept))
        + packed
        + bytes((len(url),))
        + url
    )
    data = body + identity.sign(_CONTEXT + body)
    return Whereabouts(identity.public_key, sequence, int(now), lifetime, kept, relay, data)


def read(data: bytes, now: float, *, host_key: bytes | None = None) -> Whereabouts:
    """Decode and verify a record as of ``now``; with ``host_key`` it must be that host's.

    Raises :class:`WhereaboutsInvalid` for anything else: too long, another version, bytes missing
    or left over, an address or relay nobody could use, a wrong signature, issued in the future,
    over, or meant to live longer than :data:`LONGEST_LIFETIME`.
    """
    if not isinstance(data, bytes) or not _HEAD.size < len(data) <= MAX_SIZE:
        raise WhereaboutsInvalid("not of a record's size")
    if data[0] != VERSION:
        raise WhereaboutsInvalid("of another version")
    body, signature = data[: -keys.SIGNATURE_SIZE], data[-keys.SIGNATURE_SIZE :]
    try:
        _, owner, sequence, issued_at, lifetime, count = _HEAD.unpack_from(body)
        addresses, relay = _read_tail(body[_HEAD.size :], count)
    except (struct.error, IndexError):
        raise WhereaboutsInvalid("cut off") from None
    if host_key is not None and owner != host_key:
        raise WhereaboutsInvalid("another host's")
    if not 0 < lifetime <= LONGEST_LIFETIME:
        raise WhereaboutsInvalid("of a lifetime that no record has")
    if issued_at > now + CLOCK_TOLERANCE:
        raise WhereaboutsInvalid("from the future")
    if now > issued_at + lifetime:
        raise WhereaboutsInvalid("over")
    # Last, because it costs most.
    if not keys.verify(owner, _CONTEXT + body, signature):
        raise WhereaboutsInvalid("not signed by its host")
    return Whereabouts(owner, sequence, issued_at, lifetime, addresses, relay, data)


def _pack(address: str) -> bytes:
    if link.socket_address(address) != address:
        raise ValueError(f"{address!r} is not an address in canonical form")
    host, _, port = address.rpartition(":")
    ip = ipaddress.ip_address(host.strip("[]"))
    return bytes((ip.version,)) + ip.packed + _PORT.pack(int(port))


def _read_tail(tail: bytes, count: int) -> tuple[tuple[str, ...], str | None]:
    if count > MAX_ADDRESSES:
        raise WhereaboutsInvalid("of too many addresses")
    at = 0
    addresses = []
    for _ in range(count):
        size = _IP_SIZES.get(tail[at])
        if size is None:
            raise WhereaboutsInvalid("of an unknown kind of address")
        packed = tail[at + 1 : at + 1 + size]
        (port,) = _PORT.unpack_from(tail, at + 1 + size)
        ip = ipaddress.ip_address(packed)
        text = f"[{ip}]:{port}" if ip.version == 6 else f"{ip}:{port}"
        if link.socket_address(text) != text or text in addresses:
            raise WhereaboutsInvalid("of an address that nobody has")
        addresses.append(text)
        at += 1 + size + _PORT.size
    size = tail[at]
    url = tail[at + 1 :]
    if len(url) != size:
        raise WhereaboutsInvalid("cut off, or with bytes left over")
    if not url:
        return tuple(addresses), None
    relay = url.decode("latin-1")
    if link.relay_url(relay) != relay:
        raise WhereaboutsInvalid("of a relay that nobody has")
    return tuple(addresses), relay
