"""Threads wake an event loop once for all that they have, and lose nothing by it."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import Callable

import anyio
import pytest

from qmt_jupyter import runtime
from qmt_jupyter.bell import bell_of


def in_a_thread(work: Callable[[], object]) -> None:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def count_wakes(loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch) -> list[object]:
    wakes: list[object] = []
    wake = loop.call_soon_threadsafe
    monkeypatch.setattr(
        loop, "call_soon_threadsafe", lambda *call: (wakes.append(call), wake(*call))
    )
    return wakes


def test_what_comes_before_the_loop_looks_wakes_it_once_and_is_called_in_order(monkeypatch):
    async def main() -> None:
        loop = asyncio.get_running_loop()
        wakes = count_wakes(loop, monkeypatch)
        called: list[int] = []

        def ring() -> None:
            for number in range(1000):
                bell_of(loop).ring(lambda number=number: called.append(number))

        in_a_thread(ring)
        assert called == []
        await asyncio.sleep(0)
        assert called == list(range(1000))
        assert len(wakes) == 1

    asyncio.run(main())


def test_no_ring_of_several_threads_is_lost():
    async def main() -> None:
        loop, each = asyncio.get_running_loop(), 5000
        left = 4 * each
        done = asyncio.Event()

        def called() -> None:
            nonlocal left
            left -= 1
            if not left:
                done.set()

        def ring() -> None:
            for _ in range(each):
                bell_of(loop).ring(called)

        threads = [threading.Thread(target=ring) for _ in range(4)]
        for thread in threads:
            thread.start()
        with anyio.fail_after(60):
            await done.wait()
        for thread in threads:
            thread.join()

    asyncio.run(main())


def test_in_its_own_loop_it_rings_without_the_pipe_and_not_at_once(monkeypatch):
    async def main() -> None:
        loop = asyncio.get_running_loop()
        wakes = count_wakes(loop, monkeypatch)
        called: list[str] = []
        bell_of(loop).ring(lambda: called.append("rung"))
        assert called == []
        await asyncio.sleep(0)
        assert called == ["rung"]
        assert wakes == []

    asyncio.run(main())


def test_a_callback_that_fails_takes_no_other_along():
    async def main() -> None:
        loop = asyncio.get_running_loop()
        told: list[object] = []
        loop.set_exception_handler(lambda _, context: told.append(context["exception"]))
        called: list[str] = []
        error = ValueError("wrong")

        def fail() -> None:
            raise error

        bell_of(loop).ring(fail)
        bell_of(loop).ring(lambda: called.append("rung"))
        await asyncio.sleep(0)
        assert called == ["rung"]
        assert told == [error]

    asyncio.run(main())


def test_who_rings_at_a_closed_loop_is_told():
    loop = asyncio.new_event_loop()
    bell = bell_of(loop)
    loop.close()
    with pytest.raises(RuntimeError, match="closed"):
        bell.ring(lambda: None)


def test_a_bell_keeps_no_loop_alive():
    loop = asyncio.new_event_loop()
    bell = bell_of(loop)
    loop.close()
    gone = weakref.ref(loop)
    del loop
    gc.collect()
    assert gone() is None
    with pytest.raises(RuntimeError, match="closed"):
        bell.ring(lambda: None)


def test_a_loop_that_ended_before_it_rang_keeps_no_other_from_ringing():
    async def main() -> None:
        bell = bell_of(asyncio.get_running_loop())
        called: list[str] = []
        rung = asyncio.Event()

        async def ring(seconds: float, word: str) -> None:
            bell.ring_within(seconds, lambda: (called.append(word), rung.set()))
            await asyncio.sleep(2 * seconds if seconds < 1 else 0)

        in_a_thread(lambda: asyncio.run(ring(3600.0, "never of itself")))
        in_a_thread(lambda: asyncio.run(ring(0.01, "in time")))
        with anyio.fail_after(60):
            await rung.wait()
        assert called == ["never of itself", "in time"]

    asyncio.run(main())


# Pieces in a loop other than the runtime's -------------------------------------------------------


def counting(pieces: int, pause: float = 0.0):
    async def make():
        for number in range(pieces):
            yield number
            await asyncio.sleep(pause)

    return make


def test_streams_that_have_something_together_wake_their_reader_together(monkeypatch):
    monkeypatch.setattr(runtime, "_SETTLE", 0.05)
    streams, pieces = 8, 30

    async def main() -> int:
        wakes = count_wakes(asyncio.get_running_loop(), monkeypatch)

        async def read() -> list[int]:
            return [piece async for piece in runtime.Pieces(counting(pieces, 0.01))]

        read_all = await asyncio.gather(*(read() for _ in range(streams)))
        assert read_all == [list(range(pieces))] * streams
        return len(wakes)

    # The first few pieces of each come one by one, the others with those of all streams.
    assert asyncio.run(main()) < streams * (runtime._AT_ONCE + (pieces - runtime._AT_ONCE) / 2)


def test_the_last_piece_waits_for_nothing(monkeypatch):
    monkeypatch.setattr(runtime, "_SETTLE", 3600.0)

    async def main() -> list[int]:
        with anyio.fail_after(60):
            return [piece async for piece in runtime.Pieces(counting(30, 0.01))]

    assert asyncio.run(main()) == list(range(30))
