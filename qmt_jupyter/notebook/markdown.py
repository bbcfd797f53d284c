"""What a model writes, made safe to show.

The HTML is made here, by a CommonMark parser that passes no raw HTML through and loads no image,
so a front end has nothing left to interpret. Classes and other attributes in it are ours alone:
no text of the model's becomes one, but for where a link leads and its title. Front ends that
prefer Markdown get the text with everything that could begin HTML, an image, math or a link
elsewhere escaped outside of code blocks.
"""

from __future__ import annotations

import html as escaping
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..harmless import plain
from .highlight import Colours, coloured, language, spoken

if TYPE_CHECKING:
    from markdown_it import MarkdownIt

# Math is not typeset: in it, \\href could lead anywhere.
_CLASSES = "qmt-answer mathjax_ignore tex2jax_ignore"
_LINK_SCHEMES = ("http://", "https://", "mailto:")
# Characters that are parsed at once: a text made to be slow takes a second for as many.
LONGEST_PARSED = 100_000
# The key of a rendering's environment under which it keeps colours from one time to the next.
COLOURS = "qmt-colours"
_PLACE = "qmt-place"
# And the one under which it counts the characters of where its links lead, which are bounded: a
# reference is written once, and every use of it writes it out again.
LINKED = "qmt-linked"
_MOST_LINKED = 200_000
# And the one for the cells of tables that are not written but made, because a row is short.
FILLED = "qmt-filled"
_MOST_CELLS = 65_536
_MARKS = re.compile(r"[\\`*_\[\]<>&$#|~!]")
# The end of a link's text before any other destination, and of the name of what a reference
# refers to: some parsers let its title go on over blank lines and fences.
_OTHER_LINK = re.compile(r"\](?=:|\((?!\s*(?:https?://|mailto:)))", re.IGNORECASE)
# A bracket that its own line does not close: a reference's name may go on over lines, too.
_OPEN_BRACKET = re.compile(r"\[(?!(?:\\.|[^\[\]\\]){0,1000}\])")
# What begins or ends code. A text that is not parsed must leave none open after it.
_CODE_MARKS = {ord("`"): "&#96;", ord("~"): "&#126;"}
# A message past a server's limit (1 MB/s over three seconds) is dropped whole.
LARGEST = 2_000_000


@cache
def parser() -> MarkdownIt:
    """The one parser of answers."""
    from markdown_it import MarkdownIt

    made = MarkdownIt("commonmark", {"html": False, "linkify": False}).enable("table")
    # validateLink decides whether a destination makes a link at all.
    made.validateLink = lambda url: url.strip().lower().startswith(_LINK_SCHEMES)  # type: ignore[method-assign]
    made.disable("image")
    made.block.ruler.at("table", _table, {"alt": ["paragraph", "reference"]})
    made.add_render_rule("link_open", _render_link)
    made.add_render_rule("fence", _render_code)
    made.add_render_rule("code_block", _render_code)
    return made


