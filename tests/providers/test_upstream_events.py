"""What an upstream's bytes mean, and what its failures do; without an upstream."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from qmt_jupyter.errors import GenerationFailed
from qmt_jupyter.providers import upstream_events
from qmt_jupyter.providers.upstream_events import Lines, chunk_of
from qmt_jupyter.providers.upstream_refusals import retry_after

EVENT = {"choices": [{"index": 0, "delta": {"content": "a\u2028b\x85c\x0cd é 日本"}}]}
STREAM = (
    b": hello\r\n\r\nevent: x\n"
    + b"data: " + json.dumps(EVENT, ensure_ascii=False).encode() + b"\n\n"
    + b"data: [DONE]\n\n"
)  # fmt: skip


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_lines_are_the_same_however_the_bytes_are_cut(size):
    lines = Lines()
    found = [
        line
        for at in range(0, len(STREAM), size)
        for line in lines.feed(STREAM[at : at + size])
        if line
    ]
    assert found[0] == ": hello"
    chunks = [chunk for line in found if (chunk := chunk_of(line)) is not None]
    assert chunks == [EVENT], "what ends a line of text does not end one of the stream"
    assert found[-1] == "data: [DONE]"


def test_a_line_without_an_end_is_given_up(monkeypatch):
    monkeypatch.setattr(upstream_events, "LONGEST_LINE", 1000)
    lines = Lines()
    assert lines.feed(b"data: " + b"x" * 900) == []
    with pytest.raises(GenerationFailed, match="too large"):
        lines.feed(b"x" * 200)


def test_bytes_that_are_no_text_end_an_answer_in_a_sentence():
    (line,) = Lines().feed(b"data: {\xff\xfe\n")
    with pytest.raises(GenerationFailed, match="not JSON"):
        chunk_of(line)


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        ("7", 7.0),
        ("0.5", 0.5),
        ("Tue, 24 Nov 2026 12:00:30 GMT", 30.0),
        ("Tue, 24 Nov 2026 11:00:00 GMT", 0.0),
        ("", None),
        ("soon", None),
        ("-1", None),
        ("nan", None),
        ("1e99", None),
        ("Tue, 24 Nov 9999 12:00:00 GMT", None),
        ("Tue, 99 Nov 2026 12:00:00 GMT", None),
    ],
)
def test_the_time_to_come_back_is_read_in_seconds_or_as_a_date(said, seconds):
    error = SimpleNamespace(response=SimpleNamespace(headers={"retry-after": said}))
    assert retry_after(error, now=1_795_521_600.0) == seconds
