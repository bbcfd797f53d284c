"""Hosts, guests, and peers that keep to no rules, over real QUIC on loopback."""

from __future__ import annotations

import gc
import time
from pathlib import Path

import anyio
import pytest

from qmt_jupyter.guest.mesh import GuestMesh
from qmt_jupyter.host.granting import Terms
from qmt_jupyter.host.limits import Limits
from qmt_jupyter.host.service import HostService
from qmt_jupyter.identity import keys, link, statement
from qmt_jupyter.mesh import addresses
from qmt_jupyter.mesh.channel import Channel
from qmt_jupyter.mesh.endpoint import Endpoint
from qmt_jupyter.providers.echo import Echo
from qmt_jupyter.settings import Settings
from qmt_jupyter.wire import frames, messages

REACH = addresses.reach(("127.0.0.1",))


def at(endpoint):
    """Where an endpoint of this machine alone is, as ``IP:PORT``."""
    v4, v6 = endpoint.ports
    return f"127.0.0.1:{v4}" if v4 else f"[::1]:{v6}"


class Person:
    """Somebody with a home of their own."""

    def __init__(self, home: Path) -> None:
        self.settings = Settings(home, ("127.0.0.1",))

    def identity(self):
        return keys.load_or_create(self.settings.guest_dir / "identity.key")

    async def host(self, provider=None, **options):
        providers = provider if isinstance(provider, list) else [provider or Echo()]
        return await HostService.start(providers, self.settings, **options)

    async def join(self, granted, deadline=10.0, name=""):
        return await GuestMesh.join(granted, self.settings, name=name, deadline=deadline)


class RawGuest:
    """Speaks the protocol word by word, and says what it likes."""

    def __init__(self, endpoint, connection, host_key) -> None:
        self.endpoint = endpoint
        self.connection = connection
        self.host_key = host_key

    @classmethod
    async def connect(cls, granted):
        endpoint = await Endpoint.bind(keys.Identity.fresh().seed, REACH)
        connection = await endpoint.connect(
            granted.invite.host_key, granted.hints.addresses, messages.ALPN
        )
        return cls(endpoint, connection, granted.invite.host_key)

    def greeting(self, token, *, identity=None, endpoint_key=None, version=1, now=None, name=""):
        shown = statement.create(
            identity or keys.Identity.fresh(),
            endpoint_key or self.endpoint.public_key,
            self.host_key,
            now or time.time(),
        )
        return messages.Greeting(version=version, token=token, statement=shown, name=name)

    async def stream(self):
        return await self.connection.open_stream()

    async def greet(self, greeting):
        """The host's answer to a greeting."""
        # Held on to: a stream that nobody holds is reset.
        self.control = Channel(await self.stream(), frames.CONTROL_LIMIT)
        self.control.post(messages.encode(greeting))
        with anyio.fail_after(10):
            payload = await self.control.receive()
        return payload and messages.decode_to_guest(payload)

    async def close(self):
        self.connection.close()
        await self.endpoint.close()


async def grant(service, uses=0, lifetime=3600, **limits):
    return await service.invite(Terms("Test", uses, lifetime, Limits(**limits)))


def only_guest(service):
    """What the host's report says of the one guest there is."""
    return service.usage()["invites"][0]["guests"][0]


def bare(granted):
    """The same link without its hints."""
    return link.Link(granted.invite, link.Hints())


def question(text="one two three", **parameters):
    return {"messages": [{"role": "user", "content": text}], **parameters}


async def texts(mesh, **parameters):
    """The pieces of an answer."""
    return [
        choice["delta"].get("content", "")
        async for reply in mesh.answer(question(**parameters))
        if isinstance(reply, messages.Delta)
        for choice in reply.choices
    ]


async def until(condition, seconds=10.0):
    """Wait for something that will become true."""
    with anyio.fail_after(seconds):
        while not condition():
            await anyio.sleep(0.01)


@pytest.fixture
def person(tmp_path):
    return lambda name: Person(tmp_path / name)


@pytest.fixture(autouse=True)
def nothing_stays_open():
    """What a test leaves open is found at its own end, not at some later test's."""
    yield
    gc.collect()
