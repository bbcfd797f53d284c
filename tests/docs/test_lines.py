"""What a page tells its reader to type is taken by today's parsers, and its Python is Python."""

from __future__ import annotations

import argparse
import ast
import shlex

import pytest
from IPython.core.inputtransformer2 import TransformerManager

from qmt_jupyter import cli
from qmt_jupyter.errors import OptionInvalid
from qmt_jupyter.hub.options import parser as hub_parser
from qmt_jupyter.notebook.arguments import flags_and_prompt, words
from qmt_jupyter.notebook.parsers import PARSERS, switches
from tests.docs.pages import PAGES, Block, blocks, spans

# Flags of other programs that pages speak of.
FOREIGN = {"--dev", "--api-key-name", "--api-base", "--max-num-seqs"}
# Pages on what travels and on benchmarks, whose words are no commands of ours.
OTHERS_WORDS = ("protocol.md", "performance.md")


def arguments_of(program: str, block: Block) -> list[list[str]]:
    """What each call of ``program`` in a block for a shell is given."""
    *before, last = program.split()
    lines = block.code.replace("\\\n", " ").splitlines()
    if block.language == "console":
        lines = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
    found = []
    for line in lines:
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        command: list[str] | None = None
        passed: list[str] = []
        for word in lexer:
            if set(word) <= set("();<>|&"):
                command = None
            elif command is not None:
                command.append(word)
            elif word == last and passed[len(passed) - len(before) :] == before:
                found.append(command := [])
            passed.append(word)
    return found


def commands(block: Block) -> list[list[str]]:
    """The words of each ``qmt`` command in a block for a shell."""
    return arguments_of("qmt", block)


def magics(block: Block) -> list[str]:
    """The lines of a cell that begin with one of our magics."""
    names = tuple(PARSERS)
    return [line for line in block.code.splitlines() if line.split(" ")[0] in names]


def parse_magic(line: str) -> argparse.Namespace:
    name, _, rest = line.partition(" ")
    parser = PARSERS[name]
    if name == "%chat":
        rest, prompt = flags_and_prompt(rest, switches(parser))
        assert prompt, "there is nothing to ask"
    return parser.parse_args(words(name, rest))


def on(*languages: str):
    found = [each for page in PAGES for each in blocks(page, *languages)]
    return pytest.mark.parametrize("block", found, ids=lambda each: each.place)


@on("bash", "console")
def test_a_command_on_a_page_can_be_given(block):
    for command in commands(block):
        cli.parser().parse_args(command)


@on("python")
def test_a_cell_on_a_page_can_be_run(block):
    for line in magics(block):
        parse_magic(line)
    ast.parse(TransformerManager().transform_cell(block.code))


def test_there_is_something_to_check():
    shell = [each for page in PAGES for each in blocks(page, "bash", "console")]
    cells = [each for page in PAGES for each in blocks(page, "python")]
    assert sum(len(commands(each)) for each in shell) > 20
    assert sum(len(magics(each)) for each in cells) > 20


def test_what_no_parser_takes_is_noticed():
    with pytest.raises(OptionInvalid):
        cli.parser().parse_args(commands(Block("", "bash", "cd x && qmt host --sloots 2\n"))[0])
    with pytest.raises(OptionInvalid):
        parse_magic("%qmt_join --file x # and so on")


def flags_of(parser: argparse.ArgumentParser) -> set[str]:
    found = {flag for action in parser._actions for flag in action.option_strings}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            found |= {flag for each in action.choices.values() for flag in flags_of(each)}
    return found


@pytest.mark.parametrize(
    "page", [each for each in PAGES if each.name not in OTHERS_WORDS], ids=lambda page: page.name
)
def test_every_flag_and_magic_in_the_text_exists(page):
    flags = flags_of(cli.parser()) | flags_of(hub_parser()) | FOREIGN
    for parser in PARSERS.values():
        flags |= flags_of(parser)
    subcommands = next(
        set(each.choices)
        for each in cli.parser()._actions
        if isinstance(each, argparse._SubParsersAction)
    )
    unknown = []
    for span in spans(page):
        first, *rest = span.split(" ")
        foreign = first in ("pip", "%pip", "cargo", "iroh-relay", "make", "tmux")
        unknown += [each for each in [first, *rest] if each.startswith("--") and not foreign
                    and each.split("=")[0].rstrip(",;") not in flags]  # fmt: skip
        magic = first.rstrip("?")
        if magic.lstrip("%").startswith(("qmt_", "chat")) and magic.startswith("%"):
            unknown += [span] if magic not in PARSERS else []
        if first == "qmt" and rest and rest[0] != "COMMAND":
            unknown += [span] if rest[0] not in subcommands else []
    assert unknown == []
