"""What each guest has used, counted while it streams, and written down as it goes.

Pieces are counted as tokens as they pass; the engine's own count replaces them when the answer
ends, so an answer that was aborted or revoked is counted too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any

from .account import Grant
from .activity import Meter
from .meters import Meters, Now
from .rows import REFUSED, Request, Total

OWNER = "this host"
_MOST = 10**9


def whole_count(value: Any) -> int | None:
    """A number of tokens that a provider gave, if it is one that can be."""
    is_count = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _MOST
    return value if is_count else None


@dataclass
class GuestUsage:
    """One membership's numbers. ``last_seen`` is in seconds since 1970."""

    requests: int = 0
    running: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    last_seen: float = 0.0
    ended: Counter[str] = field(default_factory=Counter)

    @classmethod
    def from_total(cls, total: Total) -> GuestUsage:
        """What the ledger adds up to."""
        return cls(
            total.requests - total.ended.get(REFUSED, 0),
            total.running,
            total.prompt_tokens,
            total.completion_tokens,
            total.last_seen,
            Counter(total.ended),
        )

    def add(self, other: GuestUsage) -> None:
        """Count another membership's numbers in."""
        self.requests += other.requests
        self.running += other.running
        self.prompt_tokens += other.prompt_tokens
        self.completion_tokens += other.completion_tokens
        self.last_seen = max(self.last_seen, other.last_seen)
        self.ended += other.ended

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers, ready for JSON."""
        return {
            "requests": self.requests,
            "running": self.running,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "last_seen": self.last_seen,
            "ended": dict(self.ended),
        }


class RequestUsage:
    """Counts one request into its guest's numbers and its row; :meth:`end` is called once.

    ``recorded`` ends when the ledger holds the request.
    """

    def __init__(
        self, book: UsageBook, row: Request, guest: GuestUsage, grant: Grant, clock: float
    ) -> None:
        self._book = book
        self._row = row
        self._guest = guest
        self._grant = grant
        self._asked = clock
        self._slot_at: float | None = None
        self.dirty = False
        guest.requests += 1
        guest.running += 1
        guest.last_seen = row.asked_at
        self.recorded = book.write(row)

    @property
    def tokens(self) -> int:
        """What the request has taken so far."""
        return self._row.prompt_tokens + self._row.completion_tokens

    def has_slot(self, clock: float) -> None:
        """It waits no more for others' requests."""
        self._slot_at = clock
        self._book.meters.waited(self._row.model, clock - self._asked)

    def started(self, clock: float) -> None:
        """A slot took it: the prompt counts from here."""
        self._row.queued_s = clock - self._asked
        self._grant.started = True
        self.prompt(self._grant.prompt)

    def prompt(self, tokens: int) -> None:
        """The prompt has so many tokens, as far as is known."""
        more = tokens - self._row.prompt_tokens
        self._guest.prompt_tokens += more
        self._book.meter.prompt += more
        self._row.prompt_tokens = tokens
        self.dirty = True

    @property
    def has_begun(self) -> bool:
        """Whether the provider has begun to work on it."""
        return self._grant.started

    @property
    def asker(self) -> str | None:
        """Whose request it is: a membership's id, or None for the owner's."""
        return self._row.membership_id

    @property
    def waits(self) -> bool:
        """Whether it has no slot yet."""
        return self._row.queued_s is None

    def follow(self, clock: float) -> None:
        """Have the meter look at how fast its guest is served."""
        self._book.meter.follow(self.asker, self._guest, clock)

    def piece(self, clock: float, so_far: int | None = None) -> None:
        """One more piece was streamed; ``so_far`` tokens, if the engine says how many."""
        if self._row.first_token_s is None:
            self._row.first_token_s = clock - self._asked
            self._book.meters.spoke(self._row.model, self._row.first_token_s)
        more = max(1, (so_far or 0) - self._row.completion_tokens)
        self._row.completion_tokens += more
        self._guest.completion_tokens += more
        self._book.meter.completion += more
        self._grant.streamed += more
        self.dirty = True

    def settle(self, usage: dict[str, Any]) -> None:
        """Replace the running count by the engine's."""
        prompt = whole_count(usage.get("prompt_tokens"))
        completion = whole_count(usage.get("completion_tokens"))
        if completion is not None:
            more = completion - self._row.completion_tokens
            self._guest.completion_tokens += more
            self._book.meter.completion += more
            self._row.completion_tokens = completion
            self._row.estimated = False
        if prompt is not None:
            self.prompt(prompt)

    def as_openai(self) -> dict[str, Any]:
        """OpenAI's usage object from what was counted here, where the engine gave none."""
        row = self._row
        return {
            "prompt_tokens": row.prompt_tokens,
            "completion_tokens": row.completion_tokens,
            "total_tokens": self.tokens,
            "estimated": True,
        }

    def end(self, how: str, now: float, clock: float, code: str = "") -> None:
        """The request is over; ``how`` is one of :data:`~.rows.HOW_ENDED`.

        ``code`` is the error's that it ended with, if there was one.
        """
        self._row.how, self._row.ended_at = how, now
        self._guest.running -= 1
        self._guest.requests -= how == REFUSED
        self._guest.ended[how] += 1
        self._guest.last_seen = now
        self._grant.settle(self._row.prompt_tokens, self._row.completion_tokens, clock)
        self.follow(clock)
        if self._slot_at is None:
            self._book.meters.waited(self._row.model, clock - self._asked)
        self._book.meters.ended(self._row, code, clock - self._asked)
        self._book.ended(self, self._row)

    def add_to(self, found: dict[str, Now]) -> None:
        """Add what it does now to its model's."""
        row, now = self._row, found.setdefault(self._row.model, Now())
        now.waiting += self._slot_at is None
        now.running += self._slot_at is not None
        now.prompt += row.prompt_tokens
        now.completion += row.completion_tokens

    def snapshot(self) -> Request:
        """The row as it stands now."""
        self.dirty = False
        return replace(self._row)


