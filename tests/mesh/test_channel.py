"""What is written on a stream, and when: the first words at once, what follows at common beats."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import anyio
import pytest

from qmt_jupyter.bell import Bell, bell_of
from qmt_jupyter.host import session
from qmt_jupyter.mesh import binding
from qmt_jupyter.mesh.channel import EAGER_WRITES, HIGH_WATER, Channel
from qmt_jupyter.mesh.endpoint import TransportError
from qmt_jupyter.providers.base import Chunk, Embedding, Model, Provider
from qmt_jupyter.wire import messages
from tests.mesh.conftest import grant, question

LONG = 3600.0  # seconds: a beat that no test sees


class Written:
    """A stream that keeps what is written, and the loop's time of it."""

    def __init__(self) -> None:
        self.writes: list[tuple[float, bytes]] = []
        self.over = ""
        self.broken = False

    @property
    def data(self) -> list[bytes]:
        return [data for _, data in self.writes]

    async def write(self, data: bytes) -> None:
        await asyncio.sleep(0)
        if self.broken:
            raise TransportError("reset")
        self.writes.append((asyncio.get_running_loop().time(), data))

    async def finish(self) -> None:
        self.over = "finished"

    async def abort(self, code: int = 0) -> None:
        self.over = f"aborted with {code}"


def channel(pause: float) -> tuple[Channel, Any]:
    stream: Any = Written()
    return Channel(stream, 1000, pause=pause), stream


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def say_the_first_words(channel: Channel) -> None:
    for number in range(EAGER_WRITES + 1):
        channel.post(b"%d" % number)
        await settle()


def run(main: Any) -> None:
    async def in_time() -> None:
        with anyio.fail_after(60):
            await main()

    asyncio.run(in_time())


def test_the_first_words_go_at_once_and_what_follows_waits_for_the_beat():
    async def main() -> None:
        one, stream = channel(LONG)
        await say_the_first_words(one)
        assert stream.data == [b"%d" % number for number in range(EAGER_WRITES + 1)]
        one.post(b"later")
        await settle()
        assert len(stream.data) == EAGER_WRITES + 1
        await one.abort()

    run(main)


def test_what_waited_for_a_beat_is_written_in_one():
    async def main() -> None:
        one, stream = channel(0.05)
        await say_the_first_words(one)
        for letter in (b"a", b"b", b"c"):
            one.post(letter)
        while len(stream.data) < EAGER_WRITES + 2:
            await asyncio.sleep(0.005)
        assert stream.data[-1] == b"abc"

    run(main)


def test_streams_are_written_at_the_same_beats():
    async def main() -> None:
        pause = 0.5
        clock = asyncio.get_running_loop().time
        while True:
            before = int(clock() / pause)
            several = [channel(pause) for _ in range(5)]
            for one, _ in several:
                await say_the_first_words(one)
                await asyncio.sleep(0.01)
            for one, _ in several:
                one.post(b"x")
            if int(clock() / pause) == before:
                break
        while not all(stream.data[-1] == b"x" for _, stream in several):
            await asyncio.sleep(0.005)
        # Each would have come a hundredth after the other.
        first, *_, last = sorted(stream.writes[-1][0] for _, stream in several)
        assert first > (before + 1) * pause - 0.001
        assert last - first < 0.03

    run(main)


def test_what_comes_after_a_silence_waits_for_no_beat():
    async def main() -> None:
        one, stream = channel(0.05)
        await say_the_first_words(one)
        await asyncio.sleep(0.06)
        one.post(b"x")
        await settle()
        assert stream.data[-1] == b"x"

    run(main)


def test_who_hurries_waits_for_no_beat():
    async def main() -> None:
        one, stream = channel(LONG)
        await say_the_first_words(one)
        one.post(b"waits")
        await settle()
        one.hurry()
        for _ in range(EAGER_WRITES):
            await settle()
            one.post(b"does not")
        await settle()
        written = stream.data[EAGER_WRITES + 1 :]
        assert written == [b"waits", *[b"does not"] * EAGER_WRITES]
        one.post(b"waits again")
        await settle()
        assert stream.data[EAGER_WRITES + 1 :] == written
        await one.abort()

    run(main)


def test_what_is_gathered_goes_with_what_hurries():
    async def main() -> None:
        one, stream = channel(0.0)
        one.gather(LONG)
        for part in (b"who ", b"answers ", b"and "):
            one.post(part)
            await settle()
        assert stream.data == []
        one.post(b"what")
        one.hurry()
        await settle()
        assert stream.data == [b"who answers and what"]
        one.post(b"more")
        await settle()
        assert stream.data[1:] == [b"more"]

    run(main)


def test_what_is_gathered_goes_alone_where_nothing_hurries():
    async def main() -> None:
        one, stream = channel(0.0)
        began = asyncio.get_running_loop().time()
        one.gather(0.05)
        one.post(b"who answers")
        while not stream.writes:
            await asyncio.sleep(0.005)
        assert stream.writes[0][0] >= began + 0.05
        one.gather(LONG)
        one.post(b"the end")
        await one.finish()
        assert stream.data == [b"who answers", b"the end"]

    run(main)


def test_the_last_words_wait_for_no_beat():
    async def main() -> None:
        one, stream = channel(LONG)
        await say_the_first_words(one)
        one.post(b"the ")
        one.post(b"end")
        await one.finish()
        assert stream.data[-1] == b"the end"
        assert stream.over == "finished"

    run(main)


