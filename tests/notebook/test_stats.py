"""Figures of an answer: times from its updates, and nothing that a host could slip in."""

from __future__ import annotations

import types

import pytest

from qmt_jupyter.notebook import stats


class Answer(types.SimpleNamespace):
    """An answer at one moment."""

    def __init__(self, **now):
        given = {"text": "", "position": None, "usage": None, "model": "m", "host": None}
        super().__init__(**{**given, "mesh": None, "finish_reason": "stop", **now})


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(stats.time, "perf_counter", lambda: now[0])
    return now


def test_the_wait_in_the_queue_is_told_from_the_wait_for_the_first_word(clock):
    timeline = stats.Timeline()
    timeline.begin()
    for at, answer in (
        (1.0, Answer(position=2)),
        (2.0, Answer(position=1)),
        (4.0, Answer()),
        (5.0, Answer(text="one")),
        (9.0, Answer(text="one two")),
    ):
        clock[0] = 100.0 + at
        timeline.note(answer)
    usage = {"prompt_tokens": 7, "completion_tokens": 9}
    said = stats.figures(timeline, Answer(text="x", usage=usage), None)
    assert (said["queued_s"], said["first_token_s"], said["tokens_per_s"]) == (3.0, 5.0, 2.0)
    shown = dict(stats.rows(said, own=False))
    assert (shown["wait in the queue"], shown["first token after"]) == ("3.0 s", "5.0 s")
    assert shown["left"] == "not known"


@pytest.mark.parametrize(
    "usage",
    [None, {"completion_tokens": "many"}, {"completion_tokens": -1}, {"completion_tokens": True}],
)
def test_what_is_not_a_count_is_not_shown_as_one(clock, usage):
    timeline = stats.Timeline()
    timeline.begin()
    said = stats.figures(timeline, Answer(usage=usage), {"requests": None, "tokens": 3})
    assert said["completion_tokens"] is said["tokens_per_s"] is None
    shown = dict(stats.rows(said, own=False))
    assert shown["answer"] == "not counted"
    assert shown["left"] == "3 tokens"


def test_a_hosts_names_stay_within_their_cells(clock):
    hostile = Answer(model="<b>\x1b[2J", mesh="<i>\n", host="12D3<script>", finish_reason="<u>")
    data = stats.bundle(stats.rows(stats.figures(stats.Timeline(), hostile, None), own=False))
    for part in ("<b>", "<i>", "<script>", "<u>"):
        assert part not in data["text/html"]
    assert "\x1b" not in data["text/plain"] + data["text/html"]
    assert len(data["text/plain"].splitlines()) == 11
