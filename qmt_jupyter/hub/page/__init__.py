"""The web page of the service, behind the Hub's login: one's own use, and everybody's."""

from __future__ import annotations

from asyncio import Semaphore
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tornado.web import RequestHandler

    from ..desk import Desk


def routes(desk: Desk) -> list[tuple[str, type[RequestHandler], dict[str, Any]]]:
    """The page's addresses, relative to the service's."""
    from . import handlers
    from .login import sign_in

    login = sign_in(desk.options)
    shared = {"desk": desk, "login": login}
    turns = Semaphore(handlers.READERS)
    return [
        (r"", handlers.Page, shared),
        (r"oauth_callback", handlers.SignedIn, shared),
        (r"static/([a-z_]+\.[a-z]+)", handlers.Asset, {"desk": desk}),
        (r"api/me", handlers.Me, shared),
        (r"api/state", handlers.State, shared),
        (r"api/hours", handlers.Hours, {**shared, "recent": {}, "turns": turns}),
        (r"api/usage\.csv", handlers.UsageFile, shared),
        (r"api/users", handlers.Change, shared),
    ]
