"""Several hosts of one guest, over real QUIC: who is asked, who is next, and who never reads it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from qmt_jupyter.errors import (
    Busy,
    GenerationFailed,
    HostGone,
    HostNotFound,
    ModelUnknown,
    NotJoined,
    OptionInvalid,
    ProtocolViolation,
    RequestInvalid,
    RequestsUsedUp,
    Revoked,
    Stopped,
)
from qmt_jupyter.guest.link import HostLink
from qmt_jupyter.guest.mesh import GuestMesh
from qmt_jupyter.guest.returning import Away
from qmt_jupyter.guest.routing import Route
from qmt_jupyter.host.granting import Terms, sign_invite
from qmt_jupyter.identity import keys, link
from qmt_jupyter.mesh.channel import Channel
from qmt_jupyter.mesh.endpoint import Endpoint, TransportError
from qmt_jupyter.providers.base import Chunk, Embedding, Model, Provider
from qmt_jupyter.wire import frames, messages
from tests.mesh.conftest import REACH, RawGuest, at, grant, question, until

pytestmark = pytest.mark.anyio


class Staged(Provider):
    """Answers with its name when its gate is open, and keeps what it was asked.

    ``failing`` is raised instead, before the first token or (``midway``) after it.
    """

    device = "stage"
    models: tuple[Model, ...] = ()
    slots = 0

    def __init__(self, name: str, *models: str, slots: int = 4) -> None:
        self.name = name
        self.models = tuple(Model(model, 1000) for model in models or ("m",))
        self.slots = slots
        self.gate = anyio.Event()
        self.gate.set()
        self.asked: list[Mapping[str, Any]] = []
        self.running = 0
        self.failing: Exception | None = None
        self.midway = False

    def shut(self) -> None:
        if self.gate.is_set():
            self.gate = anyio.Event()

    async def chat(self, model: str, request: Mapping[str, Any]) -> AsyncGenerator[Chunk, None]:
        self.asked.append(request)
        self.running += 1
        try:
            yield _chunk({"role": "assistant", "content": ""})
            if not self.midway:
                await self._come_on()
            yield _chunk({"content": self.name})
            await self._come_on()
            yield _chunk({}, "stop")
        finally:
            self.running -= 1

    async def _come_on(self) -> None:
        await self.gate.wait()
        if self.failing is not None:
            raise self.failing


def _chunk(delta: dict[str, Any], finish: str | None = None) -> Chunk:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


class Stage:
    """Hosts by name, and a guest who has joined them in that order."""

    def __init__(self, person) -> None:
        self._person = person
        self.providers: dict[str, Staged] = {}
        self.services: dict[str, Any] = {}
        self.links: dict[str, link.Link] = {}
        self.mesh: Any = None

    async def host(self, name, *models, slots=4, **limits):
        self.providers[name] = Staged(name, *models, slots=slots)
        self.services[name] = await self._person(name).host(self.providers[name])
        self.links[name] = await self.services[name].invite(Terms(name, 0, 3600, _limits(limits)))
        if self.mesh is None:
            self.mesh = await self._person("guest").join(self.links[name])
        else:
            await self.mesh.add(self.links[name])

    def id_of(self, name):
        return self.services[name].peer_id

    def name_of(self, host_id):
        return next(name for name in self.services if self.id_of(name) == host_id)

    async def ask(self, host=None, **parameters):
        """The text of an answer, and the names of the hosts that were asked, in turn."""
        text, asked = "", []
        async for reply in self.mesh.answer(question(**parameters), host):
            if isinstance(reply, Route):
                asked.append(self.name_of(reply.host_id))
            elif isinstance(reply, messages.Delta):
                text += reply.choices[0]["delta"].get("content", "")
        return text, asked

    def asked(self):
        """How many requests reached each host's model."""
        return {name: len(each.asked) for name, each in self.providers.items()}

    @asynccontextmanager
    async def busy(self, name, number):
        """So many requests of somebody else run there, and this guest has been told."""
        other = await self._person(f"other of {name}").join(self.links[name])
        provider, before = self.providers[name], len(self.providers[name].asked)
        provider.shut()

        async def ask():
            async for _ in other.answer(question()):
                pass

        async with anyio.create_task_group() as tasks:
            for _ in range(number):
                tasks.start_soon(ask)
            await until(lambda: self.busy_at(name) == number)
            yield
            provider.gate.set()
        del provider.asked[before : before + number]
        await other.close()

    def busy_at(self, name):
        entries = [each for each in self.mesh.models() if each["host"] == self.id_of(name)]
        return entries[0]["busy"]

    async def close(self):
        for each in self.providers.values():
            each.gate.set()
        for each in (self.mesh, *self.services.values()):
            if each is not None:
                await each.close()


