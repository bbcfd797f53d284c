"""A host's metrics over real QUIC: the numbers are what happened, and nobody else's."""

from __future__ import annotations

import time
from collections import Counter

import anyio
import pytest

from qmt_jupyter.errors import GenerationFailed, Paused, QmtError, RequestsUsedUp, Revoked
from qmt_jupyter.host.allowance import NO_LIMITS, Allowance
from qmt_jupyter.providers.base import Model, Provider
from qmt_jupyter.providers.echo import Echo
from tests.mesh.conftest import RawGuest, grant, question, texts, until
from tests.mesh.test_seats import Asking, seat, slow

pytestmark = pytest.mark.anyio


class Broken(Provider):
    """Says three words and fails."""

    @property
    def models(self):
        return (Model("broken"),)

    @property
    def slots(self):
        return 1

    async def chat(self, model, request):
        for word in ("one ", "two ", "three "):
            yield {"choices": [{"index": 0, "delta": {"content": word}, "finish_reason": None}]}
        raise GenerationFailed("It broke.")


def said(counts):
    """The codes that were counted at all."""
    return {code: count for code, count in counts.items() if count}


def outcomes(report, model):
    return {
        each["outcome"]: each["count"]
        for each in report["requests"]
        if each["model"] == model and each["count"]
    }


def answered(report, model):
    return next(each["completion"] for each in report["tokens"] if each["model"] == model)


def now_of(report, model):
    each = next(each for each in report["models"] if each["model"] == model)
    return each["running"], each["waiting"]


async def test_the_numbers_are_what_happened(person):
    """Completed, failed, refused, cancelled and revoked, of two guests and the owner."""
    service = await person("host").host([Echo(slots=1, delay=0.005, repeat=True), Broken()])
    first = await grant(service)
    second = await grant(service, requests=1)
    mesh, other = await person("one").join(first), await person("two").join(second)
    report = service.metrics()
    assert (report["guests"], report["connections"], report["active_users"]) == (2, 2, 0)
    assert report["slots"] == 2

    for _ in range(3):
        await texts(mesh, model="echo", max_tokens=20)
    async for _ in service.answer(question(model="echo", max_tokens=10)):
        pass
    await texts(other, model="echo", max_tokens=10)
    with pytest.raises(RequestsUsedUp):
        await texts(other, model="echo", max_tokens=10)
    with pytest.raises(GenerationFailed):
        await texts(mesh, model="broken")
    report = service.metrics()
    assert outcomes(report, "echo") == {"completed": 5, "refused": 1}
    assert outcomes(report, "broken") == {"failed": 1}
    assert said(report["refused"]) == {"requests-used-up": 1}
    assert said(report["failed"]) == {"generation-failed": 1}
    assert answered(report, "echo") == 3 * 20 + 10 + 10
    assert answered(report, "broken") == 3
    assert report["active_users"] == 3
    assert report["first_token_seconds"]["echo"]["count"] == 5
    assert report["answer_tokens_per_second"]["echo"]["count"] == 5

    async def ask():
        # Whoever is cancelled has gone; whoever is revoked is told.
        with anyio.CancelScope() as scope:
            scopes.append(scope)
            try:
                async for _ in mesh.answer(question(model="echo", max_tokens=100_000)):
                    pass
            except QmtError as error:
                ended.append(error)

    scopes, ended = [], []
    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(ask)
        await until(lambda: now_of(service.metrics(), "echo") == (1, 2))
        before = answered(service.metrics(), "echo")
        await until(lambda: answered(service.metrics(), "echo") > before + 5)
        scopes[1].cancel()
        await until(lambda: outcomes(service.metrics(), "echo").get("cancelled") == 1)
        assert now_of(service.metrics(), "echo") == (1, 1)
        await service.revoke(first.invite.invite_id)
    assert [type(error) for error in ended] == [Revoked, Revoked]
    report = service.metrics()
    assert outcomes(report, "echo") == {
        "completed": 5, "refused": 1, "cancelled": 1, "revoked": 2
    }  # fmt: skip
    assert now_of(report, "echo") == (0, 0)
    queued = report["queue_seconds"]["echo"]
    assert queued["count"] == 5 + 3
    at_once = next(count for most, count in queued["buckets"] if most == 0.025)
    assert at_once < queued["count"], "two have waited"
    await until(lambda: service.metrics()["guests"] == 1)
    # What the metrics say is what the books say.
    usage = service.usage()
    every = [usage["own"], *(guest for each in usage["invites"] for guest in each["guests"])]
    told = Counter()
    for each in report["requests"]:
        told[each["outcome"]] += each["count"]
    assert told - Counter(refused=1) == sum((Counter(each["ended"]) for each in every), Counter())
    assert sum(each["completion"] for each in report["tokens"]) == sum(
        each["completion_tokens"] for each in every
    )
    await until_written(service, sum(each["completion_tokens"] for each in every))
    assert await service.hours(time.time() + 3600) == []
    for each in (mesh, other, service):
        await each.close()


