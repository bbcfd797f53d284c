"""The flags of every magic: one parser each, by the magic's name with its percent signs.

:data:`EXAMPLES` are what ``%magic?`` ends with, as data, so that others can show them too.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import NamedTuple

from .. import flags


class Example(NamedTuple):
    """A cell that can be run as it stands, and what it does."""

    cell: str
    text: str


EXAMPLES: dict[str, tuple[Example, ...]] = {
    "%qmt": (Example("%qmt", "what this kernel hosts and has joined, and every magic"),),
    "%qmt_host": (
        Example("%qmt_host", "look what runs on this machine; share smollm2 where nothing does"),
        Example("%qmt_host --model smollm2 --uses 3 --ttl 7d", "for three guests, for a week"),
        Example(
            "%qmt_host --upstream http://127.0.0.1:11434/v1 --upstream-model llama3.2:latest",
            "a model of a server that runs already",
        ),
    ),
    "%qmt_invite": (
        Example("%qmt_invite --uses 1 --tokens 50000", "one more guest, with so many tokens"),
        Example("%qmt_invite --uses 30 --ttl 2h --per-guest --concurrent 1", "for a class"),
    ),
    "%qmt_revoke": (
        Example("%qmt_revoke 3f9a1c0e", "an invite or a guest, by the id that %qmt_usage shows"),
    ),
    "%qmt_usage": (
        Example("%qmt_usage", "a table"),
        Example("%qmt_usage --save rows", "rows for pandas.DataFrame(rows)"),
    ),
    "%qmt_join": (
        Example("%qmt_join", "asks for the link unseen; on a JupyterHub with a service needs none"),
        Example("%qmt_join hub", "the service of the JupyterHub that this server belongs to"),
        Example("%qmt_join --file ~/link.txt --name Ada", "from a file, under a name"),
    ),
    "%qmt_models": (Example("%qmt_models", "a table"),),
    "%qmt_status": (Example("%qmt_status", "what is hosted, who uses it, what is joined"),),
    "%qmt_serve": (
        Example("%qmt_serve", "shows base URL and key"),
        Example("%qmt_serve --env", "sets them for tools that this kernel runs"),
    ),
    "%qmt_leave": (
        Example("%qmt_leave", "all of them"),
        Example("%qmt_leave Lab", "the one host whose mesh is called Lab"),
    ),
    "%qmt_history": (
        Example("%qmt_history --last 1", "the last question and its answer"),
        Example("%qmt_history --export talk.md --clear", "keep it in a file, and begin anew"),
    ),
    "%%chat": (
        Example("%%chat\nWhy is the sky blue?", "the first model offered answers"),
        Example(
            "%%chat --context df,-1 --max-tokens 300\nWhat stands out here?",
            "with a data frame and the cell before this one",
        ),
        Example(
            "%%chat --fill --json schema --save person\nWho is meant in: {text}",
            "with the variable text; the parsed answer goes into person",
        ),
    ),
    "%chat": (
        Example("%chat --temperature 0 What is 6 times 7?", "flags first, then the question"),
        Example("%chat --fill What does {word} mean?", "with the variable word"),
    ),
}


def _made(name: str, text: str, *groups: Callable[[argparse.ArgumentParser], None]) -> flags.Parser:
    parser = flags.Parser(name, text, _epilog(EXAMPLES[name]))
    for add in groups:
        add(parser)
    return parser


def _epilog(examples: tuple[Example, ...]) -> str:
    lines = ["examples:"]
    for each in examples:
        lines += [f"  {line}" for line in each.cell.split("\n")]
        lines += [f"      {each.text}"]
    return "\n".join(lines)


def _add_save(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--save", metavar="NAME", help="put the result into this variable")


def _add_link_file(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--link-file", metavar="PATH", help="write the invite link to a file that only you can read"
    )


def _add_conversation(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--new", action="store_true", help="start a new conversation")
    sent = parser.add_argument_group("variables and cells (what is sent is said above the answer)")
    sent.add_argument(
        "--fill",
        action="store_true",
        help="replace {name}, {name.part} and {name[key]} in the prompt; {{ and }} are braces",
    )
    sent.add_argument(
        "--context",
        metavar="CELLS|NAMES",
        action="append",
        help="send variables (df,x) and cells (3, 2-5, -1 for the last one, In[3], Out[4]) along",
    )
    back = parser.add_argument_group("the answer")
    back.add_argument(
        "--json",
        metavar="SCHEMA",
        help="have JSON answered, and check it: a variable (JSON schema or pydantic model), a "
        ".json file, or the schema itself",
    )
    back.add_argument(
        "--save", metavar="NAME", help="put it into this variable; with --json its parsed value"
    )
    back.add_argument(
        "--stats", action="store_true", help="show tokens, times, and what is left, as a table"
    )
    back.add_argument("--save-stats", metavar="NAME", help="put these figures into this variable")


GUIDE = _made("%qmt", "What this kernel does, and what there is.")
HOST = _made("%qmt_host", "Share a model from this kernel.", flags.add_host, _add_link_file)
_add_save(HOST)
HOST.add_argument("--stop", action="store_true", help="stop hosting")
INVITE = _made("%qmt_invite", "Make another invite.", flags.add_grant, _add_link_file, _add_save)
REVOKE = _made("%qmt_revoke", "Stop an invite, or one guest, at once.", flags.add_which)
USAGE = _made("%qmt_usage", "Show who used what, and what remains.", _add_save)
for _flag, _text in (("--json", "print one JSON object"), ("--csv", "print one row a guest")):
    USAGE.add_argument(_flag, action="store_true", help=_text)
JOIN = _made(
    "%qmt_join",
    "Join a mesh by an invite link; again with another link, one more host.",
    flags.add_link_sources,
)
JOIN.add_argument(
    "link",
    nargs="?",
    help="the link, or hub for the service of this JupyterHub; left out, it is hub where there is "
    "one, and otherwise asked for without echo",
)
MODELS = _made("%qmt_models", "List the models that %%chat can ask, with host and load.")
STATUS = _made("%qmt_status", "Show what is hosted, who uses it, and what is joined.")
SERVE = _made("%qmt_serve", "Open an OpenAI endpoint here for other tools.", flags.add_serve)
for _flag, _text in (
    ("--env", "set OPENAI_BASE_URL and OPENAI_API_KEY in this kernel; the key is not shown"),
    ("--stop", "stop serving"),
):
    SERVE.add_argument(_flag, action="store_true", help=_text)
LEAVE = _made("%qmt_leave", "Leave one host, or all that were joined.")
LEAVE.add_argument(
    "host", nargs="?", metavar="HOST", help="its mesh's name, or characters of its peer id"
)
HISTORY = _made("%qmt_history", "Show, keep or clear the conversation of %%chat.")
HISTORY.add_argument(
    "--last", type=int, metavar="N", help="only the last N questions, with their answers"
)
HISTORY.add_argument(
    "--export", metavar="PATH", help="write it to a .md file, or to a .json file with the models"
)
HISTORY.add_argument("--force", action="store_true", help="replace that file if it is there")
HISTORY.add_argument("--save", metavar="NAME", help="put its OpenAI messages into this variable")
HISTORY.add_argument("--clear", action="store_true", help="forget it, once it is kept as asked")
CHAT = _made("%%chat", "Ask a model; the cell is the prompt.", flags.add_chat, _add_conversation)
LINE_CHAT = _made(
    "%chat",
    "Ask a model; the rest is the prompt (not ending in ?, which asks IPython for help).",
    flags.add_chat,
    _add_conversation,
)
LINE_CHAT.add_argument("prompt", nargs="*", help="the question, as it is")

# Every magic that there is, in the order in which somebody meets them.
PARSERS: dict[str, flags.Parser] = {
    parser.prog: parser
    for parser in (
        GUIDE, HOST, INVITE, USAGE, REVOKE, JOIN, MODELS, CHAT, LINE_CHAT, HISTORY, STATUS, SERVE,
        LEAVE,
    )
}  # fmt: skip


def switches(parser: argparse.ArgumentParser) -> frozenset[str]:
    """The flags of a parser that take no value."""
    actions = parser._actions
    return frozenset(flag for each in actions if each.nargs == 0 for flag in each.option_strings)
