"""One turn of a conversation: ask, show the answer as it grows, keep what was said."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from ..errors import QmtError
from ..harmless import printable
from ..identity.peer_id import short
from ..words import rerouted_phrase
from .display import Growing, Streaming
from .footer import Clock
from .state import State

if TYPE_CHECKING:
    from ..api import Answer
    from .taking import Taking


_COUNTS = ("prompt_tokens", "completion_tokens", "total_tokens")


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

    *Stop* says that this is enough of an answer: what there is counts as the whole one, and Run
    All goes on. Before the first word there is none, and that raises :class:`Interrupted`.
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
    clock = Clock()

    def draw() -> None:
        if screen.is_due:
            screen.show(answer.text, _waiting(answer))

    try:
        screen.begin(answer.stop, clock)
        # The tick draws what came too soon after the last drawing, when nothing follows it.
        for piece in answer.updates(draw):
            clock.heard(piece)
            if taking:
                taking.follow(answer)
            draw()
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
    finally:
        screen.end()
        if not answer.is_complete:
            answer.stop()  # also where something of ours broke: nobody would read on
    if screen.is_stopped and not answer.is_complete:
        if not answer.text:
            screen.finish("", "stopped before the first word", _metadata(answer))
            raise Interrupted("The answer was stopped before its first word.")
        screen.finish(answer.text, clock.footer(answer, "stopped"), _metadata(answer))
    else:
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