async def until_written(service, tokens):
    """What is posted is written by and by."""
    with anyio.fail_after(10):
        while sum(row[2] for row in await service.hours(0)) != tokens:
            await anyio.sleep(0.02)


async def test_who_is_turned_away_is_counted_by_the_reason(person):
    service = await person("host").host()
    granted = await grant(service, uses=1)
    mesh = await person("one").join(granted)
    for number in range(2):
        with pytest.raises(QmtError):
            await person(f"more {number}").join(granted)
    raw = await RawGuest.connect(granted)
    await raw.greet(raw.greeting(b"no token at all"))
    await raw.close()
    report = service.metrics()
    assert said(report["not_admitted"]) == {"invite-used-up": 2, "invite-malformed": 1}
    assert sum(each["count"] for each in report["requests"]) == 0
    assert report["guests"] == 1
    await mesh.close()
    await until(lambda: service.metrics()["guests"] == 0)
    await service.close()


async def test_one_identity_with_two_connections_is_one_guest_and_one_user(person):
    service = await person("host").host()
    granted = await grant(service)
    meshes = [await person("one").join(granted) for _ in range(2)]
    for mesh in meshes:
        await texts(mesh)
    report = service.metrics()
    assert (report["connections"], report["guests"], report["active_users"]) == (2, 1, 1)
    for each in (*meshes, service):
        await each.close()


async def test_a_user_with_two_seats_is_one_active_user_and_has_hours_of_their_own(person):
    service = await person("host").host()
    home, lab, bob = person("home"), person("lab"), person("bob")
    alices = [await each.join(await seat(service, "alice", each)) for each in (home, lab)]
    bobs = await bob.join(await seat(service, "bob", bob))
    for mesh in alices:
        await texts(mesh)
    report = service.metrics()
    assert (report["guests"], report["active_users"]) == (3, 1)
    await texts(bobs, text="one")
    stranger = await person("stranger").join(await grant(service))
    await texts(stranger, text="one")
    async for _ in service.answer(question()):
        pass
    assert service.metrics()["active_users"] == 4
    await until_written(service, 3 + 3 + 1 + 1 + 3)

    async def used(user):
        return sum(row[1] for row in await service.hours(0, user)), sum(
            row[2] for row in await service.hours(0, user)
        )

    assert await used("alice") == (6, 6)
    assert await used("bob") == (1, 1)
    for nobody in ("", "carol", "ALICE", "alice' OR ''='", "%"):
        assert await service.hours(0, nobody) == []
    assert await service.hours(time.time() + 3600, "alice") == []
    for each in (*alices, bobs, stranger, service):
        await each.close()


async def test_a_pause_is_an_outcome_and_then_a_refusal(person):
    service = await person("host").host(slow())
    mesh = await person("alice").join(await seat(service, "alice", person("alice")))
    asking = Asking(mesh)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(asking.run)
        await until(lambda: asking.pieces > 5)
        await service.seating.allow("alice", Allowance(paused=True))
    assert type(asking.error) is Paused
    with pytest.raises(Paused):
        await texts(mesh)
    await until(lambda: outcomes(service.metrics(), "echo") == {"paused": 1, "refused": 1})
    assert said(service.metrics()["refused"]) == {"paused": 1}
    await service.seating.allow("alice", NO_LIMITS)
    for each in (mesh, service):
        await each.close()
