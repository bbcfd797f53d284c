"""Which message may come when, as state machines that do no I/O and are told the time.

A control stream goes ``GREETING → OPEN → CLOSED``; a request stream goes
``ASKED → (QUEUED) → STARTED → ENDED``. Each side keeps the machine of what it receives (and the
host, of what it sends, so that it cannot send nonsense). :class:`ExchangeError` means that the
other side broke the rules.
"""

from __future__ import annotations

import enum
from typing import Any

from . import messages
from .messages import Beat, Delta, Done, Failed, Queued, Reply, Started, Usage, Vector

BEAT_INTERVAL = 1.0
SILENCE_LIMIT = 3.0
PRESENCE_INTERVAL = 2.0
ABSENCE_LIMIT = 15.0
GREETING_DEADLINE = 5.0


class ExchangeError(Exception):
    """A message that may not come here."""


def version_sentence(*, ours: int, theirs: int, we_are: str) -> str:
    """Say which side has to be upgraded; ``we_are`` is "host" or "guest"."""
    they_are = "guest" if we_are == "host" else "host"
    older = we_are if ours < theirs else they_are
    versions = {we_are: ours, they_are: theirs}
    return (
        f"The guest speaks version {versions['guest']} of the exchange and the host version "
        f"{versions['host']}; update qmt-jupyter on the {older}'s side."
    )


class RequestState(enum.Enum):
    """Where a request is."""

    ASKED = "asked"
    QUEUED = "queued"
    STARTED = "started"
    ENDED = "ended"


_BEFORE_START = (RequestState.ASKED, RequestState.QUEUED)


def _kind(piece: Delta | Vector) -> str:
    return type(piece).__name__.lower()


class RequestFlow:
    """Checks the order of one request's replies and tells when the host has gone silent.

    ``now`` is any monotonic time in seconds. ``sequence`` is the number of the last delta.
    ``listening`` is False while this side does not read: what it misses then is no silence.
    """

    def __init__(self, now: float, after: int = 0) -> None:
        self.state = RequestState.ASKED
        self.sequence = after
        self.used = False
        self.listening = True
        self._heard = now

    def receive(self, reply: Reply, now: float) -> bool:
        """Take the next reply. False when it repeats a delta that is already here.

        Raises :class:`ExchangeError` where the reply may not come now.
        """
        self._heard = now
        if self.state is RequestState.ENDED:
            raise ExchangeError("a reply after the last one")
        if isinstance(reply, Beat):
            return True
        if isinstance(reply, (Delta, Vector)):
            return self._numbered(reply)
        if isinstance(reply, Queued):
            self._require(_BEFORE_START, reply)
            self.state = RequestState.QUEUED
        elif isinstance(reply, Started):
            self._require(_BEFORE_START, reply)
            self.state = RequestState.STARTED
        elif isinstance(reply, Usage):
            self._require((RequestState.STARTED,), reply)
            if self.used:
                raise ExchangeError("usage twice")
            self.used = True
        elif isinstance(reply, Done):
            self._require((RequestState.STARTED,), reply)
            self.state = RequestState.ENDED
        elif isinstance(reply, Failed):
            self.state = RequestState.ENDED
        return True

    def _numbered(self, piece: Delta | Vector) -> bool:
        self._require((RequestState.STARTED,), piece)
        if piece.seq <= self.sequence:
            return False
        if piece.seq != self.sequence + 1:
            raise ExchangeError(f"{_kind(piece)} {piece.seq} after {self.sequence}")
        if self.used:
            raise ExchangeError(f"a {_kind(piece)} after the usage")
        self.sequence = piece.seq
        return True

    def _require(self, states: tuple[RequestState, ...], reply: Reply) -> None:
        if self.state not in states:
            raise ExchangeError(f"{type(reply).__name__} while {self.state.value}")

    def is_silent(self, now: float) -> bool:
        """Whether the host has said nothing for so long that it counts as gone."""
        waiting = self.listening and self.state is not RequestState.ENDED
        return waiting and now - self._heard > SILENCE_LIMIT

    def excuse(self, now: float) -> None:
        """Forget a silence that was this side's own, e.g. after the machine slept."""
        self._heard = now


class ReplyWriter:
    """Makes one request's replies in the right order, numbered, and knows when a beat is due."""

    def __init__(self, now: float) -> None:
        self._flow = RequestFlow(now)
        self._said = now

    @property
    def ended(self) -> bool:
        """Whether the last reply is made."""
        return self._flow.state is RequestState.ENDED

    def delta(self, choices: list[dict[str, Any]], now: float) -> bytes:
        """The next piece, as a frame."""
        return self.frame(Delta(seq=self._flow.sequence + 1, choices=choices), now)

    def vector(self, index: int, values: bytes, now: float) -> bytes:
        """The next embedding, as a frame."""
        return self.frame(Vector(seq=self._flow.sequence + 1, index=index, values=values), now)

    def frame(self, reply: Reply, now: float) -> bytes:
        """Any reply, as a frame; ExchangeError if it may not be sent now."""
        self._flow.receive(reply, now)
        self._said = now
        return messages.encode(reply)

    def beat_if_due(self, now: float) -> bytes | None:
        """A beat's frame when nothing was said for almost a second, else None."""
        if self.ended or now - self._said < BEAT_INTERVAL * 0.9:
            return None
        return self.frame(Beat(), now)
