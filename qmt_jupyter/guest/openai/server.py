"""A local OpenAI-compatible server in front of a mesh, for a guest's other tools.

Listens on 127.0.0.1 alone and has a key of its own, fresh each time. Lives in the runtime's loop.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import anyio
from tornado import web
from tornado.httpserver import HTTPServer

from ...bounded_server import BoundedServer
from ...errors import OptionInvalid, PortInUse
from ...harmless import printable
from ...providers.secret import Secret
from ...wire.frames import ASK_LIMIT
from .door import DRAINED
from .handlers import ROUTES, Unknown
from .service import Answering, Service

ADDRESS = "127.0.0.1"
MOST_CONNECTIONS = 512
_LARGEST_HEAD = 16 * 1024
# Seconds: for a request's head to be complete, and for a connection to be without a request.
_IDLE = 30.0
# Seconds for a request's body to be complete.
_BODY_DEADLINE = 60.0
_READ_AT_ONCE = 64 * 1024
# Seconds for running answers to say that the endpoint closes.
_GOODBYE = 2.0

# A web page's, or an editor's (vscode-file://vscode-app): a scheme, a place, and no path.
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[A-Za-z0-9_.:\[\]-]+")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Options:
    """``port`` 0: a free one. ``origins``: web pages that may use it, e.g. http://localhost:3000.

    Raises :class:`~qmt_jupyter.errors.OptionInvalid`.
    """

    port: int = 0
    origins: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.port < 65536:
            raise OptionInvalid(f"{self.port} is not a port; 1 to 65535 are.")
        for origin in self.origins:
            if not _ORIGIN.fullmatch(origin):
                raise OptionInvalid(
                    f"{printable(str(origin), 100)!r} is not an origin.",
                    next_step="Write it as the browser sends it, e.g. http://localhost:3000.",
                )


class OpenAIServer:
    """One listening endpoint. Its repr, logs and errors do not show the key."""

    def __init__(self, service: Service, key: Secret, server: HTTPServer, port: int) -> None:
        self._service = service
        self._key = key
        self._server: HTTPServer | None = server
        self._after: list[Callable[[], None]] = []
        self.port = port

    @classmethod
    async def start(cls, look: Callable[[], Sequence[Answering]], options: Options) -> OpenAIServer:
        """Listen. ``look`` is called at each request: it says who answers at the moment.

        Raises :class:`~qmt_jupyter.errors.PortInUse`.
        """
        key = Secret(f"qmt-{secrets.token_urlsafe(32)}")
        service = Service(look, key, frozenset(options.origins), int(time.time()))
        application = web.Application(
            ROUTES,
            default_handler_class=Unknown,
            log_function=_log_access,
            service=service,
        )
        server = BoundedServer(
            application,
            chunk_size=_READ_AT_ONCE,
            max_header_size=_LARGEST_HEAD,
            idle_connection_timeout=_IDLE,
            body_timeout=_BODY_DEADLINE,
            max_body_size=DRAINED,
            max_buffer_size=2 * ASK_LIMIT,
            most=MOST_CONNECTIONS,
            what="the endpoint",
        )
        listening = _listen(options.port)
        port: int = listening.getsockname()[1]
        names = [f"{name}:{port}" for name in (ADDRESS, "localhost", "[::1]")]
        if port == 80:
            names += [ADDRESS, "localhost", "[::1]"]
        service.addresses = frozenset(names)
        server.add_sockets([listening])
        return cls(service, key, server, port)

    @property
    def base_url(self) -> str:
        """What a tool takes as OpenAI's base URL."""
        return f"http://{ADDRESS}:{self.port}/v1"

    @property
    def api_key(self) -> str:
        """The key; whoever has it on this machine can ask what this guest can."""
        return self._key.reveal()

    @property
    def is_open(self) -> bool:
        """Whether it has not been closed."""
        return self._server is not None

    @property
    def models(self) -> list[str]:
        """The names of the models that it offers now."""
        return [each["name"] for each in self._service.models()]

    def on_close(self, call: Callable[[], None]) -> None:
        """Have ``call`` called once, when the endpoint closes."""
        self._after.append(call)

    async def close(self) -> None:
        """Stop listening, end what runs here and on the hosts; safe to call twice."""
        server, self._server = self._server, None
        if server is None:
            return
        self._service.closing = True
        for call in self._after:
            call()
        server.stop()
        running = tuple(self._service.running)
        for work in running:
            work.cancel()
        if running:
            await asyncio.wait(running, timeout=_GOODBYE)
            # The handlers, which wait for this work, have their last word to write.
            await asyncio.sleep(0.05)
        with anyio.move_on_after(_GOODBYE):
            await server.close_all_connections()

    def __repr__(self) -> str:
        return f"<OpenAIServer {self.base_url if self.is_open else 'closed'}>"


def _listen(port: int) -> socket.socket:
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        # On Windows the one option would let others take the port too, and the other forbids it.
        exclusive = getattr(socket, "SO_EXCLUSIVEADDRUSE", None)
        listening.setsockopt(socket.SOL_SOCKET, exclusive or socket.SO_REUSEADDR, 1)
        listening.setblocking(False)
        listening.bind((ADDRESS, port))
        listening.listen(MOST_CONNECTIONS)
    except OSError as error:
        listening.close()
        raise PortInUse(
            f"The endpoint cannot listen on port {port} of this machine ({error.strerror})."
        ) from None
    return listening


def _log_access(handler: web.RequestHandler) -> None:
    """Tornado would log whole addresses, at a level that people see."""
    method, path = handler.request.method or "", handler.request.path
    log.debug("%s %s %d", printable(method, 20), printable(path, 100), handler.get_status())
