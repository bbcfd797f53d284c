from __future__ import annotations

import asyncio
import json
import threading
import time
import weakref
from typing import Any

from qmt_jupyter.providers.generation import Generation


def piece(text: str, **more: Any) -> bytes:
    return json.dumps({"choices": [{"delta": {"content": text}}], **more}).encode()


def texts(chunks: list[Any]) -> list[str]:
    return [chunk["choices"][0]["delta"]["content"] for chunk in chunks]


def start(ask, on_end=lambda: None) -> Generation:
    generation = Generation(ask, b"{}", asyncio.get_running_loop(), on_end)
    generation.start()
    return generation


def test_pieces_that_are_ready_together_come_together(run):
    async def main() -> None:
        def ask(body, callback):
            for letter in "abc":
                assert callback(piece(letter)) is False
            callback(piece("", usage={}))

        generation = start(ask)
        await generation.ended()
        assert texts(await generation.pieces()) == ["a", "b", "c", ""]
        assert await generation.pieces() == []
        assert generation.complete

    run(main())


def test_no_piece_is_lost_between_two_wakes(run):
    async def main() -> None:
        count = 20_000

        def ask(body, callback):
            for number in range(count):
                callback(piece(str(number)))

        generation = start(ask)
        seen: list[str] = []
        while ready := await generation.pieces():
            seen += texts(ready)
        assert seen == [str(number) for number in range(count)]

    run(main())


def test_later_pieces_travel_together(run):
    async def main() -> None:
        def ask(body, callback):
            for number in range(100):
                time.sleep(0.001)
                callback(piece(str(number)))

        generation = start(ask)
        seen: list[str] = []
        wakes = 0
        while ready := await generation.pieces():
            seen += texts(ready)
            wakes += 1
        assert seen == [str(number) for number in range(100)]
        assert wakes < 50

    run(main())


def test_of_the_progress_only_the_prompts_length_goes_on_and_once(run):
    async def main() -> None:
        def ask(body, callback):
            for _ in range(3):
                assert callback(piece("x", prompt_progress={"total": 5})) is False
            assert callback(piece('"prompt_progress":')) is False

        generation = start(ask)
        await generation.ended()
        first, *rest = await generation.pieces()
        assert first == {"choices": [], "prompt_tokens": 5}
        assert texts(rest) == ['"prompt_progress":']
        assert await generation.pieces() == []

    run(main())


def test_a_stop_reaches_the_engine_at_its_next_step(run):
    async def main() -> None:
        stopped = threading.Event()

        def ask(body, callback):
            while not callback(piece("x")):
                pass
            stopped.set()

        ends: list[bool] = []
        generation = start(ask, on_end=lambda: ends.append(stopped.is_set()))
        await generation.pieces()
        generation.stop()
        await generation.ended()
        assert ends == [True]
        assert not generation.complete

    run(main())


def test_what_is_stopped_before_it_begins_is_not_asked(run):
    async def main() -> None:
        asked: list[bytes] = []
        generation = Generation(
            lambda body, callback: asked.append(body),
            b"{}",
            asyncio.get_running_loop(),
            lambda: None,
        )
        generation.stop()
        generation.start()
        assert await generation.pieces() == []
        assert asked == []

    run(main())


def test_errors_come_after_the_pieces(run):
    async def main() -> None:
        def raising(body, callback):
            callback(piece("a"))
            raise ValueError("no")

        generation = start(raising)
        await generation.ended()
        assert texts(await generation.pieces()) == ["a"]
        assert await generation.pieces() == []
        assert isinstance(generation.exception, ValueError)

        def refusing(body, callback):
            assert callback(b'{"error": {"type": "x"}}') is True

        generation = start(refusing)
        assert await generation.pieces() == []
        assert generation.refusal == {"type": "x"}

        def garbled(body, callback):
            assert callback(b"not json") is True

        generation = start(garbled)
        assert await generation.pieces() == []
        assert isinstance(generation.exception, ValueError)

    run(main())


def test_a_loop_that_is_gone_ends_the_engine():
    loop = asyncio.new_event_loop()
    began, closed, ended = threading.Event(), threading.Event(), threading.Event()

    def ask(body, callback):
        began.set()
        closed.wait(30)
        assert callback(piece("x")) is True
        ended.set()

    async def main() -> None:
        start(ask)

    loop.run_until_complete(main())
    began.wait(30)
    loop.close()
    closed.set()
    assert ended.wait(30)


def test_the_engine_is_let_go_before_the_end_is_told(run, monkeypatch):
    class Engine:
        def ask(self, body, callback):
            callback(piece("", usage={}))

    tell = Generation._tell

    def tell_and_linger(self, what):
        told = tell(self, what)
        time.sleep(0.3)  # the thread is slow to go
        return told

    monkeypatch.setattr(Generation, "_tell", tell_and_linger)

    async def main() -> None:
        engine = Engine()
        left = weakref.ref(engine)
        generation = start(engine.ask)
        del engine
        await generation.ended()
        assert left() is None

    run(main())
