"""What the Tab key offers in a line of ours: flags, and values from what is known in memory.

Nothing here asks the background loop, let alone the network, so nothing can block a front end.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .. import flags
from ..identity.peer_id import short
from ..settings import HUB, is_on_hub
from .parsers import CHAT, LINE_CHAT, PARSERS
from .state import STATE, State

_MAGIC = re.compile(r"\s*(?:[\w, ]+=\s*)?(%%?\w+)\s")
_MOST_FILES = 200


@dataclass(frozen=True)
class Sources:
    """Where values come from: this kernel's nodes, and the notebook's variables."""

    state: State
    names: Mapping[str, Any]

    def models(self, _: str) -> Iterator[str]:
        """What ``%%chat`` can ask."""
        for node in (self.state.host, self.state.mesh):
            for each in [] if node is None else node._known():
                yield from each.models

    def own_models(self, _: str) -> Iterator[str]:
        """What this kernel shares."""
        yield from () if self.state.host is None else self.state.host.models

    def hosts(self, _: str) -> Iterator[str]:
        """Meshes whose name says which host is meant, then the ends of the hosts' ids."""
        nodes = [each for each in (self.state.host, self.state.mesh) if each is not None]
        known = {each.host: each.mesh for node in nodes for each in node._known()}
        called = Counter(known.values())
        yield from (mesh for mesh in known.values() if mesh and called[mesh] == 1)
        yield from map(short, known)

    def joined(self, _: str) -> Iterator[str]:
        """The hosts that can be left."""
        yield from Sources(State(mesh=self.state.mesh), self.names).hosts(_)

    def services(self, _: str) -> Iterator[str]:
        """What stands for a link, where this server has a JupyterHub with a service."""
        yield from (HUB,) if is_on_hub() else ()

    def revocable(self, _: str) -> Iterator[str]:
        """The ids of invites and guests."""
        yield from () if self.state.host is None else (each[:8] for each in self.state.host._ids())

    def variables(self, _: str) -> Iterator[str]:
        """The notebook's variables."""
        yield from (name for name in self.names if name.isidentifier() and name[0] != "_")

    def sendable(self, typed: str) -> Iterator[str]:
        """Variables, one after another with commas in between."""
        given = {part.strip() for part in typed.split(",")[:-1]}
        yield from (name for name in self.variables(typed) if name not in given)

    def schemas(self, typed: str) -> Iterator[str]:
        """Variables that may be a schema, and JSON files."""
        for name in self.variables(typed):
            value = self.names.get(name)
            # Not isinstance(), which asks the value: a lazy object would be made by it.
            kind = value if issubclass(type(value), type) else type(value)
            if issubclass(type(value), dict) or hasattr(kind, "model_json_schema"):
                yield name
        yield from _files(typed, ".json")

    def shareable(self, typed: str) -> Iterator[str]:
        """Models that can be hosted, as far as a name or a file says so."""
        yield from (flags.DEFAULT_MODEL, "echo", "hf:")
        yield from _files(typed, ".gguf")

    def files(self, typed: str) -> Iterator[str]:
        """Files and folders."""
        yield from _files(typed, "")

    def key_sources(self, typed: str) -> Iterator[str]:
        """Where a key may be: names of variables of the environment, never what they hold."""
        yield from ("keyring:", "prompt", "none")
        yield from ("env:",) if not typed.startswith("env:") else (f"env:{n}" for n in os.environ)


Values = Callable[[Sources, str], Iterable[str]]


def _fixed(*values: str) -> Values:
    return lambda *_: values


# By magic and flag (or the name of what has none); "" stands for every magic.
_VALUES: dict[tuple[str, str], Values] = {
    ("", "--model"): Sources.models,
    ("%qmt_host", "--model"): Sources.shareable,
    ("", "--allow-model"): Sources.own_models,
    ("", "--host"): Sources.hosts,
    ("", "--save"): Sources.variables,
    ("", "--save-stats"): Sources.variables,
    (CHAT.prog, "--context"): Sources.sendable,
    (LINE_CHAT.prog, "--context"): Sources.sendable,
    (CHAT.prog, "--json"): Sources.schemas,
    (LINE_CHAT.prog, "--json"): Sources.schemas,
    ("", "--file"): Sources.files,
    ("", "--link-file"): Sources.files,
    ("", "--key-file"): Sources.files,
    ("", "--export"): Sources.files,
    ("", "--upstream-key"): Sources.key_sources,
    ("", "--engine"): _fixed(*flags.ENGINES),
    ("", "--relay"): _fixed("none", "public"),
    ("", "--ttl"): _fixed("15m", "2h", "24h", "7d", "none"),
    ("%qmt_join", "link"): Sources.services,
    ("%qmt_leave", "host"): Sources.joined,
    ("%qmt_revoke", "which"): Sources.revocable,
}


def complete(line: str, sources: Sources) -> tuple[str, list[str]]:
    """For a line up to the cursor: the piece that is replaced, and what may stand there.

    ``("", [])`` where the line is none of ours, or its prompt has begun.
    """
    magic = _MAGIC.match(line)
    parser = PARSERS.get(magic[1]) if magic else None
    if magic is None or parser is None:
        return "", []
    words, typed = _split(line[magic.end() :])
    takes: argparse.Action | None = None
    for word in words:
        if takes is not None:
            takes = None
        elif word == "--":
            return "", []
        elif word.startswith("-"):
            takes = None if "=" in word else _taking(parser, word)
        elif parser is LINE_CHAT:
            return "", []
    if takes is not None:
        return _offered(parser, takes, typed, sources)
    flag, equals, value = typed.partition("=")
    if equals and (taking := _taking(parser, flag)) is not None:
        return _offered(parser, taking, value, sources)
    if typed.startswith("-"):
        return typed, [each for each in _flags(parser, words) if each.startswith(typed)]
    positional = next((each for each in parser._actions if not each.option_strings), None)
    fragment, found = _offered(parser, positional, typed, sources) if positional else (typed, [])
    return fragment, found or ([] if typed else _flags(parser, words))


