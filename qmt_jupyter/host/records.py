"""The ledger's tables, and what is read from them and written to them. Nothing opens here.

No token, key or prompt is ever recorded: an invite's row says what it grants, and the signature
on the link proves the rest.
"""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass, field, replace
from typing import Any

from ..errors import AdmissionRefused, InviteUsedUp, MembershipEnded, OptionInvalid, Revoked
from . import seat_records
from .limits import Limits
from .rows import LOST, InviteRecord, Membership, Request, Snapshot, Total, totals_of

MINUTE = 60.0
_LONGEST_ANSWER = 6 * 3600.0  # seconds

# One entry a schema version, oldest first; an entry that has been released never changes.
MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """CREATE TABLE invites (
            invite_id TEXT PRIMARY KEY,
            name TEXT NOT NULL,
            made_at REAL NOT NULL,
            expires_at INTEGER NOT NULL,
            max_uses INTEGER NOT NULL,
            limits TEXT NOT NULL,
            revoked_at REAL
        ) STRICT""",
        """CREATE TABLE memberships (
            membership_id TEXT PRIMARY KEY,
            invite_id TEXT NOT NULL REFERENCES invites,
            guest_id TEXT NOT NULL,
            claimed_name TEXT NOT NULL,
            joined_at REAL NOT NULL,
            revoked_at REAL,
            UNIQUE (invite_id, guest_id)
        ) STRICT""",
        """CREATE TABLE requests (
            request_id INTEGER PRIMARY KEY,
            membership_id TEXT REFERENCES memberships,
            model TEXT NOT NULL,
            asked_at REAL NOT NULL,
            queued_s REAL,
            first_token_s REAL,
            prompt_tokens INTEGER NOT NULL,
            completion_tokens INTEGER NOT NULL,
            estimated INTEGER NOT NULL,
            ended_at REAL,
            how TEXT
        ) STRICT""",
        "CREATE INDEX requests_of ON requests (membership_id)",
        "CREATE INDEX requests_running ON requests (request_id) WHERE how IS NULL",
        "CREATE INDEX requests_asked ON requests (asked_at)",
    ),
    (
        "ALTER TABLE invites ADD COLUMN user TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE invites ADD COLUMN guest TEXT NOT NULL DEFAULT ''",
        "CREATE INDEX invites_of_users ON invites (expires_at) WHERE user != ''",
        """CREATE TABLE allowances (
            user TEXT PRIMARY KEY,
            allowance TEXT NOT NULL
        ) STRICT""",
    ),
)


@dataclass
class Changes:
    """Invites that were made, and ids of invites and memberships that were revoked."""

    invites: dict[str, InviteRecord] = field(default_factory=dict)
    revoked: dict[str, float] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.invites or self.revoked)

    @classmethod
    def known(cls, connection: sqlite3.Connection) -> Changes:
        """All invites and revocations there are now, but for those of seats.

        Only the host itself makes those and ends them; there may be very many.
        """
        return cls(
            {each.invite_id: each for each in _invites(connection, "WHERE user = ''")},
            _revoked(connection),
        )

    @classmethod
    def since(cls, connection: sqlite3.Connection, seen: Changes) -> Changes:
        """What ``seen`` lacks; ``seen`` has it afterwards."""
        now = cls.known(connection)
        new = cls(
            {key: made for key, made in now.invites.items() if key not in seen.invites},
            {key: at for key, at in now.revoked.items() if key not in seen.revoked},
        )
        seen.invites, seen.revoked = now.invites, now.revoked
        return new


# Reading -------------------------------------------------------------------------------------


def require_shape(connection: sqlite3.Connection) -> None:
    """Raise sqlite3.DatabaseError where a table or column is missing, or limits make no sense."""
    _invites(connection, "WHERE user = ''")
    _memberships(connection, "LIMIT 0")
    seat_records.require_shape(connection)
    connection.execute(f"SELECT {_REQUEST_COLUMNS} FROM requests LIMIT 0")  # noqa: S608


def _invites(
    connection: sqlite3.Connection, how: str = "ORDER BY rowid", *values: str | float
) -> list[InviteRecord]:
    rows = connection.execute(
        "SELECT invite_id, name, made_at, expires_at, max_uses, limits, revoked_at, user, "  # noqa: S608
        f"guest FROM invites {how}",
        values,
    )
    return [
        InviteRecord(
            invite_id, name, made_at, expires_at, max_uses, _limits(limits), revoked_at, user, guest
        )
        for invite_id, name, made_at, expires_at, max_uses, limits, revoked_at, user, guest in rows
    ]


