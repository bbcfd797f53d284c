"""A service of a JupyterHub as a guest meets it over HTTP, with a real host behind it.

It keeps to what the real one promises (see qmt_jupyter/hub), without a Hub: the tokens it knows
are given, and it can be told to misbehave.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler

from qmt_jupyter import runtime
from qmt_jupyter.guest.hub.services import Service
from qmt_jupyter.host.allowance import Allowance
from qmt_jupyter.host.service import HostService
from qmt_jupyter.providers.echo import Echo
from tests.mesh.conftest import Person

TOKEN = "0123456789abcdef-the-token-of-alice's-server"


@dataclass
class Scripted:
    """What the service knows and does. ``misbehave`` answers instead, where it is set."""

    host: HostService
    users: dict[str, str] = field(default_factory=lambda: {TOKEN: "alice"})
    refused: dict[str, str] = field(default_factory=dict)
    renew_s: float = 300
    lifetime: int = 900
    misbehave: Callable[[RequestHandler], Any] | None = None
    asked: list[str] = field(default_factory=list)  # the method, of every request
    given_up: list[int] = field(default_factory=list)  # connections at that moment
    invites: dict[str, Any] = field(default_factory=dict)
    url: str = ""

    @property
    def service(self) -> Service:
        return Service(self.url)

    async def seat(self, user: str, guest: str):
        seating = self.host.seating
        made = await seating.seat(user, guest, Allowance(), "Lab", self.lifetime)
        self.invites[guest] = made
        return made

    async def end_seat(self, guest: str) -> None:
        assert await self.host.seating.end("alice", guest) == 1
        del self.invites[guest]


class SeatHandler(RequestHandler):
    def initialize(self, scripted: Scripted) -> None:
        self.scripted = scripted

    async def prepare(self) -> None:
        self.scripted.asked.append(self.request.method)
        if self.scripted.misbehave is not None:
            done = self.scripted.misbehave(self)
            if done is not None:
                await done
            if not self._finished:
                self.finish()

    def say(self, status: int, **said: Any) -> None:
        self.set_status(status)
        self.finish(said)

    def person(self) -> str | None:
        scheme, _, token = self.request.headers.get("Authorization", "").partition(" ")
        user = self.scripted.users.get(token) if scheme == "token" else None
        if user is None:
            self.say(401, code="hub-refused", sentence="Nobody has this token.", next_step="")
        elif user in self.scripted.refused:
            sentence = self.scripted.refused[user]
            self.say(403, code="hub-refused", sentence=sentence, next_step="Run rm -rf /.")
        else:
            return user
        return None

    async def post(self) -> None:
        if (user := self.person()) is None:
            return
        guest = json.loads(self.request.body)["guest"]
        link = await self.scripted.seat(user, guest)
        self.say(
            200,
            link=link.url,
            user=user,
            expires_at=link.invite.expires_at,
            renew_s=self.scripted.renew_s,
            peer_id=self.scripted.host.peer_id,
        )

    async def delete(self) -> None:
        if self.person() is None:
            return
        # The end of a connection takes another way than this request. Who asks before ending it
        # waits for the answer, and so is still connected after a second.
        with anyio.move_on_after(1.0):
            while self.scripted.host.status()["guests"]:
                await anyio.sleep(0.01)
        self.scripted.given_up.append(self.scripted.host.status()["guests"])
        self.set_status(204)
        self.finish()


@asynccontextmanager
async def listening(*handlers: tuple[str, type[RequestHandler], dict[str, Any]]):
    """An HTTP server with these handlers; its origin."""
    sockets = bind_sockets(0, "127.0.0.1", family=socket.AF_INET)
    server = HTTPServer(Application(list(handlers)))
    server.add_sockets(sockets)
    try:
        yield f"http://127.0.0.1:{sockets[0].getsockname()[1]}"
    finally:
        server.stop()
        await server.close_all_connections()


@asynccontextmanager
async def serving(host: HostService, **known: Any):
    """The service in front of a host."""
    scripted = Scripted(host, **known)
    async with listening(
        (r"/services/qmt/api/seat", SeatHandler, {"scripted": scripted})
    ) as origin:
        scripted.url = f"{origin}/services/qmt/"
        yield scripted


@contextmanager
def in_background(home: Path):
    """The same in the runtime's loop, for callers without one, with a host that echoes."""

    async def start():
        host = await Person(home).host(Echo(slots=4))
        served = serving(host)
        return host, served, await served.__aenter__()

    async def stop():
        await served.__aexit__(None, None, None)
        await host.close()

    host, served, scripted = runtime.call(start)
    try:
        yield scripted
    finally:
        runtime.call(stop)
