"""A magic's line in words: quotes are taken as a shell takes them, a prompt as it was typed."""

from __future__ import annotations

import os
import re
import shlex

from ..errors import OptionInvalid

_WORD = re.compile(r"""\s*((?:[^\s"']|"(?:\\.|[^"\\])*"|'[^']*')+)""")


def words(name: str, line: str) -> list[str]:
    """The words of a line. Raises :class:`~qmt_jupyter.errors.OptionInvalid` at an open quote."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=False)
    lexer.whitespace_split = True
    lexer.commenters = ""
    if os.name == "nt":  # where a backslash parts the steps of a path
        lexer.escape = ""
    try:
        return list(lexer)
    except ValueError:
        raise OptionInvalid(f"{name}: a quotation mark is missing.") from None


def joined(given: list[str], flag: str) -> list[str]:
    """The words with each value of ``flag`` tied to it: ``-1,df`` would else pass for a flag."""
    tied: list[str] = []
    for word in given:
        if tied and tied[-1] == flag and word[:1] == "-" and word[1:2].isdigit():
            tied[-1] = f"{flag}={word}"
        else:
            tied.append(word)
    return tied


def flags_and_prompt(line: str, switches: frozenset[str]) -> tuple[str, str]:
    """Part a line after its leading flags; apostrophes and blanks in the prompt stay as they are.

    ``switches`` are the flags without a value; ``--`` ends the flags.
    """
    end = 0
    while (word := _WORD.match(line, end)) and (word[1].startswith("--") or word[1] == "-h"):
        if word[1] == "--":
            return line[:end], line[word.end() :].strip()
        end = word.end()
        if word[1] not in switches and "=" not in word[1]:
            value = _WORD.match(line, end)
            end = value.end() if value else len(line)
    return line[:end], line[end:].strip()
