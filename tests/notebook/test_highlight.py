"""Code has colours, and whatever it is, it stays the code that it was."""

from __future__ import annotations

import html
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmt_jupyter.notebook import highlight
from qmt_jupyter.notebook.highlight import Colours, coloured, language, spoken

LANGUAGES = sorted(set(highlight._LEXERS.values()))
SPAN = re.compile(r'<span class="([a-z])">|</span>')


def code_of(markup):
    """The code that a browser would show; fails on any markup but our spans."""
    bare = SPAN.sub("", markup)
    assert "<" not in bare
    assert ">" not in bare
    return html.unescape(bare)


def test_parts_of_code_are_told_apart():
    markup = coloured('def f(x):  # why\n    return "a" + 1\n', "python")
    for part in (
        '<span class="k">def',
        '<span class="d">f</span>',
        '<span class="c"># why',
        '<span class="s">&quot;a&quot;',
        '<span class="n">1',
    ):
        assert part in markup


@pytest.mark.parametrize("name", LANGUAGES)
def test_every_language_that_is_named_is_there(name):
    assert highlight._lexer(name) is not None
    assert spoken(name)
    code = "<b> & \"x\" 'y' // # /* {{ }} $x `z` é\n\tif else 12 0x1f\n"
    assert code_of(coloured(code, name)) == code


@given(
    st.text(alphabet="ab01 \n\t\"'`<>&#/*(){}[]$\\-:=", max_size=200), st.sampled_from(LANGUAGES)
)
def test_code_is_never_changed(code, name):
    assert code_of(coloured(code, name)) == code


@pytest.mark.parametrize(
    ("info", "expected"),
    [
        ("python", "python"),
        ("Python3 title=x", "python"),
        ("py{1,3}", "python"),
        ("c++", "cpp"),
        ("mermaid", ""),
        ("markdown", ""),
        ("", ""),
        ('"><script>', ""),
        ("../../etc", ""),
    ],
)
def test_a_language_is_one_of_ours_or_none(info, expected):
    assert language(info) == expected


@pytest.mark.parametrize(
    "code",
    [
        "x = 1\n" * 10_000,
        "x = " + "(" * 2_000,
        "x = 1" + "\n" * 500 + "y",
        "x = 1" + " " * 500 + "y",
    ],
    ids=["too long", "a long line", "many empty lines", "much space"],
)
def test_what_could_hold_a_lexer_up_is_left_plain(code):
    assert coloured(code, "python") == html.escape(code)


def test_a_lexer_that_takes_its_time_is_left(monkeypatch):
    monkeypatch.setattr(highlight, "MOST_SECONDS", -1.0)
    code = "def f(): pass\n" * 20
    assert coloured(code, "python") == html.escape(code)


def test_an_older_pygments_without_a_language_shows_it_plain():
    assert coloured("x = 1", "no such language") == "x = 1"


def test_a_block_that_grows_is_coloured_a_few_times_only(monkeypatch):
    times = []
    really = highlight.coloured

    def counted(code, name):
        times.append(len(code))
        return really(code, name)

    monkeypatch.setattr(highlight, "coloured", counted)
    colours = Colours()
    line = "x = f(1)  # why\n"
    for lines in range(1, 2_000):
        code = line * lines
        markup = colours.of(1, code, "python")
    assert code_of(markup) == code
    assert sum(times[200:]) < 10 * len(code)


def test_a_block_that_becomes_another_is_coloured_anew():
    colours = Colours()
    code = "x = 1\n" * 500
    colours.of(1, code, "python")
    other = "y" + code[1:]
    assert code_of(colours.of(1, other, "python")) == other
    assert "<span" not in colours.of(1, other, "")
