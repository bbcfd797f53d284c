"""Seats by token: a real host behind the service's own handlers, and a Hub that says what we want."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from contextlib import asynccontextmanager

import pytest
from tornado.httpclient import AsyncHTTPClient, HTTPRequest
from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port

from qmt_jupyter import aio
from qmt_jupyter.errors import (
    AdmissionRefused,
    DayUsedUp,
    HubRefused,
    MembershipEnded,
    OptionInvalid,
    Paused,
    Revoked,
)
from qmt_jupyter.hub import desk as desks
from qmt_jupyter.hub.app import make_app
from qmt_jupyter.hub.desk import Desk
from qmt_jupyter.hub.options import Options
from qmt_jupyter.hub.overrides import Override, Overrides
from qmt_jupyter.hub.person import read_person
from qmt_jupyter.hub.policy import read_policy
from qmt_jupyter.hub.rights import Rights
from qmt_jupyter.identity import keys
from qmt_jupyter.providers.echo import Echo
from tests.hub.scripted_api import DROPS, HANGS, NOT_THE_HUB, ScriptedApi, service, user

pytestmark = pytest.mark.anyio

POLICY = (
    'only = ["course-a", "staff"]\n[everybody]\ntokens_per_day = 5000\n[groups.staff]\npriority = 4'
)
SLOW = "word " * 1500  # half a minute, as the host below answers
OWN_TOKEN = "the-service's-own-token"


class Service:
    """The service's parts, with a real host of the echo provider."""

    def __init__(self, hub, host, root):
        self.hub, self.host, self.root = hub, host, root
        self.client = AsyncHTTPClient(force_instance=True)

    def open(self, policy=POLICY, recheck=0.1, deadline=10):
        options = Options(
            name="qmt", prefix="/services/qmt/", api_url=self.hub.api_url, api_token=OWN_TOKEN,
            recheck=recheck,
        )  # fmt: skip
        self.desk = Desk(
            self.host, policy=read_policy(policy), overrides=Overrides(self.root / "overrides.json"),
            rights=Rights(self.hub.api_url, deadline=deadline), options=options,
        )  # fmt: skip
        socket, port = bind_unused_port()
        self.server = HTTPServer(make_app(self.desk))
        self.server.add_socket(socket)
        self.url = f"http://127.0.0.1:{port}/services/qmt/"
        self.looking = asyncio.ensure_future(self.desk.run())

    async def close(self):
        self.looking.cancel()
        await asyncio.gather(self.looking, return_exceptions=True)
        self.desk.rights.close()
        self.server.stop()
        await self.server.close_all_connections()

    async def ask(self, method, path, token=None, body=None, headers=()):
        headers = dict(headers)
        if token is not None:
            headers["Authorization"] = f"token {token}"
        data = body if isinstance(body, (bytes, type(None))) else json.dumps(body).encode()
        request = HTTPRequest(
            self.url + path,
            method=method,
            headers=headers,
            body=data,
            allow_nonstandard_methods=True,
        )
        answer = await self.client.fetch(request, raise_error=False)
        value = json.loads(answer.body) if answer.body else None
        if answer.code >= 400:
            assert set(value) == {"code", "sentence", "next_step"}
            assert value["sentence"].endswith(".")
            assert "Traceback" not in answer.body.decode()
        return answer, value

    async def seat(self, token, guest=None):
        answer, value = await self.ask("POST", "api/seat", token, {"guest": guest or own_id()})
        return answer.code, value

    async def seats_of(self, name):
        found = [each["seats"] for each in await self.host.seats() if each["user"] == name]
        return found[0] if found else []


def own_id():
    """The peer id of this process's guest, which the seats are for."""
    from qmt_jupyter.settings import Settings

    return keys.load_or_create(Settings.from_environment().guest_dir / "identity.key").peer_id


async def until(condition, seconds=15):
    deadline = time.monotonic() + seconds
    while True:
        found = condition()
        if asyncio.iscoroutine(found):
            found = await found
        if found:
            return
        assert time.monotonic() < deadline, "it never happened"
        await asyncio.sleep(0.02)


