"""The iterative lookup: nearer and nearer to a key, whoever stands in the way.

A :class:`Walk` keeps some requests under way, takes the nearest nodes first, and believes nothing
but signatures: of all records that come it keeps the newest valid one. Nodes that are slow lose
their place in the row, not their say: the next one is asked meanwhile. Nodes that name contacts
that do not answer are soon not listened to, and few nodes of one group of addresses are asked, so
that neither silence nor floods of made-up contacts hold it up. The number of requests is bounded.
"""

from __future__ import annotations

import asyncio
import statistics
from bisect import insort
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field

import anyio

from ..identity.whereabouts import Whereabouts
from .contact import GROUP_LIMIT, Contact, distance

WIDTH = 10
PARALLEL = 4
MAX_REQUESTS = 120
_CONTACTS_OF_ONE_ANSWER = 16
_FAILURES_OF_ONE_VOUCHER = 3
_FAILURES_OF_ONE_GROUP = 8
_PATIENCE = 0.3
_SHORTEST_PATIENCE, _LONGEST_PATIENCE = 0.05, 0.5


@dataclass(frozen=True)
class Answer:
    """What a node said: contacts nearer to the key, a value that may be a record, a token.

    The token lets the asker store at that node.
    """

    contacts: tuple[Contact, ...] = ()
    value: bytes | None = None
    token: bytes = b""


@dataclass(frozen=True)
class Outcome:
    """Where a walk ended: the newest valid record, and the nearest nodes that answered.

    ``hops`` is the length of the chain of nodes that led to the record (or to the nearest node).
    """

    record: Whereabouts | None
    nearest: tuple[tuple[Contact, bytes], ...]
    hops: int
    requests: int


@dataclass(eq=False)
class _Candidate:
    contact: Contact
    away: int
    depth: int
    vouchers: set[Contact] = field(default_factory=set)
    known: bool = False  # from this node's own table: needs no voucher
    token: bytes = b""
    slow: bool = False
    blamed: tuple[Contact, ...] = ()


