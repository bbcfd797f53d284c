"""The pages become a site without a warning, and the site needs nothing but itself."""

from __future__ import annotations

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from docs.reference import filled
from qmt_jupyter import cli, flags
from qmt_jupyter.notebook.parsers import PARSERS
from tests.docs.pages import PAGES, ROOT, prose, text

# What a browser fetches by itself. A link that somebody clicks is another matter.
LOADING = {"script": "src", "img": "src", "source": "src", "iframe": "src", "link": "href",
           "object": "data", "embed": "src", "video": "src", "audio": "src"}  # fmt: skip
MANY_SECONDS = 100


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    pytest.importorskip("sphinx", reason="the group docs is not installed")
    pytest.importorskip("furo", reason="the group docs is not installed")
    folder = tmp_path_factory.mktemp("site")
    command = [
        "-m", "sphinx", "--builder", "html", "--nitpicky", "--fail-on-warning", "--keep-going",
        "--quiet", "--doctree-dir", str(folder / "trees"), str(ROOT / "docs"), str(folder / "html"),
    ]  # fmt: skip
    built = subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, timeout=MANY_SECONDS, cwd=ROOT
    )
    assert built.returncode == 0, built.stdout + built.stderr
    return folder / "html"


class Loads(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        if tag in LOADING and given.get(LOADING[tag]):
            self.found.append(given[LOADING[tag]])
        self.found += re.findall(r"url\(([^)]*)\)", given.get("style") or "")


def loads(page: Path) -> list[str]:
    reader = Loads()
    reader.feed(text(page))
    return reader.found


def is_elsewhere(address: str) -> bool:
    address = address.strip("\"' ")
    return address.startswith("//") or re.match(r"(?!data:)[a-z][a-z0-9+.-]*:", address) is not None


def test_the_built_pages_load_nothing_from_elsewhere(site):
    pages = sorted(site.rglob("*.html"))
    assert {"index.html", "quickstart.html", "troubleshooting.html"} <= {p.name for p in pages}
    loaded = [(page.name, each) for page in pages for each in loads(page)]
    assert len(loaded) > 50
    assert [each for each in loaded if is_elsewhere(each[1])] == []
    for sheet in site.rglob("*.css"):
        assert [a for a in re.findall(r"url\(([^)]*)\)", text(sheet)) if is_elsewhere(a)] == []
        assert "@import" not in text(sheet)


def test_what_the_built_pages_load_is_there(site):
    for page in site.rglob("*.html"):
        for each in loads(page):
            if not each.startswith("data:"):
                assert (page.parent / each.partition("?")[0].partition("#")[0]).exists(), each


def test_an_address_elsewhere_would_be_noticed():
    assert is_elsewhere("https://fonts.example/a.css")
    assert is_elsewhere("//cdn.example/a.js")
    assert not is_elsewhere("_static/a.js?v=1")
    assert not is_elsewhere("data:image/svg+xml,<svg/>")


def test_every_page_is_reached_from_the_index(site):
    index = text(site / "index.html")
    for page in PAGES:
        if page.parent == ROOT / "docs":
            assert page.stem == "index" or f'href="{page.stem}.html"' in index, page.name


def test_the_references_name_every_magic_command_and_flag():
    docs = ROOT / "docs"
    notebook = filled(text(docs / "notebook-reference.md"))
    for name, parser in PARSERS.items():
        assert f"## `{name}`\n" in notebook
        for action in parser._actions:
            assert all(f"`{flag}" in notebook for flag in action.option_strings if len(flag) > 2
                       and flag != "--help")  # fmt: skip
    terminal = filled(text(docs / "command-line.md"))
    for name in ("host", "invite", "invites", "usage", "revoke", "join", "chat", "serve", "demo"):
        assert f"## `qmt {name}`\n" in terminal
    assert "<!--" not in notebook + terminal


def test_what_a_flag_says_cannot_be_taken_for_markdown():
    from docs.reference import section

    parser = flags.Parser("%odd", "with *stars* | and <tags>")
    parser.add_argument("--a", metavar="A|B", help="see --b, [not](a link)")
    made = section("%odd", parser)
    assert r"With \*stars\* \| and \<tags\>." in made
    assert r"| `--a A\|B` | see `--b`, \[not\](a link) |" in made


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_the_files_of_the_repository_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if not re.match(r"[a-z]+:", target):
            path, _, anchor = target.partition("#")
            file = page.parent / path if path else page
            assert file.exists(), target
            if anchor:
                titles = re.findall(r"^#+ (.*)$", text(file), flags=re.M)
                assert anchor in {
                    re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles
                }, target


def test_the_command_line_has_the_commands_that_are_documented():
    shown = filled(text(ROOT / "docs" / "command-line.md"))
    documented = set(re.findall(r"^## `qmt (\w+)`$", shown, flags=re.M))
    offered = cli.parser().format_help()
    assert documented
    assert all(re.search(rf"^ +{name}\b", offered, flags=re.M) for name in documented)
