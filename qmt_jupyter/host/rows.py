"""What the ledger records, as data. Times are seconds since 1970. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from .allowance import Allowance
from .limits import UNLIMITED, Limits

COMPLETED, CANCELLED, FAILED = "completed", "cancelled", "failed"
REVOKED, EXPIRED, STOPPED, LOST = "revoked", "expired", "stopped", "lost"
PAUSED = "paused"
REFUSED = "refused"  # after it had been let in, before it began: it counts for nothing
HOW_ENDED = (COMPLETED, CANCELLED, FAILED, REFUSED, REVOKED, EXPIRED, PAUSED, STOPPED, LOST)


@dataclass(frozen=True)
class InviteRecord:
    """An invite that was made here. ``expires_at`` 0: never; ``max_uses`` 0: any number.

    A seat is for one ``user`` and for the one identity ``guest`` alone; both are empty otherwise.
    """

    invite_id: str
    name: str
    made_at: float
    expires_at: int
    max_uses: int
    limits: Limits = UNLIMITED
    revoked_at: float | None = None
    user: str = ""
    guest: str = ""

    def is_expired(self, now: float) -> bool:
        """Whether its lifetime is over at ``now``."""
        return self.expires_at != 0 and now > self.expires_at


@dataclass(frozen=True)
class Membership:
    """One guest identity that one invite admitted. ``claimed_name`` is what it calls itself."""

    membership_id: str
    invite_id: str
    guest_id: str
    claimed_name: str
    joined_at: float
    revoked_at: float | None = None


@dataclass
class Request:
    """One request, from when it was let in. ``membership_id`` None: the host's owner asked.

    ``queued_s`` and ``first_token_s`` count from ``asked_at``, in seconds. ``estimated``: the
    tokens are counted pieces, not the engine's own figure. ``how`` is None while it runs.
    """

    request_id: int
    membership_id: str | None
    model: str
    asked_at: float
    queued_s: float | None = None
    first_token_s: float | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    estimated: bool = True
    ended_at: float | None = None
    how: str | None = None


@dataclass(frozen=True)
class Total:
    """What one membership's requests that have ended add up to."""

    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    running: int = 0
    last_seen: float = 0.0
    ended: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class SeatsSnapshot:
    """What is recorded of the users that have had seats, by user.

    ``spent`` holds the tokens of the last weeks' requests by the quarter of an hour of their
    asking; ``past`` adds up those of seats that ended long ago, which are not read any more.
    """

    allowances: dict[str, Allowance] = field(default_factory=dict)
    spent: dict[str, dict[int, int]] = field(default_factory=dict)
    past: dict[str, Total] = field(default_factory=dict)


@dataclass(frozen=True)
class Snapshot:
    """All that is recorded; ``totals`` by membership, None for the owner, ``recent`` a minute's."""

    invites: tuple[InviteRecord, ...]
    memberships: tuple[Membership, ...]
    totals: dict[str | None, Total]
    recent: tuple[Request, ...]
    next_request_id: int
    seats: SeatsSnapshot = field(default_factory=SeatsSnapshot)

    def without_running(self) -> Snapshot:
        """The same where no host runs: what has no end was lost with the host that died."""
        totals = {
            key: replace(
                total,
                running=0,
                ended=total.ended | {LOST: total.running + total.ended.get(LOST, 0)},
            )
            if total.running
            else total
            for key, total in self.totals.items()
        }
        return replace(self, totals=totals)


def totals_of(rows: Iterable[tuple[Any, ...]]) -> dict[Any, Total]:
    """Add up ``(key, how, count, prompt tokens, completion tokens, last)`` by key."""
    found: dict[Any, Total] = {}
    for key, how, count, prompt, completion, last in rows:
        total = found.get(key, Total())
        found[key] = replace(
            total,
            requests=total.requests + count,
            prompt_tokens=total.prompt_tokens + prompt,
            completion_tokens=total.completion_tokens + completion,
            running=total.running if how is not None else count,
            last_seen=max(total.last_seen, last),
            ended=total.ended if how is None else total.ended | {how: count},
        )
    return found
