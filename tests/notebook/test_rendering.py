"""A text that grows is rendered piece by piece, and comes to the same as rendered at once."""

from __future__ import annotations

import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmt_jupyter.notebook import markdown, rendering
from qmt_jupyter.notebook.display import Growing
from qmt_jupyter.notebook.rendering import Rendering
from tests.notebook.test_markdown import HOSTILE, assert_harmless

PARTS = (
    *("a", "word ", "\n", "\n", "\n\n", "\r\n", "# ", "- ", "* ", "1. ", "2. ", "> ", "    ", "\t"),
    *("```", "```python", "~~~", "|", "a | b", "|-|-|", "---", "***", "===", "`", "**", "_"),
    *("[x](http://a)", "[r]", "[r]: http://b", "<b>", "\\", "x = 1", "+", '"', "![", "&amp;"),
)


@given(st.lists(st.sampled_from(PARTS), max_size=40).map("".join), st.integers(0, 2**32))
def test_a_text_that_grows_comes_to_the_same_as_at_once(text, seed):
    chance = random.Random(seed)
    growing = Rendering()
    end = 0
    while end < len(text):
        end = min(len(text), end + chance.randint(1, 6))
        growing.html(text[:end])
    assert growing.whole(text) == markdown.html(text)


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_text_that_grows_is_harmless_at_every_moment(text):
    growing = Rendering()
    for end in range(1, len(text) + 1):
        assert_harmless(growing.html(text[:end]))
    assert growing.whole(text) == markdown.html(text)


def test_a_reference_that_comes_late_is_known_at_the_end():
    text = "see [it][r]\n\nmore\n\n[r]: https://example.org\n\nend"
    growing = Rendering()
    assert "href" not in growing.html(text[:20])
    growing.html(text)
    assert 'href="https://example.org"' in growing.whole(text)


def test_a_reference_that_is_still_being_written_is_not_kept():
    growing = Rendering()
    text = "start\n\n[r]: https://example.org/long\n\nsee [it][r]\n\nend\n\n"
    for end in range(len(text)):
        growing.html(text[:end])
    assert 'href="https://example.org/long"' in growing.html(text)


def test_what_is_closed_is_not_parsed_again(monkeypatch):
    lengths = []
    whole = markdown.parser().render

    def counted(text, environment):
        lengths.append(len(text))
        return whole(text, environment)

    monkeypatch.setattr(markdown.parser(), "render", counted)
    growing = Rendering()
    text = ""
    for number in range(300):
        text += f"Paragraph {number} with *some* words.\n\n"
        growing.html(text)
    assert sum(lengths) < 4 * len(text), "the work grows with the text, not with its square"


@pytest.mark.parametrize(
    "piece",
    ["word ", "[", "- a\n ", "> ", "```\n", "*a ", "# head\n\n", "a\n\n", "|a|\n|-|\n"],
)
def test_texts_of_any_length_are_shown_to_their_end(piece, monkeypatch):
    monkeypatch.setattr(rendering, "LONGEST_PARSED", 2_000)
    monkeypatch.setattr(markdown, "LONGEST_PARSED", 2_000)
    monkeypatch.setattr(rendering, "LONGEST_RENDERED", 6_000)
    text = (piece * 10_000)[:9_000] + "\n\nthe end <script>"
    growing = Rendering()
    for end in range(0, len(text), 500):
        growing.html(text[:end])
    for html in (growing.whole(text), markdown.html(text)):
        assert "the end &lt;script&gt;" in html
        assert "<script" not in html
    assert len(re.findall("word", growing.whole(text))) == text.count("word")


@pytest.mark.parametrize("use", ["[a] ", "[a]\n\n"])
def test_where_a_reference_leads_is_not_written_out_without_end(use):
    """A hundred kilobytes made fifty megabytes, and could have made a thousand."""
    text = "[a]: https://x.example/" + "y" * 5_000 + "\n\n" + use * 4_000
    growing = Rendering()
    for end in range(1_000, len(text), 2_000):
        growing.html(text[:end])
    markup = growing.whole(text)
    assert markup == markdown.html(text) and len(markup) < 500_000
    assert markup.count("href=") > 30, "the first of them are links"
    assert markup.count(">a</a>") == 4_000, "and all of them text"


def test_short_rows_of_wide_tables_do_not_multiply():
    """Of a table row that is one stroke, every column is made; old parsers make any number."""
    wide = "|" * 257 + "\n" + "|-" * 256 + "|\n" + "|\n" * 256 + "\n"
    text = wide * 2
    growing = Rendering()
    growing.html(wide)
    markup = growing.whole(text)
    assert markup == markdown.html(text)
    assert 65_000 < markup.count("<td") < 80_000


def test_long_tables_are_shown_whole():
    text = "|a|b|c|\n|-|-|-|\n" + "|1|2|3|\n" * 5_000
    assert markdown.html(text).count("<td>") == 15_000


def test_what_grows_into_too_much_markup_is_shown_as_text():
    data = Growing()._growing('"' * 400_000, "")
    assert len(data["text/html"]) < markdown.LARGEST
    assert "&quot;" in data["text/html"]


def test_while_it_grows_only_what_front_ends_choose_is_sent():
    screen = Growing()
    sent = screen._growing("word " * 10_000, "")
    assert set(sent) == {"text/plain", "text/html"}
    assert len(sent["text/plain"]) < 5_000
    assert sent["text/html"].count("word ") == 9_999, "all of it"
    assert "qmt-growing" in sent["text/html"]
    assert "qmt-growing" not in markdown.bundle("word")["text/html"].partition("</style>")[2]
    assert "still being written" in sent["text/html"], "what a file says that is saved now"


def test_a_bundle_never_passes_what_a_server_lets_through():
    small = markdown.bundle("a" * 1_000, "echo on abc")
    assert set(small) == {"text/plain", "text/markdown", "text/html"}
    for length in (700_000, 1_500_000, 5_000_000):
        data = markdown.bundle("a" * length, "echo on abc")
        assert sum(len(each.encode()) for each in data.values()) <= 2_000_100
        assert data["text/plain"].endswith("\n\necho on abc")
    assert "--save NAME" in data["text/plain"]