def invite(connection: sqlite3.Connection, invite_id: str) -> InviteRecord:
    """One invite or seat that is recorded; IndexError for any other."""
    return _invites(connection, "WHERE invite_id = ?", invite_id)[0]


def _limits(text: str) -> Limits:
    try:
        return Limits.from_dict(json.loads(text))
    except (ValueError, TypeError, OptionInvalid):
        raise sqlite3.DatabaseError("an invite's limits cannot be read") from None


def _memberships(
    connection: sqlite3.Connection, how: str = "ORDER BY rowid", *values: str | float
) -> list[Membership]:
    rows = connection.execute(
        "SELECT membership_id, invite_id, guest_id, claimed_name, joined_at, revoked_at "  # noqa: S608
        f"FROM memberships {how}",
        values,
    )
    return [Membership(*row) for row in rows]


def _revoked(connection: sqlite3.Connection) -> dict[str, float]:
    # A seat that is over needs no revocation, and a class makes very many.
    return dict(
        connection.execute(
            "WITH of_use AS (SELECT invite_id, revoked_at FROM invites "
            "WHERE user = '' OR expires_at > CAST(strftime('%s', 'now') AS INTEGER)) "
            "SELECT invite_id, revoked_at FROM of_use WHERE revoked_at IS NOT NULL UNION ALL "
            "SELECT membership_id, memberships.revoked_at FROM memberships "
            "JOIN of_use USING (invite_id) WHERE memberships.revoked_at IS NOT NULL"
        ).fetchall()
    )


_REQUEST_COLUMNS = (
    "request_id, membership_id, model, asked_at, queued_s, first_token_s, prompt_tokens, "
    "completion_tokens, estimated, ended_at, how"
)


def read(connection: sqlite3.Connection, since: float | None = None, now: float = 0.0) -> Snapshot:
    """Everything, in one consistent view. ``recent`` begins at ``since`` (None: leave it out).

    Of seats that ended long before ``now`` only what was used is read.
    """
    connection.execute("BEGIN")
    try:
        return within(connection, since, now)
    finally:
        connection.execute("COMMIT")


def within(
    connection: sqlite3.Connection, since: float | None = None, now: float = 0.0
) -> Snapshot:
    """The same within a transaction that has begun."""
    recent: list[Any] = []
    if since is not None:
        recent = connection.execute(
            f"SELECT {_REQUEST_COLUMNS} FROM requests "  # noqa: S608
            "WHERE asked_at > ? AND coalesce(ended_at, asked_at) > ?",
            (since - _LONGEST_ANSWER, since),
        ).fetchall()
    newest = connection.execute("SELECT max(request_id) FROM requests").fetchone()[0]
    over = now - seat_records.SEAT_KEPT
    old = "SELECT invite_id FROM invites WHERE user != '' AND expires_at <= ?"
    return Snapshot(
        invites=tuple(
            _invites(connection, "WHERE user = '' OR expires_at > ? ORDER BY rowid", over)
        ),
        memberships=tuple(
            _memberships(connection, f"WHERE invite_id NOT IN ({old}) ORDER BY rowid", over)
        ),
        totals=_totals(connection),
        recent=tuple(Request(*row) for row in recent),
        next_request_id=(newest or 0) + 1,
        seats=seat_records.read(connection, now),
    )


def ids_like(connection: sqlite3.Connection, beginning: str) -> list[str]:
    """Ids of invites and memberships that begin so, at most a few."""
    rows = connection.execute(
        "SELECT invite_id FROM invites WHERE substr(invite_id, 1, ?1) = ?2 UNION ALL "
        "SELECT membership_id FROM memberships WHERE substr(membership_id, 1, ?1) = ?2 LIMIT 20",
        (len(beginning), beginning),
    )
    return [each for (each,) in rows]


def guests_behind(connection: sqlite3.Connection, target: str) -> int | None:
    """How many guests an invite has admitted; None where the id is no invite's."""
    if not _invites(connection, "WHERE invite_id = ?", target):
        return None
    row = connection.execute("SELECT count(*) FROM memberships WHERE invite_id = ?", (target,))
    return int(row.fetchone()[0])


def _totals(connection: sqlite3.Connection) -> dict[str | None, Total]:
    return totals_of(
        connection.execute(
            "SELECT membership_id, how, count(*), sum(prompt_tokens), sum(completion_tokens), "
            "max(coalesce(ended_at, asked_at)) FROM requests GROUP BY membership_id, how"
        )
    )


