"""When a lost link is given up, and when it is tried again. No I/O, no clock of its own."""

from __future__ import annotations

import random
from dataclasses import dataclass

from ..errors import (
    AdmissionRefused,
    Busy,
    ConfigurationError,
    HostGone,
    HostNotFound,
    HubNotFound,
    InviteError,
    MembershipEnded,
    QmtError,
    RecordsUnwritable,
    Stopped,
    UdpBlocked,
)

FIRST_PAUSE = 0.5
LONGEST_PAUSE = 30.0
QUIET = 7.0  # seconds; the transport says something every 5
ANSWER_WITHIN = 3.0
PATIENCE = 60.0


@dataclass(frozen=True)
class Away:
    """The host cannot be reached now, and is waited for, up to ``seconds`` from now."""

    host_id: str
    seconds: float


def may_pass(error: QmtError, *, renewed: bool = False) -> bool:
    """Whether a link that failed so may come back by itself.

    ``renewed``: it gets new invites from the service of a JupyterHub.
    """
    if renewed and isinstance(error, (MembershipEnded, AdmissionRefused, InviteError)):
        return True
    return isinstance(
        error,
        (HostNotFound, HostGone, HubNotFound, Stopped, Busy, RecordsUnwritable, ConfigurationError),
    )


def is_worth_waiting(error: QmtError, *, renewed: bool = False) -> bool:
    """Whether somebody who waits for an answer should wait on."""
    passes = may_pass(error, renewed=renewed)
    return passes and not isinstance(error, (UdpBlocked, ConfigurationError))


class Backoff:
    """Pauses in seconds that double up to a longest one, each cut by up to a half at random.

    The chance keeps the guests of one host from coming back all at the same moment.
    """

    def __init__(self, longest: float = LONGEST_PAUSE, chance: random.Random | None = None) -> None:
        self._longest = longest
        self._chance = chance or random.Random()  # noqa: S311  # spreads load, hides nothing
        self._next = FIRST_PAUSE

    def pause(self) -> float:
        """The next pause."""
        whole = self._next
        self._next = min(2 * whole, self._longest)
        return whole * (1 - self._chance.random() / 2)

    def reset(self) -> None:
        """Begin with short pauses again."""
        self._next = FIRST_PAUSE


class Pulse:
    """Whether a connection is alive, told by the datagrams that come over it.

    A peer that has been quiet, or is in doubt after a sleep or a change of network, is asked
    something; one that leaves it unanswered is lost. Times are of one clock that never goes back.
    """

    def __init__(self, now: float) -> None:
        self._heard = now
        self._count = 0
        self._asked: float | None = None

    def hear(self, count: int, now: float) -> None:
        """Take the number of datagrams received so far."""
        if count != self._count:
            self._count, self._heard, self._asked = count, now, None

    def doubt(self) -> None:
        """Something has happened that may have ended it."""
        self._heard, self._asked = float("-inf"), None

    def wants_to_ask(self, now: float) -> bool:
        """Whether the peer should be asked something now; true once for each question."""
        if self._asked is None and now - self._heard > QUIET:
            self._asked = now
            return True
        return False

    def is_lost(self, now: float) -> bool:
        """Whether the last question has been left unanswered."""
        return self._asked is not None and now - self._asked > ANSWER_WITHIN
