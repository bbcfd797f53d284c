"""One turn of a conversation: ask, show the answer as it grows, keep what was said."""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING, Any

from ..errors import QmtError
from ..harmless import printable
from ..identity.peer_id import short
from ..words import rerouted_phrase
from .display import Growing, Streaming
from .state import State

if TYPE_CHECKING:
    from ..api import Answer
    from .taking import Taking


_COUNTS = ("prompt_tokens", "completion_tokens", "total_tokens")


_CUT = {
    "length": "cut off at the longest length allowed",
    "budget": "cut off: the invite's tokens are spent",
    "rate": "cut off: the invite's tokens for this minute are spent",
}


class Interrupted(QmtError):
    """A magic was stopped from the notebook; an answer ends on the host too, and its text stays.

    ``text`` is the answer so far.
    """

    code = "interrupted"
    text = ""


def turn(
    state: State,
    options: argparse.Namespace,
    prompt: str,
    screen: Growing | Streaming,
    taking: Taking | None = None,
) -> str:
    """Ask ``prompt`` and return the answer's text.

    ``taking`` says what is asked for beside a text, follows the answer, and may refuse it.

    A whole answer, and one that was interrupted, becomes part of the conversation; a failed one
    does not, so the same cell can be run again; with ``--new``, too, the former conversation goes
    only when there is a new one. Raises :class:`Interrupted` or what the answer
    raised; Run All stops at either.
    """
    asked = {"role": "user", "content": prompt}
    system = [{"role": "system", "content": options.system}] if options.system else []
    former = [] if options.new else state.conversation
    past = [m for m in former if not (system and m["role"] == "system")]
    answer = state.who_answers(options.model, options.host).chat(
        [*system, *past, asked],
        model=options.model,
        host=options.host,
        temperature=options.temperature,
        max_tokens=options.max_tokens,
        seed=options.seed,
        **(taking.begin() if taking else {}),
    )
    clock = _Clock()
    try:
        # The tick draws what came too soon after the last drawing, when nothing follows it.
        for piece in answer.updates(lambda: screen.show(answer.text, _waiting(answer))):
            clock.heard(piece)
            if taking:
                taking.follow(answer)
            screen.show(answer.text, _waiting(answer))
    except KeyboardInterrupt:
        answer.stop()
        screen.finish(answer.text, "interrupted", _metadata(answer))
        if answer.text:
            _keep(state, system, past, asked, answer)
        stopped = Interrupted("The answer was interrupted; its text so far is kept.")
        stopped.text = answer.text
        raise stopped from None
    except QmtError as error:
        screen.finish(
            answer.text, "not complete" if answer.text else "no answer", _metadata(answer)
        )
        raise error from None
    screen.finish(answer.text, clock.footer(answer), _metadata(answer))
    if taking:
        taking.end(answer)
    _keep(state, system, past, asked, answer)
    return answer.text


def _keep(
    state: State,
    system: list[dict[str, Any]],
    past: list[dict[str, Any]],
    asked: dict[str, Any],
    answer: Answer,
) -> None:
    said = {"role": "assistant", "content": answer.text}
    state.converse([*system, *past, asked, said], _metadata(answer))


def _waiting(answer: Answer) -> str:
    if answer.text or answer.model:
        return ""
    if answer.patience is not None:
        return f"the host is away; waiting up to {answer.patience:.0f} s for it to come back"
    if answer.position is None:
        return rerouted_phrase(answer) or "waiting for the host"
    if answer.wait is not None:
        said = f"waiting, the host's upstream asks for {answer.wait:.0f} s"
    else:
        said = f"waiting, {answer.position} before you"
    return " · ".join(part for part in (rerouted_phrase(answer), said) if part)


def _metadata(answer: Answer) -> dict[str, Any]:
    """What the saved notebook keeps beside the text; nothing in it is secret.

    Names and numbers are the host's: only what has the expected shape is taken.
    """
    counts = {
        key: value
        for key, value in (answer.usage or {}).items()
        if key in _COUNTS and isinstance(value, int)
    }
    return {
        "model": _shown(answer.model),
        "host": short(answer.host) if answer.host else None,
        "finish_reason": _shown(answer.finish_reason),
        "usage": counts or None,
    }


def _shown(name: str | None) -> str | None:
    return None if name is None else printable(name, 80)


class _Clock:
    def __init__(self) -> None:
        self._asked = time.perf_counter()
        self._first: float | None = None

    def heard(self, piece: str) -> None:
        if piece and self._first is None:
            self._first = time.perf_counter()

    def footer(self, answer: Answer) -> str:
        """Model, host and speed in one line."""
        host = short(answer.host) if answer.host else "this kernel"
        parts = [f"{_shown(answer.model)} on {host}"]
        tokens = (answer.usage or {}).get("completion_tokens")
        if isinstance(tokens, int):
            parts.append(f"{tokens} tokens")
        if self._first is not None:
            parts.append(f"first after {(self._first - self._asked) * 1000:.0f} ms")
            spent = time.perf_counter() - self._first
            if isinstance(tokens, int) and tokens > 1 and spent > 0:
                parts.append(f"{(tokens - 1) / spent:.0f} tokens/s")
        if answer.finish_reason in _CUT:
            parts.append(_CUT[answer.finish_reason])
        return " · ".join(parts)