def _limits(given):
    from qmt_jupyter.host.limits import Limits

    return Limits(**given)


@pytest.fixture
async def stage(person, monkeypatch):
    # Round trips on loopback differ by chance; what they decide is tested without a network.
    monkeypatch.setattr(HostLink, "rtt_ms", None)
    made = Stage(person)
    yield made
    await made.close()


@pytest.fixture
async def three(stage):
    for name in ("a", "b", "c"):
        await stage.host(name)
    return stage


# Whom to ask ----------------------------------------------------------------------------------


async def test_the_least_loaded_host_is_asked(three):
    async with three.busy("a", 2), three.busy("b", 1):
        assert await three.ask() == ("c", ["c"])
        three.providers["c"].shut()
        async with anyio.create_task_group() as tasks:
            for _ in range(2):
                tasks.start_soon(three.ask)
            await until(lambda: three.providers["c"].running == 1)
            # What the guest has asked itself counts before the host tells of it.
            await until(lambda: three.providers["b"].running == 2)
            for each in three.providers.values():
                each.gate.set()


async def test_requests_at_once_are_spread_evenly(three):
    for each in three.providers.values():
        each.shut()
    async with anyio.create_task_group() as tasks:
        for _ in range(9):
            tasks.start_soon(three.ask)
        await until(lambda: sum(three.asked().values()) == 9)
        assert three.asked() == {"a": 3, "b": 3, "c": 3}
        for each in three.providers.values():
            each.gate.set()


async def test_more_slots_take_more(stage):
    await stage.host("small", slots=1)
    await stage.host("large", slots=3)
    for each in stage.providers.values():
        each.shut()
    async with anyio.create_task_group() as tasks:
        for _ in range(8):
            tasks.start_soon(stage.ask)
        await until(lambda: stage.asked() == {"small": 1, "large": 3})
        await until(lambda: stage.services["small"].status()["waiting"] == 1)
        await until(lambda: stage.services["large"].status()["waiting"] == 3)
        for each in stage.providers.values():
            each.gate.set()


async def test_a_model_is_asked_where_it_is(stage):
    await stage.host("a", "small")
    await stage.host("b", "small", "large")
    assert await stage.ask(model="large") == ("b", ["b"])
    with pytest.raises(ModelUnknown, match="offered: small, large"):
        await stage.ask(model="huge")


async def test_without_a_model_it_is_the_first_ones(stage):
    await stage.host("a", "small")
    await stage.host("b", "large", "small")
    async with stage.busy("a", 1):
        assert await stage.ask() == ("b", ["b"])
    assert stage.providers["b"].asked, "it has the model too"
    async with stage.busy("b", 1):
        assert await stage.ask() == ("a", ["a"])


async def test_without_a_model_any_will_do_when_the_first_is_gone(stage):
    await stage.host("a", "small")
    await stage.host("b", "large")
    assert await stage.ask() == ("a", ["a"])
    await stage.services["a"].close()
    assert (await stage.ask())[0] == "b"


async def test_a_named_host_is_asked_however_busy(three):
    async with three.busy("b", 3):
        for name in ("b", three.id_of("b"), three.id_of("b")[-8:]):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(three.ask, name)
                await until(lambda: three.providers["b"].running == 4)
                tasks.cancel_scope.cancel()
            await until(lambda: three.providers["b"].running == 3)
    assert three.asked()["a"] == three.asked()["c"] == 0
    with pytest.raises(OptionInvalid, match="has been joined"):
        await three.ask("nobody")


async def test_models_tell_host_load_and_round_trip(person):
    service = await person("host").host(Staged("a", slots=2))
    mesh = await person("guest").join(await grant(service))
    entry = mesh.models()[0]
    assert (entry["slots"], entry["busy"], entry["load"]) == (2, 0, 0.0)
    assert 0 <= entry["rtt_ms"] < 10_000
    assert mesh.status()[0]["load"] == 0.0
    await mesh.close()
    await service.close()


# Who is next ----------------------------------------------------------------------------------


async def test_a_host_that_stops_before_the_first_token_is_replaced(three):
    three.providers["a"].shut()
    answers = []

    async def ask():
        answers.append(await three.ask())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask)
        await until(lambda: three.providers["a"].running == 1)
        await three.services["a"].close()
    assert answers == [("b", ["a", "b"])]
    assert await three.ask() == ("b", ["b"]), "who is gone is not asked first again"


