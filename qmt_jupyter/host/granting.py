"""Making invites: what they grant, the signature, and where the host is to be found.

Whoever holds the identity's key file can sign. A running host leaves its addresses and its relay
in a file beside it, so that an invite made by another process carries them as hints too.
"""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .. import settings
from ..errors import OptionInvalid
from ..identity import invite, keys, link
from .limits import UNLIMITED, Limits
from .rows import InviteRecord

IDENTITY_FILE = "identity.key"
_REACH_FILE = "reach.json"
_LONGEST_NAME = 100


@dataclass(frozen=True)
class Terms:
    """What an invite grants. ``uses`` 0 is unlimited; ``lifetime`` in seconds, None for ever."""

    name: str
    uses: int
    lifetime: int | None
    limits: Limits = UNLIMITED

    def record(
        self, made: invite.Invite, now: float, *, user: str = "", guest: str = ""
    ) -> InviteRecord:
        """The ledger's row for an invite that was signed on these terms, or for a seat."""
        return InviteRecord(
            made.invite_id, made.name, now, made.expires_at, made.max_uses, self.limits,
            user=user, guest=guest,
        )  # fmt: skip


def sign_invite(
    identity: keys.Identity, terms: Terms, now: float, invite_id: uuid.UUID | None = None
) -> invite.Invite:
    """A fresh invite by ``identity``, or one of this id anew.

    Raises :class:`~qmt_jupyter.errors.OptionInvalid`.
    """
    if not 0 <= terms.uses < 2**32:
        raise OptionInvalid(
            f"{terms.uses} is not a number of uses.",
            next_step="Give 1 or more, or 0 for unlimited.",
        )
    if not terms.name or not terms.name.isprintable() or len(terms.name.encode()) > _LONGEST_NAME:
        raise OptionInvalid(
            f"The mesh name has to be printable and 1 to {_LONGEST_NAME} bytes long.",
            next_step="Choose another --name.",
        )
    return invite.create(
        identity,
        invite_id=invite_id or uuid.uuid4(),
        name=terms.name,
        expires_at=0 if terms.lifetime is None else int(now) + terms.lifetime,
        max_uses=terms.uses,
    )


class ReachFile:
    """Where a running host can be reached, for its owner's other processes (0600)."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / _REACH_FILE

    def write(self, hints: link.Hints) -> None:
        """Record the addresses, as ``IP:PORT``, the relay, and nodes of the DHT."""
        recorded = {"addresses": hints.addresses, "relay": hints.relay, "nodes": hints.nodes}
        settings.write_private(self._path, json.dumps(recorded).encode())

    def read(self) -> link.Hints:
        """What was recorded, nothing if no host runs. These are hints: staleness does no harm."""
        try:
            recorded = json.loads(self._path.read_bytes())
            relay = recorded.get("relay")
            addresses = _addresses(recorded["addresses"], link.MAX_ADDRESSES)
            nodes = _addresses(recorded.get("nodes", ()), link.MAX_NODES)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return link.Hints()
        return link.Hints(
            addresses, link.relay_url(relay) if isinstance(relay, str) else None, nodes
        )

    def remove(self) -> None:
        """The host has stopped."""
        with contextlib.suppress(OSError):
            self._path.unlink()


def _addresses(recorded: Sequence[object], most: int) -> tuple[str, ...]:
    read = [link.socket_address(each) for each in recorded if isinstance(each, str)]
    return tuple(each for each in read if each)[:most]
