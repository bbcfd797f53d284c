"""The service's life: listen, load the model, give seats, and end when told to."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import signal
import socket
from collections.abc import Awaitable
from typing import TypeVar

from tornado import web
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets

from .. import aio
from ..bounded_server import BoundedServer
from ..errors import PortInUse
from ..harmless import printable
from ..settings import Settings
from .app import make_app
from .desk import Desk
from .introduction import introduce
from .options import Options, read_config
from .overrides import Overrides
from .policy import Policy, notices
from .requests import log_access
from .rights import Rights
from .together import Together

T = TypeVar("T")

MOST_CONNECTIONS = 4096
LARGEST_BODY = 64 * 1024
_LARGEST_HEAD = 32 * 1024  # browsers bring the cookies of all that the Hub's origin has
# Seconds: for a connection to be without a request, and for a request's body to be complete.
_IDLE = 120.0
_BODY_DEADLINE = 20.0
# Seconds for running requests to the page to end.
_GOODBYE = 2.0
OVERRIDES_FILE = "overrides.json"

log = logging.getLogger(__name__)


def run(options: Options) -> int:
    """Run until SIGTERM or SIGINT. Raises a QmtError where it cannot start."""
    logging.basicConfig(format="[%(levelname)1.1s %(asctime)s %(name)s] %(message)s")
    logging.getLogger("qmt_jupyter").setLevel(logging.INFO)
    policy = read_config(options.config)
    for notice in notices(policy):
        log.warning("%s", notice)
    overrides = Overrides(Settings.from_environment().home / "hub" / OVERRIDES_FILE)
    asyncio.run(_serve(options, policy, overrides))
    return 0


async def _serve(options: Options, policy: Policy, overrides: Overrides) -> None:
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    sockets = listen(options.address, options.port)
    # Who asks before the model is there is told so; the Hub waits for a first answer.
    server = BoundedServer(
        web.Application(
            [(re.escape(options.prefix), _StartingPage)],
            default_handler_class=_Starting,
            log_function=log_access,
        ),
        max_header_size=_LARGEST_HEAD,
        max_body_size=LARGEST_BODY,
        idle_connection_timeout=_IDLE,
        body_timeout=_BODY_DEADLINE,
        most=MOST_CONNECTIONS,
        what="the service",
    )
    server.add_sockets(sockets)
    try:
        host = await _unless(told, aio.host(**options.hosting))
        if host is None:
            return
        try:
            await _until(told, options, policy, overrides, host, server, sockets)
        finally:
            server.stop()
            await host.close()
    finally:
        server.stop()
        # Who does not let go of a connection is cut off when the process ends.
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(server.close_all_connections(), _GOODBYE)


async def _until(
    told: asyncio.Event,
    options: Options,
    policy: Policy,
    overrides: Overrides,
    host: aio.Host,
    server: HTTPServer,
    sockets: list[socket.socket],
) -> None:
    rights = Rights(options.api_url)
    desk = Desk(host, policy=policy, overrides=overrides, rights=rights, options=options)
    server.request_callback = make_app(desk)
    looking_after = asyncio.gather(desk.run(), Together(desk).run(), introduce(rights, options))
    try:
        for notice in host.notices:
            log.warning("%s", notice)
        print(_ready(options, host, sockets), flush=True)
        await told.wait()
        log.info("told to stop")
    finally:
        looking_after.cancel()
        await asyncio.gather(looking_after, return_exceptions=True)
        rights.close()
        desk.peers.close()


async def _unless(told: asyncio.Event, start: Awaitable[T]) -> T | None:
    """What ``start`` gives, or None where it is told to stop before."""
    starting, stopping = asyncio.ensure_future(start), asyncio.ensure_future(told.wait())
    try:
        await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            return starting.result()
        starting.cancel()
        await asyncio.wait({starting}, timeout=_GOODBYE)
        return None
    finally:
        stopping.cancel()


def _ready(options: Options, host: aio.Host, sockets: list[socket.socket]) -> str:
    port = sockets[0].getsockname()[1]
    models = ", ".join(printable(name, 80) for name in host.models)
    return (
        f"The service {options.name} shares {models} at http://{options.address}:{port}"
        f"{options.prefix} (peer id {host.peer_id}); this machine can read all prompts."
    )


def listen(address: str, port: int) -> list[socket.socket]:
    """Sockets that listen. Raises :class:`~qmt_jupyter.errors.PortInUse`."""
    try:
        return bind_sockets(port, address)
    except OSError as error:
        raise PortInUse(
            f"The service cannot listen at {printable(address, 80)}:{port} "
            f"({error.strerror or 'there is no such address'}).",
            next_step="Give the service another url in jupyterhub_config.py, or set "
            "JUPYTERHUB_SERVICE_URL.",
        ) from None


class _Starting(web.RequestHandler):
    """What everybody is told while the model is being loaded."""

    def prepare(self) -> None:
        """By whichever method, at whichever address."""
        self.set_header("Cache-Control", "no-store")
        # What comes next on this connection would be answered here, too.
        self.set_header("Connection", "close")
        self.set_header("Content-Type", "application/json; charset=utf-8")
        self.set_header("Retry-After", "2")
        self.set_status(503)
        self.finish(
            {
                "code": "hub-not-found",
                "sentence": "The service is starting: its model is being loaded.",
                "next_step": "Try again in a moment.",
            }
        )


class _StartingPage(web.RequestHandler):
    """The same for people, and for the Hub, which takes a 503 for nobody there."""

    def get(self) -> None:
        """It looks again by itself."""
        self.set_header("Cache-Control", "no-store")
        # What comes next on this connection would be answered here, too.
        self.set_header("Connection", "close")
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.set_header("Refresh", "3")
        self.finish("The service is starting: its model is being loaded.\n")
