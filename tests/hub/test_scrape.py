"""Who may read the metrics of a service: a Hub that is asked now says so, and nobody else does."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager

import pytest
from tornado.httpclient import AsyncHTTPClient

from qmt_jupyter import aio
from qmt_jupyter.hub.app import make_app
from qmt_jupyter.hub.desk import Desk
from qmt_jupyter.hub.metrics import CONTENT_TYPE
from qmt_jupyter.hub.options import Options
from qmt_jupyter.hub.overrides import Overrides
from qmt_jupyter.hub.policy import Policy
from qmt_jupyter.hub.rights import Rights
from qmt_jupyter.providers.echo import Echo
from tests.hub import scripted_api as scripted
from tests.hub.scripted_hub import serving
from tests.hub.test_metrics import samples

pytestmark = pytest.mark.anyio

KNOWN = {
    "collector": scripted.service("prometheus", "custom:qmt:metrics"),
    "admin": scripted.user("zoe", scopes=["custom:qmt:admin"]),
    "student": scripted.user("ann"),
    "node": scripted.service("qmt-2", "custom:qmt:node"),
    "nearly": scripted.user("eve", scopes=["custom:qmt:metrics!user=eve", "custom"]),
}


@asynccontextmanager
async def service(tmp_path):
    """A service before a scripted Hub: its host, that Hub, and the address of its metrics."""
    async with scripted.ScriptedApi() as hub, await aio.host(Echo(), uses=0) as host:
        hub.tokens.update(KNOWN)
        rights = Rights(hub.api_url)
        desk = Desk(
            host,
            policy=Policy(),
            overrides=Overrides(tmp_path / "overrides.json"),
            rights=rights,
            options=Options("qmt", "/services/qmt/", hub.api_url, "the service's own"),
        )
        try:
            async with serving(make_app(desk)) as port:
                yield host, hub, f"http://127.0.0.1:{port}/services/qmt/metrics"
        finally:
            rights.close()


async def scrape(url, token=None, scheme="Bearer", **options):
    headers = {"Authorization": f"{scheme} {token}"} if token else {}
    client = AsyncHTTPClient(force_instance=True)
    try:
        return await client.fetch(url, headers=headers, raise_error=False, **options)
    finally:
        client.close()


async def test_a_token_with_the_scope_reads_true_numbers(tmp_path):
    async with service(tmp_path) as (host, _, url):
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
    async with service(tmp_path) as (_, _, url):
        for address in (url, f"{url}?token=collector"):
            answer = await scrape(address, token)
            assert answer.code == status
            said = json.loads(answer.body)
            assert said["code"] == "hub-refused"
            assert said["sentence"].endswith(".")
            assert b"qmt_" not in answer.body


async def test_a_cookie_reads_nothing(tmp_path):
    async with service(tmp_path) as (_, _, url):
        client = AsyncHTTPClient(force_instance=True)
        cookies = {"Cookie": "service-qmt=collector; jupyterhub-session-id=collector"}
        answer = await client.fetch(url, headers=cookies, raise_error=False)
        client.close()
        assert answer.code == 401


async def test_a_scope_that_is_taken_away_counts_at_once(tmp_path):
    async with service(tmp_path) as (_, hub, url):
        assert (await scrape(url, "collector")).code == 200
        hub.tokens["collector"] = scripted.service("prometheus")
        assert (await scrape(url, "collector")).code == 403
        del hub.tokens["collector"]
        assert (await scrape(url, "collector")).code == 401
        await hub.stop()
        answer = await scrape(url, "admin")
        assert answer.code == 503
        assert int(answer.headers["Retry-After"]) > 0


async def test_only_reading_is_possible(tmp_path):
    async with service(tmp_path) as (_, _, url):
        for method in ("POST", "PUT", "DELETE"):
            body = {} if method == "DELETE" else {"body": b""}
            assert (await scrape(url, "collector", method=method, **body)).code == 405


async def test_scrapes_side_by_side_agree(tmp_path):
    async with service(tmp_path) as (host, _, url):
        await host.chat("one two three").read()
        answers = await asyncio.gather(*(scrape(url, "collector") for _ in range(10)))
        ours = [{k: v for k, v in samples(each.body).items() if "process" not in k[0]}
                for each in answers]  # fmt: skip
        assert all(each == ours[0] for each in ours)
