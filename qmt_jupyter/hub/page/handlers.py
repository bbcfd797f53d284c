"""The page and what its scripts ask for.

``GET .``, ``GET oauth_callback``, ``GET static/…``, ``GET api/me``, ``GET api/state`` (admins),
``GET api/hours``, ``GET api/usage.csv`` (admins), ``POST api/users`` (admins).

The name of the user to change stands in the body of ``api/users``: as a part of the path ``..`` and
``a/b`` would not arrive, since browsers and proxies tidy paths up, percent-encoded or not.
"""

from __future__ import annotations

import time
from asyncio import Semaphore
from functools import cache
from importlib.resources import files
from typing import Any

from jupyterhub.services.auth import HubOAuthCallbackHandler
from tornado.template import Template
from tornado.web import HTTPError

from ... import __version__
from ...errors import HubNotFound, HubRefused, RequestInvalid
from ..person import LONGEST_NAME
from ..requests import JsonHandler
from .login import Visit
from .standing import standing
from .usage_csv import usage_csv

MOST_DAYS = 31
KEPT_S = 10
MOST_KEPT = 1000
READERS = 2
Recent = dict[tuple[str | None, int], dict[str, Any]]
DAY_S = 86_400
KINDS = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
HERE = files(__package__)


@cache
def _assets() -> dict[str, bytes]:
    """What the page loads, by name; nothing else in the folder or beyond can be asked for."""
    folder = HERE / "static"
    return {
        each.name: each.read_bytes()
        for each in folder.iterdir()
        if each.name.rpartition(".")[2] in KINDS
    }


@cache
def _template(name: str) -> Template:
    return Template((HERE / name).read_text(encoding="utf-8"), name=name)


class Page(Visit):
    """The page itself. Somebody who is not signed in goes to the Hub and comes back."""

    async def get(self) -> None:
        """Show it: an admin's has more parts and one more script."""
        person = await self.visitor()
        if person is None:
            self.redirect(self.get_login_url())
            return
        self.show(
            "page.html",
            service=self.desk.options.name,
            user=person.name,
            admin=person.admin,
            version=__version__,
            xsrf=self.xsrf_token.decode("ascii"),
            hub=f"{self.hub_auth.hub_host}{self.hub_auth.hub_prefix}home",
        )

    def show(self, name: str, **values: Any) -> None:
        """Fill in a template of this folder; every value is escaped."""
        self.set_header("Content-Type", "text/html; charset=utf-8")
        self.finish(_template(name).generate(**values))

    def write_json(self, value: Any) -> None:
        """What would be an error in JSON is one sentence on a page."""
        self.show("problem.html", **value)


class SignedIn(HubOAuthCallbackHandler, Page):  # type: ignore[misc]  # ships no types
    """Where the Hub sends a browser back to. The library checks state and code."""

    async def get(self) -> None:
        """Finish signing in, and go to the page."""
        try:
            # The library would ask, and hold everything up until the Hub has answered.
            self.current_user = await self.visitor()
        except (HubRefused, HubNotFound):
            self.current_user = None
        try:
            await super().get()
        except HTTPError as failed:
            # The library's sentences are for developers, and may name addresses of the Hub.
            if failed.status_code >= 500:
                raise HubNotFound(
                    "The JupyterHub did not say who has signed in.",
                    next_step="Open the page again in a moment.",
                ) from None
            raise HubRefused(
                "Signing in did not come to its end.", next_step="Open the page again."
            ) from None


class Asset(JsonHandler):
    """A script or a style sheet. The same for everybody, so nobody is asked who they are."""

    def get(self, name: str) -> None:
        """Send it; a browser asks again each time whether it is still the newest."""
        content = _assets().get(name)
        if content is None:
            raise HTTPError(404)
        self.set_header("Cross-Origin-Resource-Policy", "same-origin")
        self.set_header("Cache-Control", "no-cache")
        self.set_header("Content-Type", f"{KINDS[name.rpartition('.')[2]]}; charset=utf-8")
        self.finish(content)


class Me(Visit):
    """One's own use and limits."""

    async def get(self) -> None:
        """Answer with the user's entry of :meth:`Desk.me`.

        Besides: ``standing`` (may the user ask now?), the ``offered`` models of those that the
        user may ask, the ``zone`` of hours and days, and the service's clock, ``now``.
        """
        person = await self.person()
        self.desk.require_user(person)
        entry = await self.desk.me(person)
        known, now = self.desk.person_called(person.name), time.time()
        allowance = self.desk.allowance(known)
        models = (await self.desk.host.activity())["models"]
        names = [each["name"] for each in models]
        self.write_json(
            {
                **entry,
                "standing": standing(entry, allowance, now),
                "offered": [n for n in names if not allowance.models or n in allowance.models],
                "zone": allowance.zone,
                "now": now,
            }
        )


