"""What a host tells a monitoring system and a chart: :class:`~.service.HostService` has it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .hours import tokens_by_hour
from .usage import OWNER

if TYPE_CHECKING:
    from ..providers.base import Provider
    from .dispatch import Dispatcher
    from .ledger import Ledger
    from .membership import Register
    from .seating import Seating
    from .session import Session
    from .usage import UsageBook

ACTIVE = 300.0
"""Who asked something within so many seconds is active."""


class Figures:
    """The part of a host service that only looks. Everything here happens in its event loop."""

    _providers: tuple[Provider, ...]
    _dispatcher: Dispatcher
    _ledger: Ledger | None
    _register: Register
    _sessions: Mapping[Session, Any]
    _usage: UsageBook
    seating: Seating

    def metrics(self) -> dict[str, Any]:
        """Counters and histograms; :meth:`qmt_jupyter.Host.metrics` says which."""
        here = [each.member for each in self._sessions if each.member]
        return {
            **self._usage.meters.report(self._usage.now(), self._names()),
            "slots": sum(each.slots for each in self._providers),
            "connections": len(here),
            "guests": len({each.membership.guest_id for each in here}),
            "active_users": len(self._active(time.time() - ACTIVE)),
        }

    def _names(self) -> list[str]:
        return list(self._dispatcher.loads())

    def _active(self, since: float) -> set[str]:
        """Whose requests run, or have been asked or have ended since then."""
        found = {
            member.line
            for granted in self._register.granted
            for member in granted.members.values()
            if member.usage.running or member.usage.last_seen >= since
        }
        own = self._register.owner
        return found | {OWNER} if own.running or own.last_seen >= since else found

    def seats(self) -> list[dict[str, Any]]:
        """The users that have seats and what they used, as plain values."""
        return self.seating.report(self._usage)

    async def hours(self, since: float, user: str | None = None) -> list[list[int]]:
        """Tokens by hour, read from the ledger in a thread; see :func:`.hours.tokens_by_hour`."""
        if self._ledger is None:
            return []
        return await asyncio.to_thread(tokens_by_hour, self._ledger.directory, since, user)
