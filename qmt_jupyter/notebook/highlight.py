"""Colours for the code in an answer: which parts of a block are keywords, strings, comments.

The code is a model's, so it is hostile: only lexers of common languages are used, a block is
coloured up to a size and for a time, and what comes out is the code itself, escaped, with spans of
our own one-letter classes around parts of it. What they look like is in ``answer.css``.
"""

from __future__ import annotations

import html
import re
import time
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pygments.lexer import Lexer

# Beyond, a block is shown without colours: a lexer's regular expression may take a time that grows
# with the square of what it looks at, and cannot be stopped.
MOST_COLOURED = 50_000
LONGEST_LINE = 1_000
LONGEST_SPACE = 100
_LONG = re.compile(rf"[^\n]{{{LONGEST_LINE}}}|\s{{{LONGEST_SPACE}}}")
# Between two tokens it can be stopped: after so many seconds of this thread the rest is plain.
MOST_SECONDS = 0.3

# A block that grows is coloured afresh when it has grown by so much; before, what is new is plain.
_SMALL = 2_000
_GROWTH = 1.25

# Names that stand behind a fence, and Pygments' name of the lexer. Not those that hand parts of a
# text on to whatever lexer it names (Markdown, reStructuredText).
_LEXERS = {
    name: lexer
    for lexer, names in {
        "bash": "sh shell zsh bash",
        "batch": "bat batch",
        "c": "c h",
        "clojure": "clojure clj",
        "cmake": "cmake",
        "console": "console shell-session",
        "cpp": "cpp c++ cc cxx hpp cuda cu",
        "csharp": "csharp c# cs",
        "css": "css",
        "dart": "dart",
        "diff": "diff patch udiff",
        "docker": "dockerfile docker",
        "elixir": "elixir ex exs",
        "erlang": "erlang erl",
        "fortran": "fortran f90",
        "go": "go golang",
        "graphql": "graphql gql",
        "haskell": "haskell hs",
        "html": "html xhtml",
        "http": "http",
        "ini": "ini cfg conf",
        "java": "java",
        "javascript": "javascript js jsx mjs",
        "json": "json jsonc json5 jsonl",
        "julia": "julia jl",
        "kotlin": "kotlin kt",
        "latex": "latex tex",
        "lua": "lua",
        "make": "makefile make mk",
        "matlab": "matlab octave",
        "nginx": "nginx",
        "objective-c": "objective-c objc",
        "ocaml": "ocaml ml",
        "perl": "perl pl",
        "php": "php",
        "powershell": "powershell ps1 pwsh",
        "properties": "properties env dotenv",
        "protobuf": "protobuf proto",
        "pycon": "pycon",
        "pytb": "pytb py3tb traceback",
        "python": "python py python3 py3 ipython ipython3",
        "r": "r splus",
        "ruby": "ruby rb",
        "rust": "rust rs",
        "scala": "scala",
        "scheme": "scheme scm",
        "scss": "scss",
        "sql": "sql mysql postgresql postgres sqlite",
        "swift": "swift",
        "terraform": "terraform hcl tf",
        "toml": "toml",
        "typescript": "typescript ts tsx",
        "xml": "xml svg xsd",
        "yaml": "yaml yml",
        "zig": "zig",
    }.items()
    for name in names.split()
}
_SPOKEN = {
    "cpp": "C++",
    "csharp": "C#",
    "css": "CSS",
    "graphql": "GraphQL",
    "html": "HTML",
    "http": "HTTP",
    "ini": "INI",
    "javascript": "JavaScript",
    "json": "JSON",
    "latex": "LaTeX",
    "matlab": "MATLAB",
    "ocaml": "OCaml",
    "php": "PHP",
    "powershell": "PowerShell",
    "pycon": "Python console",
    "pytb": "Python traceback",
    "scss": "SCSS",
    "sql": "SQL",
    "toml": "TOML",
    "typescript": "TypeScript",
    "xml": "XML",
    "yaml": "YAML",
}