class Walk:
    """One lookup; :meth:`run` it once.

    ``ask`` sends one request and returns what came within its own deadline, None for nothing or
    nonsense. ``read`` checks a value and returns the record it is, or None. ``clock`` is steady.
    """

    def __init__(
        self,
        key: bytes,
        ask: Callable[[Contact, bytes], Awaitable[Answer | None]],
        read: Callable[[bytes], Whereabouts | None],
        *,
        clock: Callable[[], float],
        exclude: Iterable[Contact] = (),
        width: int = WIDTH,
    ) -> None:
        self._key = key
        self._ask = ask
        self._read = read
        self._clock = clock
        self._width = width
        self._seen: dict[Contact, _Candidate] = {}
        self._excluded = frozenset(exclude)
        self._waiting: list[tuple[int, Contact]] = []
        self._by_group: dict[str, list[_Candidate]] = {}
        self._answered: list[tuple[int, Contact]] = []
        self._tasks: dict[asyncio.Task[Answer | None], tuple[_Candidate, float]] = {}
        self._groups: Counter[str] = Counter()
        self._failed_groups: Counter[str] = Counter()
        self._good: Counter[Contact] = Counter()
        self._bad: Counter[Contact] = Counter()
        self._round_trips: deque[float] = deque(maxlen=16)
        self._requests = 0
        self._record: Whereabouts | None = None
        self._record_depth = 0

    async def run(
        self,
        start: Iterable[Contact],
        newer: Callable[[Whereabouts], None] | None = None,
        *,
        patient: bool = True,
    ) -> Outcome:
        """Walk from the nodes ``start``; ``newer`` is told of each record newer than the last.

        With ``patient``, nodes that are slow are waited for at the end while there is no record.
        """
        for contact in start:
            self._learn(contact, None, 1)
        try:
            while True:
                self._ask_more()
                if not self._tasks or (self._settled and not (patient and self._record is None)):
                    break
                done, _ = await asyncio.wait(
                    self._tasks,
                    timeout=self._until_next_is_slow(),
                    return_when=asyncio.FIRST_COMPLETED,
                )
                for task in done:
                    self._take(task, newer)
                self._notice_the_slow()
        finally:
            for task in self._tasks:
                task.cancel()
            with anyio.CancelScope(shield=True):
                await asyncio.gather(*self._tasks, return_exceptions=True)
        return self._outcome()

    # Whom to ask -----------------------------------------------------------------------------

    def _ask_more(self) -> None:
        while self._fresh < PARALLEL and self._requests < MAX_REQUESTS:
            candidate = self._next()
            if candidate is None:
                return
            self._waiting.remove((candidate.away, candidate.contact))
            self._by_group[candidate.contact.group].remove(candidate)
            self._groups[candidate.contact.group] += 1
            self._requests += 1
            task = asyncio.ensure_future(self._ask_one(candidate.contact))
            self._tasks[task] = (candidate, self._clock())

    async def _ask_one(self, contact: Contact) -> Answer | None:
        return await self._ask(contact, self._key)

    def _next(self) -> _Candidate | None:
        """The nearest node worth asking, or None when those nearest to the key have answered."""
        limit = self._answered[self._width - 1][0] if len(self._answered) >= self._width else None
        for away, contact in self._waiting:
            if limit is not None and away > limit:
                return None
            if self._worth_asking(self._seen[contact]):
                # Of several at one address the one that most know is most likely there.
                rivals = [each for each in self._by_group[contact.group] if self._trusted(each)]
                return max(rivals, key=lambda each: (each.known, len(each.vouchers), -each.away))
        return None

    def _worth_asking(self, candidate: _Candidate) -> bool:
        group = candidate.contact.group
        return (
            self._groups[group] < GROUP_LIMIT
            and self._failed_groups[group] < _FAILURES_OF_ONE_GROUP
            and self._trusted(candidate)
        )

    def _trusted(self, candidate: _Candidate) -> bool:
        return candidate.known or any(
            self._bad[each] < max(_FAILURES_OF_ONE_VOUCHER, 2 * self._good[each])
            for each in candidate.vouchers
        )

    # How long to wait ------------------------------------------------------------------------

    @property
    def _patience(self) -> float:
        if not self._round_trips:
            return _PATIENCE
        usual = statistics.median(self._round_trips)
        return min(_LONGEST_PATIENCE, max(_SHORTEST_PATIENCE, 4 * usual))

    def _notice_the_slow(self) -> None:
        """Whoever named a node that takes long counts as wrong until that node answers."""
        since = self._clock() - self._patience
        for candidate, began in self._tasks.values():
            if began <= since and not candidate.slow:
                candidate.slow = True
                self._blame(candidate)

    def _blame(self, candidate: _Candidate) -> None:
        candidate.blamed = tuple(candidate.vouchers)
        self._bad.update(candidate.blamed)

    @property
    def _fresh(self) -> int:
        return sum(1 for candidate, _ in self._tasks.values() if not candidate.slow)

    @property
    def _settled(self) -> bool:
        """Whether nobody is left but the slow."""
        return self._fresh == 0

    def _until_next_is_slow(self) -> float | None:
        coming = [began for candidate, began in self._tasks.values() if not candidate.slow]
        return max(0.0, min(coming) + self._patience - self._clock()) + 0.001 if coming else None

    # What comes ------------------------------------------------------------------------------

    def _take(
        self, task: asyncio.Task[Answer | None], newer: Callable[[Whereabouts], None] | None
    ) -> None:
        candidate, began = self._tasks.pop(task)
        contact = candidate.contact
        answer = None if task.cancelled() or task.exception() else task.result()
        if answer is None:
            self._groups[contact.group] -= 1
            self._failed_groups[contact.group] += 1
            if not candidate.blamed:
                self._blame(candidate)
            return
        self._bad.subtract(candidate.blamed)
        self._round_trips.append(self._clock() - began)
        self._good.update(candidate.vouchers)
        candidate.token = answer.token
        insort(self._answered, (candidate.away, contact), key=lambda pair: pair[0])
        if answer.value is not None:
            record = self._read(answer.value)
            if record is not None and (
                self._record is None or record.sequence > self._record.sequence
            ):
                self._record, self._record_depth = record, candidate.depth
                if newer is not None:
                    newer(record)
        of_group: Counter[str] = Counter()
        for named in answer.contacts[:_CONTACTS_OF_ONE_ANSWER]:
            of_group[named.group] += 1
            if of_group[named.group] <= GROUP_LIMIT:
                self._learn(named, contact, candidate.depth + 1)

    def _learn(self, contact: Contact, by: Contact | None, depth: int) -> None:
        if contact in self._excluded:
            return
        candidate = self._seen.get(contact)
        if candidate is None:
            candidate = _Candidate(contact, distance(contact, self._key), depth)
            self._seen[contact] = candidate
            self._by_group.setdefault(contact.group, []).append(candidate)
            insort(self._waiting, (candidate.away, contact), key=lambda pair: pair[0])
        if by is None:
            candidate.known = True
        else:
            candidate.vouchers.add(by)

    def _outcome(self) -> Outcome:
        nearest = [self._seen[contact] for _, contact in self._answered[: self._width]]
        depth = nearest[0].depth if nearest else 0
        return Outcome(
            record=self._record,
            nearest=tuple((each.contact, each.token) for each in nearest),
            hops=self._record_depth or depth,
            requests=self._requests,
        )
