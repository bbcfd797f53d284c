"""Who is admitted, and whether they still are. Pure: time and randomness are arguments.

The host believes nothing but signatures: the whole token must be its own, the statement must
tie the guest's identity to the very endpoint that is connected. What the ledger recorded is
mirrored here, because every request is checked against it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

from ..errors import AdmissionRefused, MembershipEnded, OptionInvalid, QmtError, Revoked
from ..identity import invite, statement
from .account import Account
from .records import Changes
from .rows import REFUSED, InviteRecord, Membership, Snapshot
from .seats import Users
from .usage import GuestUsage

_SHORTEST_PREFIX = 6


@dataclass(frozen=True)
class Shown:
    """What a guest has proved: it holds this invite, and it is this identity."""

    invite: invite.Invite
    guest_id: str


def verify(
    token: bytes, shown_statement: bytes, *, endpoint_key: bytes, host_key: bytes, now: float
) -> Shown:
    """Verify everything a guest shows; ``endpoint_key`` comes from the connection itself.

    Raises an :class:`~qmt_jupyter.errors.InviteError` or
    :class:`~qmt_jupyter.errors.AdmissionRefused`.
    """
    shown = invite.from_token(token)
    if shown.host_key != host_key:
        raise AdmissionRefused("This invite is another host's.")
    shown.require_unexpired(now)
    guest = statement.verify(shown_statement, endpoint_key=endpoint_key, host_key=host_key, now=now)
    return Shown(shown, guest.guest_id)


@dataclass(eq=False)
class Granted:
    """An invite and the guests it admitted. ``account`` is theirs together, unless each has one."""

    record: InviteRecord
    account: Account
    members: dict[str, Member] = field(default_factory=dict)


@dataclass(eq=False)
class Member:
    """One guest of one invite: what was recorded, what it may, and what it has used."""

    membership: Membership
    granted: Granted
    account: Account
    usage: GuestUsage

    @property
    def line(self) -> str:
        """The line in which it waits: all seats of a user share one."""
        user = self.granted.record.user
        return f"seat:{user}" if user else self.membership.guest_id

    def require_live(self, now: float) -> None:
        """Raise why the membership does not hold at ``now`` (seconds since 1970), if it does not.

        Raises :class:`~qmt_jupyter.errors.Revoked` or
        :class:`~qmt_jupyter.errors.MembershipEnded`.
        """
        if (error := self.ended(now)) is not None:
            raise error

    def ended(self, now: float) -> QmtError | None:
        """Why it does not hold any more; None while it does."""
        if self.granted.record.revoked_at is not None:
            return Revoked("The host has revoked this invite.")
        if self.membership.revoked_at is not None:
            return Revoked("The host has revoked this guest's membership.")
        if self.granted.record.is_expired(now) and self.granted.record.user:
            return MembershipEnded("This seat has ended; it was not renewed.")
        if self.granted.record.is_expired(now):
            return MembershipEnded("The invite that admitted this guest has expired.")
        return None


def beginning(text: str) -> str:
    """What a person wrote of an id. Raises :class:`~qmt_jupyter.errors.OptionInvalid`."""
    wanted = text.strip().lower()
    if len(wanted) < _SHORTEST_PREFIX:
        raise OptionInvalid(
            f"{text[:40]!r} is too little of an id.",
            next_step=f"Give {_SHORTEST_PREFIX} characters or more; %qmt_usage (or qmt usage) "
            "lists the ids.",
        )
    return wanted


def the_one(text: str, found: list[str]) -> str:
    """The id that was meant, of those that begin so. Raises like :func:`beginning`."""
    wanted = text.strip().lower()
    if wanted in found:
        return wanted
    if not found:
        raise OptionInvalid(
            f"No invite or guest of this host has an id that begins with {text[:40]!r}.",
            next_step="%qmt_usage (or qmt usage) lists the ids.",
        )
    if len(found) > 1:
        raise OptionInvalid(
            f"{len(found)} ids begin with {text[:40]!r}.", next_step="Give more of it."
        )
    return found[0]


class Register:
    """Every invite and membership of one host."""

    def __init__(self) -> None:
        self._granted: dict[str, Granted] = {}
        self._members: dict[str, Member] = {}
        self._revoked: dict[str, float] = {}
        self.users = Users()
        self.owner = GuestUsage()

    @classmethod
    def from_snapshot(cls, snapshot: Snapshot, *, wall: float, clock: float) -> Register:
        """What the ledger holds; ``wall`` is now since 1970, ``clock`` on the accounts' clock."""
        register = cls()
        register.users = Users(snapshot.seats)
        for made in snapshot.invites:
            register.add_invite(made)
        for membership in snapshot.memberships:
            member = register.add_member(membership)
            total = snapshot.totals.get(membership.membership_id)
            if total is not None:
                member.usage = GuestUsage.from_total(total)
                member.account.requests += total.requests - total.ended.get(REFUSED, 0)
                member.account.tokens += total.prompt_tokens + total.completion_tokens
        if (own := snapshot.totals.get(None)) is not None:
            register.owner = GuestUsage.from_total(own)
        for request in snapshot.recent:
            asker = register._members.get(request.membership_id or "")
            if asker is not None:
                tokens = request.prompt_tokens + request.completion_tokens
                ended = request.ended_at or request.asked_at
                asker.account.recall(wall - request.asked_at, wall - ended, tokens, clock)
        return register

    def add_invite(self, made: InviteRecord) -> None:
        """Know an invite that was recorded; of one that is known only a later end is new."""
        granted = self._granted.get(made.invite_id)
        if granted is None:
            user = self.users.of(made.user) if made.user else None
            granted = Granted(made, user.account if user else Account(made.limits))
            self._granted[made.invite_id] = granted
            if user is not None:
                user.granted[made.invite_id] = granted
        elif made.user and made.expires_at > granted.record.expires_at:
            granted.record = replace(granted.record, expires_at=made.expires_at)

    def forget_seats(self, before: float) -> None:
        """Let go of the seats that ended before then; what they used stays with their users."""
        for user in self.users:
            for invite_id, granted in tuple(user.granted.items()):
                members = granted.members.values()
                ended = min(granted.record.revoked_at or math.inf, granted.record.expires_at)
                if ended >= before or any(member.usage.running for member in members):
                    continue
                for member in members:
                    user.past.add(member.usage)
                    self._members.pop(member.membership.membership_id, None)
                    self._revoked.pop(member.membership.membership_id, None)
                self._revoked.pop(invite_id, None)
                del self._granted[invite_id], user.granted[invite_id]

    def add_member(self, membership: Membership) -> Member:
        """Know a membership that was recorded, or take over the name it goes by now."""
        granted = self._granted[membership.invite_id]
        if membership.membership_id in self._revoked:  # while its admission was on its way here
            when = self._revoked[membership.membership_id]
            membership = replace(membership, revoked_at=when)
        member = granted.members.get(membership.guest_id)
        if member is None:
            limits = granted.record.limits
            account = Account(limits) if limits.per_guest else granted.account
            member = Member(membership, granted, account, GuestUsage())
            granted.members[membership.guest_id] = member
            self._members[membership.membership_id] = member
        elif member.membership.revoked_at is None:
            member.membership = membership
        return member

    def knows(self, invite_id: str) -> bool:
        """Whether this invite has been recorded."""
        return invite_id in self._granted

    def apply(self, changes: Changes) -> list[Member]:
        """Take over what was added and revoked; returns the members who must stop."""
        for made in changes.invites.values():
            self.add_invite(made)
        stopped: list[Member] = []
        self._revoked |= changes.revoked
        for target, when in changes.revoked.items():
            granted, member = self._granted.get(target), self._members.get(target)
            if granted is not None and granted.record.revoked_at is None:
                granted.record = replace(granted.record, revoked_at=when)
                stopped.extend(granted.members.values())
            if member is not None and member.membership.revoked_at is None:
                member.membership = replace(member.membership, revoked_at=when)
                stopped.append(member)
        return stopped

    def find(self, text: str) -> str:
        """The id of the one invite or membership that begins with ``text``.

        Raises :class:`~qmt_jupyter.errors.OptionInvalid`.
        """
        wanted = beginning(text)
        return the_one(
            text, [each for each in (*self._granted, *self._members) if each.startswith(wanted)]
        )

    def describe(self, target: str) -> tuple[str, int]:
        """Whether an id is an ``invite`` or a ``guest``, and how many guests it stands for."""
        granted = self._granted.get(target)
        return ("invite", len(granted.members)) if granted is not None else ("guest", 1)

    @property
    def granted(self) -> tuple[Granted, ...]:
        """The invites, oldest first."""
        return tuple(self._granted.values())

    @property
    def revocable(self) -> tuple[str, ...]:
        """The ids of the invites and memberships that have not been revoked, oldest first."""
        # Each dict is copied at once, so that another thread may look.
        invites, members = tuple(self._granted.values()), tuple(self._members.values())
        return (
            *(each.record.invite_id for each in invites if each.record.revoked_at is None),
            *(
                each.membership.membership_id
                for each in members
                if each.membership.revoked_at is None and each.granted.record.revoked_at is None
            ),
        )