class State(Visit):
    """Everybody's use, the models and the load, for admins."""

    async def get(self) -> None:
        """Answer with :meth:`Desk.state`."""
        await self.admin()
        state = await self.desk.state()
        self.write_json({**state, "zone": self.desk.policy.zone, "now": time.time()})


class Hours(Visit):
    """Tokens by hour: ``days`` back (1 to 31, 7 when left out), of oneself.

    An admin may ask for another's (``user=``) or for everybody's (``everybody=1``).
    """

    def initialize(  # type: ignore[override]  # the route's own arguments
        self, recent: Recent, turns: Semaphore, **shared: Any
    ) -> None:
        """Take what was read lately, and turns to read, which are few."""
        super().initialize(**shared)
        self.recent, self.turns = recent, turns

    async def get(self) -> None:
        """Answer ``{"since", "now", "hours": [[start, prompt, answer]]}``, seconds since 1970."""
        person = await self.person()
        whose: str | None = self.get_query_argument("user", person.name, strip=False)
        if self.get_query_argument("everybody", "") == "1":
            whose = None
        if (whose != person.name or person.is_service) and not person.admin:
            raise HubRefused("This is for the admins of the service.", next_step="")
        asked = self.get_query_argument("days", "7")
        days = int(asked) if asked.isascii() and asked.isdigit() and len(asked) < 3 else 0
        if not 1 <= days <= MOST_DAYS:
            raise RequestInvalid(f"The days are a number from 1 to {MOST_DAYS}.")
        self.write_json(await self.read(whose, days))

    async def read(self, whose: str | None, days: int) -> dict[str, Any]:
        """Look it up, unless that was done just now: each time the records are read anew.

        Those who ask for the same while it is looked up wait for their turn, and find it done.
        """
        if (kept := self.kept(whose, days)) is not None:
            return kept
        async with self.turns:
            if (kept := self.kept(whose, days)) is not None:
                return kept
            now = time.time()
            since = (now - days * DAY_S) // 3600 * 3600
            hours = await self.desk.host.hours(since, whose)
            while len(self.recent) >= MOST_KEPT:
                del self.recent[next(iter(self.recent))]
            read = {"since": since, "now": now, "hours": hours}
            self.recent[whose, days] = read
        return read

    def kept(self, whose: str | None, days: int) -> dict[str, Any] | None:
        """What was read within the last seconds, if anything was."""
        kept = self.recent.get((whose, days))
        return kept if kept is not None and 0 <= time.time() - kept["now"] < KEPT_S else None


class UsageFile(Visit):
    """Everybody's use as a CSV file, for admins."""

    async def get(self) -> None:
        """Send it as a download."""
        await self.admin()
        state = await self.desk.state()
        day = time.strftime("%Y-%m-%d", time.gmtime())
        self.set_header("Content-Type", "text/csv; charset=utf-8")
        self.set_header("Content-Disposition", f'attachment; filename="qmt-usage-{day}.csv"')
        self.finish(usage_csv(state["users"]))


class Change(Visit):
    """Pause a user, let them go on, change their limits or go back to the policy; for admins.

    The body: ``{"user": NAME}`` with ``"paused": bool`` and/or ``"limits": {…}``, null for those of
    the policy. Of the two, what is left out stays as it is; limits take the place of all that were
    set before, and those that are not among them are the policy's.
    """

    async def post(self) -> None:
        """Change it at once, and answer with the user's new entry."""
        await self.admin()
        body = self.sent()
        user = body.pop("user", None)
        if not isinstance(user, str) or not 1 <= len(user) <= LONGEST_NAME:
            raise RequestInvalid(f"The user is a name of 1 to {LONGEST_NAME} characters.")
        if not body or not set(body) <= {"paused", "limits"}:
            raise RequestInvalid("A change is of paused, of limits, or of both.")
        if not isinstance(body.get("paused", False), bool):
            raise RequestInvalid("What paused is set to is neither true nor false.")
        if not isinstance(body.get("limits", {}), dict | None):
            raise RequestInvalid("The limits are neither an object nor null.")
        self.write_json(await self.desk.change(user, **body))