@asynccontextmanager
async def opened(tmp_path, **options):
    async with ScriptedApi() as hub, await aio.host(Echo(delay=0.02), name="qmt") as host:
        hub.tokens["ann's"] = user("ann", "course-a")
        hub.tokens["zoe's"] = user("zoe", "staff")
        made = Service(hub, host, tmp_path)
        made.open(**options)
        try:
            yield made
        finally:
            await made.close()


# Who gets a seat -------------------------------------------------------------------------------


async def test_a_server_s_token_gives_a_seat_that_joins_and_answers(tmp_path):
    async with opened(tmp_path) as made:
        code, seat = await made.seat("ann's")
        assert code == 200
        assert set(seat) == {"link", "user", "expires_at", "renew_s", "peer_id"}
        assert (seat["user"], seat["peer_id"]) == ("ann", made.host.peer_id)
        assert time.time() + 880 < seat["expires_at"] <= time.time() + 900
        assert seat["renew_s"] == 300
        async with await aio.join(seat["link"]) as mesh:
            assert await mesh.chat("Hello").read() == "Hello"
        (entry,) = await made.host.seats()
        assert (entry["user"], entry["requests"]) == ("ann", 1)
        assert entry["allowance"]["tokens_per_day"] == 5000
        # Renewed it is the same seat, and it lasts longer.
        _, again = await made.seat("ann's")
        assert again["expires_at"] >= seat["expires_at"]
        assert [each["expires_at"] for each in await made.seats_of("ann")] == [again["expires_at"]]


@pytest.mark.parametrize(
    ("worth", "status"),
    [
        (403, 401),  # a forged token: the Hub knows nobody by it
        (401, 401),
        (404, 401),
        (user("ann", "course-a", service="other"), 403),
        (user("ann", "course-b"), 403),
        (user("ann"), 403),
        ({**user("ann", "course-a"), "scopes": []}, 403),
        ({**user("ann", "course-a"), "scopes": ["custom:qmt:admin"]}, 403),
        (service("ann", "access:services!service=qmt"), 403),
        (service("qmt", "access:services", "custom:qmt:node"), 403),
        (500, 503),
        (503, 503),
        (HANGS, 503),
        (DROPS, 503),
        ("<html>", 503),
    ],
    ids=lambda worth: repr(worth)[:60],
)
async def test_nobody_else_gets_one(tmp_path, worth, status):
    async with opened(tmp_path, deadline=0.5 if status == 503 else 10) as made:
        made.hub.tokens["t"] = worth
        code, refused = await made.seat("t")
        assert code == status
        assert refused["code"] == ("hub-not-found" if status == 503 else "hub-refused")
        assert refused["next_step"]
        assert await made.host.seats() == []
        answer, _ = await made.ask("POST", "api/seat", "t", {"guest": own_id()})
        assert ("Retry-After" in answer.headers) == (status == 503)


async def test_without_a_token_nobody_is_asked(tmp_path):
    async with opened(tmp_path) as made:
        for headers in (
            {}, {"Authorization": ""}, {"Authorization": "token"}, {"Authorization": "token "},
            {"Authorization": "Basic YTpi"}, {"Authorization": "token a b"},
            {"Authorization": "token " + "x" * 1025}, {"Cookie": "service-qmt=ann's"},
        ):  # fmt: skip
            answer, _ = await made.ask(
                "POST", "api/seat", body={"guest": own_id()}, headers=headers
            )
            assert answer.code == 401, headers
        answer, _ = await made.ask("POST", "api/seat?token=ann's", body={"guest": own_id()})
        assert answer.code == 401
        assert not made.hub.asked
        bearer = {"Authorization": "Bearer ann's"}
        answer, _ = await made.ask("POST", "api/seat", body={"guest": own_id()}, headers=bearer)
        assert answer.code == 200