# Writing -------------------------------------------------------------------------------------


def add_invite(connection: sqlite3.Connection, made: InviteRecord) -> None:
    """Record an invite that was just made."""
    connection.execute(
        "INSERT INTO invites "
        "(invite_id, name, made_at, expires_at, max_uses, limits, revoked_at) "
        "VALUES (?, ?, ?, ?, ?, ?, ?)",
        (
            made.invite_id,
            made.name,
            made.made_at,
            made.expires_at,
            made.max_uses,
            json.dumps(made.limits.as_dict()),
            made.revoked_at,
        ),
    )


def admit(connection: sqlite3.Connection, wanted: Membership) -> Membership:
    """Admit a guest whose token and statement were verified; give back what it had if it was here.

    Raises :class:`~qmt_jupyter.errors.AdmissionRefused`, also for a seat of another identity,
    :class:`~qmt_jupyter.errors.InviteUsedUp` or :class:`~qmt_jupyter.errors.MembershipEnded`;
    nothing is written then.
    """
    made = _invites(connection, "WHERE invite_id = ?", wanted.invite_id)
    if not made:
        raise AdmissionRefused("The host has no record of this invite.")
    if made[0].revoked_at is not None:
        raise Revoked("The host has revoked this invite.")
    if made[0].user:
        if made[0].guest != wanted.guest_id:
            raise AdmissionRefused("This invite is another user's.")
        if made[0].is_expired(wanted.joined_at):
            raise MembershipEnded("This seat has ended; it was not renewed.")
    here = _memberships(
        connection, "WHERE invite_id = ? AND guest_id = ?", wanted.invite_id, wanted.guest_id
    )
    if here:
        return _come_back(connection, here[0], wanted.claimed_name)
    (uses,) = connection.execute(
        "SELECT count(*) FROM memberships WHERE invite_id = ?", (wanted.invite_id,)
    ).fetchone()
    if made[0].max_uses and uses >= made[0].max_uses:
        raise InviteUsedUp(
            "The only use of this invite is taken."
            if made[0].max_uses == 1
            else f"All {made[0].max_uses} uses of this invite are taken."
        )
    connection.execute(
        "INSERT INTO memberships VALUES (?, ?, ?, ?, ?, NULL)",
        (
            wanted.membership_id,
            wanted.invite_id,
            wanted.guest_id,
            wanted.claimed_name,
            wanted.joined_at,
        ),
    )
    return wanted


def _come_back(connection: sqlite3.Connection, known: Membership, name: str) -> Membership:
    if known.revoked_at is not None:
        raise Revoked("The host has revoked this guest's membership.")
    if name in ("", known.claimed_name):
        return known
    connection.execute(
        "UPDATE memberships SET claimed_name = ? WHERE membership_id = ?",
        (name, known.membership_id),
    )
    return replace(known, claimed_name=name)


def revoke(connection: sqlite3.Connection, target: str, now: float) -> None:
    """Revoke the invite or the membership of this id; one that is revoked stays as it is."""
    for table, key in (("invites", "invite_id"), ("memberships", "membership_id")):
        connection.execute(
            f"UPDATE {table} SET revoked_at = ? WHERE {key} = ? AND revoked_at IS NULL",  # noqa: S608
            (now, target),
        )


def put_requests(connection: sqlite3.Connection, requests: list[Request]) -> None:
    """Write requests as they stand now, each in one row however often it is written."""
    connection.executemany(
        f"INSERT INTO requests ({_REQUEST_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) "  # noqa: S608
        "ON CONFLICT (request_id) DO UPDATE SET queued_s = excluded.queued_s, "
        "first_token_s = excluded.first_token_s, prompt_tokens = excluded.prompt_tokens, "
        "completion_tokens = excluded.completion_tokens, estimated = excluded.estimated, "
        "ended_at = excluded.ended_at, how = excluded.how",
        [
            (
                each.request_id,
                each.membership_id,
                each.model,
                each.asked_at,
                each.queued_s,
                each.first_token_s,
                each.prompt_tokens,
                each.completion_tokens,
                int(each.estimated),
                each.ended_at,
                each.how,
            )
            for each in requests
        ],
    )


def close_lost(connection: sqlite3.Connection, now: float) -> int:
    """End the requests that were running when a host died; returns how many there were."""
    return connection.execute(
        "UPDATE requests SET how = ?, ended_at = ? WHERE how IS NULL", (LOST, now)
    ).rowcount
