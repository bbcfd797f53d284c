"""An invite's limits over real QUIC: each refusal is a class of its own, and what is left is told."""

from __future__ import annotations

import time

import anyio
import pytest

from qmt_jupyter.errors import (
    Busy,
    GenerationFailed,
    InviteUsedUp,
    MembershipEnded,
    ModelNotAllowed,
    RequestRateReached,
    RequestsUsedUp,
    TokenRateReached,
    TokensReserved,
    TokensUsedUp,
    TooManyAtOnce,
)
from qmt_jupyter.host import service as services
from qmt_jupyter.providers.echo import Echo
from qmt_jupyter.wire import messages
from tests.mesh.conftest import RawGuest, bare, grant, only_guest, question, texts, until

pytestmark = pytest.mark.anyio

WORDS = "one two three four five"


@pytest.mark.parametrize(
    ("limits", "before", "error"),
    [
        ({"requests": 1}, 1, RequestsUsedUp),
        ({"requests_per_minute": 1}, 1, RequestRateReached),
        ({"tokens": 36}, 1, TokensUsedUp),
        ({"tokens_per_minute": 40}, 1, TokenRateReached),
        ({"tokens": 5}, 0, TokensUsedUp),
        ({"models": ("another",)}, 0, ModelNotAllowed),
    ],
)
async def test_each_limit_refuses_with_its_own_class_and_sentence(person, limits, before, error):
    service = await person("host").host()
    mesh = await person("guest").join(await grant(service, **limits))
    for _ in range(before):
        await texts(mesh, text=WORDS, max_tokens=5)
    for _ in range(2):
        with pytest.raises(error) as raised:
            # Past the guest's own look at what is offered.
            async for _ in mesh.links[0].ask(question(text=WORDS, model="echo", max_tokens=5)):
                pass
    assert type(raised.value) is error
    assert str(raised.value).isprintable()
    assert only_guest(service)["requests"] == before, "what is refused is not counted"
    await mesh.close()
    await service.close()


async def test_a_limit_on_requests_at_once_counts_those_that_wait(person):
    service = await person("host").host(Echo(slots=1, delay=0.01, repeat=True))
    mesh = await person("guest").join(await grant(service, concurrent=2))

    async def ask():
        async for _ in mesh.answer(question(max_tokens=100)):
            pass

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask)
        tasks.start_soon(ask)
        await until(lambda: service.status()["waiting"] == 1)
        with pytest.raises(TooManyAtOnce, match="2 requests at once"):
            await texts(mesh)
    assert mesh.status()[0]["limits"]["concurrent"] == 2
    await texts(mesh)
    await mesh.close()
    await service.close()


async def test_an_answer_that_reaches_the_budget_ends_and_says_so(person):
    service = await person("host").host(Echo(repeat=True))
    mesh = await person("guest").join(await grant(service, tokens=200))
    replies = [reply async for reply in mesh.answer(question(max_tokens=100_000))]
    assert replies[-1] == messages.Done(finish_reason="budget")
    with pytest.raises(TokensUsedUp):
        await texts(mesh)
    guest = only_guest(service)
    assert guest["prompt_tokens"] + guest["completion_tokens"] <= 200
    assert guest["completion_tokens"] > 100
    await mesh.close()
    await service.close()


async def test_requests_side_by_side_never_pass_the_budget_together(person):
    service = await person("host").host(Echo(slots=8, delay=0.001, repeat=True))
    granted = await grant(service, tokens=1500)
    meshes = [await person(f"guest {n}").join(granted) for n in range(4)]
    refused = []

    async def ask(mesh):
        for _ in range(20):
            try:
                async for _ in mesh.answer(question(max_tokens=60)):
                    pass
            except (TokensUsedUp, TokensReserved) as error:
                refused.append(type(error))

    async with anyio.create_task_group() as tasks:
        for mesh in meshes * 2:
            tasks.start_soon(ask, mesh)
    invite = service.usage()["invites"][0]
    spent = invite["prompt_tokens"] + invite["completion_tokens"]
    assert 1350 < spent <= 1500
    assert invite["left"]["tokens"] == 1500 - spent
    assert refused
    for each in (*meshes, service):
        await each.close()


async def test_limits_may_hold_for_each_guest_by_itself(person):
    service = await person("host").host()
    granted = await grant(service, requests=1, per_guest=True)
    for name in ("first", "second"):
        mesh = await person(name).join(granted)
        await texts(mesh)
        with pytest.raises(RequestsUsedUp):
            await texts(mesh)
        await mesh.close()
    await service.close()


async def test_a_guest_sees_what_it_used_what_is_left_and_when_it_ends(person):
    service = await person("host").host()
    mesh = await person("guest").join(await grant(service, requests=3, tokens=500))
    before = mesh.status()[0]
    assert (before["limits"]["tokens"], before["left"]) == (500, {"requests": 3, "tokens": 500})
    await texts(mesh, text=WORDS)
    await until(lambda: mesh.status()[0]["left"] == {"requests": 2, "tokens": 490})
    after = mesh.status()[0]
    assert after["used"] == {"requests": 1, "prompt_tokens": 5, "completion_tokens": 5}
    assert after["expires_at"] > time.time()
    await mesh.close()
    await service.close()


