"""Whatever a model writes, nothing in it runs, loads or leads anywhere but to the web."""

from __future__ import annotations

import html
import re
from html.parser import HTMLParser

import pytest
from markdown_it import MarkdownIt

from qmt_jupyter.notebook import markdown

HARMLESS = {
    *("a", "blockquote", "br", "code", "div", "em", "h1", "h2", "h3", "h4", "h5", "h6", "hr"),
    *("li", "ol", "p", "pre", "strong", "table", "tbody", "td", "th", "thead", "tr", "ul"),
    "span",
}
ATTRIBUTES = {"class", "href", "rel", "start", "style", "target", "title"}
OURS = {
    ("class", "qmt-code"),
    *(("class", kind) for kind in "kacotsnbdpi"),
    ("role", "group"),
    ("tabindex", "0"),
    *(("aria-label", f"{name}ode") for name in ("C", "C c", "HTML c", "Python c")),
    *(("style", f"text-align:{side}") for side in ("left", "right", "center")),
}

HOSTILE = {
    "script": "<script>alert(1)</script>",
    "event": "hello <img src=x onerror=alert(1)> there",
    "svg": "<svg/onload=alert(1)>",
    "comment": "<!-- --><iframe src='https://evil.example'></iframe>",
    "block": "<div>\n\n<style>* {background: url(https://evil.example)}</style>\n\n</div>",
    "image": "![pixel](https://evil.example/p.png)",
    "image with a title": '![a]( <https://evil.example/p.png> "t" )',
    "image by reference": "![pixel][r]\n\n[r]: https://evil.example/p.png",
    "collapsed image": "![r][]\n\n[r]: https://evil.example/p.png",
    "shortcut image": "![r]\n\n[r]: https://evil.example/p.png",
    "image in a link": "[![x](https://evil.example/p.png)](https://evil.example)",
    "image in a table": "| a |\n|---|\n| ![x](https://evil.example/p.png) |",
    "image after an escape": "\\\\![x](https://evil.example/p.png)",
    "javascript": "[click](javascript:alert(1))",
    "javascript in capitals": "[click](JaVaScRiPt:alert(1))",
    "javascript by entity": "[click](javascript&#58;alert(1))",
    "javascript by named entity": "[click](&#106;avascript&colon;alert(1))",
    "javascript by escape": "[click](javascript\\:alert(1))",
    "javascript after a blank": "[click](\tjavascript:alert(1))",
    "javascript by reference": "[click][r]\n\n[r]: javascript:alert(1)",
    "javascript on the next line": "[click]\n\n[click]:\njavascript:alert(1)",
    "javascript autolink": "<javascript:alert(1)>",
    "data": "[click](data:text/html;base64,PHNjcmlwdD4=)",
    "data image": "![x](data:image/svg+xml;base64,PHN2Zz4=)",
    "file": "[click](file:///etc/passwd)",
    "relative": "[click](/lab/api/contents)",
    "protocol-relative": "[click](//evil.example)",
    "entities": "&lt;script&gt;alert(1)&lt;/script&gt; &#60;img src=x onerror=alert(1)&#62;",
    "attribute": '[x](https://evil.example"onmouseover="alert(1))',
    "title": "[x](https://evil.example '\"><script>alert(1)</script>')",
    "info of a fence": '```"><script>alert(1)</script>\ncode\n```',
    "fence that is not closed": "```html\n<script>alert(1)</script>",
    "fence that is longer": "````\n```\n<script>alert(1)</script>\n````",
    "fence of tildes": "~~~\n```\n<script>alert(1)</script>\n~~~",
    "fence in a list": "- ```\n  <script>alert(1)</script>\n\n<img src=x onerror=alert(1)>",
    "fence in a quotation": "> ```\n<script>alert(1)</script>",
    "indented": "    <script>alert(1)</script>\n<img src=x onerror=alert(1)>",
    "inline code": "`<script>alert(1)</script>` and ``` ` <img src=x> ```",
    "code that is not closed": "`<script>alert(1)</script>",
    "diagram": '```mermaid\nflowchart\nA@{ img: "https://evil.example/p.png" }\n```',
    "classes": '[a](https://x.example "q){.qmt-footer data-panel=1}") `x`{.qmt-code}\n{: .qmt-frozen #qmt }',
    "attributes of a fence": "```python {.qmt-frozen data-panel=1 onclick=alert(1)}\nx\n```",
    "language that is a class": '~~~ qmt-frozen" onclick="alert(1)\nx\n~~~',
    "html in a coloured block": '```html\n</code></pre></div><script>alert(1)</script>\n<img src=x onerror="a">\n```',
    "python that is html": '```python\nx = "</span></code><script>alert(1)</script>"  # <img src=x>\n```',
    "table that is aligned": "|a|b|\n|:-|-:|\n|<b onclick=x>|![x](https://evil.example/p.png)|",
    "refresh": '<meta http-equiv="refresh" content="0;url=https://evil.example">',
    "base": "<base href='https://evil.example'><link rel=stylesheet href=//evil.example>",
    "autolink": "<https://evil.example/?a=1> <me@evil.example> <ftp://evil.example>",
    "nesting": "> " * 40 + "- " * 40 + "[" * 40 + "<script>",
    "zero width": "[x](java\u200bscript:alert(1)) <\u200bscript>alert(1)</script>",
    "footer": 'fine\n\n<p class="qmt-footer">echo on abc · 4 tokens</p>',
    "end of the frame": "</div></div><p class=qmt-footer>x</p><button>Show link</button>",
    "title that some end late": '[a]: https://x.example "\n```\n"\n\n<img src=x onerror=alert(1)>\n```',
    "name that some end late": "[a\n```\n\\[]: b\n<img src=x onerror=alert(1)>\n```",
    "underline in code": "a\n```\n<img src=x onerror=alert(1)>\n---\n```",
    "math": "$\\href{javascript:alert(1)}{x}$ and $$\\unicode{<img src=x onerror=alert(1)>}$$",
}


