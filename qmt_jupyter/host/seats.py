"""The users that have seats here, each with one account for all of them. Pure.

A seat is an invite bound to a user and to one guest identity. It is short-lived and renewed, so
one that has ended is soon forgotten; what was used through it stays with its user.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .allowance import NO_LIMITS
from .rows import SeatsSnapshot
from .seat_account import SeatAccount
from .usage import GuestUsage

if TYPE_CHECKING:
    from .membership import Granted


@dataclass(eq=False)
class User:
    """One user: ``granted`` are its seats by invite id, ``past`` adds up the forgotten ones."""

    name: str
    account: SeatAccount
    past: GuestUsage = field(default_factory=GuestUsage)
    granted: dict[str, Granted] = field(default_factory=dict)

    def seat_of(self, guest: str) -> Granted | None:
        """The newest seat of a guest identity that has not been revoked; it may be over."""
        found = [
            each
            for each in self.granted.values()
            if each.record.guest == guest and each.record.revoked_at is None
        ]
        return found[-1] if found else None

    def live(self, now: float) -> list[Granted]:
        """The seats that hold at ``now``, in seconds since 1970."""
        return [
            each
            for each in self.granted.values()
            if each.record.revoked_at is None and not each.record.is_expired(now)
        ]

    def usage(self) -> GuestUsage:
        """What all of its seats have used, of all time."""
        total = GuestUsage()
        total.add(self.past)
        for granted in self.granted.values():
            for member in granted.members.values():
                total.add(member.usage)
        return total


class Users:
    """All users that are known, by name."""

    def __init__(self, recorded: SeatsSnapshot | None = None) -> None:
        self._users: dict[str, User] = {}
        recorded = recorded or SeatsSnapshot()
        for name in {*recorded.allowances, *recorded.spent, *recorded.past}:
            allowance = recorded.allowances.get(name, NO_LIMITS)
            user = User(name, SeatAccount(allowance, recorded.spent.get(name)))
            user.account.is_recorded = name in recorded.allowances
            if (past := recorded.past.get(name)) is not None:
                user.past = GuestUsage.from_total(past)
            self._users[name] = user

    def __iter__(self) -> Iterator[User]:
        return iter(tuple(self._users.values()))

    def find(self, name: str) -> User | None:
        """The user of this name, if it is known."""
        return self._users.get(name)

    def of(self, name: str) -> User:
        """The user of this name; one that is new is not limited until it is told."""
        user = self._users.get(name)
        if user is None:
            user = self._users[name] = User(name, SeatAccount(NO_LIMITS))
        return user