async def test_a_waiting_guest_sees_its_position_in_its_status(person):
    service = await person("host").host(Echo(slots=1, delay=0.01, repeat=True))
    mesh = await person("guest").join(await grant(service))

    async def ask():
        async for _ in mesh.answer(question(max_tokens=60)):
            pass

    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(ask)
        await until(lambda: mesh.status()[0]["waiting"] == [0, 1])
        await until(lambda: mesh.status()[0]["waiting"] == [0])
    assert mesh.status()[0]["waiting"] == []
    await mesh.close()
    await service.close()


async def test_an_invite_offers_its_own_models_only(person):
    service = await person("host").host()
    mesh = await person("guest").join(await grant(service, models=("another",)))
    assert mesh.models() == []
    await mesh.close()
    await service.close()


async def test_a_piece_too_large_to_send_fails_its_request_alone(person):
    service = await person("host").host()
    mesh = await person("guest").join(await grant(service))
    with pytest.raises(GenerationFailed, match="too large to send"):
        await texts(mesh, text="w" * 300_000)
    assert "".join(await texts(mesh)) == "one two three"
    await mesh.close()
    await service.close()


# Admission ------------------------------------------------------------------------------------


async def test_of_fifty_guests_at_once_exactly_five_get_in(person):
    service = await person("host").host()
    granted = await grant(service, uses=5)
    admitted, refused = [], []

    async def arrive(number):
        try:
            admitted.append(await person(f"guest {number}").join(granted, deadline=30.0))
        except InviteUsedUp:
            refused.append(number)

    async with anyio.create_task_group() as tasks:
        for number in range(50):
            tasks.start_soon(arrive, number)
    assert (len(admitted), len(refused)) == (5, 45)
    assert service.usage()["invites"][0]["uses"] == 5
    for each in (*admitted, service):
        await each.close()


async def test_a_lost_welcome_costs_no_second_use(person):
    service = await person("host").host()
    granted = await grant(service, uses=1)
    guest = person("guest")
    for _ in range(5):
        raw = await RawGuest.connect(granted)
        control = await raw.stream()
        greeting = raw.greeting(granted.invite.token, identity=guest.identity())
        await control.write(messages.encode(greeting))
        await raw.close()
    mesh = await guest.join(granted)
    assert "".join(await texts(mesh)) == "one two three"
    assert service.usage()["invites"][0]["uses"] == 1
    await mesh.close()
    await service.close()


async def test_a_restart_forgets_no_use_no_token_and_no_name(person):
    host, guest = person("host"), person("guest")
    service = await host.host()
    granted = await grant(service, uses=1, tokens=100, requests=5)
    mesh = await guest.join(granted, name="Ada")
    await texts(mesh, text=WORDS)
    before = service.usage()
    await mesh.close()
    await service.close()
    service = await host.host()
    assert service.usage() == before
    with pytest.raises(InviteUsedUp):
        await person("stranger").join(bare(granted))
    mesh = await guest.join(bare(granted))
    assert mesh.status()[0]["left"] == {"requests": 4, "tokens": 90}
    assert only_guest(service)["claimed_name"] == "Ada"
    await mesh.close()
    await service.close()


async def test_a_lifetime_ends_the_answers_it_admitted(person, monkeypatch):
    service = await person("host").host(Echo(delay=0.01, repeat=True))
    mesh = await person("guest").join(await grant(service, lifetime=2))
    with pytest.raises(MembershipEnded, match="expired"), anyio.fail_after(15):
        async for _ in mesh.answer(question(max_tokens=100_000)):
            pass
    await until(lambda: only_guest(service)["ended"] == {"expired": 1})
    await mesh.close()
    await service.close()


# Names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["Ada", "Zoë 🦊", "<b>x</b>", "a\x1b[31m\nb\u202e", ""])
async def test_a_guests_name_is_shown_as_text_and_nothing_more(person, name):
    service = await person("host").host()
    granted = await grant(service)
    raw = await RawGuest.connect(granted)
    await raw.greet(raw.greeting(granted.invite.token, name=name))
    shown = only_guest(service)["claimed_name"]
    assert shown.isprintable()
    assert name.startswith(shown[:1])
    await raw.close()
    await service.close()


async def test_a_guest_has_so_many_connections_and_no_more(person, monkeypatch):
    monkeypatch.setattr(services, "MAX_CONNECTIONS_OF_ONE", 3)
    service = await person("host").host()
    granted = await grant(service)
    guest = person("guest")
    meshes = [await guest.join(granted) for _ in range(3)]
    with pytest.raises(Busy, match="3 connections"):
        await guest.join(granted)
    other = await person("other").join(granted)
    await meshes.pop().close()
    await until(lambda: service.status()["guests"] == 3)
    meshes.append(await guest.join(granted))
    for each in (*meshes, other, service):
        await each.close()
