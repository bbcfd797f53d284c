"""The pages that users read, and the blocks of code on them."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
_FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>\S*)\n(?P<code>.*?)^(?P=indent)```", re.S | re.M
)


@dataclass(frozen=True)
class Block:
    """A block of code and where it stands, for who reads a failure."""

    place: str
    language: str
    code: str


def text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def blocks(page: Path, *languages: str, heading: str | None = None) -> Iterator[Block]:
    """The fenced blocks of a page, or of one section of it, that are in one of ``languages``."""
    whole = text(page)
    first, last = 0, len(whole)
    if heading is not None:
        found = re.search(rf"^## {re.escape(heading)}$.*?(?=^## |\Z)", whole, flags=re.M | re.S)
        assert found is not None, f"{page.name} has no section {heading}"
        first, last = found.span()
    for fence in _FENCE.finditer(whole, first, last):
        if fence["language"] in languages:
            line = whole.count("\n", 0, fence.start()) + 1
            place = f"{page.relative_to(ROOT).as_posix()}:{line}"
            yield Block(place, fence["language"], textwrap.dedent(fence["code"]))


def prose(page: Path) -> str:
    """A page without its blocks."""
    return _FENCE.sub("", text(page))


def spans(page: Path) -> list[str]:
    """What stands between single backticks in the prose."""
    return [" ".join(each.split()) for each in re.findall(r"(?<!`)`([^`]+)`(?!`)", prose(page))]
