"""What is typed after a magic means what it looks like."""

from __future__ import annotations

import os

import pytest

from qmt_jupyter.errors import OptionInvalid
from qmt_jupyter.notebook.arguments import flags_and_prompt, words

SWITCHES = frozenset({"--new", "-h"})


@pytest.mark.parametrize(
    ("line", "flags", "prompt"),
    [
        ("why not", "", "why not"),
        ("  What's up", "", "What's up"),
        ("--new What's  up with --new and -h", "--new", "What's  up with --new and -h"),
        ("--max-tokens 5 5 apples", "--max-tokens 5", "5 apples"),
        ("--seed=3 three", "--seed=3", "three"),
        ("--system 'Be brief.' --new \"Quoted\" it", "--system 'Be brief.' --new", '"Quoted" it'),
        ('--system "say \\"x\\"" go', '--system "say \\"x\\""', "go"),
        ("--new -- --new is a flag", "--new", "--new is a flag"),
        ("-5 + 3", "", "-5 + 3"),
        ("--system 'never closed", "--system 'never closed", ""),
        ("--seed", "--seed", ""),
        ("", "", ""),
    ],
)
def test_a_line_parts_into_its_leading_flags_and_the_prompt(line, flags, prompt):
    leading, rest = flags_and_prompt(line, SWITCHES)
    assert (leading.strip(), rest) == (flags, prompt)


def test_words_are_quoted_as_in_a_shell():
    assert words("%x", "--name 'Team GPU' # --uses \"\"") == [
        "--name",
        "Team GPU",
        "#",
        "--uses",
        "",
    ]
    with pytest.raises(OptionInvalid, match="%x: a quotation mark"):
        words("%x", "--name 'Team")


def test_a_backslash_stays_in_the_paths_of_windows(monkeypatch):
    monkeypatch.setattr(os, "name", "nt")
    assert words("%x", r"--file C:\Users\me\link") == ["--file", r"C:\Users\me\link"]
