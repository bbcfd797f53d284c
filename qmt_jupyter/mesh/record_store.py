"""The records that this node keeps for others: valid ones only, bounded in every direction."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from ..identity import whereabouts
from ..identity.whereabouts import Whereabouts, WhereaboutsInvalid
from .pace import Pace

MAX_RECORDS = 4096
MAX_OF_ONE = 64
STORES_PER_SECOND = 2.0
STORES_AT_ONCE = 20.0


class StoreRefused(Exception):
    """A record was not taken; the message says why, for logs and tests."""


@dataclass(frozen=True)
class _Kept:
    record: Whereabouts
    sender: str


class RecordStore:
    """Signed records by key: the newest valid one of each host, until it ends.

    ``sender`` is a group of addresses. One may have :data:`MAX_OF_ONE` records here and store at
    :data:`STORES_PER_SECOND`. When all :data:`MAX_RECORDS` places are taken, whoever holds most of
    them gives one up, so that one sender cannot push the others out.
    """

    def __init__(
        self,
        *,
        limit: int = MAX_RECORDS,
        limit_of_one: int = MAX_OF_ONE,
        clock: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self._kept: dict[bytes, _Kept] = {}
        self._senders: Counter[str] = Counter()
        self._limit = limit
        self._limit_of_one = limit_of_one
        self._pace = Pace(STORES_PER_SECOND, STORES_AT_ONCE)
        self._clock = clock
        self._steady = steady

    def __len__(self) -> int:
        return len(self._kept)

    def put(self, key: bytes, data: bytes, sender: str) -> Whereabouts:
        """Keep a record that ``sender`` brought. Raises :class:`StoreRefused`.

        A record that is here already is confirmed without being checked once more.
        """
        now = self._clock()
        kept = self._kept.get(key)
        if kept is not None and kept.record.data == data and now <= kept.record.ends_at:
            return kept.record
        if not self._pace.allows(sender, self._steady()):
            raise StoreRefused("too many at once")
        record = self._check(key, data, now)
        if kept is not None and now <= kept.record.ends_at:
            if record.sequence <= kept.record.sequence:
                raise StoreRefused("a newer one is here")
        else:
            self._make_room(sender, now)
        self._drop(key)
        self._kept[key] = _Kept(record, sender)
        self._senders[sender] += 1
        return record

    def keep_own(self, record: Whereabouts) -> None:
        """Keep the record of a host in this very process, past all bounds."""
        self._drop(record.key)
        self._kept[record.key] = _Kept(record, "")

    def get(self, key: bytes) -> Whereabouts | None:
        """The record under ``key``, while it may be believed."""
        kept = self._kept.get(key)
        if kept is None:
            return None
        if self._clock() > kept.record.ends_at:
            self._drop(key)
            return None
        return kept.record

    def forget(self, key: bytes) -> None:
        """Give up a record."""
        self._drop(key)

    @staticmethod
    def _check(key: bytes, data: bytes, now: float) -> Whereabouts:
        try:
            record = whereabouts.read(data, now)
        except WhereaboutsInvalid as error:
            raise StoreRefused(str(error)) from None
        if record.key != key:
            raise StoreRefused("not under its host's key")
        return record

    def _make_room(self, sender: str, now: float) -> None:
        if self._senders[sender] < self._limit_of_one and len(self._kept) < self._limit:
            return
        for key, kept in list(self._kept.items()):
            if now > kept.record.ends_at:
                self._drop(key)
        if self._senders[sender] >= self._limit_of_one:
            raise StoreRefused("one sender's share is full")
        if len(self._kept) >= self._limit:
            most = max(self._senders, key=self._senders.__getitem__)
            if self._senders[most] <= max(1, self._senders[sender]):
                raise StoreRefused("no room")
            # Insertion order is age: the oldest of theirs goes, its host will renew it elsewhere.
            self._drop(next(key for key, kept in self._kept.items() if kept.sender == most))

    def _drop(self, key: bytes) -> None:
        kept = self._kept.pop(key, None)
        if kept is not None and kept.sender:
            self._senders[kept.sender] -= 1
            if not self._senders[kept.sender]:
                del self._senders[kept.sender]
