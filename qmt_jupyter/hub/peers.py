"""The other services of this Hub: what each tells of its users, and of what was changed there.

They are asked, and never told anything. What one answers is read as if it came from a stranger:
bounded in time and size, and taken whole or not at all.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tornado.httpclient import AsyncHTTPClient, HTTPRequest

from ..identity import peer_id
from .overrides import MOST
from .person import LONGEST_NAME

DEADLINE = 5.0
"""Seconds for a peer's whole answer."""
LARGEST_ANSWER = 16 * 1024 * 1024
_LARGEST_COUNT = 2**53
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII)
_REFUSED = {401: "it does not know this service's token", 403: "it needs the scope custom:qmt:node"}


@dataclass(frozen=True)
class Used:
    """Tokens of one user at other services, in this calendar day and month."""

    day: int
    month: int


_NOTHING = Used(0, 0)


@dataclass(frozen=True)
class Told:
    """A peer's answer: who it is, and what its users have used there, on which ``day``."""

    peer_id: str
    day: str
    users: Mapping[str, Used]
    changes: tuple[Any, ...]

    @property
    def month(self) -> str:
        """The calendar month of the day, as ``2026-11``."""
        return self.day[:7]


def read_told(answer: bytes) -> Told:
    """The answer of ``GET api/node``. ValueError for anything else; changes are not looked at."""
    try:
        value = json.loads(answer.decode("utf-8"), parse_constant=_refuse)
    except RecursionError:
        raise ValueError("too deep") from None
    if not isinstance(value, dict):
        raise ValueError("not an object")
    name, day, users, changes = (value.get(k) for k in ("peer_id", "day", "users", "changes"))
    if not isinstance(name, str):
        raise ValueError("no peer id")
    peer_id.from_text(name)
    if not isinstance(day, str) or not _DAY.fullmatch(day) or value.get("month") != day[:7]:
        raise ValueError("no day")
    if not isinstance(users, dict) or not isinstance(changes, list):
        raise ValueError("no users or no changes")
    if len(users) > MOST or len(changes) > MOST:
        raise ValueError("too many")
    return Told(name, day, dict(_used(*each) for each in users.items()), tuple(changes))


def _used(user: str, counts: Any) -> tuple[str, Used]:
    if not 0 < len(user) <= LONGEST_NAME or not isinstance(counts, dict):
        raise ValueError("no user")
    user.encode("utf-8")  # half a character could be written down nowhere
    return user, Used(_count(counts.get("day")), _count(counts.get("month")))


def _count(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _LARGEST_COUNT:
        raise ValueError("no count")
    return value


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


class _Peer:
    """One of them: what it told last (held on to while it is away), and how it is."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.told: Told | None = None
        self.answered_at: float | None = None
        self.trouble = "it has not been asked yet"

    def heard(self, told: Told) -> None:
        self.told, self.answered_at, self.trouble = told, time.time(), ""


class Peers:
    """All of them by their base URLs, asked side by side with the service's own ``token``."""

    def __init__(self, urls: Iterable[str], token: str, *, deadline: float = DEADLINE) -> None:
        self._peers = [_Peer(url.rstrip("/") + "/") for url in urls]
        self._token = token
        self._deadline = deadline
        self._client: AsyncHTTPClient | None = None

    def __bool__(self) -> bool:
        return bool(self._peers)

    async def ask(self) -> list[Told]:
        """Ask them all, for at most the deadline; what those said that answered this time."""
        before = [peer.answered_at for peer in self._peers]
        await asyncio.gather(*map(self._ask, self._peers))
        return [
            peer.told
            for peer, at in zip(self._peers, before, strict=True)
            if peer.told is not None and not peer.trouble and peer.answered_at != at
        ]

    async def _ask(self, peer: _Peer) -> None:
        if self._client is None:
            self._client = AsyncHTTPClient(
                force_instance=True, max_clients=len(self._peers), max_body_size=LARGEST_ANSWER
            )
        request = HTTPRequest(
            f"{peer.url}api/node",
            headers={"Authorization": f"token {self._token}", "Accept": "application/json"},
            connect_timeout=self._deadline,
            request_timeout=self._deadline,
            # Where a peer were to send it, the token would go along.
            follow_redirects=False,
            # A small answer could become a large one.
            decompress_response=False,
        )
        try:
            response = await self._client.fetch(request, raise_error=False)
        except Exception as error:
            # Whatever it is, its text may hold what the peer wrote; the kind is enough.
            peer.trouble = f"it does not answer ({type(error).__name__})"
            return
        if response.code != 200:
            fallback = f"it answered with status {response.code}"
            peer.trouble = _REFUSED.get(response.code, fallback)
            return
        try:
            peer.heard(read_told(response.body))
        except ValueError:
            peer.trouble = "its answer is none of this service's"

    def used(self, day: str, own: str) -> dict[str, Used]:
        """What users have used at all others on this day and in its month.

        A peer that is away counts with what it told last, while that is of this day or month.
        ``own`` is this service's peer id: who asks itself, by whichever address, learns nothing.
        """
        days: Counter[str] = Counter()
        months: Counter[str] = Counter()
        for its in self._told(day, own).values():
            for user, used in its.items():
                days[user] += used.day
                months[user] += used.month
        return {
            user: Used(min(days[user], _LARGEST_COUNT), min(months[user], _LARGEST_COUNT))
            for user in months
        }

    def _told(self, day: str, own: str) -> dict[str, dict[str, Used]]:
        """By peer id what its users have used there: each service once, by however many addresses.

        The larger number counts, so that nobody can take back what another service tells.
        """
        found: dict[str, dict[str, Used]] = {}
        for told in (peer.told for peer in self._peers):
            if told is None or told.peer_id == own or told.month != day[:7]:
                continue
            its = found.setdefault(told.peer_id, {})
            for user, used in told.users.items():
                today, known = used.day if told.day == day else 0, its.get(user, _NOTHING)
                its[user] = Used(max(today, known.day), max(used.month, known.month))
        return found

    def report(self) -> list[dict[str, Any]]:
        """Each for an administrator: ``trouble`` is empty where it has answered at last."""
        return [
            {
                "url": peer.url,
                "peer_id": peer.told.peer_id if peer.told else None,
                "answers": not peer.trouble,
                "trouble": peer.trouble,
                "answered_at": peer.answered_at,
            }
            for peer in self._peers
        ]

    def close(self) -> None:
        """Let go of the connections; safe to call twice."""
        if self._client is not None:
            self._client.close()
            self._client = None
