"""The service's web application, put together from its parts."""

from __future__ import annotations

import os
import re
from types import ModuleType
from typing import Any

from tornado import web

from . import admission, page, scrape, together, tunnel
from .desk import Desk
from .requests import Unknown, WithoutSlash, log_access

PARTS: tuple[ModuleType, ...] = (admission, page, scrape, together, tunnel)
"""Modules with ``routes(desk)``: patterns relative to the prefix, handler classes, arguments."""


def make_app(desk: Desk, **settings: Any) -> web.Application:
    """The application; ``settings`` are tornado's own.

    Cookies are signed with a key of this start alone: after a restart the Hub logs in anew, which
    takes a redirect and no question.
    """
    prefix = re.escape(desk.options.prefix)
    routes: list[tuple[str, type[web.RequestHandler], dict[str, Any]]] = [
        (prefix + pattern, handler, arguments)
        for part in PARTS
        for pattern, handler, arguments in part.routes(desk)
    ]
    routes.append((prefix.rstrip("/"), WithoutSlash, {"desk": desk}))
    return web.Application(
        routes,
        default_handler_class=Unknown,
        default_handler_args={"desk": desk},
        log_function=log_access,
        cookie_secret=os.urandom(32),
        xsrf_cookies=True,
        **settings,
    )
