"""The part of a JupyterHub's API that a service asks, answered from a list, as the Hub answers.

It has no database and no proxy: who uses it measures the service, and the Hub only as far as asking
it takes time.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler

from .processes import next_order, say

VERSION = "6.1.1"
GROUP = "course"


def token_of(student: str) -> str:
    """The token of a student's notebook server."""
    return f"token-of-{student}-0123456789abcdef"


def user_model(name: str, service: str) -> dict[str, Any]:
    """What ``GET /hub/api/user`` says to the token of a notebook server."""
    return {
        "kind": "user",
        "name": name,
        "admin": False,
        "groups": [GROUP],
        "roles": ["user"],
        "server": f"/user/{name}/",
        "session_id": None,
        "scopes": [
            f"access:servers!server={name}/",
            f"access:services!service={service}",
            f"read:users:groups!user={name}",
            f"read:users:name!user={name}",
            f"users:activity!user={name}",
        ],
    }


class Api(RequestHandler):
    """Knows tokens; everything else is refused as the Hub refuses it."""

    def initialize(self, tokens: dict[str, dict[str, Any]], asked: list[int]) -> None:
        self.tokens, self.asked = tokens, asked

    def get(self, path: str) -> None:
        self.asked[0] += 1
        self.set_header("Content-Type", "application/json")
        _, _, token = self.request.headers.get("Authorization", "").partition(" ")
        model = self.tokens.get(token)
        if path == "":
            self.finish(json.dumps({"version": VERSION}))
        elif model is None:
            self.refuse(403, "Missing or invalid credentials.")
        elif path == "user":
            self.finish(json.dumps(model))
        else:
            self.refuse(404, "Not Found")

    def refuse(self, status: int, message: str) -> None:
        self.set_status(status)
        self.finish(json.dumps({"status": status, "message": message}))


async def hub_main(students: list[str], service: str, service_token: str) -> None:
    """In a process of its own: say the API's address, and at each order how often it was asked."""
    tokens = {token_of(name): user_model(name, service) for name in students}
    tokens[service_token] = {"kind": "service", "name": service, "admin": False, "scopes": []}
    asked = [0]
    state = {"tokens": tokens, "asked": asked}
    server = HTTPServer(Application([(r"/hub/api/?(.*)", Api, state)], log_function=_silent))
    sockets = bind_sockets(0, "127.0.0.1")
    server.add_sockets(sockets)
    say(url=f"http://127.0.0.1:{sockets[0].getsockname()[1]}/hub/api")
    while await next_order() is not None:
        say(asked=asked[0])
    server.stop()
    await server.close_all_connections()


def _silent(_: RequestHandler) -> None:
    pass


def hub_process(students: list[str], service: str, service_token: str) -> None:
    """Run :func:`hub_main` until there are no more orders."""
    asyncio.run(hub_main(students, service, service_token))
