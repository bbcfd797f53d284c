"""Peer ids: the libp2p text form of an Ed25519 public key.

A peer id is the base58btc text of an identity multihash (``00 24``: identity hash, 36 bytes)
around a protobuf public key (``08 01 12 20``: Ed25519, 32 bytes). For Ed25519 it always begins
with ``12D3KooW`` and has 52 characters. Format: libp2p's peer id specification.
"""

from __future__ import annotations

PREFIX = bytes.fromhex("002408011220")
KEY_SIZE = 32
BINARY_SIZE = len(PREFIX) + KEY_SIZE

_ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"


def to_text(public_key: bytes) -> str:
    """The peer id of a 32-byte Ed25519 public key."""
    data = to_binary(public_key)
    number = int.from_bytes(data, "big")
    digits = []
    while number:
        number, digit = divmod(number, 58)
        digits.append(_ALPHABET[digit])
    leading_zeros = len(data) - len(data.lstrip(b"\0"))
    return "1" * leading_zeros + "".join(reversed(digits))


def to_binary(public_key: bytes) -> bytes:
    """The 38-byte multihash form that stands inside an invite."""
    if len(public_key) != KEY_SIZE:
        raise ValueError("an Ed25519 public key has 32 bytes")
    return PREFIX + public_key


def from_binary(data: bytes) -> bytes:
    """The public key inside a 38-byte multihash; ValueError for any other form of peer id."""
    if len(data) != BINARY_SIZE or not data.startswith(PREFIX):
        raise ValueError("not the peer id of an Ed25519 key")
    return data[len(PREFIX) :]


def from_text(text: str) -> bytes:
    """The public key behind a peer id's text; ValueError if it is not one."""
    if len(text) > 60:
        raise ValueError("too long for a peer id")
    number = 0
    for character in text:
        digit = _ALPHABET.find(character)
        if digit < 0:
            raise ValueError("not base58")
        number = number * 58 + digit
    leading_zeros = len(text) - len(text.lstrip("1"))
    body = number.to_bytes((number.bit_length() + 7) // 8, "big")
    return from_binary(b"\0" * leading_zeros + body)


def short(peer_id: str) -> str:
    """The last eight characters, enough to tell guests apart in a table."""
    return peer_id[-8:]
