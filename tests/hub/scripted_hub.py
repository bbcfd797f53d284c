"""A Hub that says what a test tells it: OAuth and ``GET /hub/api/user`` as the real one does them.

Everybody is signed in at it already: ``now`` is who sits at the browser. A token's scopes are those
that its owner has at the moment of asking, as on the real Hub.
"""

from __future__ import annotations

import contextlib
import json
import secrets
from dataclasses import dataclass, field
from http.cookies import SimpleCookie
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from tornado import web
from tornado.httpclient import AsyncHTTPClient, HTTPRequest, HTTPResponse
from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port

SERVICE = "qmt"
PREFIX = f"/services/{SERVICE}/"
ACCESS = f"access:services!service={SERVICE}"
ADMIN = "custom:qmt:admin"
SERVICE_TOKEN = "the-services-own-token"


@dataclass
class ScriptedHub:
    """``users`` by name with the scopes that they have; ``tokens`` and who they belong to."""

    users: dict[str, set[str]] = field(default_factory=dict)
    now: str = ""
    tokens: dict[str, str] = field(default_factory=dict)
    groups: dict[str, list[str]] = field(default_factory=dict)
    asked: int = 0
    is_away: bool = False
    port: int = 0
    _codes: dict[str, str] = field(default_factory=dict)

    @property
    def api_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hub/api"

    def token_of(self, user: str) -> str:
        token = secrets.token_hex(8)
        self.tokens[token] = user
        return token

    def app(self) -> web.Application:
        given = {"hub": self}
        return web.Application(
            [
                (r"/hub/api/oauth2/authorize", _Authorize, given),
                (r"/hub/api/oauth2/token", _Token, given),
                (r"/hub/api/user", _User, given),
            ]
        )


class _Handler(web.RequestHandler):
    def initialize(self, hub: ScriptedHub) -> None:
        self.hub = hub

    def prepare(self) -> None:
        if self.hub.is_away:
            raise web.HTTPError(502)

    def check_xsrf_cookie(self) -> None:
        pass


class _Authorize(_Handler):
    def get(self) -> None:
        assert self.get_argument("client_id") == f"service-{SERVICE}"
        assert self.get_argument("redirect_uri") == f"{PREFIX}oauth_callback"
        code = secrets.token_hex(8)
        self.hub._codes[code] = self.hub.now
        back = urlencode({"code": code, "state": self.get_argument("state")})
        self.redirect(f"{PREFIX}oauth_callback?{back}")


class _Token(_Handler):
    def post(self) -> None:
        sent = {key: values[0] for key, values in parse_qs(self.request.body.decode()).items()}
        user = self.hub._codes.pop(sent["code"], None)
        if user is None or sent["client_secret"] != SERVICE_TOKEN:
            raise web.HTTPError(400)
        self.finish({"access_token": self.hub.token_of(user), "token_type": "Bearer"})


class _User(_Handler):
    def get(self) -> None:
        self.hub.asked += 1
        token = self.request.headers["Authorization"].split()[1]
        user = self.hub.tokens.get(token)
        if user not in self.hub.users:
            raise web.HTTPError(403)
        scopes = {*self.hub.users[user], f"read:users:name!user={user}"}
        model = {
            "kind": "user",
            "name": user,
            "groups": self.hub.groups.get(user, []),
            "admin": False,
        }
        self.finish({**model, "scopes": sorted(scopes), "session_id": None})


@contextlib.asynccontextmanager
async def serving(app: web.Application):
    """The port that an application answers on."""
    socket, port = bind_unused_port()
    server = HTTPServer(app)
    server.add_socket(socket)
    try:
        yield port
    finally:
        server.stop()
        await server.close_all_connections()


class Browser:
    """Keeps cookies by their paths and sends what Chromium sends, so far as a server sees it."""

    def __init__(self, hub: ScriptedHub, port: int) -> None:
        self.hub, self.port = hub, port
        self.cookies: dict[str, str] = {}
        self.xsrf = ""
        self.client = AsyncHTTPClient(force_instance=True)

    async def go(self, path: str = "", hops: int = 5) -> HTTPResponse:
        """Open a page of the service, and follow where it leads: to the Hub and back."""
        url = f"{PREFIX}{path}" if not path.startswith("/") else path
        navigating = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Site": "none"}
        for _ in range(hops):
            answer = await self.ask("GET", url, headers=navigating)
            if answer.code not in (301, 302):
                break
            url = answer.headers["Location"]
        page = answer.body.decode()
        if 'name="qmt-xsrf" content="' in page:
            self.xsrf = page.partition('name="qmt-xsrf" content="')[2].partition('"')[0]
        return answer

    async def fetch(
        self, path: str, body: Any = None, method: str = "", **headers: str | None
    ) -> HTTPResponse:
        """What a script of the page asks for; ``headers`` come on top, None leaves one out."""
        usual: dict[str, str | None] = {
            "Sec_Fetch_Mode": "cors", "Sec_Fetch_Site": "same-origin", "X_XSRFToken": self.xsrf,
        }  # fmt: skip
        if body is not None:
            usual |= {"Origin": f"http://127.0.0.1:{self.port}", "Content_Type": "application/json"}
        sent = {k.replace("_", "-"): v for k, v in (usual | headers).items() if v is not None}
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        method = method or ("GET" if body is None else "POST")
        return await self.ask(method, f"{PREFIX}{path}", headers=sent, body=data)

    async def ask(self, method: str, url: str, **options: Any) -> HTTPResponse:
        """One request, to the Hub or to the service, which share an address for a browser."""
        at_hub = urlsplit(url).path.startswith("/hub/")
        headers = dict(options.pop("headers", {}))
        if self.cookies and not at_hub:
            headers["Cookie"] = "; ".join(f"{k}={v}" for k, v in self.cookies.items())
        address = f"http://127.0.0.1:{self.hub.port if at_hub else self.port}{url}"
        request = HTTPRequest(
            address,
            method,
            headers,
            follow_redirects=False,
            allow_nonstandard_methods=True,
            **options,
        )
        answer = await self.client.fetch(request, raise_error=False)
        for line in answer.headers.get_list("Set-Cookie"):
            for name, morsel in SimpleCookie(line).items():
                if morsel.value:
                    self.cookies[name] = morsel.value
                else:
                    self.cookies.pop(name, None)
        return answer
