"""What the ledger holds of users and their seats, and how it is read and written."""

from __future__ import annotations

import json
import sqlite3

from ..errors import OptionInvalid
from .allowance import Allowance
from .calendar import QUARTER
from .rows import InviteRecord, SeatsSnapshot, totals_of
from .seat_account import REMEMBERED

SEAT_KEPT = 3600.0
"""A seat that ended so many seconds ago is not read any more; its user keeps what it used."""


def require_shape(connection: sqlite3.Connection) -> None:
    """Raise sqlite3.DatabaseError where the table is missing, or holds what makes no sense."""
    _allowances(connection)


def read(connection: sqlite3.Connection, now: float) -> SeatsSnapshot:
    """All users at ``now``, in seconds since 1970; the connection is in a transaction."""
    spent: dict[str, dict[int, int]] = {}
    rows = connection.execute(
        "SELECT user, CAST(asked_at / ? AS INTEGER), sum(prompt_tokens + completion_tokens) "
        "FROM requests JOIN memberships USING (membership_id) JOIN invites USING (invite_id) "
        "WHERE asked_at > ? AND user != '' GROUP BY 1, 2",
        (QUARTER, now - REMEMBERED),
    )
    for user, quarter, tokens in rows:
        spent.setdefault(user, {})[quarter] = tokens
    past = totals_of(
        connection.execute(
            "SELECT user, how, count(*), sum(prompt_tokens), sum(completion_tokens), "
            "max(coalesce(ended_at, asked_at)) FROM invites JOIN memberships USING (invite_id) "
            "JOIN requests USING (membership_id) WHERE user != '' AND expires_at <= ? "
            "GROUP BY user, how",
            (now - SEAT_KEPT,),
        )
    )
    return SeatsSnapshot(_allowances(connection), spent, past)


def _allowances(connection: sqlite3.Connection) -> dict[str, Allowance]:
    return {
        user: _allowance(text)
        for user, text in connection.execute("SELECT user, allowance FROM allowances")
    }


def _allowance(text: str) -> Allowance:
    try:
        stored = json.loads(text)
        try:
            return Allowance.from_dict(stored)
        except OptionInvalid:
            # A zone that this machine does not know any more takes nobody's records away.
            return Allowance.from_dict({**stored, "zone": "UTC"})
    except (ValueError, TypeError, OptionInvalid):
        raise sqlite3.DatabaseError("a user's allowance cannot be read") from None


def put_seat(connection: sqlite3.Connection, made: InviteRecord) -> None:
    """Record a seat, or that it ends later; one that was revoked stays so."""
    connection.execute(
        "INSERT INTO invites "
        "(invite_id, name, made_at, expires_at, max_uses, limits, revoked_at, user, guest) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (invite_id) "
        "DO UPDATE SET expires_at = max(expires_at, excluded.expires_at)",
        (
            made.invite_id,
            made.name,
            made.made_at,
            made.expires_at,
            made.max_uses,
            json.dumps(made.limits.as_dict()),
            made.revoked_at,
            made.user,
            made.guest,
        ),
    )


def put_allowance(connection: sqlite3.Connection, user: str, allowance: Allowance) -> None:
    """Record what a user may take."""
    connection.execute(
        "INSERT INTO allowances VALUES (?, ?) "
        "ON CONFLICT (user) DO UPDATE SET allowance = excluded.allowance",
        (user, json.dumps(allowance.as_dict())),
    )


def forget_unused(connection: sqlite3.Connection, now: float) -> None:
    """Delete the seats that ended a while ago and through which nothing was ever asked."""
    # The parts that are put together are this module's own; values are bound.
    old = "SELECT invite_id FROM invites WHERE user != '' AND expires_at <= ?"
    connection.execute(
        f"DELETE FROM memberships WHERE invite_id IN ({old}) AND NOT EXISTS "  # noqa: S608
        "(SELECT 1 FROM requests WHERE requests.membership_id = memberships.membership_id)",
        (now - SEAT_KEPT,),
    )
    connection.execute(
        f"DELETE FROM invites WHERE invite_id IN ({old}) AND NOT EXISTS "  # noqa: S608
        "(SELECT 1 FROM memberships WHERE memberships.invite_id = invites.invite_id)",
        (now - SEAT_KEPT,),
    )