async def test_a_revoked_invite_leads_to_the_next_host(three):
    three.providers["a"].shut()
    answers = []

    async def ask():
        answers.append(await three.ask())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask)
        await until(lambda: three.providers["a"].running == 1)
        await three.services["a"].revoke(three.links["a"].invite.invite_id)
    assert answers == [("b", ["a", "b"])]
    assert three.asked()["c"] == 0
    with pytest.raises(Revoked):
        await three.ask("a")


@pytest.mark.parametrize("error", [Busy("Full."), GenerationFailed("Broke.")])
async def test_a_host_that_fails_before_the_first_token_is_replaced(three, error):
    three.providers["a"].failing = error
    assert await three.ask() == ("b", ["a", "b"])
    # It has a pause now, though it tells that it is idle.
    assert await three.ask() == ("b", ["b"])
    assert three.asked() == {"a": 1, "b": 2, "c": 0}


async def test_a_spent_invite_leads_to_the_next_host(stage):
    await stage.host("a", requests=1)
    await stage.host("b")
    assert await stage.ask() == ("a", ["a"])
    assert await stage.ask() == ("b", ["a", "b"])
    with pytest.raises(RequestsUsedUp):
        await stage.ask("a")


async def test_the_route_says_who_was_asked_before_and_why_not(three):
    three.providers["a"].failing = Busy("Full.")
    three.providers["b"].failing = GenerationFailed("Broke.")
    routes = [each async for each in three.mesh.answer(question()) if isinstance(each, Route)]
    assert [each.mesh for each in routes] == ["a", "b", "c"]
    assert [(three.name_of(p.host_id), p.code) for p in routes[-1].passed] == [
        ("a", "busy"),
        ("b", "generation-failed"),
    ]


async def test_where_all_refuse_the_most_useful_error_is_raised(three):
    three.providers["a"].failing = GenerationFailed("Broke.")
    three.providers["b"].failing = Busy("Full.", retry_after=3.0)
    three.providers["c"].failing = Busy("Fuller.", retry_after=9.0)
    with pytest.raises(Busy, match=r"None of 3 hosts could; b \(\w+\): Full\.") as raised:
        await three.ask()
    assert raised.value.retry_after == 3.0


@pytest.mark.parametrize("how", ["stopped", "failed", "revoked"])
async def test_after_the_first_token_nobody_else_is_asked(three, how):
    provider, service = three.providers["a"], three.services["a"]
    provider.midway = True
    provider.shut()
    said = []
    error = {"stopped": Stopped, "failed": GenerationFailed, "revoked": Revoked}[how]
    with pytest.raises(error):
        async for reply in three.mesh.answer(question()):
            if not isinstance(reply, messages.Delta):
                continue
            said.append(reply.choices[0]["delta"].get("content"))
            if said[-1] != "a":
                continue
            if how == "stopped":
                await service.close()
            elif how == "revoked":
                await service.revoke(three.links["a"].invite.invite_id)
            else:
                provider.failing = GenerationFailed("Broke.")
                provider.gate.set()
    assert said == ["", "a"], "each piece came once"
    assert three.asked() == {"a": 1, "b": 0, "c": 0}


async def test_a_named_host_that_refuses_is_not_replaced(three):
    three.providers["a"].failing = Busy("Full.")
    with pytest.raises(Busy, match="^Full"):
        await three.ask("a")
    assert three.asked() == {"a": 1, "b": 0, "c": 0}


async def test_a_wrong_request_is_not_shown_to_the_next_host(three):
    with pytest.raises(RequestInvalid):
        await three.ask(base_url="http://elsewhere")
    three.providers["a"].failing = RequestInvalid("Not like that.")
    with pytest.raises(RequestInvalid):
        await three.ask()
    assert three.asked() == {"a": 1, "b": 0, "c": 0}


async def test_leaving_while_a_host_is_waited_for_shows_nobody_else_the_prompt(three):
    three.providers["a"].shut()
    raised = []

    async def ask():
        try:
            await three.ask()
        except Exception as error:
            raised.append(error)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask)
        await until(lambda: three.providers["a"].running == 1)
        await three.mesh.close()
    assert [type(each) for each in raised] == [NotJoined]
    assert three.asked() == {"a": 1, "b": 0, "c": 0}


