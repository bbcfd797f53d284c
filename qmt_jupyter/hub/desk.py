"""The service's state: who has a seat, what each may take, and what administrators change."""

from __future__ import annotations

import asyncio
import enum
import logging
import time
from dataclasses import dataclass
from typing import Any
from weakref import WeakValueDictionary

from .. import aio
from ..errors import HubRefused, RecordsUnwritable, RequestInvalid, RequestRateReached
from ..facade import Allowance
from ..harmless import printable
from ..identity import peer_id
from .options import Options
from .overrides import Override, Overrides
from .peers import Peers
from .person import Person
from .policy import Policy, read_limits
from .rights import Rights
from .watch import Watch

SEAT_LIFETIME = 900
"""Seconds that a seat lives without being renewed."""
RENEW_EVERY = 300
"""Seconds after which a guest had better renew it."""
LOOK = 1.0
"""For so many seconds one look at the host serves everybody who asks for their own use: for five
hundred users it takes the host 10 ms, in which it sends nothing."""
MOST_SEATS = 16
"""So many guests of one user have a seat at a time; the one longest not renewed makes room."""
MOST_ASKED = 60
"""So many times a minute one user can ask for seats: each writes to the host's records."""
MOST_GIVEN_UP = 120
"""So many times a minute one user can give seats up: each takes a look at the host's users."""
FAREWELL = 0.5
"""Seconds that the end of a guest's connection may come after its seat was given up."""
RENEWED_WITHIN = 60.0
"""Seconds after its start in which a service wants the seats of its former run renewed, at most."""
_LOST = "The JupyterHub does not let you use this service any more."
_NOT_RENEWED = "The service was started anew, and the seat was not renewed."

log = logging.getLogger(__name__)


class Unchanged(enum.Enum):
    """Says that something stays as it is, where None says that it goes."""

    UNCHANGED = enum.auto()


UNCHANGED = Unchanged.UNCHANGED


@dataclass(frozen=True)
class Seated:
    """A seat that was given: the link that the guest joins by, and when it ends."""

    link: str
    user: str
    expires_at: int

    def __repr__(self) -> str:
        return f"<Seated {self.user!r}>"


