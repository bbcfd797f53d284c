"""The quick start works as it is written: its cells, in two kernels, with the real small model."""

from __future__ import annotations

import re

from tests.docs.pages import ROOT, blocks
from tests.notebook.conftest import kernel  # noqa: F401

PAGE = ROOT / "docs" / "quickstart.md"


def cells(heading: str) -> list[str]:
    """The cells of one section, in their order."""
    return [each.code for each in blocks(PAGE, "python", heading=heading)]


def test_the_cells_of_the_page_do_what_it_says(kernel, tmp_path):  # noqa: F811
    host, guest = kernel("host"), kernel("guest")
    load, share = cells("The host")
    file = tmp_path / "link"
    host.text(load)
    assert "Sharing smollm2" in host.text(f"{share.rstrip()} --link-file {file.as_posix()}")
    load, join, ask = cells("The guest")
    guest.text(load)
    # What the page has a person paste.
    guest.text(f"import os; os.environ['QMT_INVITE'] = {file.read_text().strip()!r}")
    assert "Joined Team GPU" in guest.text(join)
    # The shorter the answer, the less it matters how busy the machine is.
    published = guest.run(ask.replace("%%chat", "%%chat --max-tokens 5", 1))
    assert not [each for each in published if each["msg_type"] == "error"]
    last = [each for each in published if each["msg_type"].endswith("display_data")][-1]
    assert re.search(r"smollm2 on \w+ · \d+ tokens", last["content"]["data"]["text/plain"])