# The first that fits a token's name, from the most special on.
_CLASSES = (
    ("Token.Comment.Preproc", "t"),
    ("Token.Comment", "c"),
    ("Token.Keyword.Constant", "a"),
    ("Token.Keyword", "k"),
    ("Token.Operator.Word", "k"),
    ("Token.Operator", "o"),
    ("Token.Literal.String", "s"),
    ("Token.Literal.Number", "n"),
    ("Token.Name.Builtin", "b"),
    ("Token.Name.Function", "d"),
    ("Token.Name.Class", "d"),
    ("Token.Name.Tag", "k"),
    ("Token.Name.Attribute", "p"),
    ("Token.Name.Decorator", "t"),
    ("Token.Name.Constant", "a"),
    ("Token.Generic.Inserted", "i"),
    ("Token.Generic.Deleted", "s"),
    ("Token.Generic.Heading", "d"),
    ("Token.Generic.Subheading", "d"),
    ("Token.Generic.Prompt", "c"),
)


@cache
def _class_of(kind: str) -> str:
    return next((each for name, each in _CLASSES if f"{kind}.".startswith(f"{name}.")), "")


@cache
def _lexer(name: str) -> Lexer | None:
    from pygments.lexers import get_lexer_by_name
    from pygments.util import ClassNotFound

    try:
        return get_lexer_by_name(name)
    except ClassNotFound:  # an older Pygments
        return None


def language(info: str) -> str:
    """The language that stands behind a fence, by Pygments' name; empty where it is not known."""
    first = re.split(r"[\s,{:]", info.strip().lower(), maxsplit=1)[0]
    return _LEXERS.get(first, "")


def spoken(language: str) -> str:
    """What a language of :func:`language` is called; empty for none."""
    return _SPOKEN.get(language, language.capitalize())


def coloured(code: str, language: str) -> str:
    """The code as HTML: escaped, with spans of classes ``a`` to ``t`` where it is known."""
    if not language or len(code) > MOST_COLOURED or _LONG.search(code):
        return html.escape(code)
    lexer = _lexer(language)
    if lexer is None:
        return html.escape(code)
    ends = time.thread_time() + MOST_SECONDS
    parts: list[str] = []
    done = 0
    # The last class and its text: neighbours of one class share a span.
    pending, text = "", ""
    for start, kind, value in lexer.get_tokens_unprocessed(code):
        if start != done or time.thread_time() > ends:
            break
        done += len(value)
        name = _class_of(str(kind))
        # Space has no colour: it need not end a span.
        if name != pending and not value.isspace():
            parts.append(_span(pending, text))
            pending, text = name, ""
        text += value
    parts += (_span(pending, text), html.escape(code[done:]))
    return "".join(parts)


def _span(name: str, text: str) -> str:
    escaped = html.escape(text)
    return f'<span class="{name}">{escaped}</span>' if name and text else escaped


class Colours:
    """The blocks of a text that grows, by their places in it: each is coloured a few times."""

    def __init__(self) -> None:
        self._blocks: dict[int, tuple[str, str, str]] = {}

    def forget(self) -> None:
        """What was coloured so far is no longer drawn."""
        self._blocks.clear()

    def of(self, place: int, code: str, language: str) -> str:
        """Like :func:`coloured`; in a long block that has grown a little, what is new is plain."""
        if len(code) <= _SMALL:
            return coloured(code, language)
        known = self._blocks.get(place)
        if known is not None and known[0] == language and code.startswith(known[1]):
            _, before, markup = known
            if len(code) < _GROWTH * len(before):
                return markup + html.escape(code[len(before) :])
        # A line that is not complete may yet become something else.
        whole = code[: code.rfind("\n") + 1]
        markup = coloured(whole, language)
        self._blocks[place] = language, whole, markup
        return markup + html.escape(code[len(whole) :])
