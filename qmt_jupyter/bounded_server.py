"""A web server that whoever connects cannot fill: so many connections at once, no more."""

from __future__ import annotations

import logging
from typing import Any

from tornado.httpserver import HTTPServer
from tornado.iostream import IOStream

log = logging.getLogger(__name__)


class BoundedServer(HTTPServer):
    """Tornado's server with ``most`` connections at once; more are closed unread.

    ``what`` it is called in the log. Both are keywords; all other arguments are tornado's own.
    """

    def initialize(self, *arguments: Any, **options: Any) -> None:
        """Tornado's own constructor."""
        self._most: int = options.pop("most")
        self._what: str = options.pop("what")
        self._open = 0
        super().initialize(*arguments, **options)

    def handle_stream(self, stream: IOStream, address: tuple[Any, ...]) -> None:
        """A connection was opened."""
        if self._open >= self._most:
            log.warning("%s has %d connections: another one is refused", self._what, self._open)
            stream.close()
            return
        self._open += 1
        super().handle_stream(stream, address)

    def on_close(self, server_conn: object) -> None:
        """A connection has ended."""
        self._open -= 1
        super().on_close(server_conn)