async def test_a_host_that_is_killed_before_the_first_token_is_replaced(stage, tmp_path):
    code = (
        "import os, sys, time\n"
        "import qmt_jupyter as qmt\n"
        "from qmt_jupyter.providers.echo import Echo\n"
        "host = qmt.host(Echo(), name='killed')\n"
        "print(host.invite.url, flush=True)\n"
        "time.sleep(100)\n"
    )
    environment = {**os.environ, "QMT_HOME": str(tmp_path / "killed")}
    process = subprocess.Popen(
        [sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True
    )
    try:
        granted = link.read(process.stdout.readline().strip())
        stage.mesh = await stage._person("guest").join(granted)
        await stage.host("b", "echo")
        passed = []
        async for reply in stage.mesh.answer(question()):
            if isinstance(reply, Route):
                passed.append(reply.passed)
                if not reply.passed:
                    assert reply.mesh == "killed"
                    process.kill()
            elif isinstance(reply, messages.Delta):
                text = reply.choices[0]["delta"].get("content") or "b"
                assert text == "b"
        assert [[each.code for each in each_passed] for each_passed in passed] == [
            [],
            ["host-gone"],
        ]
    finally:
        process.kill()
        process.communicate()


class Vectors(Staged):
    """A host whose model makes vectors of one number, the length of a text."""

    async def embed(self, model, request):
        self.asked.append(request)
        if self.failing is not None:
            raise self.failing
        for index, text in enumerate(request["input"]):
            yield Embedding(index, [float(len(text))], 1)


async def test_embeddings_go_to_the_next_host_too(person):
    providers = [Vectors("a"), Vectors("b")]
    for each in providers:
        each.models = (Model("chat", 100), Model("vectors", 100, chats=False, embeds=True))
    services = [await person(each.name).host(each) for each in providers]
    mesh = await person("guest").join(await grant(services[0]))
    await mesh.add(await grant(services[1]))
    body = {"input": ["one", "three"], "model": "vectors"}
    providers[0].failing = GenerationFailed("Broke.")
    for _ in range(2):
        result = await mesh.embed(body)
        assert [each["embedding"] for each in result["data"]] == [[3.0], [5.0]]
    assert len(providers[0].asked) <= 1, "and has a pause after it"
    assert len(providers[1].asked) == 2
    unnamed = {"input": ["one"]}
    assert (await mesh.embed(unnamed, services[1].peer_id))["model"] == "vectors"
    with pytest.raises(GenerationFailed, match="^Broke"):
        await mesh.embed(unnamed, services[0].peer_id)
    for each in (mesh, *services):
        await each.close()


# Joining and leaving --------------------------------------------------------------------------


async def test_the_same_host_again_takes_the_former_links_place(three):
    former = three.mesh.links[0]
    await three.mesh.add(three.links["a"])
    assert [each.host_id for each in three.mesh.links] == [three.id_of(n) for n in "abc"]
    assert three.mesh.links[0] is not former
    assert not former.is_connected
    assert await three.ask() == ("a", ["a"])


async def test_a_host_that_cannot_be_joined_again_is_not_left(three):
    await three.services["a"].revoke(three.links["a"].invite.invite_id)
    other = await three.services["b"].invite(Terms("b", 1, 3600))
    await three.services["b"].revoke(other.invite.invite_id)
    before = three.mesh.links[1]
    with pytest.raises(Revoked):
        await three.mesh.add(other)
    assert three.mesh.links[1] is before
    assert await three.ask("b") == ("b", ["b"])


async def test_one_host_is_left_alone(three):
    assert await three.mesh.leave("b") == three.id_of("b")
    assert [each.mesh_name for each in three.mesh.links] == ["a", "c"]
    with pytest.raises(OptionInvalid):
        await three.mesh.leave("b")
    await three.mesh.close()
    with pytest.raises(NotJoined):
        await three.mesh.add(three.links["a"])
    with pytest.raises(NotJoined):
        await three.ask()


async def test_of_several_links_one_host_that_admits_is_enough(three, person):
    gone = sign_invite(keys.Identity.fresh(), Terms("Gone", 1, 60), time.time())
    absent = link.Link(gone, link.Hints(("127.0.0.1:9",)))
    mesh = await GuestMesh.join_all(
        [absent, three.links["b"], three.links["b"]], person("late").settings, deadline=3.0
    )
    status = {each["mesh"]: each for each in mesh.status()}
    assert set(status) == {"Gone", "b"}
    assert status["b"]["problem"] is None
    assert mesh.status()[0]["problem"] is not None
    await until(lambda: "was not found" in mesh.status()[0]["problem"])
    routes = [each.mesh async for each in mesh.answer(question()) if isinstance(each, Route)]
    assert routes == ["b"]
    with pytest.raises(HostNotFound):
        await GuestMesh.join_all([absent], person("late").settings, deadline=0.5)
    await mesh.close()


async def test_a_host_that_comes_late_is_not_waited_for(three, person, monkeypatch):
    from qmt_jupyter.guest import joining

    monkeypatch.setattr(joining, "_GRACE", 0.05)
    arrived = anyio.Event()
    connect = HostLink.connect

    async def late(self, *arguments):
        if self.mesh_name == "a":
            await arrived.wait()
        await connect(self, *arguments)

    monkeypatch.setattr(HostLink, "connect", late)
    mesh = await GuestMesh.join_all([three.links["a"], three.links["b"]], person("late").settings)
    assert [each["connected"] for each in mesh.status()] == [False, True]
    assert mesh.status()[0]["problem"] == "The host has not answered yet."
    arrived.set()
    await until(lambda: all(each["connected"] for each in mesh.status()))
    await mesh.close()


# What hosts tell, and lies --------------------------------------------------------------------


async def test_a_host_tells_its_load_when_it_changes_and_not_otherwise(three):
    raw = await RawGuest.connect(three.links["a"])
    welcome = await raw.greet(raw.greeting(three.links["a"].invite.token))
    assert welcome.models == [messages.ModelOffer("m", 1000, slots=4, busy=0)]
    told: list[int] = []

    async def listen():
        while (payload := await raw.control.receive()) is not None:
            message = messages.decode_to_guest(payload)
            if isinstance(message, messages.Models):
                told.append(message.models[0].busy)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(listen)
        async with three.busy("a", 3):
            await until(lambda: told[-1:] == [3])
        await until(lambda: told[-1:] == [0])
        before = len(told)
        await anyio.sleep(2.6)
        assert len(told) == before, "nothing has changed"
        tasks.cancel_scope.cancel()
    await raw.close()


class Liar:
    """A host that tells what it likes of its load, and answers what it likes."""

    def __init__(self, replies, **offer) -> None:
        self.identity = keys.Identity.fresh()
        self.replies = replies
        self.offer = {"name": "m", **offer}
        self.asked = 0

    @asynccontextmanager
    async def running(self):
        endpoint = await Endpoint.bind(self.identity.seed, REACH, alpns=(messages.ALPN,))
        invite = sign_invite(self.identity, Terms("Liar", 0, 3600), time.time())
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._serve, endpoint, tasks)
            yield link.Link(invite, link.Hints((at(endpoint),)))
            tasks.cancel_scope.cancel()
        await endpoint.close()

    async def _serve(self, endpoint, tasks):
        async for connection in endpoint.connections():
            tasks.start_soon(self._welcome, connection)

    async def _welcome(self, connection):
        with contextlib.suppress(TransportError):
            await self._talk(connection)

    async def _talk(self, connection):
        control = Channel(await connection.accept_stream(), frames.CONTROL_LIMIT)
        await control.receive()
        welcome = {"t": "welcome", "version": 1, "membership": "m", "models": [self.offer]}
        control.post(frames.frame(messages._encoder.encode(welcome)))
        while not connection.is_closed:
            stream = Channel(await connection.accept_stream(), frames.ASK_LIMIT)
            await stream.receive()
            self.asked += 1
            for reply in self.replies:
                stream.post(messages.encode(reply))
            await stream.finish()


