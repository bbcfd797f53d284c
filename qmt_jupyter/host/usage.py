"""What each guest has used, counted while it streams.

Kept in memory while the host runs. Pieces are counted as tokens as they pass; the engine's own
count replaces them when the answer ends, so an aborted answer is counted too.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

OWNER = "this host"


@dataclass
class GuestUsage:
    """One membership's numbers. ``last_seen`` is in seconds since 1970."""

    requests: int = 0
    running: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    last_seen: float = 0.0
    ended: Counter[str] = field(default_factory=Counter)

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
    """Counts one running request into its guest's numbers; :meth:`end` is called once."""

    def __init__(self, guest: GuestUsage, now: float) -> None:
        self._guest = guest
        self._counted = 0
        guest.requests += 1
        guest.running += 1
        guest.last_seen = now

    def piece(self) -> None:
        """One more piece was streamed."""
        self._counted += 1
        self._guest.completion_tokens += 1

    def settle(self, usage: dict[str, Any]) -> None:
        """Replace the running count by the engine's."""
        prompt, completion = usage.get("prompt_tokens"), usage.get("completion_tokens")
        if isinstance(completion, int):
            self._guest.completion_tokens += completion - self._counted
            self._counted = completion
        if isinstance(prompt, int):
            self._guest.prompt_tokens += prompt

    def end(self, how: str, now: float) -> None:
        """The request is over: ``completed``, ``cancelled``, ``failed``."""
        self._guest.running -= 1
        self._guest.ended[how] += 1
        self._guest.last_seen = now


class UsageBook:
    """The numbers of all memberships, and of the host's own use under :data:`OWNER`."""

    def __init__(self) -> None:
        self._guests: dict[str, GuestUsage] = {}

    def of(self, membership_id: str) -> GuestUsage:
        """A membership's numbers; zeros for one that has asked nothing yet."""
        return self._guests.setdefault(membership_id, GuestUsage())

    def begin(self, membership_id: str, now: float) -> RequestUsage:
        """A request starts to be counted."""
        return RequestUsage(self.of(membership_id), now)