@pytest.mark.parametrize(
    "body",
    [
        None, b"", b"{", b"[]", b"null", b"\xff", b"[" * 15_000, b'{"guest": NaN}',
        b'{"guest": "' + b"x" * 17_000 + b'"}', {}, {"guest": None}, {"guest": 3}, {"guest": ""},
        {"guest": "12D3KooW"}, {"guest": "x" * 10_000}, {"guest": ["12D3KooW"]},
        {"guest": "../../identity.key"}, {"guest": "12D3KooW\u0000"},
    ],
    ids=lambda body: repr(body)[:40],
)  # fmt: skip
async def test_a_body_that_makes_no_sense_is_refused(tmp_path, body):
    async with opened(tmp_path) as made:
        for method in ("POST", "DELETE"):
            answer, refused = await made.ask(method, "api/seat", "ann's", body)
            assert (answer.code, refused["code"]) == (400, "request-invalid")
        assert await made.host.seats() == []


async def test_a_user_may_be_called_anything(tmp_path):
    names = ["Zoë", "a/../b", "x" * 255, "<script>alert(1)</script>", "\u202eeve", "a\nb\x00", "😀"]
    async with opened(tmp_path) as made:
        for number, name in enumerate(names):
            made.hub.tokens[f"t{number}"] = user(name, "staff")
            code, seat = await made.seat(f"t{number}")
            assert (code, seat["user"]) == (200, name)
        assert {each["user"] for each in await made.host.seats()} == set(names)


async def test_every_answer_is_json_for_the_asker_alone(tmp_path):
    async with opened(tmp_path) as made:
        for method, path, status in (
            ("GET", "health", 200), ("GET", "api/seat", 405), ("GET", "nothing", 404),
            ("PATCH", "nothing", 404), ("GET", "api/seat/more", 404), ("POST", "health", 405),
        ):  # fmt: skip
            answer, _ = await made.ask(method, path, "ann's")
            assert answer.code == status, path
            assert answer.headers["Content-Type"] == "application/json; charset=utf-8"
            assert answer.headers["Cache-Control"] == "no-store"
            assert "Server" not in answer.headers
        _, health = await made.ask("GET", "health")
        assert health["status"] == "ok" and set(health) == {"status", "version"}


# What a seat is worth --------------------------------------------------------------------------


async def test_another_identity_cannot_use_the_seat(tmp_path):
    async with opened(tmp_path) as made:
        stranger = keys.Identity.fresh().peer_id
        code, seat = await made.seat("zoe's", stranger)
        assert code == 200
        with pytest.raises(AdmissionRefused, match="another user's"):
            await aio.join(seat["link"])


async def test_a_seat_that_is_given_up_is_over(tmp_path):
    async with opened(tmp_path) as made:
        _, seat = await made.seat("ann's")

        async def give_up(token="ann's"):
            answer, body = await made.ask("DELETE", "api/seat", token, {"guest": own_id()})
            return answer.code, body

        # Not by another user, and not by who is nobody.
        assert await give_up("zoe's") == (204, None)
        assert (await give_up("forged"))[0] == 401
        async with await aio.join(seat["link"]) as mesh:
            # Nor under another kernel of the same home, which is in the midst of its work.
            assert await give_up() == (204, None)
            assert await mesh.chat("Hello").read() == "Hello"

        async def is_over():
            assert await give_up() == (204, None)
            return not await made.seats_of("ann")

        await until(is_over)
        assert not made.desk._watch.holds(("ann", own_id())), "its token is not kept"
        with pytest.raises(MembershipEnded):
            await aio.join(seat["link"])


async def test_a_seat_that_another_kernel_of_the_home_uses_is_not_given_up(tmp_path):
    async with opened(tmp_path) as made:
        _, seat = await made.seat("ann's")
        async with await aio.join(seat["link"]) as mesh:
            answer, _ = await made.ask("DELETE", "api/seat", "ann's", {"guest": own_id()})
            assert answer.code == 204
            assert await made.seats_of("ann")
            assert await mesh.chat("still here").read() == "still here"


async def test_a_seat_that_is_given_up_before_its_connection_ends_is_over(tmp_path, monkeypatch):
    async with opened(tmp_path) as made:
        _, seat = await made.seat("ann's")
        mesh = await aio.join(seat["link"])
        monkeypatch.setattr(desks, "FAREWELL", 3.0)
        asked = asyncio.ensure_future(made.ask("DELETE", "api/seat", "ann's", {"guest": own_id()}))
        await asyncio.sleep(0.3)
        assert await made.seats_of("ann"), "it has come before the connection's end"
        await mesh.leave()
        assert (await asked)[0].code == 204
        assert not await made.seats_of("ann")