def _table(state: Any, start: int, end: int, silent: bool) -> bool:
    """A table of bounded size: rows of a ``|`` alone would each become a whole row of cells."""
    from markdown_it.rules_block.table import table

    if start + 1 >= end:
        return False
    columns = state.src.count("|", state.bMarks[start], state.eMarks[start]) + 1
    left = _MOST_CELLS - state.env.get(FILLED, 0)
    found = table(state, start, min(end, start + 2 + left // columns), silent)
    if found and not silent:
        written = state.src.count("|", state.bMarks[start], state.eMarks[state.line - 1])
        filled = max(0, columns * (state.line - start) - 2 * written)
        state.env[FILLED] = state.env.get(FILLED, 0) + filled
    return found


def _render_link(renderer: Any, tokens: Any, index: int, options: Any, environment: Any) -> str:
    environment[LINKED] = linked = environment.get(LINKED, 0) + sum(
        len(str(each)) for each in tokens[index].attrs.values()
    )
    if linked > _MOST_LINKED:
        tokens[index].attrs = {}
        return "<a>"
    tokens[index].attrSet("rel", "noopener noreferrer nofollow")
    tokens[index].attrSet("target", "_blank")
    rendered: str = renderer.renderToken(tokens, index, options, environment)
    return rendered


def _render_code(_renderer: Any, tokens: Any, index: int, _options: Any, environment: Any) -> str:
    """A block that scrolls sideways; its frame (but not the code) selects it whole, by CSS."""
    code, named = tokens[index].content, language(tokens[index].info)
    colours: Colours | None = environment.get(COLOURS)
    if colours is None:
        markup = coloured(code, named)
    else:
        environment[_PLACE] = place = environment.get(_PLACE, 0) + 1
        markup = colours.of(place, code, named)
    label = f"{spoken(named)} code" if named else "Code"
    return (
        f'<div class="qmt-code" role="group" aria-label="{escaping.escape(label)}">'
        f'<pre tabindex="0"><code>{markup}</code></pre></div>\n'
    )


def html(text: str) -> str:
    """The text as HTML: no raw HTML, no images, links to the web and to mail only.

    Of a very long text the whole is not parsed at once, and past a bound it is shown as it is.
    """
    if len(text) > LONGEST_PARSED:
        from .rendering import Rendering

        return Rendering().html(text)
    return str(parser().render(plain(text), {}))


def unparsed(text: str) -> str:
    """A text that is shown as it is; it is :func:`~qmt_jupyter.harmless.plain` already."""
    return f'<pre style="white-space:pre-wrap">{escaping.escape(text)}</pre>' if text else ""


def markdown(text: str) -> str:
    """The text as Markdown that holds neither HTML nor images.

    Fenced blocks stay as they are, but with a fence longer than any run inside, so that every
    parser agrees where they end, and without a language, because some front ends draw diagrams
    from one (and a diagram may load images). Everything else is escaped, inline code included;
    links by reference are shown as they are written. In a very long text code is text, too.
    """
    lines = plain(text).split("\n")
    if len(text) > LONGEST_PARSED:
        return "\n".join(_escaped(line).translate(_CODE_MARKS) for line in lines)
    blocks = [
        (token.map[0], token.map[1], token.content)
        for token in parser().parse(plain(text))
        if token.type == "fence" and token.map and token.level == 0
    ]
    parts: list[str] = []
    position = 0
    for start, end, content in blocks:
        parts += [_escaped(line) for line in lines[position:start]]
        longest = max((len(run) for run in _backtick_runs(content)), default=0)
        fence = "`" * max(3, longest + 1)
        # In a paragraph, some parsers take a heading's underline in the code for the paragraph's.
        apart = [""] if parts and parts[-1] else []
        parts += [*apart, fence, content.removesuffix("\n"), fence]
        position = end
    parts += [_escaped(line) for line in lines[position:]]
    return "\n".join(parts)


def _backtick_runs(text: str) -> list[str]:
    return [run for run in "".join(c if c == "`" else " " for c in text).split() if run]


def _escaped(line: str) -> str:
    quiet = line.replace("&", "&amp;").replace("<", "&lt;").replace("$", "&#36;")
    return _OPEN_BRACKET.sub("&#91;", _OTHER_LINK.sub("&#93;", quiet.replace("![", "!&#91;")))


def literal(line: str) -> str:
    """A line of ours as Markdown; what it quotes, as a model's name, means nothing in it."""
    return _MARKS.sub(lambda mark: f"&#{ord(mark[0])};", line)


@cache
def _style() -> str:
    return Path(__file__).with_name("answer.css").read_text(encoding="utf-8").replace("\n", "")


def framed(markup: str, footer: str, *, is_growing: bool = False) -> str:
    """An answer's HTML with what it looks like, and ``footer``, our own plain text, apart.

    One that grows hides a strip above it that is broken, as in a page that was loaded again.
    """
    quiet = f'<p class="qmt-footer">{escaping.escape(footer)}</p>' if footer else ""
    style = f"<style>{_style()}</style>" if markup or quiet else ""
    classes = f"{_CLASSES} qmt-growing" if is_growing else _CLASSES
    return f'{style}<div class="{classes}"><div class="qmt-text">{markup}</div>{quiet}</div>'


def bundle(text: str, footer: str = "", markup: str | None = None) -> dict[str, str]:
    """Everything a front end may choose from. ``footer`` is our own plain text.

    ``markup`` is the text's HTML where it is made already. Of what would be too large for a
    server to pass on, the richer forms are left out, and at last the end of the text.
    """
    data = {
        "text/plain": plain(text) + (f"\n\n{footer}" if footer else ""),
        "text/markdown": markdown(text) + (f"\n\n*{literal(footer)}*" if footer else ""),
        "text/html": framed(html(text) if markup is None else markup, footer),
    }
    for form in ("text/markdown", "text/html"):
        if _size(data) > LARGEST:
            del data[form]
    if _size(data) > LARGEST:
        kept = plain(text).encode()[: LARGEST // 2].decode(errors="ignore")
        said = "… the rest is too long to be shown; --save NAME keeps it all"
        data["text/plain"] = f"{kept}\n\n{said}" + (f"\n\n{footer}" if footer else "")
    return data


def _size(data: dict[str, str]) -> int:
    return sum(len(each.encode()) for each in data.values())
