"""Services that count together: what a peer tells is counted once, and nonsense not at all."""

from __future__ import annotations

import asyncio
import json
import socket
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("jupyterhub", reason="the extra hub is not installed")

from tornado.httpserver import HTTPServer
from tornado.web import Application, RequestHandler

from qmt_jupyter.hub import peers
from qmt_jupyter.hub.peers import Peers, Used, read_told
from qmt_jupyter.identity.keys import Identity

pytestmark = pytest.mark.anyio

ME, ONE, TWO = (Identity.fresh().peer_id for _ in range(3))
TODAY = "2026-11-30"


def told(name=ONE, day=TODAY, changes=(), **users):
    return {
        "peer_id": name,
        "day": day,
        "month": day[:7],
        "users": {user: {"day": used[0], "month": used[1]} for user, used in users.items()},
        "changes": list(changes),
    }


class Node(RequestHandler):
    """Answers with what the test says, and keeps what it was shown."""

    def initialize(self, script):
        self.script = script

    async def get(self):
        self.script.shown.append(self.request.headers.get("Authorization"))
        answer = self.script.answer
        if callable(answer):
            await answer(self)
        else:
            self.finish(answer if isinstance(answer, bytes) else json.dumps(answer))


class Scripted:
    """A peer that answers as it is told to."""

    def __init__(self):
        self.answer = told()
        self.shown = []
        routes = [(r"/services/qmt/api/node", Node, {"script": self})]
        self._server = HTTPServer(Application(routes, log_function=lambda _: None))
        self._held = socket.socket()
        self._held.bind(("127.0.0.1", 0))
        self.port = self._held.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/services/qmt"
        self._held.listen(16)
        self._held.setblocking(False)
        self._server.add_socket(self._held)

    async def stop(self):
        self._server.stop()
        await self._server.close_all_connections()
        self._held.close()


@pytest.fixture
async def scripted():
    made = [Scripted(), Scripted()]
    yield made
    for each in made:
        await each.stop()


@pytest.fixture
async def asking():
    made = []

    def start(*urls, **options):
        made.append(Peers(urls, "own-token", **options))
        return made[-1]

    yield start
    for each in made:
        each.close()


async def test_users_are_counted_over_all_peers_and_asked_with_the_own_token(scripted, asking):
    one, two = scripted
    one.answer = told(ONE, ann=(3, 10), ben=(1, 1))
    two.answer = told(TWO, ann=(4, 20))
    group = asking(one.url, two.url + "/")
    assert len(await group.ask()) == 2
    assert group.used(TODAY, ME) == {"ann": Used(7, 30), "ben": Used(1, 1)}
    assert one.shown == two.shown == ["token own-token"]


async def test_another_day_counts_for_its_month_and_another_month_for_nothing(scripted, asking):
    one, two = scripted
    one.answer = told(ONE, day="2026-11-29", ann=(3, 10))
    two.answer = told(TWO, day="2026-10-30", ann=(4, 20))
    group = asking(one.url, two.url)
    await group.ask()
    assert group.used(TODAY, ME) == {"ann": Used(0, 10)}
    assert group.used("2026-12-01", ME) == {}


async def test_a_service_by_two_addresses_counts_once_and_oneself_not_at_all(scripted, asking):
    one, two = scripted
    one.answer = two.answer = told(ONE, ann=(3, 10))
    group = asking(one.url, two.url)
    await group.ask()
    assert group.used(TODAY, ME) == {"ann": Used(3, 10)}
    assert group.used(TODAY, ONE) == {}


async def test_who_goes_by_another_services_name_takes_back_nothing_that_it_told(scripted, asking):
    one, two = scripted
    one.answer = told(ONE, ann=(3, 10), ben=(1, 1))
    for lie in (told(ONE), told(ONE, ann=(0, 0)), told(ONE, "2026-11-29", ann=(9, 9))):
        two.answer = lie
        for urls in ((one.url, two.url), (two.url, one.url)):
            group = asking(*urls)
            await group.ask()
            assert group.used(TODAY, ME) == {"ann": Used(3, 10), "ben": Used(1, 1)}


