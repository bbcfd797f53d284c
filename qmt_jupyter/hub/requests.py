"""What every handler of the service does alike: errors as JSON, and who is it that asks."""

from __future__ import annotations

import json
import logging
import math
import re
from http import HTTPStatus
from typing import Any

from tornado import web

from ..errors import (
    Busy,
    ConfigurationError,
    HomeNotWritable,
    HubNotFound,
    HubRefused,
    LimitReached,
    QmtError,
    RecordsUnwritable,
    RequestInvalid,
    Stopped,
)
from ..harmless import printable
from .desk import Desk
from .person import Person
from .rights import UnknownToken

_TOKEN = re.compile(r"(?:token|bearer) +([\x21-\x7e]{1,1024})", re.IGNORECASE)
_LONGEST_BODY = 16 * 1024
_WAIT_FOR_THE_HUB = 5

# The first class that fits counts.
_STATUSES: tuple[tuple[type[QmtError], int], ...] = (
    (UnknownToken, 401),
    (HubRefused, 403),
    (HubNotFound, 503),
    (Stopped, 503),
    (RecordsUnwritable, 503),
    (Busy, 503),
    (HomeNotWritable, 503),
    (LimitReached, 429),
    (RequestInvalid, 400),
    (ConfigurationError, 400),
)

log = logging.getLogger(__name__)


class JsonHandler(web.RequestHandler):
    """A handler that is asked by programs: a token in ``Authorization``, and JSON both ways.

    Raise any :class:`~qmt_jupyter.errors.QmtError` from it: the answer has the status that fits,
    and ``{"code", "sentence", "next_step"}``. Everything else is a 500 that says nothing of itself.
    """

    def initialize(self, desk: Desk) -> None:
        """Tornado's own constructor."""
        self.desk = desk

    def set_default_headers(self) -> None:
        """Answers are for the asker alone, and nothing to be run."""
        self.set_header("Cache-Control", "no-store")
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("Referrer-Policy", "no-referrer")
        self.set_header("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
        self.clear_header("Server")

    def check_xsrf_cookie(self) -> None:
        """A page elsewhere cannot send a token in a header; cookies grant nothing here."""

    def token(self) -> str:
        """The token that was sent. Raises HubRefused (401) where there is none."""
        found = _TOKEN.fullmatch(self.request.headers.get("Authorization", "").strip())
        if found is None:
            raise UnknownToken(
                "The request shows no token of this JupyterHub.",
                next_step="Send the server's own: Authorization: token $JUPYTERHUB_API_TOKEN.",
            )
        return found[1]

    async def person(self) -> Person:
        """Who asks, by the token in the header, asked of the Hub now.

        Raises HubRefused (401: nobody's token) or HubNotFound (503).
        """
        return await self.desk.rights.ask(self.token())

    async def user(self) -> Person:
        """The same, where it is a user who may use this service; else HubRefused (403)."""
        person = await self.person()
        self.desk.require_user(person)
        return person

    def require(self, person: Person, *scopes: str) -> None:
        """Let pass who has one of ``scopes``. Raises HubRefused (403)."""
        if not person.scopes.intersection(scopes):
            raise HubRefused(
                "This token does not allow that.",
                next_step=f"It needs the scope {' or '.join(scopes)}.",
            )

    def read_json(self) -> dict[str, Any]:
        """The body's object. Raises RequestInvalid."""
        try:
            if len(self.request.body) > _LONGEST_BODY:
                raise ValueError
            value = json.loads(self.request.body.decode("utf-8"), parse_constant=_refuse)
        except (ValueError, RecursionError):
            raise RequestInvalid("The body is not JSON.") from None
        if not isinstance(value, dict):
            raise RequestInvalid("The body must be a JSON object.")
        return value

    def write_json(self, value: Any) -> None:
        """Answer with a value; text in it cannot end a script or a tag."""
        self.set_header("Content-Type", "application/json; charset=utf-8")
        text = json.dumps(value, ensure_ascii=True, allow_nan=False)
        self.finish(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))

    def log_exception(self, kind: Any, value: Any, trace: Any) -> None:
        """Only what nobody meant is worth a traceback."""
        if not isinstance(value, (QmtError, web.HTTPError)):
            log.error("%s failed", type(self).__name__, exc_info=(kind, value, trace))

    def write_error(self, status_code: int, **facts: Any) -> None:
        """Tornado's hook: the answer to an exception, of whatever kind."""
        error = (facts.get("exc_info") or (None, None, None))[1]
        if isinstance(error, QmtError):
            self._write_qmt_error(error)
            return
        self.write_json(
            {"code": "http", "sentence": f"{_reason(status_code)}.", "next_step": ""}
            if status_code < 500
            else {
                "code": "internal",
                "sentence": "The service failed while answering.",
                "next_step": "Its log says more.",
            }
        )

    def _write_qmt_error(self, error: QmtError) -> None:
        status = next((status for kind, status in _STATUSES if isinstance(error, kind)), 500)
        self.set_status(status)
        after = error.retry_after
        if after is None and status == 503:
            after = _WAIT_FOR_THE_HUB
        if after is not None:
            self.set_header("Retry-After", str(max(1, math.ceil(after))))
        if status == 401:
            self.set_header("WWW-Authenticate", "token")
        self.write_json(
            {"code": error.code, "sentence": error.sentence, "next_step": error.next_step}
        )


class Unknown(JsonHandler):
    """Whatever has no handler."""

    def prepare(self) -> None:
        """Nothing is here, by whichever method."""
        raise web.HTTPError(404)


class WithoutSlash(JsonHandler):
    """The service's address as people type it."""

    def get(self) -> None:
        """Lead to the page."""
        self.redirect(self.desk.options.prefix)


def log_access(handler: web.RequestHandler) -> None:
    """Tornado would log whole addresses, and with them what stands in their query."""
    method, path = handler.request.method or "", handler.request.path
    log.debug("%s %s %d", printable(method, 20), printable(path, 100), handler.get_status())


def _reason(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return f"Status {status}"


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