@pytest.mark.parametrize("offer", [{"slots": -4}, {"slots": 0}, {"busy": 2**40}, {"busy": -1}])
async def test_numbers_that_cannot_be_end_the_joining(three, offer):
    async with Liar([], **offer).running() as granted:
        with pytest.raises(ProtocolViolation):
            await three.mesh.add(granted)
    assert len(three.mesh.links) == 3


@pytest.mark.parametrize("claims", [{"slots": 2**16, "busy": 0}, {}])
async def test_a_host_that_claims_to_be_idle_and_refuses_is_asked_last_for_a_while(
    stage, person, claims
):
    liar = Liar([messages.Failed(code="busy", sentence="No.", retry_after=1e300)], **claims)
    async with liar.running() as granted:
        stage.mesh = await person("guest").join(granted)
        await stage.host("b")
        stage.name_of = lambda host_id: "b" if host_id == stage.id_of("b") else "liar"
        assert await stage.ask() == ("b", ["liar", "b"])
        for _ in range(20):
            assert await stage.ask() == ("b", ["b"])
        assert liar.asked == 1
        await stage.mesh.close()


async def test_a_host_that_says_nothing_but_that_it_starts_is_left_for_another(stage, person):
    nothing = [messages.Started(id="i", model="m", created=1)]
    nothing += [messages.Delta(seq=n, choices=[]) for n in range(1, 10)]
    async with Liar([*nothing, messages.Failed(code="made-up", sentence="No.")]).running() as it:
        stage.mesh = await person("guest").join(it)
        await stage.host("b")
        kinds = [type(each).__name__ async for each in stage.mesh.answer(question())]
        assert kinds[:5] == ["Route", "Started", "Route", "Started", "Delta"]
        await stage.mesh.close()


