"""Students of a JupyterHub, many in one process: each gets a seat, joins and asks."""

from __future__ import annotations

import asyncio
import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tornado.simple_httpclient import SimpleAsyncHTTPClient

from .hub_api import token_of
from .processes import next_order, say

if TYPE_CHECKING:
    from qmt_jupyter.guest.mesh import GuestMesh

PROMPT = "Explain in a few sentences how a lighthouse keeps ships from running aground at night."


async def ask_seat(url: str, token: str, guest: str) -> str:
    """``POST api/seat`` with a notebook server's token: the link of the seat."""
    response = await SimpleAsyncHTTPClient(max_clients=1000).fetch(
        f"{url}api/seat",
        method="POST",
        body=json.dumps({"guest": guest}),
        headers={"Authorization": f"token {token}", "Content-Type": "application/json"},
        request_timeout=60,
    )
    link: str = json.loads(response.body)["link"]
    return link


@dataclass
class Student:
    """One student: what it was given, and what it measured (seconds, tokens)."""

    name: str
    at: float
    join_s: float = 0.0
    queue_s: list[float] = field(default_factory=list)
    first_s: list[float] = field(default_factory=list)
    answers: int = 0
    tokens: int = 0
    asked_again: int = 0
    problem: str = ""
    mesh: GuestMesh | None = None

    async def join(self, url: str, home: Path) -> None:
        """From asking for a seat to being admitted."""
        from qmt_jupyter.guest.mesh import GuestMesh
        from qmt_jupyter.identity import keys, link
        from qmt_jupyter.settings import Settings

        settings = Settings(home / self.name, ("127.0.0.1",), dht=False)
        identity = keys.load_or_create(settings.guest_dir / "identity.key")
        began = time.monotonic()
        seat = await ask_seat(url, token_of(self.name), identity.peer_id)
        self.mesh = await GuestMesh.join(link.read(seat), settings, deadline=60.0)
        self.join_s = time.monotonic() - began

    async def ask(self, tokens: int) -> None:
        """One chat of so many tokens, read to its end."""
        from qmt_jupyter.wire.messages import Delta, Done, Started

        assert self.mesh is not None
        body = {"messages": [{"role": "user", "content": PROMPT}], "max_tokens": tokens}
        asked, started, first = time.monotonic(), 0.0, 0.0
        async for reply in self.mesh.answer(body):
            if isinstance(reply, Started):
                started = started or time.monotonic()
            elif isinstance(reply, Delta) and _has_text(reply):
                first = first or time.monotonic()
                self.tokens += 1
            elif isinstance(reply, Done):
                self.answers += 1
                self.queue_s.append(started - asked)
                self.first_s.append(first - asked)

    async def ask_until_answered(self, tokens: int) -> None:
        """As a person does who meets a lost connection: once more, and a third time."""
        from qmt_jupyter.errors import MeshError

        for last in (False, False, True):
            try:
                await self.ask(tokens)
                return
            except MeshError:
                if last:
                    raise
                self.asked_again += 1
                await asyncio.sleep(1.0)

    async def attend(self, url: str, home: Path, began: float, lesson: Lesson) -> None:
        """Arrive, join and ask, reading each answer for a while before the next question."""
        await asyncio.sleep(began + self.at - time.time())
        try:
            await self.join(url, home)
            for number in range(lesson.chats):
                if number:
                    await asyncio.sleep(lesson.reading_s)
                await self.ask_until_answered(lesson.tokens)
        except Exception as error:  # one student's trouble is a figure
            self.problem = f"{type(error).__name__}: {error}"[:300]

    def report(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "join_s": self.join_s,
            "queue_s": self.queue_s,
            "first_s": self.first_s,
            "answers": self.answers,
            "tokens": self.tokens,
            "asked_again": self.asked_again,
            "problem": self.problem,
        }


@dataclass(frozen=True)
class Lesson:
    """What each student does: so many chats of so many tokens, with seconds between them."""

    chats: int
    tokens: int
    reading_s: float


def _has_text(reply: Any) -> bool:
    return any(choice.get("delta", {}).get("content") for choice in reply.choices)


async def contend(students: list[Student], greedy: set[str], tokens: int, until: float) -> None:
    """Ask again and again until then; the greedy keep two requests at once."""

    async def keep_asking(student: Student) -> None:
        try:
            while True:
                await student.ask_until_answered(tokens)
        except Exception as error:
            student.problem = student.problem or f"{type(error).__name__}: {error}"[:300]

    asking = [
        asyncio.ensure_future(keep_asking(student))
        for student in students
        if student.mesh is not None
        for _ in range(2 if student.name in greedy else 1)
    ]
    await asyncio.sleep(until - time.time())
    for task in asking:
        task.cancel()
    await asyncio.gather(*asking, return_exceptions=True)


def close_the_lan() -> None:
    """Keep multicast DNS from being asked: between pods it does not work, and here all share it."""
    from qmt_jupyter.mesh import lan

    async def find(_self: lan.Lan, _peer_id: str) -> tuple[str, ...]:
        return await asyncio.Future()

    # The process ends with the benchmark; there is no option for leaving out a way.
    lan.Lan.find = find  # type: ignore[method-assign]


async def students_main() -> None:
    """In a process of its own: do as the orders say until there are no more."""
    import qmt_jupyter.guest.mesh  # noqa: F401  # so that no student waits for the libraries

    close_the_lan()
    home = Path(os.environ["QMT_HOME"])
    students: list[Student] = []
    while (order := await next_order()) is not None:
        if "attend" in order:
            students = [Student(name, at) for name, at in order["attend"]]
            lesson = Lesson(order["chats"], order["tokens"], order["reading_s"])
            coming = [each.attend(order["url"], home, order["began"], lesson) for each in students]
            await asyncio.gather(*coming)
        elif "until" in order:
            for student in students:
                student.tokens, student.problem = 0, ""
            await contend(students, set(order["greedy"]), order["tokens"], order["until"])
        say(students=[student.report() for student in students])
    meshes = [student.mesh for student in students if student.mesh is not None]
    await asyncio.gather(*(mesh.close() for mesh in meshes))