class Seen(HTMLParser):
    """The elements of an HTML text, as a browser would make them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_comment(self, data):
        self.tags.append(("comment", {}))

    def handle_decl(self, decl):
        self.tags.append(("declaration", {}))


def assert_harmless(html):
    for tag, attributes in Seen(html).tags:
        assert tag in HARMLESS
        if tag == "a":
            assert set(attributes) <= ATTRIBUTES
            assert re.match(r"(https?://|mailto:)", attributes["href"])
            assert {"noopener", "noreferrer"} <= set(attributes["rel"].split())
            assert {"class", "style"}.isdisjoint(attributes)
        elif tag == "ol":
            assert set(attributes) <= {"start"}
        else:
            assert set(attributes.items()) <= OURS, "an attribute that the text has made"


def as_a_careless_front_end_would(text):
    """Markdown with raw HTML, images and every kind of link allowed."""
    parser = MarkdownIt("commonmark", {"html": True}).enable("table")
    parser.validateLink = lambda url: True
    return parser.render(text)


def beginnings(text):
    """What has arrived while it streams."""
    return [text[:end] for end in range(1, len(text) + 1)]


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_the_html_holds_only_harmless_elements_at_every_moment(text):
    for beginning in beginnings(text):
        assert_harmless(markdown.html(beginning))


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_the_markdown_is_harmless_even_to_a_careless_front_end(text):
    for beginning in beginnings(text):
        for tag, attributes in Seen(
            as_a_careless_front_end_would(markdown.markdown(beginning))
        ).tags:
            assert tag in HARMLESS
            assert set(attributes) <= ATTRIBUTES
            assert attributes.get("class") is None, "no language that could mean a diagram"
            if "href" in attributes:
                assert re.match(r"(https?://|mailto:)", attributes["href"])


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_the_plain_text_is_what_the_model_wrote(text):
    assert markdown.bundle(text)["text/plain"] == text


@pytest.mark.parametrize("kind", ["title that some end late", "name that some end late"])
def test_no_reference_is_defined_where_parsers_differ_about_its_end(kind):
    """JupyterLab's own parser lets both go on over a fence, which then ends instead of begins."""
    made = markdown.markdown(HOSTILE[kind])
    assert not re.search(r"^ {0,3}\[(\\.|[^\[\]\\])*\]:", made, re.MULTILINE)
    assert MarkdownIt().parse(made)[3].type == "fence", "the picture is in code for every parser"