async def test_who_is_given_up_on_while_waiting_is_asked_last(three, monkeypatch):
    from qmt_jupyter.guest import mesh as meshes

    monkeypatch.setattr(meshes, "_PATIENCE", 0.0)
    three.providers["a"].shut()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(three.ask)
        await until(lambda: three.providers["a"].running == 1)
        tasks.cancel_scope.cancel()
    await until(lambda: three.providers["a"].running == 0)
    assert await three.ask() == ("b", ["b"])


@pytest.mark.parametrize("native", [False, True])
async def test_leaving_is_carried_through_once_it_has_begun(person, native):
    """Cancelled in the middle, it left the sockets of the guest's node open."""
    service = await person("host").host()
    mesh = await person("guest").join(await grant(service))
    port = mesh._finder._directory.port
    if native:
        leaving = asyncio.ensure_future(mesh.close())
        await asyncio.sleep(0)
        leaving.cancel()
        await asyncio.wait([leaving])
    else:
        with anyio.move_on_after(0):
            await mesh.close()
    await until(lambda: is_free(port))
    await service.close()


def is_free(port):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, contextlib.suppress(OSError):
        probe.bind(("127.0.0.1", port))
        return True
    return False


async def test_with_all_hosts_away_the_first_that_comes_back_is_asked(person):
    """Only the last in turn was waited for; the others were looked for once and given up."""
    hosts = {name: person(name) for name in ("a", "b")}
    services = {name: await each.host() for name, each in hosts.items()}
    mesh = await person("guest").join(await grant(services["a"]))
    await mesh.add(await grant(services["b"]))
    for each in services.values():
        await each.close()
    await until(lambda: not any(each.is_connected for each in mesh.links))
    events = mesh.answer(question(), patience=60.0)
    first = await anext(events)
    assert isinstance(first, Away)
    back = await hosts["a"].host()
    rest = [event async for event in events]
    assert "".join(
        event.choices[0]["delta"].get("content", "")
        for event in rest
        if isinstance(event, messages.Delta)
    ) == "one two three"  # fmt: skip
    assert [event.host_id for event in rest if isinstance(event, Route)] == [back.peer_id]
    await mesh.close()
    await back.close()


async def test_embeddings_too_wait_for_whichever_host_comes_back(person):
    hosts = {name: person(name) for name in ("a", "b")}
    services = {name: await each.host() for name, each in hosts.items()}
    mesh = await person("guest").join(await grant(services["a"]))
    await mesh.add(await grant(services["b"]))
    for each in services.values():
        await each.close()
    await until(lambda: not any(each.is_connected for each in mesh.links))
    async with anyio.create_task_group() as tasks:
        found = {}

        async def embed():
            found.update(await mesh.embed({"input": "a"}, patience=60.0))

        tasks.start_soon(embed)
        await anyio.sleep(0.1)
        back = await hosts["b"].host()
    assert found["model"] == "echo"
    await mesh.close()
    await back.close()


async def test_a_host_that_is_over_says_why_in_the_status(person):
    service = await person("host").host()
    granted = await grant(service)
    mesh = await person("guest").join(granted)
    await service.revoke(granted.invite.invite_id)
    await until(lambda: mesh.status()[0]["problem"])
    assert "revoked" in mesh.status()[0]["problem"]
    assert not mesh.status()[0]["returning"]
    await mesh.close()
    await service.close()


async def test_a_join_that_breaks_among_several_is_said_and_not_swallowed(person, monkeypatch):
    """It was said that there is no invite to join with."""
    service = await person("host").host()
    granted = await grant(service)

    async def breaks(*_arguments):
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(HostLink, "connect", breaks)
    with pytest.raises(HostGone, match="Joining this host failed"):
        await GuestMesh.join_all([granted], person("guest").settings)
    await service.close()