class Desk:
    """What the handlers stand before. Lives in the web server's loop; the host has its own."""

    def __init__(
        self,
        host: aio.Host,
        *,
        policy: Policy,
        overrides: Overrides,
        rights: Rights,
        options: Options,
    ) -> None:
        self.host = host
        self.policy = policy
        self.overrides = overrides
        self.rights = rights
        self.options = options
        self.name = options.name
        self.peers = Peers(options.peers, options.api_token)
        self.started = time.time()
        self._watch = Watch(rights, options.recheck, self._still_here, self._gone)
        self._people: dict[str, Person] = {}
        self._asked: dict[tuple[str, str], list[float]] = {}  # when, by the steady clock
        self._seen: asyncio.Future[list[dict[str, Any]]] | None = None
        self._seen_at = 0.0
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    # Who may -------------------------------------------------------------------------------

    def may_use(self, person: Person) -> bool:
        """Whether it is a user with access to the service, in one of the groups it is for."""
        return not person.is_service and person.may_access(self.name) and self.policy.allows(person)

    def require_user(self, person: Person) -> None:
        """Raises HubRefused with the reason why the person may not use the service."""
        if person.is_service:
            raise HubRefused(
                "This token belongs to a service of the Hub, not to a user.",
                next_step="Send the token of a user's server.",
            )
        if not person.may_access(self.name):
            raise HubRefused(
                f"{printable(person.name, 80)} has no access to the service {self.name} with this "
                "token.",
                next_step="Ask whoever runs the JupyterHub; a server that was started before the "
                "access was given has to be restarted.",
            )
        if not self.policy.allows(person):
            raise HubRefused(
                f"{printable(person.name, 80)} is in none of the groups that may use this service.",
            )

    # Seats ---------------------------------------------------------------------------------

    async def seat(self, person: Person, guest: str, token: str) -> Seated:
        """A seat for the guest identity ``guest``, or the same one for longer.

        ``token`` is asked about again and again while the seat is in use; it is kept in memory
        alone. Raises HubRefused, RequestInvalid, RequestRateReached or what the host raises.
        """
        self.require_user(person)
        _require_guest(guest)
        self._require_pace(person.name, "asked for", MOST_ASKED)
        async with self._turn(person.name):
            self._people[person.name] = person
            self._watch.remember(person, guest, token, time.time() + SEAT_LIFETIME)
            for oldest in self._watch.guests(person.name)[:-MOST_SEATS]:
                self._watch.forget(person.name, oldest)
                await self.host.end_seat(person.name, oldest)
            allowance = self.allowance(person)
            made = await self.host.seat(person.name, guest, allowance, lifetime=SEAT_LIFETIME)
        return Seated(made.url, person.name, made.expires_at or 0)

    def _require_pace(self, user: str, what: str, most: int) -> None:
        now = time.monotonic()
        asked = [each for each in self._asked.get((user, what), ()) if each > now - 60]
        if len(asked) >= most:
            raise RequestRateReached(
                f"{printable(user, 80)} has {what} seats {most} times within a minute.",
                retry_after=asked[0] + 60 - now,
            )
        self._asked[user, what] = [*asked, now]

    async def give_up(self, person: Person, guest: str) -> None:
        """End a seat of the person's own; nothing happens where there is none.

        Nor where somebody is connected by it: another kernel of the same home, or a terminal.
        Raises RequestRateReached.
        """
        _require_guest(guest)
        self._require_pace(person.name, "given up", MOST_GIVEN_UP)
        began = time.monotonic()
        if not await self._end_unused(person.name, guest):
            await asyncio.sleep(FAREWELL)
            # Who has asked for a seat meanwhile need not be connected yet.
            if self._asked.get((person.name, "asked for"), [0.0])[-1] < began:
                await self._end_unused(person.name, guest)

    async def _end_unused(self, user: str, guest: str) -> bool:
        async with self._turn(user):
            if (await self._live()).get((user, guest)):
                return False
            self._watch.forget(user, guest)
            await self.host.end_seat(user, guest, sentence="The seat was given up.")
            return True

    async def _still_here(self, person: Person, guest: str) -> None:
        """The Hub was asked again and knows the token: is everything as it was?"""
        if not self.may_use(person):
            await self._gone(person.name, guest)
            return
        before = self._people.get(person.name)
        self._people[person.name] = person
        if before is None or before.groups != person.groups:
            await self.apply([person.name])

    async def _gone(self, user: str, guest: str) -> None:
        log.info("%s has lost the right to a seat", printable(user, 80))
        async with self._turn(user):
            await self.host.end_seat(user, guest, sentence=_LOST)
            self._watch.forget(user, guest)

    def _turn(self, user: str) -> asyncio.Lock:
        """One thing at a time is done with a user's seats, so that the newest word is the last."""
        turn = self._turns.get(user)
        if turn is None:
            turn = self._turns[user] = asyncio.Lock()
        return turn

    # Allowances ----------------------------------------------------------------------------

    def allowance(self, person: Person) -> Allowance:
        """What the person may take, by the policy and by what administrators have changed."""
        return self._allowed(person)[0]

    def _allowed(self, person: Person) -> tuple[Allowance, dict[str, str]]:
        changed = self.overrides.of(person.name)
        allowance, rules = self.policy.allowance(person, changed.limits, paused=changed.paused)
        return allowance, {**rules, "paused": "admin" if changed.paused else "default"}

    def person_called(self, user: str) -> Person:
        """The user as the Hub described it last; without groups where it has not yet."""
        return self._people.get(user) or Person(user)

    async def change(
        self,
        user: str,
        *,
        paused: bool | None = None,
        limits: dict[str, Any] | Unchanged | None = UNCHANGED,
    ) -> dict[str, Any]:
        """Pause a user or let it go on, and set limits in place of the policy's, at once.

        ``limits`` None: back to the policy; a limit that is None (or 0) in it: no limit. Returns
        the user's entry as in :meth:`state`. Raises OptionInvalid.
        """
        before = self.overrides.of(user)
        wanted = before.limits if isinstance(limits, Unchanged) else limits
        if isinstance(limits, dict):
            wanted = read_limits(limits, self.policy.zone) or None
        kept_paused = before.paused if paused is None else paused
        self.overrides.put(user, Override(kept_paused, wanted))
        await self.apply([user])
        return await self._entry(user)

    async def apply(self, users: list[str]) -> None:
        """Have the host follow what is changed for these users now.

        Raises RecordsUnwritable where it holds for all of them and could not be recorded yet.
        """
        unwritten: RecordsUnwritable | None = None
        for user in users:
            async with self._turn(user):
                try:
                    await self.host.allow(user, self.allowance(self.person_called(user)))
                except RecordsUnwritable as error:
                    unwritten = error
        self._seen = None
        if unwritten is not None:
            raise unwritten

    async def take(self, changes: list[Any]) -> None:
        """Follow what administrators have changed at another service of this Hub."""
        await self.apply(self.overrides.take(changes))

    # What there is to see ------------------------------------------------------------------

    async def state(self) -> dict[str, Any]:
        """Everything that an administrator sees, as plain values ready for JSON."""
        activity = await self.host.activity()
        seen = {each["user"]: each for each in await self.host.seats()}
        for user in self.overrides.users():
            seen.setdefault(user, self._nothing_yet(user))
        users = [self._explained(each) for each in seen.values()]
        return {
            "service": self.name,
            "peer_id": self.host.peer_id,
            "models": activity["models"],
            "users": users,
            "totals": _totals(users),
            "peers": self.peers.report(),
        }

    async def me(self, person: Person) -> dict[str, Any]:
        """The person's own entry; everything 0 where it has asked for nothing yet."""
        self._people.setdefault(person.name, person)
        return await self._entry(person.name)

    async def _entry(self, user: str) -> dict[str, Any]:
        found = next((each for each in await self._seats() if each["user"] == user), None)
        return self._explained(found or self._nothing_yet(user))

    async def _seats(self) -> list[dict[str, Any]]:
        now = time.monotonic()
        if self._seen is None or now - self._seen_at > LOOK:
            self._seen_at = now
            self._seen = asyncio.ensure_future(self.host.seats())
        return await asyncio.shield(self._seen)

    def _explained(self, entry: dict[str, Any]) -> dict[str, Any]:
        person = self.person_called(entry["user"])
        allowance, rules = self._allowed(person)
        changed = self.overrides.of(person.name)
        return {
            **entry,
            "allowance": allowance.as_dict(),
            "paused": allowance.paused,
            "rules": rules,
            "groups": sorted(person.groups),
            "limits": changed.as_dict()["limits"],
            "policy": self.policy.allowance(person)[0].as_dict(),
        }

    def _nothing_yet(self, user: str) -> dict[str, Any]:
        allowance = self.allowance(self.person_called(user))
        counts = (
            "requests", "prompt_tokens", "completion_tokens", "tokens_today", "tokens_month",
            "running", "waiting",
        )  # fmt: skip
        return {
            "user": user,
            "allowance": allowance.as_dict(),
            "paused": allowance.paused,
            "seats": [],
            **dict.fromkeys(counts, 0),
            "elsewhere": {"day": 0, "month": 0},
            "left": {"day": allowance.tokens_per_day, "month": allowance.tokens_per_month},
            "tokens_per_second": 0.0,
            "last_seen": None,
        }

    # Its life ------------------------------------------------------------------------------

    async def run(self) -> None:
        """Look after the seats until cancelled: ask the Hub again, and end what nobody renews."""
        grace = time.monotonic() + min(3 * self.options.recheck, RENEWED_WITHIN)
        try:
            await self._pause_again()
            while True:
                await asyncio.sleep(min(1.0, self.options.recheck / 5))
                try:
                    await self._look(time.monotonic() >= grace)
                except Exception:
                    log.exception("the seats could not be looked after")
        finally:
            await self._watch.close()

    async def _pause_again(self) -> None:
        """Whom an administrator paused, if the former run ended before its host had written it."""
        try:
            seated = {user for user, _ in await self._live()}
            await self.apply(sorted(u for u in seated if self.overrides.of(u).paused))
        except Exception:
            log.exception("the seats of a former run could not be looked after")

    async def _live(self) -> dict[tuple[str, str], int]:
        """The seats that have not ended, and how many connections each has."""
        now = time.time()
        return {
            (each["user"], seat["guest"]): seat["connections"]
            for each in await self.host.seats()
            for seat in each["seats"]
            if seat["expires_at"] > now
        }

    async def _look(self, unknown_ones_end: bool) -> None:
        """``unknown_ones_end``: so do seats from before the start that were not renewed since."""
        live = await self._live()
        minute_ago = time.monotonic() - 60
        self._asked = {who: asked for who, asked in self._asked.items() if asked[-1] > minute_ago}
        self._watch.look({seat for seat, connections in live.items() if connections})
        if unknown_ones_end:
            for user, guest in live:
                if not self._watch.holds((user, guest)):
                    async with self._turn(user):
                        if not self._watch.holds((user, guest)):
                            await self.host.end_seat(user, guest, sentence=_NOT_RENEWED)

    def __repr__(self) -> str:
        return f"<Desk {self.name} of {self.host.peer_id[-8:]}>"


def _require_guest(guest: str) -> None:
    try:
        peer_id.from_text(guest)
    except ValueError:
        raise RequestInvalid("The guest is not a peer id.") from None


def _totals(users: list[dict[str, Any]]) -> dict[str, Any]:
    summed = ("requests", "running", "waiting", "tokens_today", "tokens_month")
    totals: dict[str, Any] = {key: sum(each[key] for each in users) for key in summed}
    totals["tokens_per_second"] = sum(each["tokens_per_second"] for each in users)
    totals["users"] = len(users)
    totals["connected"] = sum(any(seat["connections"] for seat in each["seats"]) for each in users)
    totals["paused"] = sum(each["paused"] for each in users)
    return totals