class UsageBook:
    """Gives every request its row and hands rows on to be kept.

    ``write`` returns what can be awaited until the rows are kept; ``post`` does it by and by.
    ``meter`` and ``meters`` count along.
    """

    def __init__(
        self,
        next_id: int,
        write: Callable[[list[Request]], Awaitable[None]],
        post: Callable[[list[Request]], None],
    ) -> None:
        self._next_id = next_id
        self._write = write
        self._post = post
        self._running: set[RequestUsage] = set()
        self.meter = Meter()
        self.meters = Meters()

    def begin(
        self,
        membership_id: str | None,
        guest: GuestUsage,
        grant: Grant,
        model: str,
        now: float,
        clock: float,
    ) -> RequestUsage:
        """A request was let in and starts to be counted (``membership_id`` None: the owner's)."""
        row = Request(self._next_id, membership_id, model, now)
        self._next_id += 1
        counted = RequestUsage(self, row, guest, grant, clock)
        self._running.add(counted)
        counted.follow(clock)
        return counted

    def write(self, row: Request) -> Awaitable[None]:
        """Have one row kept as it is now, for certain."""
        return self._write([replace(row)])

    def ended(self, counted: RequestUsage, row: Request) -> None:
        """A request is over: its last row is written, and nobody waits for it."""
        self._running.discard(counted)
        self._post([replace(row)])

    def flush(self) -> None:
        """Have the rows kept that have changed since they were last; call it every half second."""
        rows = [each.snapshot() for each in self._running if each.dirty]
        if rows:
            self._post(rows)

    def look(self, now: float, clock: float) -> None:
        """Have the meter look at what runs, by both clocks; call it every half second."""
        for each in self._running:
            each.follow(clock)
        self.meter.forget(clock)
        self.meter.add_up(now)

    def running(self) -> dict[str | None, tuple[int, int]]:
        """Of each guest with requests (None: the owner): how many run, and how many wait."""
        found: dict[str | None, tuple[int, int]] = {}
        for each in self._running:
            run, wait = found.get(each.asker, (0, 0))
            found[each.asker] = (run, wait + 1) if each.waits else (run + 1, wait)
        return found

    def now(self) -> dict[str, Now]:
        """What has not ended, by model."""
        found: dict[str, Now] = {}
        for each in self._running:
            each.add_to(found)
        return found
