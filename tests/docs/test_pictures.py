"""The pictures are those that the script takes, small, and each is shown on a page."""

from __future__ import annotations

import re
import struct

import pytest

from tests.docs.pages import PAGES, ROOT, text

IMAGES = sorted((ROOT / "docs" / "images").iterdir())
SCRIPT = text(ROOT / "docs" / "screenshots.py")
LARGEST = 150_000


def chunks(picture: bytes) -> list[bytes]:
    """The kinds of a PNG file's chunks, in their order."""
    assert picture.startswith(b"\x89PNG\r\n\x1a\n")
    kinds, at = [], 8
    while at < len(picture):
        (length,) = struct.unpack(">I", picture[at : at + 4])
        kinds.append(picture[at + 4 : at + 8])
        at += 12 + length
    return kinds


def test_there_are_as_many_as_the_script_takes():
    taken = re.findall(r'studio\.keep\(\s*"([^"]+)"', SCRIPT)
    assert taken
    assert sorted(f"{name}.png" for name in taken) == [path.name for path in IMAGES]


@pytest.mark.parametrize("path", IMAGES, ids=lambda path: path.name)
def test_a_picture_is_small_shown_and_nothing_but_a_picture(path):
    whole = path.read_bytes()
    assert len(whole) < LARGEST
    # No text, no time, no name of a machine.
    assert set(chunks(whole)) <= {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"}
    assert [page.name for page in PAGES if f"images/{path.name}" in text(page)]
