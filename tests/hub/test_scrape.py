"""Who may read the metrics of a service: a Hub that is asked now says so, and nobody else does."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager

import pytest
from tornado import web
from tornado.httpclient import AsyncHTTPClient
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets

from qmt_jupyter import aio
from qmt_jupyter.hub.app import make_app
from qmt_jupyter.hub.desk import Desk
from qmt_jupyter.hub.metrics import CONTENT_TYPE
from qmt_jupyter.hub.options import Options
from qmt_jupyter.hub.overrides import Overrides
from qmt_jupyter.hub.policy import Policy
from qmt_jupyter.hub.rights import Rights
from qmt_jupyter.providers.echo import Echo
from tests.hub.test_metrics import samples

pytestmark = pytest.mark.anyio

ACCESS = "access:services!service=qmt"
COLLECTOR = {"kind": "service", "name": "prometheus", "scopes": ["custom:qmt:metrics"]}
KNOWN = {
    "collector": COLLECTOR,
    "admin": {"kind": "user", "name": "zoe", "scopes": [ACCESS, "custom:qmt:admin"]},
    "student": {"kind": "user", "name": "ann", "scopes": [ACCESS]},
    "node": {"kind": "service", "name": "qmt-2", "scopes": ["custom:qmt:node"]},
    "nearly": {"kind": "user", "name": "eve", "scopes": ["custom:qmt:metrics!user=eve", "custom"]},
}


class ScriptedHub(web.RequestHandler):
    """Answers who a token belongs to, as a real one does."""

    def initialize(self, known):
        self.known = known

    def get(self):
        token = self.request.headers.get("Authorization", "").removeprefix("token ")
        if token not in self.known:
            raise web.HTTPError(403)
        self.finish(json.dumps(self.known[token]))


def listening(app):
    sockets = bind_sockets(0, "127.0.0.1")
    server = HTTPServer(app)
    server.add_sockets(sockets)
    return server, sockets[0].getsockname()[1]


@asynccontextmanager
async def service(tmp_path, known):
    """A service before a scripted Hub: its host, and the address of its metrics."""
    hub, hub_port = listening(web.Application([("/hub/api/user", ScriptedHub, {"known": known})]))
    options = Options(
        name="qmt",
        prefix="/services/qmt/",
        api_url=f"http://127.0.0.1:{hub_port}/hub/api",
        api_token="the service's own",
    )
    rights = Rights(options.api_url)
    async with await aio.host(Echo(), uses=0) as host:
        desk = Desk(
            host,
            policy=Policy(),
            overrides=Overrides(tmp_path / "overrides.json"),
            rights=rights,
            options=options,
        )
        server, port = listening(make_app(desk))
        try:
            yield host, hub, f"http://127.0.0.1:{port}/services/qmt/metrics"
        finally:
            rights.close()
            for each in (server, hub):
                each.stop()
                await each.close_all_connections()


async def scrape(url, token=None, scheme="Bearer", **options):
    headers = {"Authorization": f"{scheme} {token}"} if token else {}
    client = AsyncHTTPClient(force_instance=True)
    try:
        return await client.fetch(url, headers=headers, raise_error=False, **options)
    finally:
        client.close()


async def test_a_token_with_the_scope_reads_true_numbers(tmp_path):
    async with service(tmp_path, KNOWN) as (host, _, url):
        await host.chat("one two three").read()
        for token, scheme in (("collector", "Bearer"), ("collector", "token"), ("admin", "token")):
            answer = await scrape(url, token, scheme)
            assert answer.code == 200
            assert answer.headers["Content-Type"] == CONTENT_TYPE
            assert answer.headers["Cache-Control"] == "no-store"
            found = samples(answer.body)
            assert found["qmt_tokens_total", (("kind", "answer"), ("model", "echo"))] == 3
            assert found["qmt_active_users", ()] == 1


@pytest.mark.parametrize(
    ("token", "status"),
    [
        (None, 401),
        ("nobody's", 401),
        ("the service's own", 401),
        ("student", 403),
        ("node", 403),
        ("nearly", 403),
    ],
)
async def test_everybody_else_reads_why_not_and_nothing_more(tmp_path, token, status):
    async with service(tmp_path, KNOWN) as (_, _, url):
        for address in (url, f"{url}?token=collector"):
            answer = await scrape(address, token)
            assert answer.code == status
            said = json.loads(answer.body)
            assert said["code"] == "hub-refused"
            assert said["sentence"].endswith(".")
            assert b"qmt_" not in answer.body


async def test_a_cookie_reads_nothing(tmp_path):
    async with service(tmp_path, KNOWN) as (_, _, url):
        client = AsyncHTTPClient(force_instance=True)
        cookies = {"Cookie": "service-qmt=collector; jupyterhub-session-id=collector"}
        answer = await client.fetch(url, headers=cookies, raise_error=False)
        client.close()
        assert answer.code == 401


async def test_a_scope_that_is_taken_away_counts_at_once(tmp_path):
    known = dict(KNOWN)
    async with service(tmp_path, known) as (_, hub, url):
        assert (await scrape(url, "collector")).code == 200
        known["collector"] = {**COLLECTOR, "scopes": []}
        assert (await scrape(url, "collector")).code == 403
        del known["collector"]
        assert (await scrape(url, "collector")).code == 401
        hub.stop()
        await hub.close_all_connections()
        answer = await scrape(url, "admin")
        assert answer.code == 503
        assert int(answer.headers["Retry-After"]) > 0


async def test_only_reading_is_possible(tmp_path):
    async with service(tmp_path, KNOWN) as (_, _, url):
        for method in ("POST", "PUT", "DELETE"):
            body = {} if method == "DELETE" else {"body": b""}
            assert (await scrape(url, "collector", method=method, **body)).code == 405


async def test_scrapes_side_by_side_agree(tmp_path):
    async with service(tmp_path, KNOWN) as (host, _, url):
        await host.chat("one two three").read()
        answers = await asyncio.gather(*(scrape(url, "collector") for _ in range(10)))
        ours = [{k: v for k, v in samples(each.body).items() if "process" not in k[0]}
                for each in answers]  # fmt: skip
        assert all(each == ours[0] for each in ours)
