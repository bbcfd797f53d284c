"""Who is admitted, and whether they still are. Pure: time and randomness are arguments.

The host believes nothing but signatures: the whole token must be its own, the statement must
tie the guest's identity to the very endpoint that is connected.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ..errors import AdmissionRefused, InviteUsedUp, MembershipEnded
from ..identity import invite, statement


@dataclass(frozen=True)
class Membership:
    """One guest identity that one invite admitted."""

    membership_id: str
    invite_id: str
    guest_id: str
    claimed_name: str
    joined_at: float
    expires_at: int

    def is_expired(self, now: float) -> bool:
        """Whether the invite that admitted it is over at ``now`` (seconds since 1970)."""
        return self.expires_at != 0 and now > self.expires_at


@dataclass
class _Granted:
    invite: invite.Invite
    members: dict[str, Membership] = field(default_factory=dict)


class Memberships:
    """The memberships of one host, in memory, for as long as the host runs."""

    def __init__(self, host_key: bytes) -> None:
        self._host_key = host_key
        self._granted: dict[str, _Granted] = {}
        self._by_id: dict[str, Membership] = {}

    def record(self, made: invite.Invite) -> None:
        """Know an invite before the first guest shows it, so that it is listed."""
        self._granted.setdefault(made.invite_id, _Granted(made))

    def admit(
        self,
        token: bytes,
        shown_statement: bytes,
        *,
        endpoint_key: bytes,
        claimed_name: str,
        membership_id: str,
        now: float,
    ) -> Membership:
        """Verify everything a guest shows and give it its membership, the old one if it has one.

        ``endpoint_key`` comes from the connection. ``membership_id`` is used for a new one.
        Raises :class:`~qmt_jupyter.errors.InviteError` or
        :class:`~qmt_jupyter.errors.AdmissionRefused`.
        """
        shown = invite.from_token(token)
        if shown.host_key != self._host_key:
            raise AdmissionRefused("This invite is another host's.")
        shown.require_unexpired(now)
        guest = statement.verify(
            shown_statement, endpoint_key=endpoint_key, host_key=self._host_key, now=now
        )
        granted = self._granted.setdefault(shown.invite_id, _Granted(shown))
        known = granted.members.get(guest.guest_id)
        if known is not None:
            return known
        if shown.max_uses and len(granted.members) >= shown.max_uses:
            raise InviteUsedUp(f"All {shown.max_uses} uses of this invite are taken.")
        membership = Membership(
            membership_id=membership_id,
            invite_id=shown.invite_id,
            guest_id=guest.guest_id,
            claimed_name=claimed_name,
            joined_at=now,
            expires_at=shown.expires_at,
        )
        granted.members[guest.guest_id] = membership
        self._by_id[membership_id] = membership
        return membership

    def require_live(self, membership_id: str, now: float) -> Membership:
        """The membership if it holds at this moment.

        Raises :class:`~qmt_jupyter.errors.MembershipEnded`.
        """
        membership = self._by_id.get(membership_id)
        if membership is None:
            raise MembershipEnded("The host does not know this membership.")
        if membership.is_expired(now):
            raise MembershipEnded("The invite that admitted this guest has expired.")
        return membership

    @property
    def invites(self) -> tuple[invite.Invite, ...]:
        """Every invite made or shown since the host started, oldest first."""
        return tuple(granted.invite for granted in self._granted.values())

    def members_of(self, invite_id: str) -> tuple[Membership, ...]:
        """The guests that an invite admitted."""
        granted = self._granted.get(invite_id)
        return tuple(granted.members.values()) if granted else ()
