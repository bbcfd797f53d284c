"""The one background event loop, and the only bridge between threads.

Everything on the network lives in this loop, in a daemon thread. Callers in other threads, and
in other loops, come in through :func:`call`, :func:`call_async` and :class:`Pieces`; nothing
else crosses. Waiting is done in short slices so that an interrupt gets through on every system.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import queue
import threading
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from functools import partial
from typing import Any, Generic, TypeVar

import anyio
from anyio.from_thread import BlockingPortal

from .bell import Bell, bell_of

T = TypeVar("T")

_SLICE = 0.1
_EXIT_DEADLINE = 5.0
_FULL = 2000
_AT_ONCE = 8  # pieces, of which the first say who answers
_SETTLE = 0.005  # seconds

_lock = threading.Lock()
_current: _Runtime | None = None


class _Runtime:
    def __init__(self) -> None:
        self.pid = os.getpid()
        self.closers: list[Callable[[], Awaitable[None]]] = []
        self._ready: Future[BlockingPortal] = Future()
        self.thread = threading.Thread(target=self._run, name="qmt-runtime", daemon=True)
        self.thread.start()
        self.portal = self._ready.result(timeout=30)

    def _run(self) -> None:
        async def serve() -> None:
            async with BlockingPortal() as portal:
                self.loop = asyncio.get_running_loop()
                self._ready.set_result(portal)
                await portal.sleep_until_stopped()

        anyio.run(serve, backend="asyncio")

    def stop(self) -> None:
        """Close what was registered, newest first, then end the loop; bounded in time."""

        async def close_all() -> None:
            with anyio.move_on_after(_EXIT_DEADLINE):
                for close in reversed(self.closers):
                    # What fails to close must not keep the others open.
                    with contextlib.suppress(Exception):
                        await close()
            await self.portal.stop(cancel_remaining=True)

        try:
            self.portal.start_task_soon(close_all).result(timeout=_EXIT_DEADLINE + 1)
        except Exception:  # the process ends: nothing is left that could be told
            return
        # What was cancelled clears up after itself, e.g. a download that is half here.
        self.thread.join(timeout=_EXIT_DEADLINE)


def _runtime() -> _Runtime:
    global _current
    with _lock:
        # A forked child has the object but not the thread.
        if _current is None or _current.pid != os.getpid() or not _current.thread.is_alive():
            _current = _Runtime()
        return _current


def shutdown() -> None:
    """End the loop after closing everything that lives in it. A later call starts a new one."""
    global _current
    with _lock:
        runtime, _current = _current, None
    if runtime is not None and runtime.pid == os.getpid() and runtime.thread.is_alive():
        runtime.stop()


atexit.register(shutdown)


def at_shutdown(close: Callable[[], Awaitable[None]]) -> Callable[[], None]:
    """Have ``close`` awaited when the process ends; returns a call that forgets it again.

    Called from within the loop.
    """
    closers = _runtime().closers
    closers.append(close)

    def forget() -> None:
        if close in closers:
            closers.remove(close)

    return forget


def submit(function: Callable[..., Awaitable[T]], *arguments: Any) -> Future[T]:
    """Start ``function(*arguments)`` in the loop; cancelling the future cancels the task."""
    if threading.current_thread() is _runtime().thread:
        raise RuntimeError("this call would block the runtime's own loop: use qmt_jupyter.aio")
    return _runtime().portal.start_task_soon(function, *arguments)


def wait(future: Future[T], tick: Callable[[], None] | None = None) -> T:
    """A future's result, waited for in slices; an interrupt cancels the task and comes through.

    ``tick`` is called in the caller's own thread after each slice: the place to show progress.
    """
    try:
        while True:
            try:
                return future.result(timeout=_SLICE)
            except FutureTimeoutError:
                # Since Python 3.11 a task's own TimeoutError is the same class.
                if future.done():
                    return future.result()
                if tick is not None:
                    tick()
    except BaseException:
        future.cancel()
        raise


def call(function: Callable[..., Awaitable[T]], *arguments: Any) -> T:
    """Run ``function(*arguments)`` in the loop and wait for its result."""
    return wait(submit(function, *arguments))


async def call_async(function: Callable[..., Awaitable[T]], *arguments: Any) -> T:
    """The same for a caller in another event loop (or in this one)."""
    if asyncio.get_running_loop() is getattr(_runtime(), "loop", None):
        return await function(*arguments)
    result: T = await asyncio.wrap_future(submit(function, *arguments))
    return result


async def _read(look: Callable[[], T]) -> T:
    return look()


def read(look: Callable[[], T]) -> T:
    """What ``look()`` returns when it is called in the loop, for state that lives there."""
    found: T = call(_read, look)
    return found


async def read_async(look: Callable[[], T]) -> T:
    """The same for a caller in another event loop."""
    found: T = await call_async(_read, look)
    return found


class _End:
    """The last thing handed over: why the generator ended."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


