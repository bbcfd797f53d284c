"""What a host's owner does from another process, whether the host runs now or not.

Invites and revocations are written into the ledger; a running host notices within a few hundredths
of a second. Usage is read from it and may be half a second old.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

from ..errors import HomeNotWritable, NotHosting
from ..identity import keys, link
from . import records
from .granting import IDENTITY_FILE, ReachFile, Terms, sign_invite
from .ledger import FILE, open_for_reading, open_for_writing
from .membership import Register, beginning, the_one
from .report import usage_report

T = TypeVar("T")


def _identity(directory: Path) -> keys.Identity:
    if not (directory / IDENTITY_FILE).exists():
        raise NotHosting("There has never been a host here.")
    return keys.load_or_create(directory / IDENTITY_FILE)


def _write(directory: Path, write: Callable[[sqlite3.Connection], T]) -> T:
    with closing(open_for_writing(directory, checked=False)) as connection:
        try:
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("BEGIN IMMEDIATE")
            try:
                result = write(connection)
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            raise HomeNotWritable(
                f"{directory / FILE} cannot be written ({error}).",
                next_step="Free some disk space, or try again in a moment.",
            ) from None
        return result


def make_invite(directory: Path, terms: Terms) -> link.Link:
    """Sign and record an invite for the host whose files are in ``directory``.

    Raises :class:`~qmt_jupyter.errors.NotHosting` where there has never been one, and a
    :class:`~qmt_jupyter.errors.ConfigurationError`.
    """
    identity, now = _identity(directory), time.time()
    made = sign_invite(identity, terms, now)
    record = terms.record(made, now)
    _write(directory, lambda db: records.add_invite(db, record))
    return link.Link(made, ReachFile(directory).read())


def revoke(directory: Path, text: str) -> dict[str, Any]:
    """Revoke the invite or the guest whose id begins with ``text``; like the host's own.

    Raises :class:`~qmt_jupyter.errors.NotHosting`, :class:`~qmt_jupyter.errors.OptionInvalid` and
    a :class:`~qmt_jupyter.errors.ConfigurationError`.
    """
    _identity(directory)
    wanted = beginning(text)

    def write(connection: sqlite3.Connection) -> dict[str, Any]:
        target = the_one(text, records.ids_like(connection, wanted))
        guests = records.guests_behind(connection, target)
        records.revoke(connection, target, time.time())
        kind = "guest" if guests is None else "invite"
        return {"id": target, "kind": kind, "guests": 1 if guests is None else guests}

    return _write(directory, write)


def usage(directory: Path) -> dict[str, Any]:
    """The usage report, as the host gives it. Same errors as :func:`make_invite`."""
    identity, now = _identity(directory), time.time()
    connection = open_for_reading(directory)
    if connection is None:
        return usage_report(Register(), identity.peer_id, now)
    with closing(connection):
        try:
            snapshot = records.read(connection, now=now)
        except sqlite3.Error as error:
            raise HomeNotWritable(f"{directory / FILE} cannot be read ({error}).") from None
    if not keys.HostLock(directory).is_held():
        snapshot = snapshot.without_running()
    register = Register.from_snapshot(snapshot, wall=now, clock=0.0)
    return usage_report(register, identity.peer_id, now)