async def test_a_peer_that_is_away_changes_nothing_and_is_shown(scripted, asking):
    one, two = scripted
    one.answer, two.answer = told(ONE, ann=(3, 10)), told(TWO, ann=(4, 20))
    group = asking(one.url, two.url)
    await group.ask()
    await two.stop()
    assert [each.peer_id for each in await group.ask()] == [ONE]
    assert group.used(TODAY, ME) == {"ann": Used(7, 30)}
    first, second = group.report()
    assert first["answers"] and not first["trouble"]
    assert not second["answers"] and "does not answer" in second["trouble"]
    assert second["peer_id"] == TWO and second["answered_at"] <= time.time()


async def _hang(handler):
    await asyncio.sleep(30)


async def _trickle(handler):
    for _ in range(300):
        handler.write(b" ")
        await handler.flush()
        await asyncio.sleep(0.1)


async def _redirect(handler):
    handler.redirect(handler.request.full_url().replace("/services/qmt/", "/elsewhere/"))


async def _endless(handler):
    try:
        while True:
            handler.write(b'{"users": "' + b"x" * 1_000_000)
            await handler.flush()
    except Exception:
        return  # the asker has gone


async def _packed(handler):
    import gzip

    handler.set_header("Content-Encoding", "gzip")
    handler.finish(gzip.compress(json.dumps(told(ann=(9, 9))).encode()))


def _status(code):
    async def answer(handler):
        handler.set_status(code)
        handler.finish(json.dumps(told(ann=(9, 9))))

    return answer


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (_hang, "does not answer"),
        (_trickle, "does not answer"),
        (_endless, "does not answer"),
        (_redirect, "status 302"),
        (_packed, "none of this service's"),
        (_status(401), "does not know this service's token"),
        (_status(403), "custom:qmt:node"),
        (_status(500), "status 500"),
        (b"", "none of this service's"),
        (b"<html>", "none of this service's"),
    ],
)
async def test_a_hostile_peer_ends_in_a_sentence_and_what_was_known_stays(
    scripted, asking, answer, sentence, monkeypatch
):
    monkeypatch.setattr(peers, "LARGEST_ANSWER", 3_000_000)
    one, _ = scripted
    one.answer = told(ONE, ann=(3, 10))
    group = asking(one.url, deadline=1.0)
    await group.ask()
    one.answer = answer
    assert await group.ask() == []
    assert group.used(TODAY, ME) == {"ann": Used(3, 10)}
    (report,) = group.report()
    assert sentence in report["trouble"] and "own-token" not in str(report)


@pytest.mark.parametrize(
    "change",
    [
        {"peer_id": None}, {"peer_id": "12D3KooWnobody"}, {"peer_id": [ONE]},
        {"day": "today"}, {"day": 20261130}, {"day": "2026-11-30\n"}, {"month": "2026-12"},
        {"users": []}, {"users": None}, {"changes": {}}, {"changes": None},
        {"users": {"ann": 3}}, {"users": {"ann": {"day": 1}}}, {"users": {"": {"day": 1, "month": 1}}},
        {"users": {"a" * 256: {"day": 1, "month": 1}}},
        {"users": {"\ud800": {"day": 1, "month": 1}}},
        *({"users": {"ann": {"day": bad, "month": 1}}}
          for bad in (-1, 1.5, True, "1", None, 2**53 + 1)),
        {"users": {f"u{n}": {"day": 1, "month": 1} for n in range(peers.MOST + 1)}},
        {"changes": [None] * (peers.MOST + 1)},
    ],
)  # fmt: skip
def test_an_answer_that_is_amiss_in_one_place_is_none(change):
    assert read_told(json.dumps(told(ann=(1, 2))).encode()).users == {"ann": Used(1, 2)}
    with pytest.raises(ValueError):
        read_told(json.dumps({**told(ann=(1, 2)), **change}).encode())


@given(st.binary(max_size=200) | st.recursive(st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(list(told())), inner)).map(lambda value: json.dumps(value).encode()))  # fmt: skip
def test_no_bytes_are_met_with_anything_but_a_value_error(answer):
    with pytest.raises(ValueError):
        read_told(answer)


@pytest.mark.parametrize("deep", [b"[" * 100_000, b'{"users":' * 50_000, b'{"peer_id": NaN}'])
def test_deep_and_odd_json_is_none(deep):
    with pytest.raises(ValueError):
        read_told(deep)
