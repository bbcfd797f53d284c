"""How many tokens each hour took, read from the ledger.

A query an hour along the index on time: a million requests within a month take 0.2 s, where one
query that groups them takes twice as long, and no index has to be kept up for it.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from ..errors import HomeNotWritable, OptionInvalid
from .ledger import FILE, open_for_reading

HOUR = 3600

_FIRST = "SELECT min(asked_at) FROM requests WHERE asked_at >= ?"
_SUMS = (
    "SELECT sum(prompt_tokens), sum(completion_tokens) FROM requests "
    "WHERE asked_at >= ? AND asked_at < ?"
)
_OF_USER = (
    "SELECT CAST(asked_at / 3600 AS INTEGER) * 3600 AS hour, sum(prompt_tokens), "
    "sum(completion_tokens) FROM requests WHERE membership_id IN "
    "(SELECT membership_id FROM memberships JOIN invites USING (invite_id) "
    "WHERE user = ? AND user != '') "
    "AND asked_at >= ? GROUP BY hour ORDER BY hour"
)


def tokens_by_hour(directory: Path, since: float, user: str | None = None) -> list[list[int]]:
    """``[start, prompt tokens, answer tokens]`` for each hour in which something was asked.

    From the hour that ``since`` (seconds since 1970) falls into, oldest first; ``start`` is in
    seconds since 1970. ``user`` (None: everybody, the owner included) leaves that user's alone.
    What runs may be half a second behind. Blocks while it reads. Raises
    :class:`~qmt_jupyter.errors.OptionInvalid` and a
    :class:`~qmt_jupyter.errors.ConfigurationError`.
    """
    if not math.isfinite(since):
        raise OptionInvalid(f"{since} is no time to count hours from.")
    begin = math.floor(since / HOUR) * HOUR
    connection = open_for_reading(directory)
    if connection is None:
        return []
    with closing(connection):
        try:
            if user is not None:
                return [list(row) for row in connection.execute(_OF_USER, (user, begin))]
            return list(_of_all(connection, begin))
        except sqlite3.Error as error:
            raise HomeNotWritable(f"{directory / FILE} cannot be read ({error}).") from None


def _of_all(connection: sqlite3.Connection, begin: int) -> Iterator[list[int]]:
    while (first := connection.execute(_FIRST, (begin,)).fetchone()[0]) is not None:
        hour = math.floor(first / HOUR) * HOUR
        begin = hour + HOUR
        yield [hour, *connection.execute(_SUMS, (hour, begin)).fetchone()]