class _Handover(Generic[T]):
    """Pieces on their way from the loop to a consumer somewhere else."""

    def __init__(self) -> None:
        self.pieces: queue.SimpleQueue[T | _End] = queue.SimpleQueue()
        # A queue, because a consumer registers from another thread while the pump takes.
        self.waiting: deque[tuple[Bell, asyncio.Future[None]]] = deque()
        self._will_wake = False
        self._handed = 0
        self._bell: Bell | None = None

    async def pump(self, make: Callable[[], AsyncGenerator[T, None]]) -> None:
        """Run the generator and hand over what it yields, then why it ended."""
        generator = make()
        error: BaseException | None = None
        try:
            async for piece in generator:
                self._put(piece)
                while self.pieces.qsize() > _FULL:
                    await asyncio.sleep(0.01)
        except BaseException as raised:
            error = raised
            if not isinstance(raised, Exception):
                raise
        finally:
            with anyio.CancelScope(shield=True):
                await generator.aclose()
            self._put(_End(error))

    def _put(self, piece: T | _End) -> None:
        self.pieces.put(piece)
        self._handed += 1
        if isinstance(piece, _End):
            self._wake()
        elif self.waiting and not self._will_wake:
            # Once for all that is there in this turn of the loop: a consumer that is woken for
            # the first piece keeps the interpreter while the others wait for it.
            self._will_wake = self._handed <= _AT_ONCE
            if self._will_wake:
                asyncio.get_running_loop().call_soon(self._wake)
            else:
                self._wake(_SETTLE)

    def _wake(self, within: float = 0.0) -> None:
        """Have who waits look: now, or together with who waits for other streams."""
        self._will_wake = False
        with contextlib.suppress(RuntimeError):  # that loop is closed
            while self.waiting:
                self._bell, ready = self.waiting.popleft()
                if within:
                    self._bell.ring_within(within, partial(_look, ready))
                else:
                    self._bell.ring(partial(_look, ready))
            if self._bell is not None and not within:
                self._bell.ring()  # for who was to look later


def _look(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


class Pieces(Generic[T]):
    """An asynchronous generator of the loop, consumed from another thread or another loop.

    A pump task runs the generator and hands over what it yields, many pieces a wake-up where
    they come fast; past two thousand unread pieces it waits for the consumer. Dropping the
    object ends the generator. ``tick`` is called in a waiting thread, some ten times a second,
    while nothing comes.
    """

    def __init__(self, make: Callable[[], AsyncGenerator[T, None]]) -> None:
        self._finished = False
        self.tick: Callable[[], None] | None = None
        # The pump knows the handover only, so that dropping this object can end it.
        self._handover: _Handover[T] = _Handover()
        self._task = submit(self._handover.pump, make)

    def __iter__(self) -> Pieces[T]:
        return self

    def __next__(self) -> T:
        """The next piece; an interrupt stops the generator and comes through."""
        if self._finished:
            raise StopIteration
        piece = self._next()
        if isinstance(piece, _End):
            self._raise_end(piece)
            raise StopIteration
        return piece

    def _next(self) -> T | _End:
        try:
            while True:
                try:
                    return self._handover.pieces.get(timeout=_SLICE)
                except queue.Empty:
                    if self.tick is not None:
                        self.tick()
        except BaseException:
            self.stop()
            raise

    def __aiter__(self) -> Pieces[T]:
        return self

    async def __anext__(self) -> T:
        """The next piece, for a caller in another loop."""
        if self._finished:
            raise StopAsyncIteration
        try:
            piece = await self._next_async()
        except BaseException:
            self.stop()
            raise
        if isinstance(piece, _End):
            self._raise_end(piece)
            raise StopAsyncIteration
        return piece

    async def _next_async(self) -> T | _End:
        while True:
            try:
                return self._handover.pieces.get_nowait()
            except queue.Empty:
                pass
            loop = asyncio.get_running_loop()
            ready = loop.create_future()
            self._handover.waiting.append((bell_of(loop), ready))
            # A piece may have come between the look and the registration.
            if self._handover.pieces.empty():
                await ready

    def _raise_end(self, end: _End) -> None:
        self._finished = True
        if isinstance(end.error, Exception):
            raise end.error

    def stop(self) -> None:
        """End the generator now; safe from any thread, and more than once."""
        self._finished = True
        self._task.cancel()

    def __del__(self) -> None:
        if not self._finished:
            self._task.cancel()
