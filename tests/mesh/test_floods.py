"""Floods from guests that mean harm: the host serves an honest guest meanwhile, and stays small.

The host is a process of its own, so that its memory can be told from the attackers'.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import anyio
import pytest

from qmt_jupyter.identity import keys, link
from qmt_jupyter.mesh.channel import Channel
from qmt_jupyter.mesh.endpoint import Endpoint, TransportError
from qmt_jupyter.wire import frames, messages
from tests.mesh.conftest import REACH, RawGuest, question, texts

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.timeout(400),
    pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc"),
]

HOST = """
import json, time
import qmt_jupyter as qmt
from qmt_jupyter.providers.echo import Echo
host = qmt.host(Echo(slots=4), uses=0)
print(json.dumps({"invite": host.invite.url}), flush=True)
time.sleep(600)
"""
FLAT = 24  # MiB that a second, equal flood may add to the first's


class Host:
    """A host in a process of its own."""

    def __init__(self, process, url) -> None:
        self.process = process
        self.granted = link.read(url)

    @property
    def memory(self) -> float:
        """Resident memory in MiB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        line = next(each for each in status.splitlines() if each.startswith("VmRSS"))
        return int(line.split()[1]) / 1024


@pytest.fixture
async def host(tmp_path):
    process = await anyio.to_thread.run_sync(
        lambda: subprocess.Popen(
            [sys.executable, "-c", HOST],
            stdout=subprocess.PIPE,
            env={**os.environ, "QMT_HOME": str(tmp_path / "flooded")},
            text=True,
        )
    )
    ready = json.loads(await anyio.to_thread.run_sync(process.stdout.readline))
    yield Host(process, ready["invite"])
    process.kill()
    process.communicate()


async def flat(host, person, flood, more=FLAT):
    """Flood twice, an honest guest asking all the while; the second time adds next to nothing."""
    honest = await person("honest").join(host.granted)
    answered = 0
    stop = False

    async def ask():
        nonlocal answered
        while not stop:
            with anyio.fail_after(20):
                assert "".join(await texts(honest)) == "one two three"
            answered += 1
            await asyncio.sleep(0.05)

    sizes = []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask)
        for _ in range(2):
            before = answered
            await flood()
            sizes.append(host.memory)
            assert answered > before, "the honest guest was served meanwhile"
        newcomer = await person("newcomer").join(host.granted)
        assert "".join(await texts(newcomer)) == "one two three"
        stop = True
    await newcomer.close()
    await honest.close()
    print(f"host memory after each flood: {sizes[0]:.0f} and {sizes[1]:.0f} MiB")
    assert sizes[1] - sizes[0] < more, sizes
    assert sizes[1] < 256, sizes


async def several(count, side_by_side, do):
    """Run ``do(number)`` for so many numbers, some at once."""
    numbers = iter(range(count))

    async def worker():
        for number in numbers:
            await do(number)

    async with anyio.create_task_group() as tasks:
        for _ in range(side_by_side):
            tasks.start_soon(worker)


async def test_a_thousand_connections_that_never_greet(host, person):
    async def flood():
        endpoint = await Endpoint.bind(keys.Identity.fresh().seed, REACH)
        held = []

        async def connect(_):
            try:
                with anyio.move_on_after(10):
                    held.append(
                        await endpoint.connect(
                            host.granted.invite.host_key,
                            host.granted.hints.addresses,
                            messages.ALPN,
                        )
                    )
            except TransportError:
                return

        await several(1000, 16, connect)
        assert len(held) > 500
        await endpoint.close()

    await flat(host, person, flood)


async def test_ten_thousand_streams_that_say_nothing(host, person):
    async def flood():
        raw = await RawGuest.connect(host.granted)
        await raw.greet(raw.greeting(host.granted.invite.token))
        opened = 0

        async def open_stream(_):
            nonlocal opened
            try:
                stream = await raw.stream()
                await stream.write(b"\0")
                opened += 1
                await stream.abort()
            except TransportError:
                return

        await several(10_000, 64, open_stream)
        assert opened == 10_000
        await raw.close()

    await flat(host, person, flood)


async def test_fifty_thousand_mutated_requests_twice(host, person):
    chance = random.Random(11)
    asked = question(temperature=0.5, max_tokens=3, stop=["x"], seed=4)
    whole = messages.encode(messages.Ask(id="12345678", body=asked))

    async def flood():
        guests = []
        answers = 0

        async def mutate(number):
            nonlocal answers
            frame = bytearray(whole)
            for _ in range(chance.randint(1, 6)):
                frame[chance.randrange(4, len(frame))] = chance.randrange(256)
            raw = guests[number % len(guests)]
            stream = Channel(await raw.stream(), frames.REPLY_LIMIT)
            stream.post(bytes(frame))
            last = None
            with anyio.fail_after(30):
                while (payload := await stream.receive()) is not None:
                    last = messages.decode_reply(payload)
            assert isinstance(last, (messages.Done, messages.Failed))
            answers += 1
            await stream.finish()

        for _ in range(4):
            guests.append(await RawGuest.connect(host.granted))
            await guests[-1].greet(guests[-1].greeting(host.granted.invite.token))
        await several(50_000, 48, mutate)
        assert answers == 50_000
        for raw in guests:
            await raw.close()

    await flat(host, person, flood)


async def test_requests_as_large_as_allowed_that_all_wait(host, person):
    async def flood():
        raw = await RawGuest.connect(host.granted)
        await raw.greet(raw.greeting(host.granted.invite.token))
        large = messages.encode(
            messages.Ask(id="12345678", body=question(f"{'w' * 1000} " * 3500, max_tokens=1))
        )

        async def ask(_):
            stream = Channel(await raw.stream(), frames.REPLY_LIMIT)
            stream.post(large)
            with anyio.fail_after(60):
                while await stream.receive() is not None:
                    pass
            await stream.finish()

        await several(40, 20, ask)
        await raw.close()

    # Four requests of this size more or less are at work at the moment of looking.
    await flat(host, person, flood, more=64)