def _taking(parser: argparse.ArgumentParser, flag: str) -> argparse.Action | None:
    """The flag's action, if it takes a value."""
    return next((a for a in parser._actions if flag in a.option_strings and a.nargs != 0), None)


def _flags(parser: argparse.ArgumentParser, given: Sequence[str]) -> list[str]:
    """The flags that may still be given."""
    once = {word.partition("=")[0] for word in given}
    return [
        action.option_strings[-1]
        for action in parser._actions
        if action.option_strings
        and (isinstance(action, argparse._AppendAction) or not once & {*action.option_strings})
    ]


def _offered(
    parser: argparse.ArgumentParser, action: argparse.Action, typed: str, sources: Sources
) -> tuple[str, list[str]]:
    name = action.option_strings[-1] if action.option_strings else action.dest
    values = _VALUES.get((parser.prog, name)) or _VALUES.get(("", name))
    if values is None:
        return typed, []
    quote, bare = (typed[0], typed[1:]) if typed[:1] in ("'", '"') else ("", typed)
    if values is Sources.sendable:
        typed = typed.rpartition(",")[2]
        last = typed.strip()
        return last, [each for each in values(sources, bare) if each.startswith(last)]
    # Hosts name their models and meshes: with a new line in it, a name would become code.
    fitting = (each for each in values(sources, bare) if each.startswith(bare))
    found = dict.fromkeys(each for each in fitting if each.isprintable())
    return typed, [_quoted(each, quote) for each in found]


def _quoted(value: str, quote: str) -> str:
    """One word of a line, in the quotes that were begun."""
    if quote and quote not in value and "\\" not in value:
        return f"{quote}{value}{quote}"
    if os.name == "nt" and not re.search(r"[\s'\"]", value):
        return value  # a backslash parts the steps of a path there
    return value if re.fullmatch(r"[^\s'\"\\$`]+", value) else shlex.quote(value)


def _split(text: str) -> tuple[list[str], str]:
    """The whole words before the cursor, and what of the last one has been typed."""
    words, word, quote = [], "", ""
    for character in text:
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        elif character.isspace():
            words += [word] if word else []
            word = ""
            continue
        word += character
    return words, word


def _files(typed: str, suffix: str) -> Iterator[str]:
    """What a path may go on with: folders, and files with the suffix."""
    folder, begun = os.path.split(typed)
    try:
        with os.scandir(os.path.expanduser(folder) or ".") as listing:  # noqa: PTH111
            entries = sorted(listing, key=lambda each: each.name)
    except (OSError, ValueError):
        return
    count = 0
    for each in entries:
        if not each.name.startswith(begun) or each.name.startswith(".") > begun.startswith("."):
            continue
        is_folder = each.is_dir()
        if is_folder or each.name.lower().endswith(suffix):
            yield os.path.join(folder, each.name) + ("/" if is_folder else "")  # noqa: PTH118
            count += 1
        if count == _MOST_FILES:
            return


# In IPython --------------------------------------------------------------------------------------


def install(shell: Any) -> None:
    """Have the Tab key know the magics; again it changes nothing."""
    remove(shell)
    try:
        from IPython.core.completer import context_matcher
    except ImportError:
        # Before IPython 8.6. Alone these matchers keep Python's names out of our lines.
        shell.Completer.magic_arg_matchers.append(_older_matcher(shell))
    else:
        shell.Completer.custom_matchers.append(context_matcher()(_matcher(shell)))


def _matcher(shell: Any) -> Callable[[Any], dict[str, Any]]:
    from IPython.core.completer import SimpleCompletion

    def qmt_matches(context: Any) -> dict[str, Any]:
        fragment, found = _found(shell, context.text_until_cursor)
        return {
            "completions": [SimpleCompletion(text=each, type=_kind(each)) for each in found],
            "matched_fragment": fragment,
            "suppress": bool(found),
        }

    return qmt_matches


def _kind(text: str) -> str:
    """The word that JupyterLab shows beside it."""
    return "flag" if text.startswith("--") else "value"


def _older_matcher(shell: Any) -> Callable[[str], list[str]]:
    completer = shell.Completer

    def qmt_matches(_: str) -> list[str]:
        fragment, found = _found(shell, completer.text_until_cursor)
        token = completer.splitter.split_line(completer.text_until_cursor)
        return _from_token(fragment, token, found)

    return qmt_matches


def remove(shell: Any) -> None:
    """Take it away again."""
    for matchers in (shell.Completer.custom_matchers, shell.Completer.magic_arg_matchers):
        # By name: after a reload it is another function.
        matchers[:] = [each for each in matchers if _name(each) != "qmt_matches"]


def _name(matcher: Any) -> str:
    return str(getattr(matcher, "__name__", ""))


def _found(shell: Any, line: str) -> tuple[str, list[str]]:
    # Copied at once: a thread may be adding variables. What IPython put there is hidden.
    names, hidden = dict(shell.user_ns), shell.user_ns_hidden
    own = {name: value for name, value in names.items() if hidden.get(name, names) is not value}
    return complete(line, Sources(STATE, own))


def _from_token(fragment: str, token: str, found: Sequence[str]) -> list[str]:
    """The same, for who replaces the token alone, which is the end of the fragment."""
    if not fragment.endswith(token):
        return []
    before = fragment[: len(fragment) - len(token)]
    return [each[len(before) :] for each in found if each.startswith(before)]
