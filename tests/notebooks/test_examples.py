"""The notebooks of notebooks/ run from top to bottom, with the real small model."""

from __future__ import annotations

import base64
import re

import pytest
from nbclient.exceptions import CellExecutionError

from qmt_jupyter.home import read_usage, sign_invite
from tests.notebooks.book import REPOSITORY, opened, printed

NOTEBOOKS = REPOSITORY / "notebooks"


def answers(book) -> list:
    """The outputs that hold an answer, each with what the file keeps beside the text."""
    return [output for output in book.outputs() if output.get("metadata", {}).get("qmt")]


def check_saved(book, *secrets: str) -> None:
    """A file that was run holds no error, no secret, and text wherever it holds a widget."""
    saved = book.saved()
    for secret in secrets:
        token = secret.rpartition("/")[2].partition("?")[0]
        assert token[:40] not in saved
    assert not re.search(r"qmt://mesh/join/[\w-]", saved)
    assert not re.search(r"12D3KooW\w{30}", saved)
    for output in book.outputs():
        assert output.output_type != "error"
        if output.output_type in ("display_data", "execute_result"):
            assert output.data.get("text/plain")
            assert "<script" not in output.data.get("text/html", "")


def test_host_and_guest_run_as_a_pair_by_the_link_alone(tmp_path, monkeypatch):
    with opened(NOTEBOOKS / "host.ipynb", tmp_path / "host") as host:
        host.run_all()
        monkeypatch.setenv("QMT_HOME", str(tmp_path / "host" / "home"))
        link = sign_invite(name="From the test", uses=1, ttl="10m").url
        with opened(NOTEBOOKS / "guest.ipynb", tmp_path / "guest", QMT_INVITE=link) as guest:
            guest.run_all()
            check_saved(guest, link)
        usage = host.run(host.tagged("again"))
        check_saved(host, link)

    for book in (host, guest):
        asked = [cell for cell in book.cells if cell.source.startswith("%%chat")]
        assert len(answers(book)) == len(asked) >= 1
        # What a reader of the file sees where a panel was.
        assert any("qmt-frozen" in o.get("data", {}).get("text/html", "") for o in book.outputs())
    for answer in [*answers(host), *answers(guest)]:
        kept = answer.metadata["qmt"]
        assert kept["model"] == "smollm2"
        assert kept["usage"]["completion_tokens"] > 0
        assert answer.data["text/plain"].strip()
        assert answer.data["text/markdown"].strip()
    (invite,) = (each for each in read_usage()["invites"] if each["name"] == "From the test")
    (visitor,) = invite["guests"]
    assert visitor["requests"] == len(answers(guest))
    assert visitor["membership"][:8] in usage


def test_answers_become_data_and_a_tool_is_called(tmp_path):
    with opened(NOTEBOOKS / "structured_output_and_tools.ipynb", tmp_path / "data") as book:
        book.run_all()
        check_saved(book)
    tables = [
        output.data["text/html"]
        for output in book.outputs()
        if "text/html" in output.get("data", {})
    ]
    said = "".join(printed(cell) for cell in book.cells)
    assert any("Ada Byron" in table for table in tables)
    assert re.search(r"^\S.* is \d+$", said, re.MULTILINE)
    # Which city a model of this size picks is its own affair; that it calls the tool is not.
    assert (
        len(re.findall(r"local_time\('(?:Lisbon|Nairobi|Oslo|Tokyo)'\) returns \d\d:\d\d", said))
        == 2
    )
    assert "went on calling tools" not in said


def test_usage_is_drawn_for_every_guest(tmp_path):
    with opened(NOTEBOOKS / "usage_analysis.ipynb", tmp_path / "usage") as book:
        book.run_all()
        check_saved(book)
    shown = [output for output in book.outputs() if "data" in output]
    (picture,) = (o.data["image/png"] for o in shown if "image/png" in o.data)
    assert base64.b64decode(picture).startswith(b"\x89PNG")
    tables = [o.data["text/plain"] for o in shown if "text/html" in o.data]
    assert len(tables) == 2
    for name in ("Ada", "Grace", "Kenji", "Rosa"):
        assert all(name in table for table in tables)


def test_without_a_link_and_with_nobody_to_ask_the_guest_says_what_to_do(tmp_path):
    with (
        opened(NOTEBOOKS / "guest.ipynb", tmp_path / "guest") as guest,
        pytest.raises(CellExecutionError, match="set QMT_INVITE") as stopped,
    ):
        guest.run_all()
    assert stopped.value.ename == "OptionInvalid"
