"""The door of the guest's endpoint: who may come in, and how everything else is said."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from typing import Any

from tornado import web
from tornado.http1connection import HTTP1Connection
from tornado.iostream import StreamClosedError

from ...errors import QmtError
from ...harmless import printable
from ...wire.frames import ASK_LIMIT
from . import errors as refusals
from .errors import NotServed
from .service import Service
from .stream import READER_PATIENCE, close_connection, encode_json

# A body beyond the limit is read to its end, and forgotten, so that the client reads the answer
# instead of a reset; up to here.
DRAINED = 16 * ASK_LIMIT

log = logging.getLogger(__name__)


@web.stream_request_body
class Door(web.RequestHandler):
    """Lets in who has the key and is no web page, and says everything else in OpenAI's shape."""

    methods: tuple[str, ...] = ("GET", "HEAD")
    needs_key = True

    def initialize(self) -> None:
        """Tornado's own place for attributes; called for each request."""
        self._refusal: NotServed | None = None
        self.received = bytearray()
        self._size = 0
        self._work: asyncio.Future[None] | None = None
        self.asked: dict[str, Any] | None = None

    @property
    def service(self) -> Service:
        """The endpoint that this request came to."""
        service: Service = self.settings["service"]
        return service

    # Coming in -------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Decide before a byte of the body is taken."""
        headers = self.request.headers
        length = self._declared_length()
        has_body = bool(length) or "Transfer-Encoding" in headers
        try:
            self._check_sender()
            if self.request.method not in self.methods and not self._is_preflight:
                raise refusals.wrong_method(*self.where)
            if self.request.method == "POST":
                kind = headers.get("Content-Type", "").partition(";")[0].strip().lower()
                if kind != "application/json":
                    raise refusals.wrong_type()
            if length > ASK_LIMIT:
                raise refusals.too_large()
        except NotServed as refusal:
            if not has_body or length > DRAINED or "Expect" in headers:
                self._let_go(length)
                raise
            self._refusal = refusal

    def _check_sender(self) -> None:
        headers = self.request.headers
        if headers.get("Host", "").lower() not in self.service.addresses:
            raise refusals.wrong_host()
        origin = headers.get("Origin")
        if origin is not None and origin not in self.service.origins:
            raise refusals.wrong_origin()
        # Browsers leave Origin out of some requests, and say it here instead.
        if origin is None and headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
            raise refusals.wrong_origin()
        if not self.needs_key or self._is_preflight:
            return
        scheme, _, given = headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not self.service.is_key(given.strip()):
            raise refusals.wrong_key(bool(given))

    @property
    def _is_preflight(self) -> bool:
        """Whether a browser asks for a page that may ask; it cannot know the key yet."""
        origin = self.request.headers.get("Origin")
        return self.request.method == "OPTIONS" and origin in self.service.origins

    def _declared_length(self) -> int:
        given = self.request.headers.get("Content-Length", "0")
        # What is no number is Tornado's to refuse.
        return int(given) if given.isascii() and given.isdigit() and len(given) < 19 else 0

    def _let_go(self, length: int) -> None:
        """Answer without the body: Tornado closes the connection after it."""
        connection = self.request.connection
        if isinstance(connection, HTTP1Connection):
            connection.set_max_body_size(max(length, DRAINED))

    def data_received(self, chunk: bytes) -> Awaitable[None] | None:
        """A piece of the body; of one that is refused nothing is kept."""
        self._size += len(chunk)
        if self._refusal is None and self._size > ASK_LIMIT:
            self._refusal = refusals.too_large()
        if self._refusal is not None:
            self.received.clear()
        else:
            self.received += chunk
        return None

    def enter(self) -> None:
        """Raise what the door decided, now that the body is read."""
        if self._refusal is not None:
            raise self._refusal

    @property
    def where(self) -> tuple[str, str]:
        """Method and path, fit to be shown."""
        return printable(self.request.method or "", 20), printable(self.request.path, 100)

    async def _turn_away(self, *_: str) -> None:
        self.enter()
        raise refusals.wrong_method(*self.where)

    get = head = post = put = patch = delete = _turn_away

    async def options(self, *_: str) -> None:
        """What a browser asks before its page may ask: only for pages that were allowed."""
        self.enter()
        self.set_header("Access-Control-Allow-Methods", ", ".join(self.methods))
        self.set_header("Access-Control-Allow-Headers", "Authorization, Content-Type, *")
        self.set_header("Access-Control-Allow-Private-Network", "true")
        self.set_header("Access-Control-Max-Age", "600")
        self.set_status(204)

    # Going out -------------------------------------------------------------------------------

    def set_default_headers(self) -> None:
        """On every response, errors included."""
        self.clear_header("Server")
        self.set_header("Cache-Control", "no-store")
        self.set_header("X-Content-Type-Options", "nosniff")
        origin = self.request.headers.get("Origin")
        if origin is not None and origin in self.service.origins:
            self.set_header("Access-Control-Allow-Origin", origin)
            self.set_header("Vary", "Origin")

    def compute_etag(self) -> None:
        """None: nothing here is cached."""

    async def send(self, data: bytes) -> None:
        """The whole response, JSON. A client that does not take it loses its connection."""
        self.set_header("Content-Type", "application/json")
        sent = self.finish(data)
        _, waiting = await asyncio.wait([asyncio.ensure_future(sent)], timeout=READER_PATIENCE)
        if waiting:
            close_connection(self)

    def write_error(self, status_code: int, **info: Any) -> None:
        """Every error that leaves a handler, in OpenAI's shape."""
        error: BaseException | None = (info.get("exc_info") or (None, None, None))[1]
        if isinstance(error, web.HTTPError):
            error = (
                refusals.wrong_method(*self.where)
                if status_code == 405
                else (refusals.invalid("The request cannot be read."))
            )
        answer = refusals.answer_for(error or RuntimeError(), self.asked)
        self.set_status(answer.status)
        for name, value in answer.headers().items():
            self.set_header(name, value)
        if answer.status == 401:
            self.set_header("WWW-Authenticate", "Bearer")
        if answer.status == 405:
            self.set_header("Allow", ", ".join(self.methods))
        self.set_header("Content-Type", "application/json")
        self.finish(encode_json(answer.body()))

    def log_exception(self, kind: Any, error: Any, trace: Any) -> None:
        """Neither headers nor bodies are logged: one has the key, the other the prompt."""
        method, path = self.where
        if isinstance(error, (QmtError, NotServed, web.HTTPError)):
            log.debug("%s %s: %s", method, path, type(error).__name__)
        elif not isinstance(error, StreamClosedError):
            log.error("%s %s failed", method, path, exc_info=(kind, error, trace))

    # Work that ends with its client ----------------------------------------------------------

    async def run(self, work: Awaitable[None]) -> None:
        """Do ``work``, which the client's going or the endpoint's closing ends."""
        running = self._work = asyncio.ensure_future(work)
        self.service.running.add(running)
        try:
            await asyncio.wait([running])
        finally:
            running.cancel()
            self.service.running.discard(running)
        if running.cancelled():
            if self.service.closing and not self._finished:
                raise self.service.closed()
            return
        running.result()

    def on_connection_close(self) -> None:
        """The client has gone."""
        super().on_connection_close()
        if self._work is not None:
            self._work.cancel()
