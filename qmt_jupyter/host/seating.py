"""Seats: invites bound to one user and one guest identity, which a service gives and renews.

What is decided holds at once and is then written down; where that fails it holds until the host
stops, is tried again, and whoever asked is told.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any

from ..errors import OptionInvalid, Paused, RecordsUnwritable, Revoked
from ..identity import keys, link, peer_id
from . import records, seat_records
from .allowance import Allowance
from .granting import Terms, sign_invite
from .ledger import Ledger, Write
from .membership import Register
from .report import seats_report
from .seat_account import SeatAccount
from .session import Session
from .usage import UsageBook

DEFAULT_LIFETIME = 900
ENDED = "This seat has been ended."
_LONGEST_LIFETIME = 31 * 86400
_LONGEST_USER = 255
_MOST_TOKENS = 2**53
_FORGET_EVERY = 60.0


class Seating:
    """The users and seats of one host. Every call comes from its event loop.

    ``writer`` gives the ledger or raises what is to be said where the host has stopped; ``end`` and
    the like are handed to ``begin``, which carries them through.
    """

    def __init__(
        self,
        identity: keys.Identity,
        register: Register,
        *,
        writer: Callable[[], Ledger],
        hints: Callable[[], link.Hints],
        sessions: Callable[[], Iterable[Session]],
        begin: Callable[[Coroutine[Any, Any, None]], None],
    ) -> None:
        self._identity = identity
        self._register = register
        self._writer = writer
        self._hints = hints
        self._sessions = sessions
        self._begin = begin
        self._forgot = 0.0

    async def seat(
        self,
        user: str,
        guest: str,
        allowance: Allowance,
        name: str,
        lifetime: int = DEFAULT_LIFETIME,
    ) -> link.Link:
        """Give ``user`` a seat for the identity ``guest``, or let the one it has end later.

        The link is called ``name``, lives for ``lifetime`` seconds and says where the host is now.
        Raises :class:`~qmt_jupyter.errors.OptionInvalid`.
        """
        _require_user(user)
        _require_guest(guest)
        if isinstance(lifetime, bool) or not isinstance(lifetime, int):
            raise OptionInvalid("A seat's lifetime is given in whole seconds.")
        if not 1 <= lifetime <= _LONGEST_LIFETIME:
            raise OptionInvalid(f"A seat lives for 1 to {_LONGEST_LIFETIME} seconds.")
        writer, now = self._writer(), time.time()
        found = self._register.users.of(user).seat_of(guest)
        made = sign_invite(
            self._identity,
            Terms(name, 1, lifetime),
            now,
            uuid.UUID(found.record.invite_id) if found else None,
        )
        record = Terms(name, 1, lifetime).record(made, now, user=user, guest=guest)
        _require_allowance(allowance)
        # Known before it is written: two calls side by side must give the same seat.
        self._register.add_invite(record)
        allowed = self._allow(user, allowance)
        # Handed over at once: an end that comes meanwhile must be written after it.
        written = writer.write(lambda db: seat_records.put_seat(db, record), durable=found is None)
        await allowed
        await written
        return link.Link(made, self._hints())

    async def allow(self, user: str, allowance: Allowance) -> None:
        """From now on this is what all seats of ``user`` may take together.

        Who becomes paused has its running requests ended. Raises
        :class:`~qmt_jupyter.errors.OptionInvalid`.
        """
        _require_user(user)
        _require_allowance(allowance)
        await self._allow(user, allowance)

    def _allow(self, user: str, allowance: Allowance) -> Awaitable[None]:
        """Holds when it returns; what it returns ends when it is recorded."""
        writer, account = self._writer(), self._register.users.of(user).account
        if account.allowance == allowance and account.is_recorded:
            return asyncio.sleep(0)
        account.allow(allowance)
        if account.is_paused:
            error = Paused("Your seat has been paused, and what ran was ended.")
            for session in self._sessions_of(user):
                self._begin(session.stop_requests(error))
        account.is_recorded = True

        def put(db: Any) -> None:
            # What holds by now: a try that failed may be made again after a newer one.
            seat_records.put_allowance(db, user, account.allowance)

        return self._noted(account, self._record(writer, put))

    @staticmethod
    async def _noted(account: SeatAccount, recorded: Awaitable[None]) -> None:
        try:
            await recorded
        except RecordsUnwritable:
            account.is_recorded = False
            raise

    async def end(self, user: str, guest: str | None = None, sentence: str = ENDED) -> int:
        """End the seats of ``user``, or the one of ``guest``, for good; returns how many.

        Connections close at once, and what runs ends with ``sentence``.
        """
        _require_user(user)
        writer, now = self._writer(), time.time()
        known = self._register.users.find(user)
        seats = [
            each.record.invite_id
            for each in (known.live(now) if known else ())
            if guest in (None, each.record.guest)
        ]
        if not seats:
            return 0
        stopped = set(self._register.apply(records.Changes(revoked=dict.fromkeys(seats, now))))
        for session in self._sessions_of(user):
            if session.member in stopped:
                self._begin(session.end(Revoked(sentence)))

        def revoke(db: Any) -> None:
            for invite_id in seats:
                records.revoke(db, invite_id, now)

        await self._record(writer, revoke)
        return len(seats)

    def _record(self, writer: Ledger, write: Write[None]) -> Awaitable[None]:
        return self._tried_again(writer, write, writer.write(write, durable=True))

    @staticmethod
    async def _tried_again(writer: Ledger, write: Write[None], written: Awaitable[None]) -> None:
        try:
            await written
        except RecordsUnwritable:
            writer.post(write)
            raise RecordsUnwritable(
                "This holds now, but could not be recorded yet.",
                next_step="Free some disk space before the host stops; it is tried again.",
            ) from None

    def used_elsewhere(self, user: str, day: int, month: int) -> None:
        """``user`` has used so many tokens on other hosts today, and this month."""
        _require_user(user)
        for tokens in (day, month):
            if isinstance(tokens, bool) or not isinstance(tokens, int):
                raise OptionInvalid("Tokens are whole numbers.")
            if not 0 <= tokens <= _MOST_TOKENS:
                raise OptionInvalid(f"Tokens are counted from 0 to {_MOST_TOKENS}.")
        self._register.users.of(user).account.told_elsewhere(day, month, time.time())

    def report(self, usage: UsageBook) -> list[dict[str, Any]]:
        """The users as plain values; see :func:`~.report.seats_report`."""
        here = Counter(
            session.member.membership.membership_id
            for session in self._sessions()
            if session.member
        )
        return seats_report(self._register, usage, here, time.time(), time.monotonic())

    def forget(self, now: float) -> None:
        """Let go of seats that ended a while ago; call it however often."""
        if abs(now - self._forgot) < _FORGET_EVERY:
            return
        self._forgot = now
        self._register.forget_seats(now - seat_records.SEAT_KEPT)

    def _sessions_of(self, user: str) -> list[Session]:
        return [
            session
            for session in self._sessions()
            if session.member is not None and session.member.granted.record.user == user
        ]


def _require_user(user: str) -> None:
    # Any text that a Hub lets a user be called; half a character can be written down nowhere.
    fits = isinstance(user, str) and 0 < len(user) <= _LONGEST_USER
    if not fits or any("\ud800" <= letter <= "\udfff" for letter in user):
        raise OptionInvalid(f"A user's name is a text of 1 to {_LONGEST_USER} characters.")


def _require_allowance(allowance: Allowance) -> None:
    if not isinstance(allowance, Allowance):
        raise OptionInvalid("What a user may take is given as an Allowance.")


def _require_guest(guest: str) -> None:
    try:
        peer_id.from_text(guest if isinstance(guest, str) else "")
    except ValueError:
        raise OptionInvalid("A seat is for a guest's peer id, as qmt join says it.") from None
