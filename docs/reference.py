"""Flags as Markdown, made from the parsers that take them, so that no page can be out of date.

A page asks for them with a comment that a reader of the Markdown does not see:
``<!-- flags of every magic -->`` or ``<!-- flags of every command -->``.
"""

from __future__ import annotations

import argparse
import re
import textwrap
from collections.abc import Callable, Iterator


def magics() -> str:
    """A section for every magic."""
    from qmt_jupyter.notebook.parsers import EXAMPLES, PARSERS

    shown = {
        name: [f"```python\n{each.cell}\n```\n{_sentence(each.text)}" for each in examples]
        for name, examples in EXAMPLES.items()
    }
    return "\n\n".join(
        "\n\n".join([section(name, parser), *shown[name]]) for name, parser in PARSERS.items()
    )


def commands() -> str:
    """A section for every subcommand of ``qmt``."""
    from qmt_jupyter.cli import parser

    return "\n\n".join(section(f"qmt {name}", each) for name, each in subcommands(parser()))


WIDTH = 84  # of a block on a page
PLACES: dict[str, Callable[[], str]] = {
    "<!-- flags of every magic -->": magics,
    "<!-- flags of every command -->": commands,
}


def filled(page: str) -> str:
    """A page with what it asks for in its place."""
    for place, make in PLACES.items():
        if place in page:
            page = page.replace(place, make())
    return page


def subcommands(
    parser: argparse.ArgumentParser,
) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """The subcommands of a parser by their names."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            yield from action.choices.items()


def section(name: str, parser: argparse.ArgumentParser) -> str:
    """What one parser takes: its sentence, how it is written, and a table for each group."""
    parts = [f"## `{name}`", _sentence(parser.description or ""), f"```text\n{_usage(parser)}\n```"]
    for group in parser._action_groups:
        rows = [_row(parser, each) for each in group._group_actions if _is_shown(each)]
        if not rows:
            continue
        # argparse's own groups need no heading: what has dashes is an option.
        if group.title not in ("positional arguments", "options", "optional arguments"):
            parts.append(f"{_sentence(group.title or '').removesuffix('.')}:")
        parts.append("\n".join(["| | |", "| --- | --- |", *rows]))
    return "\n\n".join(parts)


def _usage(parser: argparse.ArgumentParser) -> str:
    """The usage in lines of one width, whatever the terminal's is; no flag parts from its value."""
    words = " ".join(parser.format_usage().removeprefix("usage:").split())
    held = re.sub(r"\[[^]]* [^]]*\]+", lambda each: each[0].replace(" ", "\0"), words)
    lines = textwrap.wrap(held, WIDTH, subsequent_indent="    ", break_on_hyphens=False)
    return "\n".join(lines).replace("\0", " ")


def _is_shown(action: argparse.Action) -> bool:
    return action.help != argparse.SUPPRESS and action.dest != "help"


def _sentence(text: str) -> str:
    text = _inert(text.strip())
    if not text:
        return ""
    return text[0].upper() + text[1:] + ("" if text.endswith((".", ":", "?", "!")) else ".")


def _row(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    value = "" if action.nargs == 0 else str(action.metavar or action.dest)
    flags = [f"{flag} {value}".strip() for flag in action.option_strings] or [value]
    shown = ", ".join(f"`{flag}`" for flag in flags).replace("|", "\\|")
    said = (action.help or "") % {**vars(action), "prog": parser.prog}
    return f"| {shown} | {_inert(said)} |"


def _inert(text: str) -> str:
    """Text in which nothing is Markdown, and what is a flag or a command stands out."""
    words = []
    for word in " ".join(text.split()).split(" "):
        core = word.strip("(),.;:")
        if core.startswith(("--", "%")) and "`" not in core:
            word = word.replace(core, f"`{core}`")
        else:
            word = "".join(f"\\{mark}" if mark in "\\*_<>[]`" else mark for mark in word)
        words.append(word)
    return " ".join(words).replace("|", "\\|")
