"""Invites, version 3: what a host signs and a guest verifies offline.

The token is byte for byte that of QueryMT's invite version 3: big-endian

    version 03 | invite id, 16 bytes (UUID) | peer id, 38 bytes (00 24 08 01 12 20 + public key)
    | expires_at u64 (seconds since 1970; 0: never) | max_uses u32 (0: unlimited) | flags u8
    | name length u8 | name, UTF-8

followed by the 64-byte Ed25519 signature over all of it, in base64url without padding.
Flag bit 0: may invite. Bit 1: role "client" (else "member").
"""

from __future__ import annotations

import base64
import binascii
import re
import struct
import uuid
from dataclasses import dataclass, field

from ..errors import InviteExpired, InviteMalformed, InviteSignatureInvalid
from . import keys, lifetime, peer_id

VERSION = 3
MAX_NAME_BYTES = 255

_HEAD = struct.Struct(">B16s38sQIBB")
_CAN_INVITE = 0x01
_ROLE_CLIENT = 0x02
_KNOWN_FLAGS = _CAN_INVITE | _ROLE_CLIENT
_LONGEST_TOKEN = (_HEAD.size + MAX_NAME_BYTES + keys.SIGNATURE_SIZE + 2) // 3 * 4


@dataclass(frozen=True)
class Invite:
    """A signed grant, verified or just made. Its repr does not show the token.

    ``expires_at`` is in seconds since 1970 (0: never), ``max_uses`` counts memberships
    (0: unlimited).
    """

    invite_id: str
    host_key: bytes = field(repr=False)
    name: str
    expires_at: int
    max_uses: int
    can_invite: bool
    role: str
    token: bytes = field(repr=False)

    @property
    def peer_id(self) -> str:
        """The host's peer id."""
        return peer_id.to_text(self.host_key)

    @property
    def version(self) -> int:
        """The invite format's version."""
        return VERSION

    def is_expired(self, now: float) -> bool:
        """Whether the lifetime is over at ``now`` (seconds since 1970)."""
        return self.expires_at != 0 and now > self.expires_at

    def require_unexpired(self, now: float) -> None:
        """Raise :class:`~qmt_jupyter.errors.InviteExpired` when the lifetime is over."""
        if self.is_expired(now):
            ago = lifetime.describe(now - self.expires_at)
            raise InviteExpired(f"This invite expired {ago} ago.")

    def token_text(self) -> str:
        """The token in base64url without padding, as it stands in a link."""
        return base64.urlsafe_b64encode(self.token).rstrip(b"=").decode("ascii")


def create(
    identity: keys.Identity,
    *,
    invite_id: uuid.UUID,
    name: str,
    expires_at: int,
    max_uses: int,
    can_invite: bool = False,
    role: str = "member",
) -> Invite:
    """Sign an invite. ValueError when a field does not fit the format."""
    encoded_name = name.encode("utf-8")
    if len(encoded_name) > MAX_NAME_BYTES:
        raise ValueError(f"a mesh name has at most {MAX_NAME_BYTES} bytes")
    if not 0 <= expires_at < 2**64 or not 0 <= max_uses < 2**32:
        raise ValueError("the expiry or the number of uses is out of range")
    if role not in ("member", "client"):
        raise ValueError("a role is member or client")
    flags = (_CAN_INVITE if can_invite else 0) | (_ROLE_CLIENT if role == "client" else 0)
    payload = (
        _HEAD.pack(
            VERSION,
            invite_id.bytes,
            peer_id.to_binary(identity.public_key),
            expires_at,
            max_uses,
            flags,
            len(encoded_name),
        )
        + encoded_name
    )
    return Invite(
        invite_id=str(invite_id),
        host_key=identity.public_key,
        name=name,
        expires_at=expires_at,
        max_uses=max_uses,
        can_invite=can_invite,
        role=role,
        token=payload + identity.sign(payload),
    )


def from_text(text: str) -> Invite:
    """Decode a token's base64url text and verify its signature; expiry is the caller's to check.

    Raises :class:`~qmt_jupyter.errors.InviteMalformed` or
    :class:`~qmt_jupyter.errors.InviteSignatureInvalid`.
    """
    if len(text) > _LONGEST_TOKEN:
        raise InviteMalformed("This is too long for an invite.")
    if not re.fullmatch(r"[A-Za-z0-9_-]+", text, re.ASCII):
        raise InviteMalformed("The invite has characters that no invite has.")
    try:
        token = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError):
        raise InviteMalformed("The invite is cut off or has a character too many.") from None
    if base64.urlsafe_b64encode(token).rstrip(b"=").decode("ascii") != text:
        raise InviteMalformed("The invite's last character is not the one that was sent.")
    return from_token(token)


def from_token(token: bytes) -> Invite:
    """Decode a token's bytes and verify its signature; same errors as :func:`from_text`."""
    if not token:
        raise InviteMalformed("The invite is empty.")
    if len(token) < _HEAD.size + keys.SIGNATURE_SIZE:
        raise InviteMalformed("The invite is cut off.")
    if token[0] != VERSION:
        raise InviteMalformed(
            f"The invite is of version {token[0]}; this release reads version {VERSION}.",
            next_step="Update the older of the two sides.",
        )
    payload, signature = token[: -keys.SIGNATURE_SIZE], token[-keys.SIGNATURE_SIZE :]
    _, raw_id, raw_peer, expires_at, max_uses, flags, name_size = _HEAD.unpack_from(payload)
    if len(payload) != _HEAD.size + name_size:
        raise InviteMalformed("The invite is cut off or has bytes too many.")
    if flags & ~_KNOWN_FLAGS:
        raise InviteMalformed(
            "The invite grants something that this release does not know.",
            next_step="Update qmt-jupyter.",
        )
    try:
        host_key = peer_id.from_binary(raw_peer)
        name = payload[_HEAD.size :].decode("utf-8")
    except ValueError:
        raise InviteMalformed("The invite's host or name cannot be read.") from None
    if not keys.verify(host_key, payload, signature):
        raise InviteSignatureInvalid("This invite is not what its host signed.")
    return Invite(
        invite_id=str(uuid.UUID(bytes=raw_id)),
        host_key=host_key,
        name=name,
        expires_at=expires_at,
        max_uses=max_uses,
        can_invite=bool(flags & _CAN_INVITE),
        role="client" if flags & _ROLE_CLIENT else "member",
        token=token,
    )
