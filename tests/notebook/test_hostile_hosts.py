"""What a host says beside the answer is no more to be trusted than the answer."""

from __future__ import annotations

import json
import re

import pytest

from qmt_jupyter.answers import AnswerState
from qmt_jupyter.harmless import plain
from qmt_jupyter.notebook import chat, markdown
from qmt_jupyter.notebook.display import Growing, Streaming
from qmt_jupyter.notebook.state import State
from qmt_jupyter.wire.messages import Delta, Done, Started, Usage

NAME = "m\x1b]0;title\x07<b>\n"


class Said(AnswerState):
    """An answer whose every reply is a hostile host's."""

    def __init__(self, usage):
        super().__init__(None)
        self._replies = [
            Started(id="1", model=NAME, created=0),
            Delta(seq=1, choices=[{"index": 0, "delta": {"content": "fine"}}]),
            Usage(usage=usage),
            Done(finish_reason=NAME),
        ]

    def updates(self, tick):
        return (self._take(reply) for reply in self._replies)


class Asked:
    models = (NAME,)
    is_running = True

    def __init__(self, usage):
        self.usage = usage

    def chat(self, messages, **parameters):
        return Said(self.usage)


def ask(usage, screen):
    options = chat.argparse.Namespace(
        host=None, system=None, new=False, model=None, temperature=None, max_tokens=None, seed=None
    )
    return chat.turn(State(started=Asked(usage)), options, "hi", screen)


@pytest.mark.parametrize(
    "usage",
    [
        {},
        {"completion_tokens": "\x1b[31m", "prompt_tokens": float("nan")},
        {"completion_tokens": [], "raw": b"bytes", "deep": {"er": [1]}},
        {"completion_tokens": -1, "prompt_tokens": 2**63},
    ],
)
def test_names_and_numbers_of_a_hostile_host_are_made_harmless(usage, monkeypatch, capsys):
    shown = []
    monkeypatch.setattr(
        "IPython.display.display", lambda data, **given: shown.append((data, given["metadata"]))
    )
    assert ask(usage, Growing()) == "fine"
    data, metadata = shown[-1]
    assert "<b>" not in data["text/html"]
    assert not re.search("[\x00-\x09\x0b-\x1f]", "".join(data.values()))
    assert set(metadata["qmt"]) == {"model", "host", "finish_reason", "usage"}
    json.dumps(metadata, allow_nan=False)
    assert all(type(count) is int for count in (metadata["qmt"]["usage"] or {}).values())

    ask(usage, Streaming())
    assert not set("\x1b\x07") & set(capsys.readouterr().out)


def test_what_other_languages_write_with_is_kept():
    text = "prix\N{NARROW NO-BREAK SPACE}: 5\N{NO-BREAK SPACE}€, 東京\N{IDEOGRAPHIC SPACE}駅, می‌خواهم, 👨‍👩‍👧"
    assert plain(text) == text
    assert plain("one\r\ntwo") == "one\ntwo"


def test_a_text_that_is_slow_to_render_is_shown_as_it_is():
    hostile = "[" * 200_000 + "<script>"
    data = markdown.bundle(hostile)
    assert data["text/html"].count("<pre") == 1
    assert "<script" not in data["text/html"] + data["text/markdown"]