def test_code_begins_apart_from_the_paragraph_before_it():
    """Some parsers take both for one heading where an underline stands in the code."""
    made = markdown.markdown(HOSTILE["underline in code"])
    assert made == "a\n\n```\n<img src=x onerror=alert(1)>\n---\n```"


def test_control_characters_reach_no_format():
    for each in markdown.bundle("a\x1b[31mb\x07c\u202ed\r\x9be\x00\tf\ng").values():
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", each)
        assert "\ng" in each


def test_ordinary_markdown_is_rendered():
    html = markdown.html(
        "# Title\n\n*soft* **strong** `a < b` [site](https://example.org)\n\n"
        "- one\n- two\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n```python\nx = 1 < 2\n```"
    )
    for part in ("<h1>Title</h1>", "<em>soft</em>", "<strong>", "<code>a &lt; b</code>", "<li>one"):
        assert part in html
    assert 'href="https://example.org"' in html
    assert "<td>2</td>" in html
    assert "x = 1 &lt; 2" in re.sub("</?span[^>]*>", "", html)


def test_ordinary_markdown_stays_readable_for_front_ends_that_render_it():
    text = (
        "# Title\n\n[site](https://example.org) and a[i], R&D, 1 < 2!\n\n```\nif (a[0] < b) !x\n```"
    )
    rendered = as_a_careless_front_end_would(markdown.markdown(text))
    assert 'href="https://example.org"' in rendered
    assert "a[i], R&amp;D, 1 &lt; 2!" in rendered
    assert "if (a[0] &lt; b) !x" in rendered


def test_images_are_shown_as_the_text_that_they_are():
    html = markdown.html("![a cat](https://example.org/cat.png)")
    assert "a cat" in html
    assert "<img" not in html


def test_the_footer_cannot_bring_markup_either():
    data = markdown.bundle("fine", "<script>model</script> ![x](https://evil.example)")
    _, _, footer = data["text/html"].partition('<p class="qmt-footer">')
    assert_harmless(footer)
    assert "model" in footer
    assert [tag for tag, _ in Seen(data["text/html"]).tags] == ["style", "div", "div", "p", "p"]
    assert "<script" not in data["text/markdown"]
    assert "![" not in data["text/markdown"]


def test_what_the_footer_quotes_means_nothing_in_markdown():
    footer = "[free](https://evil.example) **model** `x` on abc"
    shown = MarkdownIt().render(markdown.bundle("fine", footer)["text/markdown"])
    assert Seen(shown).tags == [("p", {}), ("p", {}), ("em", {})]
    assert footer in html.unescape(shown)


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_text_stays_within_its_frame_and_the_footer_is_the_last_word(text):
    whole = markdown.bundle(text, "echo on abc")["text/html"]
    _, opened, rest = whole.partition('<div class="qmt-text">')
    inside, closed, after = rest.rpartition('</div><p class="qmt-footer">')
    assert opened and closed
    assert after == "echo on abc</p></div>"
    depth = 0
    for end, tag in re.findall(r"<(/?)(\w+)", inside):
        if tag == "div":
            depth += -1 if end else 1
            assert depth >= 0, "the text has closed what it stands in"
    assert depth == 0


def test_math_is_left_alone():
    assert "mathjax_ignore" in markdown.bundle("$x$")["text/html"]
    assert "$" not in markdown.markdown("$x$")