async def test_a_seat_that_is_asked_for_again_while_it_is_given_up_stays(tmp_path, monkeypatch):
    async with opened(tmp_path) as made:
        _, seat = await made.seat("ann's")
        mesh = await aio.join(seat["link"])
        monkeypatch.setattr(desks, "FAREWELL", 3.0)
        asked = asyncio.ensure_future(made.ask("DELETE", "api/seat", "ann's", {"guest": own_id()}))
        await asyncio.sleep(0.3)
        _, again = await made.seat("ann's")
        await mesh.leave()
        assert (await asked)[0].code == 204
        async with await aio.join(again["link"]) as mesh:
            assert await mesh.chat("Hello").read() == "Hello"


async def _none(seats):
    return not await seats


async def test_a_user_has_so_many_seats_and_the_oldest_makes_room(tmp_path, monkeypatch):
    monkeypatch.setattr(desks, "MOST_SEATS", 3)
    async with opened(tmp_path) as made:
        guests = [keys.Identity.fresh().peer_id for _ in range(5)]
        for guest in [*guests[:3], guests[0], *guests[3:]]:
            assert (await made.seat("ann's", guest))[0] == 200
        left = {each["guest"] for each in await made.seats_of("ann")}
        assert left == {guests[0], guests[3], guests[4]}


async def test_one_user_cannot_ask_for_seats_without_end(tmp_path, monkeypatch):
    monkeypatch.setattr(desks, "MOST_ASKED", 5)
    async with opened(tmp_path) as made:
        codes = [(await made.seat("ann's"))[0] for _ in range(8)]
        assert codes == [200] * 5 + [429] * 3
        answer, refused = await made.ask("POST", "api/seat", "ann's", {"guest": own_id()})
        assert refused["code"] == "request-rate"
        assert 50 < int(answer.headers["Retry-After"]) <= 60
        assert (await made.seat("zoe's"))[0] == 200


async def test_one_user_cannot_give_seats_up_without_end(tmp_path, monkeypatch):
    monkeypatch.setattr(desks, "MOST_GIVEN_UP", 3)
    async with opened(tmp_path) as made:

        async def give_up(token):
            return (await made.ask("DELETE", "api/seat", token, {"guest": own_id()}))[0].code

        assert [await give_up("ann's") for _ in range(5)] == [204] * 3 + [429] * 2
        assert await give_up("zoe's") == 204
        assert (await made.seat("ann's"))[0] == 200


async def test_many_ask_at_once_and_each_gets_one(tmp_path):
    async with opened(tmp_path) as made:
        for n in range(60):
            made.hub.tokens[f"t{n}"] = user(f"u{n}", "course-a")
        asked = [made.seat(f"t{n}", keys.Identity.fresh().peer_id) for n in range(60)]
        assert {code for code, _ in await asyncio.gather(*asked)} == {200}
        assert len(await made.host.seats()) == 60


# Losing the right ------------------------------------------------------------------------------


@asynccontextmanager
async def streaming(made, token="ann's"):
    """A guest in the midst of a long answer: the pieces so far, and how it ended."""
    _, seat = await made.seat(token)
    async with await aio.join(seat["link"]) as mesh:
        got = []

        async def read():
            async for piece in mesh.chat(SLOW):
                got.append(piece)

        reading = asyncio.ensure_future(read())
        await until(lambda: len(got) > 3)
        yield got, reading
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)


LOST = [
    403,
    401,
    404,
    user("ann", "course-b"),
    user("ann", "course-a", service="other"),
    user("someone else", "course-a"),
    service("ann", "access:services"),
]


