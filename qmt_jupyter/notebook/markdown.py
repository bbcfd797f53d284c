"""What a model writes, made safe to show.

The HTML is made here, by a CommonMark parser that passes no raw HTML through and loads no image,
so a front end has nothing left to interpret. Front ends that prefer Markdown get the text with
everything that could begin HTML, an image, math or a link elsewhere escaped outside of code blocks.
"""

from __future__ import annotations

import html as escaping
import re
from functools import cache
from typing import TYPE_CHECKING, Any

from ..harmless import plain

if TYPE_CHECKING:
    from markdown_it import MarkdownIt

# Math is not typeset: in it, \\href could lead anywhere.
_CLASSES = "qmt-answer mathjax_ignore tex2jax_ignore"
_LINK_SCHEMES = ("http://", "https://", "mailto:")
# Beyond, a text made to be slow could hold the kernel for minutes.
_LONGEST_RENDERED = 100_000
# The end of a link's text, or of a reference's name, before any other destination.
_OTHER_LINK = re.compile(r"\](?=[(:])(?![(:]\s*(?:https?://|mailto:))", re.IGNORECASE)


@cache
def _parser() -> MarkdownIt:
    from markdown_it import MarkdownIt

    parser = MarkdownIt("commonmark", {"html": False, "linkify": False}).enable("table")
    # validateLink decides whether a destination makes a link at all.
    parser.validateLink = lambda url: url.strip().lower().startswith(_LINK_SCHEMES)  # type: ignore[method-assign]
    parser.disable("image")
    parser.add_render_rule("link_open", _render_link)
    return parser


def _render_link(renderer: Any, tokens: Any, index: int, options: Any, environment: Any) -> str:
    tokens[index].attrSet("rel", "noopener noreferrer nofollow")
    tokens[index].attrSet("target", "_blank")
    rendered: str = renderer.renderToken(tokens, index, options, environment)
    return rendered


def html(text: str) -> str:
    """The text as HTML: no raw HTML, no images, links to the web and to mail only.

    A very long text is shown as it is.
    """
    if len(text) > _LONGEST_RENDERED:
        return f'<pre style="white-space:pre-wrap">{escaping.escape(plain(text))}</pre>'
    return str(_parser().render(plain(text)))


def markdown(text: str) -> str:
    """The text as Markdown that holds neither HTML nor images.

    Fenced blocks stay as they are, but with a fence longer than any run inside, so that every
    parser agrees where they end, and without a language, because some front ends draw diagrams
    from one (and a diagram may load images). Everything else is escaped, inline code included.
    """
    lines = plain(text).split("\n")
    if len(text) > _LONGEST_RENDERED:
        return "\n".join(_escaped(line) for line in lines)
    blocks = [
        (token.map[0], token.map[1], token.content)
        for token in _parser().parse(plain(text))
        if token.type == "fence" and token.map and token.level == 0
    ]
    parts: list[str] = []
    position = 0
    for start, end, content in blocks:
        parts += [_escaped(line) for line in lines[position:start]]
        longest = max((len(run) for run in _backtick_runs(content)), default=0)
        fence = "`" * max(3, longest + 1)
        parts += [fence, content.removesuffix("\n"), fence]
        position = end
    parts += [_escaped(line) for line in lines[position:]]
    return "\n".join(parts)


def _backtick_runs(text: str) -> list[str]:
    return [run for run in "".join(c if c == "`" else " " for c in text).split() if run]


def _escaped(line: str) -> str:
    quiet = line.replace("&", "&amp;").replace("<", "&lt;").replace("$", "&#36;")
    return _OTHER_LINK.sub("&#93;", quiet.replace("![", "!&#91;"))


def bundle(text: str, footer: str = "") -> dict[str, str]:
    """Everything a front end may choose from. ``footer`` is our own plain text."""
    quiet = (
        f'<p style="opacity:.6;font-size:85%;margin:.4em 0 0">{escaping.escape(footer)}</p>'
        if footer
        else ""
    )
    return {
        "text/plain": plain(text) + (f"\n\n{footer}" if footer else ""),
        "text/markdown": markdown(text) + (f"\n\n*{_escaped(footer)}*" if footer else ""),
        "text/html": f'<div class="{_CLASSES}">{html(text)}{quiet}</div>',
    }
