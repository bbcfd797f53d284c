"""What one answer took: its tokens and times, who gave it, and what is left of the budget."""

from __future__ import annotations

import html
import time
from typing import TYPE_CHECKING, Any

from ..harmless import printable
from ..identity.peer_id import short
from ..tables import table
from .footer import span

if TYPE_CHECKING:
    from ..api import Answer, Mesh

# The host says what is left within half a second of an answer's end.
_LEFT_WITHIN = 1.2
_LOOK_EVERY = 0.05


class Timeline:
    """When what happened to one request, in seconds since it was asked; fed as it goes on."""

    def __init__(self) -> None:
        self._asked = 0.0
        self._waiting: float | None = None
        self.queued = 0.0
        self.first: float | None = None
        self.last: float | None = None

    def begin(self) -> None:
        """The request is about to be sent."""
        self._asked = time.perf_counter()

    def note(self, answer: Answer) -> None:
        """Look at the answer after each of its updates."""
        now = time.perf_counter() - self._asked
        if answer.position is not None and not answer.text:
            self._waiting = now if self._waiting is None else self._waiting
        elif self._waiting is not None:
            self.queued += now - self._waiting
            self._waiting = None
        if answer.text:
            self.first = now if self.first is None else self.first
            self.last = now


def figures(timeline: Timeline, answer: Answer, left: dict[str, Any] | None) -> dict[str, Any]:
    """An answer's figures as plain values; times in seconds, None where something is not known.

    ``host`` is the end of its peer id; ``left`` holds the ``requests`` and ``tokens`` that remain,
    None where nothing limits them.
    Names and numbers are the host's: only what has the expected shape is taken.
    """
    usage = answer.usage or {}
    prompt, completion = (
        value if type(value := usage.get(key)) is int and value >= 0 else None
        for key in ("prompt_tokens", "completion_tokens")
    )
    speed = None
    if completion and timeline.first is not None and timeline.last is not None:
        spent = timeline.last - timeline.first
        speed = round((completion - 1) / spent, 1) if completion > 1 and spent > 0 else None
    return {
        "model": None if answer.model is None else printable(answer.model, 80),
        "host": short(answer.host) if answer.host else None,  # whole it is in no notebook
        "mesh": answer.mesh,
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "first_token_s": None if timeline.first is None else round(timeline.first, 6),
        "tokens_per_s": speed,
        "queued_s": round(timeline.queued, 6),
        "finish_reason": answer.finish_reason and printable(answer.finish_reason, 40),
        "left": left,
    }


def rows(said: dict[str, Any], own: bool) -> list[tuple[str, str]]:
    """The figures for people, one a row; ``own``: the model is this kernel's."""
    first, speed, queued = said["first_token_s"], said["tokens_per_s"], said["queued_s"]
    host = said["host"] or "this kernel"
    mesh = f"{printable(said['mesh'], 60)} " if said["mesh"] and not own else ""
    return [
        ("model", said["model"] or "not said"),
        ("host", f"this kernel ({host})" if own else f"{mesh}({host})"),
        ("prompt", _tokens(said["prompt_tokens"])),
        ("answer", _tokens(said["completion_tokens"])),
        ("first token after", "none came" if first is None else span(first)),
        ("speed", "not known" if speed is None else f"{speed:g} tokens/s"),
        ("wait in the queue", "none" if not queued else span(queued)),
        ("ended", said["finish_reason"] or "not said"),
        ("left", _left(said["left"], own)),
    ]


def _tokens(count: int | None) -> str:
    return "not counted" if count is None else f"{count} token{'' if count == 1 else 's'}"


def _left(left: dict[str, Any] | None, own: bool) -> str:
    if own:
        return "not limited: this kernel's own"
    if left is None:
        return "not known"
    said = [f"{number} {what}" for what, number in left.items() if number is not None]
    return ", ".join(said) or "not limited"


def bundle(shown: list[tuple[str, str]]) -> dict[str, str]:
    """A small table for any front end. Everything in it is escaped."""
    lines = "".join(
        f'<tr><th scope="row" style="text-align:left;font-weight:normal;opacity:.75">'
        f'{html.escape(what)}</th><td style="text-align:left">{html.escape(value)}</td></tr>'
        for what, value in shown
    )
    return {
        "text/plain": table(("figure", "value"), shown),
        "text/html": f'<table class="qmt-stats" aria-label="Figures of this answer" '
        f'style="margin:.4em 0;font-size:90%">{lines}</table>',
    }


class Budget:
    """What remains of the invite by which a host answers, before and after."""

    def __init__(self, mesh: Mesh | None) -> None:
        self._mesh = mesh
        self._before = {
            host: each["used"]["completion_tokens"] for host, each in self._entries().items()
        }

    def _entries(self) -> dict[str, dict[str, Any]]:
        return {} if self._mesh is None else {each["host"]: each for each in self._mesh.status()}

    def left(self, answer: Answer) -> dict[str, Any] | None:
        """What is left now that the answer has ended; the host's own word, a moment later.

        None for a host of this kernel, and for one that was left meanwhile.
        """
        counted = (answer.usage or {}).get("completion_tokens")
        until = time.monotonic() + _LEFT_WITHIN
        while (entry := self._entries().get(answer.host or "")) is not None:
            left: dict[str, Any] = entry["left"]
            now = entry["used"]["completion_tokens"]
            unlimited = all(number is None for number in left.values())
            told = type(counted) is int and now - self._before.get(entry["host"], 0) >= counted
            if unlimited or told or time.monotonic() > until:
                return left
            time.sleep(_LOOK_EVERY)
        return None
