"""A no, a yes and no answer of the Hub are three things, and each is asked for anew."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from contextlib import asynccontextmanager

import pytest

from qmt_jupyter.errors import HubNotFound, HubRefused
from qmt_jupyter.hub.introduction import introduce
from qmt_jupyter.hub.options import Options
from qmt_jupyter.hub.person import Person, read_person
from qmt_jupyter.hub.rights import Rights, UnknownToken
from qmt_jupyter.hub.watch import Watch
from tests.hub.scripted_api import DROPS, HANGS, NOT_THE_HUB, ScriptedApi, service, user

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def asking(deadline=10):
    async with ScriptedApi() as hub:
        rights = Rights(hub.api_url, deadline=deadline)
        try:
            yield hub, rights
        finally:
            rights.close()


async def test_a_token_is_asked_about_each_time():
    async with asking() as (hub, rights):
        hub.tokens["t"] = user("ann", "course-a")
        first = await rights.ask("t")
        assert (first.name, first.groups, first.admin) == ("ann", {"course-a"}, False)
        assert first.may_access("qmt") and not first.may_access("other")
        hub.tokens["t"] = user("ann", scopes=["custom:qmt:admin"])
        second = await rights.ask("t")
        assert (second.groups, second.admin) == (frozenset(), True)
        assert hub.asked["t"] == 2


async def test_scopes_of_another_kind_open_nothing():
    for scopes in (
        ["access:services!service=qmt-b"],
        ["access:services!server=qmt"],
        ["access:servers"],
        ["custom:qmt:admin!user=ann"],
        ["inherit"],
    ):
        person = read_person({"kind": "user", "name": "ann", "groups": [], "scopes": scopes})
        assert not person.may_access("qmt") and not person.admin
    assert read_person({"kind": "user", "name": "a", "scopes": ["access:services"]}).may_access("x")


async def test_a_service_s_token_is_no_user_s():
    async with asking() as (hub, rights):
        hub.tokens["t"] = service("ann", "access:services")
        person = await rights.ask("t")
        assert person.is_service and person.groups == frozenset()


@pytest.mark.parametrize("status", [401, 403, 404])
async def test_a_no_of_the_hub_means_an_unknown_token(status):
    async with asking() as (hub, rights):
        hub.tokens["t"] = status
        with pytest.raises(UnknownToken) as refused:
            await rights.ask("t")
        assert refused.value.code == HubRefused.code


NO_ANSWERS = [
    200,
    204,
    302,
    400,
    429,
    500,
    502,
    503,
    599,
    HANGS,
    DROPS,
    NOT_THE_HUB,
    "",
    "<html>",
    b"\xff\xfe",
    "null",
    "[]",
    '{"name": "ann"}',
    '{"kind": "user"}',
    "[" * 100_000,
    '{"kind": "user", "name": "ann", "scopes": "access:services"}',
    '{"kind": "user", "name": "ann", "scopes": [3]}',
    '{"kind": "user", "name": "ann", "groups": ["course-a"]}',
    '{"kind": "user", "name": "ann", "groups": {}, "scopes": []}',
    '{"kind": "user", "name": 3, "scopes": []}',
    '{"kind": "user", "name": "", "scopes": []}',
    '{"kind": "user", "name": "\\ud800", "scopes": []}',
    json.dumps({"kind": "user", "name": "x" * 256, "scopes": []}),
    json.dumps({"kind": "group", "name": "ann", "scopes": ["access:services"]}),
    "x" * (2 * 1024 * 1024),
]


@pytest.mark.parametrize("worth", NO_ANSWERS, ids=lambda worth: repr(worth)[:40])
async def test_anything_else_is_no_answer(worth):
    async with asking(deadline=0.5) as (hub, rights):
        hub.tokens["t"] = worth
        with pytest.raises(HubNotFound) as nothing:
            await rights.ask("t")
        assert nothing.value.retry_after


async def test_where_nobody_listens_there_is_no_answer():
    async with asking() as (hub, rights):
        await hub.stop()
        with pytest.raises(HubNotFound):
            await rights.ask("t")


@pytest.mark.parametrize("token", ["", " ", "a b", "a\r\nX-Evil: 1", "é", "\x00", "x" * 1025])
async def test_what_can_be_no_token_is_not_sent(token):
    async with asking() as (hub, rights):
        with pytest.raises(UnknownToken):
            await rights.ask(token)
        assert not hub.asked


async def test_a_redirect_takes_no_token_along():
    async with asking() as (hub, rights):
        hub.tokens["t"] = 302
        with pytest.raises(HubNotFound):
            await rights.ask("t")
        assert hub.asked == {"t": 1}


async def test_no_token_is_in_an_error_or_a_log(caplog):
    caplog.set_level(logging.DEBUG)
    secret = "s3cret-token-s3cret-token"
    async with asking(deadline=0.5) as (hub, rights):
        for worth in (403, 500, HANGS, DROPS, "<html>", user("ann")):
            hub.tokens[secret] = worth
            try:
                await rights.ask(secret)
            except (HubNotFound, HubRefused) as error:
                assert secret not in f"{error!r} {error} {error.__context__!r}"
        with pytest.raises(UnknownToken) as refused:
            await rights.ask(f"{secret} with a space")
        assert secret not in str(refused.value)
    assert secret not in caplog.text


async def test_the_hub_is_asked_a_few_at_a_time_and_who_is_asked_about_again_need_not_wait():
    async with asking() as (hub, rights):
        hub.slow = 0.05
        hub.tokens["known"] = user("ann")
        flood = [asyncio.ensure_future(rights.ask(f"t{n}")) for n in range(200)]
        await asyncio.sleep(0)
        await rights.ask("known", again=True)
        assert sum(task.done() for task in flood) < 100
        await asyncio.gather(*flood, return_exceptions=True)
        assert len(hub.asked) == 201
        assert hub.most_at_once <= 24


async def test_there_is_an_end_to_how_many_wait():
    async with asking(deadline=60) as (hub, rights):
        hub.slow = 30
        flood = [asyncio.ensure_future(rights.ask(f"t{n}")) for n in range(1500)]
        while not hub.asked:
            await asyncio.sleep(0.01)
        over = [task for task in flood if task.done()]
        assert len(over) == 500
        assert all(isinstance(task.exception(), HubNotFound) for task in over)
        for task in flood:
            task.cancel()
        await asyncio.gather(*flood, return_exceptions=True)


# The service itself ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("worth", "said"),
    [
        (service("qmt", "custom:qmt:node"), ""),
        (service("qmt-a"), "knows this service as qmt-a: set JUPYTERHUB_SERVICE_NAME"),
        (service("\u202eqmt\n" + "x" * 200), "knows this service as qmt xxx"),
        (user("ann"), "is a user's token"),
        (403, "does not know this service's token"),
    ],
    ids=lambda each: repr(each)[:40],
)
async def test_a_service_that_was_told_wrongly_who_it_is_says_so(caplog, worth, said):
    async with asking() as (hub, rights):
        hub.tokens["own"] = 502  # the Hub itself is only starting
        options = Options(name="qmt", prefix="/services/qmt/", api_url=hub.api_url, api_token="own")
        task = asyncio.ensure_future(introduce(rights, options, every=0.02))
        while hub.asked["own"] < 3:
            await asyncio.sleep(0.01)
        assert not caplog.records
        hub.tokens["own"] = worth
        await asyncio.wait_for(task, 10)
        assert said in caplog.text and bool(said) == bool(caplog.records)
        assert all(each.getMessage().isprintable() for each in caplog.records)


# Asking again --------------------------------------------------------------------------------


class Told:
    """What a watch says, in order."""

    def __init__(self):
        self.still = []
        self.gone = []
        self.fails = False

    async def on_still(self, person, guest):
        self.still.append((person, guest))

    async def on_gone(self, user, guest):
        if self.fails:
            raise RuntimeError("the host is busy")
        self.gone.append((user, guest))


@asynccontextmanager
async def watching(every=0.05, deadline=10):
    async with asking(deadline) as (hub, rights):
        told = Told()
        watch = Watch(rights, every, told.on_still, told.on_gone)
        try:
            yield hub, watch, told
        finally:
            await watch.close()


async def until(condition, watch, in_use, seconds=10):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        watch.look(in_use)
        await asyncio.sleep(0.01)


def later():
    return time.time() + 100


async def test_a_seat_in_use_is_asked_about_again_and_again():
    async with watching() as (hub, watch, told):
        hub.tokens["t"] = user("ann")
        watch.remember(Person("ann"), "g", "t", later())
        await until(lambda: hub.asked["t"] >= 3, watch, {("ann", "g")})
        assert told.gone == []
        assert told.still[0][0].name == "ann" and told.still[0][1] == "g"


async def test_a_seat_that_nobody_uses_costs_the_hub_nothing():
    async with watching() as (hub, watch, _):
        watch.remember(Person("ann"), "g", "t", later())
        for _ in range(20):
            watch.look(set())
            await asyncio.sleep(0.01)
        assert not hub.asked
        # Once it is used again, it is asked about at once.
        await until(lambda: hub.asked["t"] == 1, watch, {("ann", "g")})


async def test_a_token_that_does_not_hold_any_more_ends_its_seats_and_no_others():
    async with watching() as (hub, watch, told):
        hub.tokens["t"] = 403
        hub.tokens["of-ben"] = user("ben")
        watch.remember(Person("ann"), "g", "t", later())
        watch.remember(Person("ann"), "h", "t", later())
        watch.remember(Person("ben"), "g", "of-ben", later())
        seats = {("ann", "g"), ("ann", "h"), ("ben", "g")}
        await until(lambda: len(told.gone) >= 2 and told.still, watch, seats)
        assert set(told.gone) == {("ann", "g"), ("ann", "h")}
        assert {guest for person, guest in told.still if person.name == "ben"} == {"g"}


async def test_a_token_that_holds_says_nothing_of_anybody_elses_seats():
    async with watching() as (hub, watch, told):
        hub.tokens |= {"of-ann": user("ann"), "of-ben": user("ben")}
        watch.remember(Person("ann"), "g", "of-ann", later())
        watch.remember(Person("ben"), "h", "of-ben", later())
        seats = {("ann", "g"), ("ben", "h")}
        await until(lambda: min(hub.asked["of-ann"], hub.asked["of-ben"]) >= 3, watch, seats)
        assert told.gone == []
        assert {(person.name, guest) for person, guest in told.still} == seats


async def test_nobody_is_asked_about_before_it_is_due():
    async with watching(every=30) as (hub, watch, _):
        hub.tokens |= {"of-ann": user("ann"), "of-ben": user("ben")}
        watch.remember(Person("ann"), "g", "of-ann", later())
        watch.remember(Person("ben"), "h", "of-ben", later())
        watch._due["of-ben"] = 0.0
        seats = {("ann", "g"), ("ben", "h")}
        await until(lambda: hub.asked["of-ben"], watch, seats)
        for _ in range(30):
            watch.look(seats)
            await asyncio.sleep(0.01)
        assert hub.asked == {"of-ben": 1}


async def test_a_seat_of_two_servers_holds_as_long_as_one_of_them_does():
    async with watching() as (hub, watch, told):
        hub.tokens["one"], hub.tokens["two"] = 403, user("ann")
        watch.remember(Person("ann"), "g", "one", later())
        watch.remember(Person("ann"), "g", "two", later())
        await until(lambda: hub.asked["two"] >= 3, watch, {("ann", "g")})
        assert told.gone == [] and hub.asked["one"] == 1
        hub.tokens["two"] = 403
        await until(lambda: told.gone, watch, {("ann", "g")})
        assert told.gone == [("ann", "g")]


@pytest.mark.parametrize("worth", [500, HANGS, DROPS, "<html>"], ids=repr)
async def test_a_hub_that_gives_no_answer_ends_nothing(worth, caplog):
    caplog.set_level(logging.INFO)
    async with watching(deadline=0.5) as (hub, watch, told):
        hub.tokens["t"] = worth
        watch.remember(Person("ann"), "g", "t", later())
        await until(lambda: hub.asked["t"] >= 2, watch, {("ann", "g")})
        assert told.gone == [] and watch.holds(("ann", "g"))
        hub.tokens["t"] = user("ann")
        await until(lambda: told.still, watch, {("ann", "g")})
        await until(lambda: "answers again" in caplog.text, watch, {("ann", "g")})
        assert caplog.text.count("Seats stay") == 1  # said once, not at each try


async def test_a_hub_that_answers_now_and_then_does_not_fill_the_log(caplog):
    caplog.set_level(logging.INFO)
    async with watching() as (hub, watch, _):
        for n in range(20):
            hub.tokens[f"t{n}"] = user("ann") if n % 2 else 500
            watch.remember(Person("ann"), f"g{n}", f"t{n}", later())
        seats = {("ann", f"g{n}") for n in range(20)}
        await until(lambda: all(hub.asked[f"t{n}"] >= 3 for n in range(20)), watch, seats)
    assert caplog.text.count("Seats stay") == caplog.text.count("answers again") == 1


async def test_a_seat_that_could_not_be_ended_is_tried_again(caplog):
    async with watching() as (hub, watch, told):
        told.fails = True
        watch.remember(Person("ann"), "g", "t", later())
        await until(lambda: hub.asked["t"] >= 2, watch, {("ann", "g")})
        told.fails = False
        await until(lambda: told.gone, watch, {("ann", "g")})


async def test_a_user_who_was_renamed_loses_the_old_name_s_seat():
    async with watching() as (hub, watch, told):
        hub.tokens["t"] = user("eve")
        watch.remember(Person("ann"), "g", "t", later())
        await until(lambda: told.gone, watch, {("ann", "g")})
        assert told.still == []


async def test_what_is_over_is_forgotten_with_its_token():
    async with watching() as (hub, watch, _):
        watch.remember(Person("ann"), "g", "t", time.time() - 1)
        watch.remember(Person("ann"), "h", "u", later())
        watch.look(set())
        assert not watch.holds(("ann", "g"))
        assert watch.guests("ann") == ["h"]
        watch.forget("ann", "h")
        watch.look(set())
        assert watch._due == {}
        assert not hub.asked


async def test_one_seat_keeps_a_few_tokens_only():
    async with watching() as (hub, watch, told):
        for n in range(50):
            watch.remember(Person("ann"), "g", f"t{n}", later())
        await until(lambda: told.gone, watch, {("ann", "g")})
        assert len(hub.asked) <= 8


async def test_those_who_came_together_are_asked_about_one_after_the_other():
    async with watching(every=2.0) as (hub, watch, _):
        hub.slow = 0.01
        for n in range(100):
            hub.tokens[f"t{n}"] = user(f"u{n}")
            watch.remember(Person(f"u{n}"), "g", f"t{n}", later())
        seats = {(f"u{n}", "g") for n in range(100)}
        await until(lambda: len(hub.asked) == 100, watch, seats)
        assert hub.most_at_once <= 8


async def test_a_watch_that_is_closed_leaves_no_question_open(caplog):
    async with asking(deadline=20) as (hub, rights):
        hub.tokens["t"] = HANGS
        told = Told()
        watch = Watch(rights, 0.01, told.on_still, told.on_gone)
        watch.remember(Person("ann"), "g", "t", later())
        await until(lambda: hub.asked["t"] == 1, watch, {("ann", "g")})
        await watch.close()
        assert watch._asking == {}
        assert told.gone == []
    await asyncio.sleep(0.05)
    assert [each for each in caplog.records if each.levelno >= logging.WARNING] == []