@pytest.mark.parametrize("worth", LOST, ids=lambda worth: repr(worth)[:50])
async def test_who_loses_the_right_loses_the_running_answer(tmp_path, worth):
    async with opened(tmp_path) as made, streaming(made) as (got, reading):
        made.hub.tokens["ann's"] = worth
        with pytest.raises(Revoked) as ended:
            await asyncio.wait_for(reading, 15)
        assert "JupyterHub" in ended.value.sentence
        assert len("".join(got)) < len(SLOW)
        assert await made.seats_of("ann") == []


@pytest.mark.parametrize(
    "worth",
    [500, HANGS, DROPS, NOT_THE_HUB, "<html>"],
    ids=["500", "hangs", "drops", "404", "html"],
)
async def test_a_hub_that_is_down_ends_nothing(tmp_path, worth):
    async with opened(tmp_path, deadline=1.5) as made, streaming(made) as (got, reading):
        asked = made.hub.asked["ann's"]
        made.hub.tokens["ann's"] = worth
        await until(lambda: made.hub.asked["ann's"] >= asked + 2)
        before = len(got)
        await until(lambda: len(got) > before + 2)
        assert not reading.done()
        assert len(await made.seats_of("ann")) == 1
        # Nobody new comes in meanwhile, and a seat is renewed again when the Hub is back.
        assert (await made.seat("ann's"))[0] == 503
        made.hub.tokens["ann's"] = user("ann", "course-a")
        assert (await made.seat("ann's"))[0] == 200


async def test_another_group_means_another_allowance_at_once(tmp_path):
    async with opened(tmp_path) as made, streaming(made):
        made.hub.tokens["ann's"] = user("ann", "staff")

        async def is_staff():
            (entry,) = await made.host.seats()
            return entry["allowance"].get("priority") == 4

        await until(is_staff)


async def test_after_a_restart_seats_that_nobody_renews_end(tmp_path):
    async with opened(tmp_path, recheck=0.2) as made:
        ben = keys.Identity.fresh().peer_id
        made.hub.tokens["ben's"] = user("ben", "course-a")
        _, seat = await made.seat("ann's")
        await made.seat("ben's", ben)
        async with await aio.join(seat["link"]):
            await made.close()
            made.open(recheck=0.2)
            await made.seat("ben's", ben)
            await until(lambda: _none(made.seats_of("ann")))
            assert len(await made.seats_of("ben")) == 1
            # Asking again gives a seat anew, where the other one was ended for good.
            _, again = await made.seat("ann's")
        async with await aio.join(again["link"]) as mesh:
            assert await mesh.chat("Hi").read() == "Hi"


