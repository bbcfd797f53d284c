"""Statements: a guest's identity says which endpoint key speaks for it, to which host, till when.

A guest process makes a fresh endpoint key, so one person may run several notebooks and still be
one guest. The statement ties the two together: 176 bytes, big-endian,

    identity public key, 32 | endpoint public key, 32 | host public key, 32
    | not before u64 | not after u64 | Ed25519 signature by the identity, 64

where the signature is over ``"qmt guest statement 1\\0"`` followed by the first 112 bytes. Times
are seconds since 1970; a statement lives an hour at most, and a few minutes of difference
between the clocks of the two sides are allowed for.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from ..errors import AdmissionRefused
from . import keys, peer_id

LIFETIME = 600
CLOCK_TOLERANCE = 300
LONGEST_LIFETIME = 3600

_CONTEXT = b"qmt guest statement 1\0"
_BODY = struct.Struct(">32s32s32sQQ")
SIZE = _BODY.size + keys.SIGNATURE_SIZE


@dataclass(frozen=True)
class Statement:
    """A verified statement."""

    identity_key: bytes
    endpoint_key: bytes
    host_key: bytes
    not_before: int
    not_after: int

    @property
    def guest_id(self) -> str:
        """The guest's peer id: its long-lived identity, not this process's endpoint."""
        return peer_id.to_text(self.identity_key)


def create(identity: keys.Identity, endpoint_key: bytes, host_key: bytes, now: float) -> bytes:
    """The bytes of a statement that begins at ``now`` (less the clock tolerance)."""
    body = _BODY.pack(
        identity.public_key,
        endpoint_key,
        host_key,
        int(now) - CLOCK_TOLERANCE,
        int(now) + LIFETIME,
    )
    return body + identity.sign(_CONTEXT + body)


def verify(data: bytes, *, endpoint_key: bytes, host_key: bytes, now: float) -> Statement:
    """Check a statement that ``endpoint_key`` (from the connection itself) showed to ``host_key``.

    Raises :class:`~qmt_jupyter.errors.AdmissionRefused`.
    """
    again = "Join again from the machine that holds the identity."
    if len(data) != SIZE:
        raise AdmissionRefused("The guest's identity statement cannot be read.", next_step=again)
    body, signature = data[: _BODY.size], data[_BODY.size :]
    statement = Statement(*_BODY.unpack(body))
    if not keys.verify(statement.identity_key, _CONTEXT + body, signature):
        raise AdmissionRefused("The guest's identity statement is not signed.", next_step=again)
    if statement.endpoint_key != endpoint_key:
        raise AdmissionRefused(
            "The guest's identity statement is for another connection.", next_step=again
        )
    if statement.host_key != host_key:
        raise AdmissionRefused(
            "The guest's identity statement is for another host.", next_step=again
        )
    if statement.not_after - statement.not_before > LONGEST_LIFETIME:
        raise AdmissionRefused(
            "The guest's identity statement is valid for too long.", next_step=again
        )
    if not statement.not_before <= now <= statement.not_after:
        raise AdmissionRefused(
            "The guest's identity statement is not valid now.",
            next_step="Set the clocks of both machines and join again.",
        )
    return statement
