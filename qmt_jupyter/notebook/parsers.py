"""The flags of every magic: one parser each, by the magic's name with its percent signs."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from .. import flags


def _made(name: str, text: str, *groups: Callable[[argparse.ArgumentParser], None]) -> flags.Parser:
    parser = flags.Parser(name, text)
    for add in groups:
        add(parser)
    return parser


def _add_save(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--save", metavar="NAME", help="put the result into this variable")


def _add_link_file(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--link-file", metavar="PATH", help="write the invite link to a file that only you can read"
    )


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
JOIN.add_argument("link", nargs="?", help="the link; left out, it is asked for without echo")
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
CHAT = _made("%%chat", "Ask a model; the cell is the prompt.", flags.add_chat, _add_save)
LINE_CHAT = _made(
    "%chat",
    "Ask a model; the rest is the prompt (not ending in ?, which asks IPython for help).",
    flags.add_chat,
    _add_save,
)
for _each in (CHAT, LINE_CHAT):
    _each.add_argument("--new", action="store_true", help="start a new conversation")
LINE_CHAT.add_argument("prompt", nargs="*", help="the question, as it is")

# Every magic that there is, in the order of a reader's interest.
PARSERS: dict[str, flags.Parser] = {
    parser.prog: parser
    for parser in (
        HOST, INVITE, REVOKE, USAGE, JOIN, MODELS, STATUS, CHAT, LINE_CHAT, SERVE, LEAVE,
    )
}  # fmt: skip


def switches(parser: argparse.ArgumentParser) -> frozenset[str]:
    """The flags of a parser that take no value."""
    actions = parser._actions
    return frozenset(flag for each in actions if each.nargs == 0 for flag in each.option_strings)