def test_nothing_is_written_after_an_abort():
    async def main() -> None:
        one, stream = channel(0.02)
        await say_the_first_words(one)
        one.post(b"unsaid")
        await one.abort(7)
        one.post(b"too late")
        await asyncio.sleep(0.05)
        assert b"unsaid" not in stream.data
        assert b"too late" not in stream.data
        assert stream.over == "aborted with 7"

    run(main)


def test_who_finishes_after_an_abort_waits_for_nothing():
    async def main() -> None:
        one, stream = channel(LONG)
        one.post(b"unsaid")
        await one.abort()
        await one.finish()
        assert stream.data == []

    run(main)


def test_a_stream_that_breaks_lets_nobody_wait():
    async def main() -> None:
        one, stream = channel(LONG)
        await say_the_first_words(one)
        stream.broken = True
        one.post(b"x" * (HIGH_WATER + 1))
        assert one.is_full
        await one.flush()
        await one.drain()
        assert one.broken
        assert not one.is_full

    run(main)


class Patient(Provider):
    """Says many times that it has to wait, then a word, and the rest when that has been read."""

    models = (Model("patient"),)
    slots = 1

    def __init__(self) -> None:
        self.was_read = anyio.Event()

    async def chat(self, model: str, request: Any) -> AsyncGenerator[Chunk, None]:
        for seconds in range(2 * EAGER_WRITES, 0, -1):
            yield {"choices": [], "wait": seconds}
            await anyio.sleep(0.01)
        yield chunk({"role": "assistant", "content": ""})
        await anyio.sleep(0.01)
        yield chunk({"content": "first "})
        await self.was_read.wait()
        yield chunk({"content": "and last"})
        yield chunk({}, "stop")


def chunk(delta: dict[str, Any], finish: str | None = None) -> Chunk:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


@pytest.mark.anyio
async def test_the_first_words_wait_for_no_beat_whatever_was_said_before(person, monkeypatch):
    monkeypatch.setattr(session, "WRITE_PAUSE", LONG)
    provider = Patient()
    service = await person("host").host(provider)
    mesh = await person("guest").join(await grant(service))
    said = ""
    with anyio.fail_after(60):
        async for reply in mesh.answer(question()):
            if isinstance(reply, messages.Delta):
                said += reply.choices[0]["delta"].get("content", "")
            if said == "first ":
                provider.was_read.set()
    assert said == "first and last"
    await mesh.close()
    await service.close()


class Prompt(Provider):
    """Gives its first words or vector with the role, and the rest when that has been read."""

    models = (Model("prompt", chats=True, embeds=True),)
    slots = 1

    def __init__(self) -> None:
        self.was_read = anyio.Event()

    async def chat(self, model: str, request: Any) -> AsyncGenerator[Chunk, None]:
        yield chunk({"role": "assistant", "content": ""})
        yield chunk({"content": "first"})
        await self.was_read.wait()
        yield chunk({}, "stop")

    async def embed(self, model: str, request: Any) -> AsyncGenerator[Embedding | Chunk, None]:
        yield Embedding(0, [0.5], 1)
        await self.was_read.wait()


@pytest.mark.anyio
@pytest.mark.parametrize("body", [question(), {"input": ["a text"]}], ids=["chat", "embeddings"])
async def test_who_answers_is_told_with_the_first_words(person, monkeypatch, body):
    monkeypatch.setattr(session, "_FIRST_WORDS", LONG)
    provider = Prompt()
    service = await person("host").host(provider)
    mesh = await person("guest").join(await grant(service))
    kind = messages.Embed if "input" in body else messages.Ask
    heard = []
    with anyio.fail_after(60):
        async for reply in mesh.links[0].ask(body, kind):
            heard.append(type(reply).__name__)
            if heard[-1] == "Vector" or (heard[-1] == "Delta" and heard.count("Delta") == 2):
                provider.was_read.set()
    assert heard[0] == "Started"
    assert provider.was_read.is_set()
    await mesh.close()
    await service.close()


class Pensive(Prompt):
    """Says nothing until it is known who answers."""

    async def chat(self, model: str, request: Any) -> AsyncGenerator[Chunk, None]:
        yield chunk({"role": "assistant", "content": ""})
        await self.was_read.wait()
        yield chunk({"content": "at last"}, "stop")


@pytest.mark.anyio
async def test_who_answers_is_told_where_the_first_words_take_their_time(person):
    provider = Pensive()
    service = await person("host").host(provider)
    mesh = await person("guest").join(await grant(service))
    with anyio.fail_after(60):
        async for reply in mesh.links[0].ask(question()):
            if isinstance(reply, messages.Started):
                provider.was_read.set()
    assert provider.was_read.is_set()
    await mesh.close()
    await service.close()


def test_the_transport_has_the_part_that_is_made_faster():
    # Without it the slower way is taken, and nobody would notice.
    assert hasattr(binding.iroh._UniffiRustBufferBuilder, "_reserve")


@pytest.mark.anyio
async def test_the_transport_wakes_its_loop_by_the_bell(person, monkeypatch):
    rung = []
    ring = Bell.ring
    monkeypatch.setattr(Bell, "ring", lambda bell, *asked: (rung.append(bell), ring(bell, *asked)))
    service = await person("host").host()
    mesh = await person("guest").join(await grant(service))
    assert bell_of(asyncio.get_running_loop()) in rung
    await mesh.close()
    await service.close()
