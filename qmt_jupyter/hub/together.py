"""Services of one Hub count together: what a user has used at one counts at all of them.

Each tells what was used at itself alone, so nothing goes round in a circle. Changes by
administrators are passed on with the time at which they were made; the newest holds everywhere.
"""

from __future__ import annotations

import asyncio
import logging
import time
from datetime import datetime, timezone
from typing import Any
from zoneinfo import ZoneInfo

from tornado import web

from ..errors import QmtError
from .desk import Desk
from .overrides import MOST
from .peers import Told, Used
from .person import NODE
from .requests import JsonHandler

EVERY = 5.0
"""Seconds from one round of questions to the next."""

log = logging.getLogger(__name__)


def routes(desk: Desk) -> list[tuple[str, type[web.RequestHandler], dict[str, Any]]]:
    """What this part answers."""
    return [(r"api/node", NodeHandler, {"desk": desk})]


class NodeHandler(JsonHandler):
    """What other services of this Hub ask for, with their own tokens."""

    async def get(self) -> None:
        """Tokens that users have used here, and what administrators have changed."""
        self.require(await self.person(), NODE)
        self.write_json(await tell(self.desk))


def today(zone: str, now: float) -> str:
    """The calendar day in ``zone`` at ``now``, as ``2026-11-30``."""
    where = timezone.utc if zone == "UTC" else ZoneInfo(zone)
    return datetime.fromtimestamp(now, where).date().isoformat()


async def tell(desk: Desk) -> dict[str, Any]:
    """The answer of ``api/node``: of this month's users those that have used anything here."""
    day = today(desk.policy.zone, time.time())
    return {
        "peer_id": desk.host.peer_id,
        "day": day,
        "month": day[:7],
        "users": {
            each["user"]: {"day": each["tokens_today"], "month": each["tokens_month"]}
            for each in await desk.host.seats()
            if each["tokens_month"]
        },
        "changes": desk.overrides.changes(),
    }


class Together:
    """Asks the peers of a desk, and has its host and its users' limits follow."""

    def __init__(self, desk: Desk, *, every: float = EVERY) -> None:
        self._desk = desk
        self._every = every
        self._day = ""
        self._known: dict[str, Used | None] = {}  # what the host was told, on that day
        self._answered: dict[str, bool] = {}
        self._troubles: dict[str, str] = {}  # by peer id, what was said last

    async def look(self) -> None:
        """One round. A peer that is away, or answers nonsense, changes nothing."""
        desk = self._desk
        answers = await desk.peers.ask()
        self._troubles = {told.peer_id: await self._take(told) for told in answers}
        self._log()
        day = today(desk.policy.zone, time.time())
        if day != self._day:  # everybody begins anew, and the host is told so
            self._day, self._known = day, dict.fromkeys(self._known)
        used = desk.peers.used(day, desk.host.peer_id)
        for user in (*self._known, *(each for each in used if each not in self._known)):
            if user not in self._known and len(self._known) >= MOST:
                break  # a peer that makes up new names each time
            now = used.get(user, Used(0, 0))
            if self._known.get(user) != now:
                await desk.host.used_elsewhere(user, day=now.day, month=now.month)
                self._known[user] = now

    async def run(self) -> None:
        """Round after round, until it is cancelled; does nothing where there are no peers."""
        while self._desk.peers:
            began = time.monotonic()
            try:
                await self.look()
            except Exception:
                log.exception("counting together failed")
            await asyncio.sleep(max(0.0, began + self._every - time.monotonic()))

    async def _take(self, told: Told) -> str:
        """Changes that cannot be kept are tried again; what was used counts nevertheless."""
        trouble = ""
        try:
            await self._desk.take(list(told.changes))
        except QmtError as error:
            trouble = error.sentence
        if trouble and trouble != self._troubles.get(told.peer_id):
            log.warning("What was changed at another service: %s", trouble)
        return trouble

    def _log(self) -> None:
        """A line when a peer goes or comes back, none in between."""
        for each in self._desk.peers.report():
            if self._answered.get(each["url"], True) != each["answers"]:
                if each["answers"]:
                    log.info("The service at %s answers again.", each["url"])
                else:
                    log.warning("The service at %s: %s.", each["url"], each["trouble"])
            self._answered[each["url"]] = each["answers"]