async def test_who_lost_the_right_while_the_service_was_away_is_out_however_seldom_it_asks(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(desks, "RENEWED_WITHIN", 0.5)
    async with opened(tmp_path, recheck=50) as made, streaming(made) as (_, reading):
        await made.close()
        made.hub.tokens["ann's"] = 403
        made.open(recheck=50)
        with pytest.raises(Revoked, match="not renewed"):
            await asyncio.wait_for(reading, 15)


# What administrators do --------------------------------------------------------------------------


async def test_a_pause_ends_what_runs_and_holds_after_a_restart(tmp_path):
    async with opened(tmp_path) as made:
        async with streaming(made) as (_, reading):
            entry = await made.desk.change("ann", paused=True)
            assert entry["paused"] and entry["rules"]["paused"] == "admin"
            with pytest.raises(Paused):
                await asyncio.wait_for(reading, 15)
        await made.close()
        made.open()
        _, seat = await made.seat("ann's")
        async with await aio.join(seat["link"]) as mesh:
            with pytest.raises(Paused):
                await mesh.chat("Hello").read()
            entry = await made.desk.change("ann", paused=False)
            assert not entry["paused"]
            assert await mesh.chat("Hello").read() == "Hello"


async def test_a_pause_that_was_cut_short_holds_after_a_restart(tmp_path):
    async with opened(tmp_path, recheck=50) as made, streaming(made) as (_, reading):
        made.desk.overrides.put("ann", Override(paused=True))
        await made.close()  # before the host was told
        assert not reading.done()
        made.open(recheck=50)
        with pytest.raises(Paused):
            await asyncio.wait_for(reading, 15)


async def test_a_limit_is_changed_and_taken_back(tmp_path):
    async with opened(tmp_path) as made:
        _, seat = await made.seat("ann's")
        async with await aio.join(seat["link"]) as mesh:
            await mesh.chat("Hello").read()
            entry = await made.desk.change("ann", limits={"tokens_per_day": 1})
            assert entry["allowance"]["tokens_per_day"] == 1
            assert entry["rules"]["tokens_per_day"] == "admin"
            with pytest.raises(DayUsedUp):
                await mesh.chat("Hello").read()
            # A pause in between leaves the limit as it is.
            await made.desk.change("ann", paused=True)
            entry = await made.desk.change("ann", paused=False)
            assert entry["limits"] == {"tokens_per_day": 1}
            entry = await made.desk.change("ann", limits=None)
            assert entry["allowance"]["tokens_per_day"] == 5000
            assert (entry["limits"], entry["rules"]["tokens_per_day"]) == (None, "everybody")
            assert await mesh.chat("Hello").read() == "Hello"


@pytest.mark.parametrize(
    "limits",
    [
        {"tokens_per_day": -1},
        {"concurent": 1},
        {"paused": True},
        {"hours": ["never"]},
        {"zone": "UTC"},
    ],
)
async def test_a_limit_that_makes_no_sense_changes_nothing(tmp_path, limits):
    async with opened(tmp_path) as made:
        with pytest.raises(OptionInvalid):
            await made.desk.change("ann", paused=True, limits=limits)
        assert made.desk.overrides.users() == []


async def test_a_user_who_was_never_here_can_be_paused(tmp_path):
    async with opened(tmp_path) as made:
        entry = await made.desk.change("nobody yet", paused=True)
        assert entry["paused"] and entry["user"] == "nobody yet"
        state = await made.desk.state()
        assert [each["user"] for each in state["users"]] == ["nobody yet"]
        assert state["totals"]["paused"] == 1
        # Nor need there be anything that the host knows, for an administrator to take it back.
        await made.desk.change("nobody yet", paused=False, limits={"concurrent": 1})
        (only,) = (await made.desk.state())["users"]
        assert (only["user"], only["limits"]) == ("nobody yet", {"concurrent": 1})


async def test_what_there_is_to_see(tmp_path):
    async with opened(tmp_path) as made:
        zoe = read_person(made.hub.tokens["zoe's"])
        mine = await made.desk.me(zoe)
        assert (mine["user"], mine["requests"], mine["seats"]) == ("zoe", 0, [])
        assert mine["left"] == {"day": 5000, "month": None}
        assert mine["rules"]["priority"] == "group staff"
        assert mine["groups"] == ["staff"]
        _, seat = await made.seat("ann's")
        async with await aio.join(seat["link"]) as mesh:
            await mesh.chat("Hello").read()
            state = await made.desk.state()
            json.dumps(state, allow_nan=False)
            assert (state["service"], state["peer_id"]) == ("qmt", made.host.peer_id)
            assert [each["user"] for each in state["users"]] == ["ann"]
            assert set(mine) == set(state["users"][0])
            assert state["totals"]["requests"] == state["totals"]["connected"] == 1
            assert state["totals"]["tokens_today"] == state["users"][0]["tokens_today"] > 0


async def test_no_token_and_no_link_is_in_the_log_or_a_repr(tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    async with opened(tmp_path) as made:
        made.hub.tokens["s3cret-of-ann"] = user("ann", "course-a")
        async with streaming(made, "s3cret-of-ann"):
            seated = await made.desk.seat(
                read_person(user("zoe", "staff")), own_id(), "s3cret-of-zoe"
            )
            assert "qmt://" not in repr(seated) + repr(made.desk)
            made.hub.tokens["s3cret-of-ann"] = 500
            await made.seat("s3cret-of-ann")
            made.hub.tokens["s3cret-of-ann"] = 403
            await until(lambda: _none(made.seats_of("ann")))
        with pytest.raises(HubRefused):
            made.desk.require_user(read_person(service("qmt")))
    assert "s3cret" not in caplog.text
    assert "qmt://" not in caplog.text
    assert OWN_TOKEN not in caplog.text
