"""The one address of a Hub's API that the service asks, answered as a test says.

What a token is worth is a user's model, a status, or a piece of text or bytes; ``HANGS`` never
answers, and ``DROPS`` closes the connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import json
from collections import Counter
from typing import Any

from tornado import web
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets


class NoAnswer(enum.Enum):
    HANGS = enum.auto()
    DROPS = enum.auto()
    NOT_THE_HUB = enum.auto()  # a 404 of a proxy that has lost its Hub


HANGS, DROPS, NOT_THE_HUB = NoAnswer


def user(name: str, *groups: str, service: str = "qmt", **more: Any) -> dict[str, Any]:
    """What JupyterHub 5.2 and 6.1 say of a user whose token opens ``service``."""
    return {
        "kind": "user", "name": name, "admin": False, "groups": sorted(groups), "roles": ["user"],
        "session_id": None, "token_id": "a1", "created": "2026-09-01T08:00:00.000000Z",
        "last_activity": None, "pending": None, "server": None, "servers": {},
        "scopes": sorted({
            f"access:services!service={service}", f"access:servers!server={name}/",
            f"read:users:groups!user={name}", f"read:users:name!user={name}",
            f"users:activity!user={name}", *more.pop("scopes", ()),
        }),
        **more,
    }  # fmt: skip


def service(name: str, *scopes: str) -> dict[str, Any]:
    """What it says of a service."""
    return {"kind": "service", "name": name, "admin": False, "roles": [], "scopes": sorted(scopes)}


class ScriptedApi:
    """``tokens`` says what each is worth; all others are a 403, as with a real Hub."""

    def __init__(self) -> None:
        self.tokens: dict[str, Any] = {}
        self.asked: Counter[str] = Counter()
        self.at_once = 0
        self.most_at_once = 0
        self.slow = 0.0
        (self._socket,) = bind_sockets(0, "127.0.0.1")
        self.api_url = f"http://127.0.0.1:{self._socket.getsockname()[1]}/hub/api"
        self._server: HTTPServer | None = None

    async def __aenter__(self) -> ScriptedApi:
        application = web.Application(
            [("/hub/api/user", _User, {"hub": self})], log_function=lambda handler: None
        )
        self._server = HTTPServer(application)
        self._server.add_sockets([self._socket])
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Nobody answers any more."""
        server, self._server = self._server, None
        if server is not None:
            server.stop()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(server.close_all_connections(), 1)


class _User(web.RequestHandler):
    def initialize(self, hub: ScriptedApi) -> None:
        self.hub = hub

    async def get(self) -> None:
        hub = self.hub
        token = self.request.headers.get("Authorization", "").removeprefix("token ")
        hub.asked[token] += 1
        hub.at_once += 1
        hub.most_at_once = max(hub.most_at_once, hub.at_once)
        try:
            await asyncio.sleep(hub.slow)
            worth = hub.tokens.get(token, 403)
            if worth is HANGS:
                await asyncio.sleep(30)
            elif worth is DROPS:
                self.request.connection.stream.close()
                raise web.Finish
            elif worth is NOT_THE_HUB:
                self.set_status(404)
                self.finish("<html>default backend - 404")
            elif isinstance(worth, int):
                self.set_status(worth)
                self.finish(json.dumps({"status": worth, "message": "Forbidden"}))
            elif isinstance(worth, dict):
                self.set_header("Content-Type", "application/json")
                self.finish(json.dumps(worth))
            else:
                self.finish(worth)
        finally:
            hub.at_once -= 1
