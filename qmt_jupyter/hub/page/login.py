"""Who is at the page: signed in at the Hub by OAuth, and asked about anew every few seconds.

The Hub's own library does the login: state, code, cookie, and the token against forged requests,
which the page carries in a ``meta`` tag and its scripts send back in a header. What is added here:
a change needs that token however it is sent (JupyterHub 5.2 lets ``no-cors`` pass), its body has to
be JSON, and the browser has to say that the request comes from this very origin.
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from jupyterhub.services.auth import HubOAuth, HubOAuthenticated
from tornado.web import HTTPError

from ...errors import HubNotFound, HubRefused, RequestInvalid
from ..person import Person, read_person
from ..requests import JsonHandler
from ..rights import UnknownToken

if TYPE_CHECKING:
    from ..desk import Desk
    from ..options import Options

REMEMBERED_S = 8
"""So many seconds what the Hub said about somebody is believed; a change always asks anew."""
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
READING = ("GET", "HEAD")


def sign_in(options: Options) -> HubOAuth:
    """The Hub's OAuth for the page of one service."""
    return HubOAuth(
        api_url=options.api_url,
        api_token=options.api_token,
        base_url=options.prefix,
        hub_prefix=options.hub_prefix,
        hub_host=options.hub_host,
        oauth_client_id=options.client_id or f"service-{options.name}",
        oauth_redirect_uri=options.callback or f"{options.prefix}oauth_callback",
        access_scopes={f"access:services!service={options.name}"},
        cache_max_age=REMEMBERED_S,
    )


class Visit(HubOAuthenticated, JsonHandler):  # type: ignore[misc]  # ships no types
    """A request from the page, or from a program with a token of the Hub's in its header."""

    # Tornado gives each route's arguments to it, so that it differs from class to class.
    def initialize(self, desk: Desk, login: HubOAuth) -> None:  # type: ignore[override]
        """Take what all handlers of the page share."""
        super().initialize(desk)
        self.hub_auth = login

    def set_default_headers(self) -> None:
        """Let a browser load from here alone, and keep nothing."""
        super().set_default_headers()
        for name, value in HEADERS.items():
            self.set_header(name, value)

    def check_xsrf_cookie(self) -> None:
        """Refuse a forged request; one with a token in its header stands or falls with that."""
        if not self._shows_token():
            super().check_xsrf_cookie()

    def _shows_token(self) -> bool:
        return bool(self.hub_auth.get_token(self, in_cookie=False))

    async def visitor(self) -> Person | None:
        """Whoever asks and may use the service; None for somebody who is not signed in.

        Raises HubNotFound (503) where the Hub cannot be asked, HubRefused (403) where it says no.
        """
        person = await self._known(self.hub_auth.get_user(self, sync=False))
        if self._shows_token() and not getattr(self, "_token_authenticated", False):
            return None
        return person

    async def _known(self, asked: Awaitable[dict[str, Any] | None]) -> Person | None:
        try:
            model = await asked
            if model is None:
                return None
            person = read_person(model)
        except (HTTPError, ValueError):
            raise HubNotFound(
                "The JupyterHub cannot be asked who this is.",
                next_step="Try again in a moment.",
            ) from None
        if not person.may_access(self.desk.options.name):
            raise HubRefused(
                "This JupyterHub does not let you use this service.",
                next_step="Ask whoever runs the Hub.",
            )
        return person

    async def person(self) -> Person:
        """Whoever asks. Raises HubRefused (401, 403) or HubNotFound (503)."""
        person = await self.visitor()
        if self.request.method not in READING:
            self._refuse_forged()
            if person is not None:
                token = self.hub_auth.get_token(self)
                person = await self._known(
                    self.hub_auth.user_for_token(token, use_cache=False, sync=False)
                )
        if person is None:
            raise UnknownToken(
                "You are signed out of this page.", next_step="Load it again to sign in."
            )
        return person

    async def admin(self) -> Person:
        """An admin of the service. Raises HubRefused (401, 403) or HubNotFound (503)."""
        person = await self.person()
        if not person.admin:
            raise HubRefused("This is for the admins of the service.", next_step="")
        return person

    def _refuse_forged(self) -> None:
        # No browser sends a token in a header by itself, so a program may ask from anywhere.
        if getattr(self, "_token_authenticated", False):
            return
        given = self.request.headers.get("X-XSRFToken", "").encode("utf-8", "replace")
        if not hmac.compare_digest(given, self.xsrf_token) or not self._from_here():
            raise HubRefused(
                "This request does not come from the page.", next_step="Load the page again."
            )

    def _from_here(self) -> bool:
        headers = self.request.headers
        site, origin = headers.get("Sec-Fetch-Site"), headers.get("Origin")
        if site is not None or origin is None:
            return site == "same-origin"
        # A browser on plain HTTP sends the origin alone.
        host = urlsplit(origin).netloc
        return host != "" and host in (headers.get("Host"), headers.get("X-Forwarded-Host"))

    def sent(self) -> dict[str, Any]:
        """The JSON object of the body. Raises RequestInvalid."""
        kind = self.request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise RequestInvalid("The body is not marked as application/json.")
        return self.read_json()
