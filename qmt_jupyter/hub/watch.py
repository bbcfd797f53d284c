"""Keeps the tokens by which seats were given, in memory alone, and has the Hub asked about them.

A seat holds as long as one of the tokens that it was asked for with does: two servers of one user
can share a home, and with it the guest's identity.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from ..errors import HubNotFound, HubRefused
from .person import Person
from .rights import Rights

Seat = tuple[str, str]
"""A user and the peer id of a guest."""

_MOST_TOKENS = 8  # of one seat; the oldest goes
# Of the time between two questions, so that those who came together are not asked about together.
_SOONEST = 0.7
_WARN_EVERY = 60.0

log = logging.getLogger(__name__)


@dataclass
class _Held:
    """One seat. ``until`` is when it ends by itself, in seconds since 1970."""

    until: float
    tokens: dict[str, None] = field(default_factory=dict)  # the newest last


class Watch:
    """Asks about each token of a seat in use within ``every`` seconds.

    ``still`` is awaited with the person and the guest when the Hub knows the token, ``gone`` with
    the seat when it knows none of its tokens any more. A Hub that gives no answer ends nothing.
    """

    def __init__(
        self,
        rights: Rights,
        every: float,
        still: Callable[[Person, str], Awaitable[None]],
        gone: Callable[[str, str], Awaitable[None]],
    ) -> None:
        self._rights = rights
        self._every = every
        self._still = still
        self._gone = gone
        self._held: dict[Seat, _Held] = {}
        self._due: dict[str, float] = {}  # by token: when to ask, by the steady clock
        self._asking: dict[str, asyncio.Task[None]] = {}
        self._answers = True
        self._warned = float("-inf")

    def remember(self, person: Person, guest: str, token: str, until: float) -> None:
        """A seat was asked for with this token, which the Hub has just answered for."""
        held = self._held.pop((person.name, guest), None) or _Held(until)
        held.until = until
        held.tokens.pop(token, None)
        held.tokens[token] = None
        for oldest in list(held.tokens)[:-_MOST_TOKENS]:
            del held.tokens[oldest]
        # The one renewed last stands last.
        self._held[person.name, guest] = held
        self._due[token] = self._next()

    def forget(self, user: str, guest: str) -> None:
        """The seat is given up, or was ended."""
        self._held.pop((user, guest), None)

    def guests(self, user: str) -> list[str]:
        """The guests of a user that have a seat, the one renewed last at the end."""
        return [guest for name, guest in self._held if name == user]

    def holds(self, seat: Seat) -> bool:
        """Whether there is a token by which the seat was given."""
        return seat in self._held

    def look(self, in_use: set[Seat]) -> None:
        """Ask about what is due, and let go of what is over."""
        now, clock = time.time(), time.monotonic()
        for seat, held in list(self._held.items()):
            if held.until <= now and seat not in in_use:
                del self._held[seat]
        known = {token for held in self._held.values() for token in held.tokens}
        self._due = {token: at for token, at in self._due.items() if token in known}
        wanted = {
            token for seat in in_use if seat in self._held for token in self._held[seat].tokens
        }
        for token in wanted:
            if self._due.get(token, 0.0) <= clock and token not in self._asking:
                task = asyncio.ensure_future(self._ask(token))
                self._asking[token] = task

    def _next(self) -> float:
        return time.monotonic() + self._every * random.uniform(_SOONEST, 1.0)  # noqa: S311

    async def _ask(self, token: str) -> None:
        try:
            person = await self._rights.ask(token, again=True)
        except HubNotFound as error:
            now = time.monotonic()
            # A Hub that answers now and then would fill the log, a line for each token.
            if self._answers and now - self._warned >= _WARN_EVERY:
                log.warning("%s Seats stay until they end by themselves.", error.sentence)
                self._answers, self._warned = False, now
        except HubRefused:
            await self._drop(token)
        except Exception:
            log.exception("asking the Hub failed")
        else:
            if not self._answers:
                log.info("The JupyterHub answers again.")
            self._answers = True
            await self._tell(token, person)
        self._due[token] = self._next()
        self._asking.pop(token, None)

    async def _tell(self, token: str, person: Person) -> None:
        for (user, guest), held in list(self._held.items()):
            if token not in held.tokens:
                continue
            try:
                if user == person.name:
                    await self._still(person, guest)
                else:  # The user has another name now, and its seats with it.
                    await self._gone(user, guest)
            except Exception:
                log.exception("a seat could not be looked after")

    async def _drop(self, token: str) -> None:
        for (user, guest), held in list(self._held.items()):
            if token not in held.tokens:
                continue
            if len(held.tokens) > 1:
                del held.tokens[token]
                continue
            try:
                # The token stays known until the seat has ended, so that it is tried again.
                await self._gone(user, guest)
            except Exception:
                log.exception("a seat could not be ended")

    async def close(self) -> None:
        """End all questions."""
        asking = list(self._asking.values())
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
        self._asking.clear()
