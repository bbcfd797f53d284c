"""One answer in the making: the engine's thread on one side, the event loop on the other.

The engine blocks the thread that asks it, and hands each piece to a callback there. The thread is
not a daemon, so the interpreter waits for it at exit; it ends by itself as soon as nobody can
want its pieces any more.

Waking the loop costs about as much as a hundredth of a token of a small model, and each piece that
goes on alone costs more further on. So after the first few, which are waited for, pieces
travel together, as often as whoever reads them looks.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from ..bell import bell_of
from .base import Chunk, looks_every

_AT_ONCE = 4  # pieces

_numbers = itertools.count(1)

Ask = Callable[[bytes, Callable[[bytes], bool]], Any]
"""The engine: takes a request as JSON and a callback; blocks until the answer is over.

The callback gets each chunk as JSON; the engine stops when it returns True.
"""


class Generation:
    """Runs one request in a thread of its own. Everything but the thread lives in ``loop``.

    After the pieces have ended, ``exception`` (raised by the engine) or ``refusal`` (its error
    object) says why where something went wrong; ``complete`` says whether the answer was given to
    its end.
    """

    def __init__(
        self, ask: Ask, body: bytes, loop: asyncio.AbstractEventLoop, on_end: Callable[[], None]
    ) -> None:
        self.exception: BaseException | None = None
        self.refusal: dict[str, Any] | None = None
        self.complete = False
        self._pieces: deque[Chunk] = deque()
        self._stop = False
        self._prompt_known = False
        self._signalled = False  # the loop has been told, or will look by itself
        self._delivered = 0
        self._loop = loop
        self._bell = bell_of(loop)
        self._on_end = on_end
        self._wake = asyncio.Event()
        self._ended = asyncio.Event()
        self._main = threading.main_thread()
        self._ask: Ask | None = ask
        # Said outright, or it would be a daemon where the loop's thread is one.
        self._thread = threading.Thread(
            target=self._run,
            args=(body,),
            name=f"qmt-generation-{next(_numbers)}",
            daemon=False,
        )

    def start(self) -> None:
        """Let the engine begin."""
        self._thread.start()

    async def pieces(self) -> list[Chunk]:
        """Wait for the pieces that are ready; an empty list says that no more will come."""
        while not self._pieces:
            if self._ended.is_set():
                return []
            await self._wake.wait()
            self._wake.clear()
            if self._delivered < _AT_ONCE:
                self._signalled = False
            else:
                self._signalled = True
                self._loop.call_at(self._next_look(), self._listen)
        ready = []
        while self._pieces:
            ready.append(self._pieces.popleft())
        self._delivered += len(ready)
        return ready

    def _next_look(self) -> float:
        now, pause = self._loop.time(), looks_every.get()
        return now + pause - now % pause

    def _listen(self) -> None:
        # Order matters: a piece that arrives after the first line signals by itself.
        self._signalled = False
        if self._pieces:
            self._wake.set()

    def stop(self) -> None:
        """Tell the engine to stop at its next step; may be called from any thread."""
        self._stop = True

    async def ended(self) -> None:
        """Wait until the engine's thread has returned and its slot is free."""
        await self._ended.wait()

    # In the engine's thread -----------------------------------------------------------------

    def _run(self, body: bytes) -> None:
        ask, self._ask = self._ask, None
        try:
            if ask is not None and not self._stop:
                ask(body, self._on_piece)
        except Exception as error:  # the engine's own kinds; judged in the loop
            self.exception = error
        finally:
            # The engine goes with its last reference: that is not to be this thread's.
            del ask
            self._tell(self._on_thread_end)

    def _on_piece(self, data: bytes) -> bool:
        # The engine swallows what is raised here, and would go on after a False.
        try:
            if self._stop or not self._main.is_alive():
                return True
            chunk = json.loads(data)
            if "prompt_progress" in chunk:
                return self._on_progress(chunk["prompt_progress"])
            if "choices" not in chunk:
                self.refusal = chunk.get("error") or chunk
                return True
            if "usage" in chunk:
                self.complete = True
            self._pieces.append(chunk)
            if not self._signalled:
                self._signalled = True
                return not self._tell(self._wake.set)
        except Exception as error:
            self.exception = error
            return True
        return self._stop or self._loop.is_closed()

    def _on_progress(self, progress: dict[str, Any]) -> bool:
        # The first one says how long the prompt is, before the engine has read it.
        if not self._prompt_known:
            self._prompt_known = True
            self._pieces.append({"choices": [], "prompt_tokens": int(progress["total"])})
            if not self._signalled:
                self._signalled = True
                return not self._tell(self._wake.set)
        return self._stop or self._loop.is_closed()

    def _tell(self, what: Callable[[], None]) -> bool:
        try:
            self._bell.ring(what)
        except RuntimeError:  # the loop is closed: nobody waits any more
            return False
        return True

    def _on_thread_end(self) -> None:
        self._ended.set()
        self._wake.set()
        self._on_end()
