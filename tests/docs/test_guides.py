"""What the guides tell to type does what they say."""

from __future__ import annotations

import pytest

import qmt_jupyter as qmt
from qmt_jupyter import cli
from qmt_jupyter.providers.echo import Echo
from tests.docs.pages import ROOT, blocks
from tests.docs.test_lines import commands

HOST_GUIDE, GUEST_GUIDE = ROOT / "docs" / "host-guide.md", ROOT / "docs" / "guest-guide.md"


@pytest.fixture
def host():
    with qmt.host(Echo(), uses=0) as running:
        yield running


def run(block, capsys, **named):
    """Run the commands of a block for a shell, and give what they print."""
    for words in commands(block):
        assert cli.main([named.get(word, word) for word in words]) == 0, words
    return capsys.readouterr().out


def test_the_host_guides_other_terminal_makes_and_lists_invites(host, capsys):
    _, others = blocks(HOST_GUIDE, "bash", heading="Leave it running")
    printed = run(others, capsys)
    assert "qmt://mesh/join/" in printed
    made = [line for line in printed.splitlines() if "Ada" in line]
    assert "0 of 1" in made[0]
    assert "2000000 tokens" in made[0]


def test_the_guest_guides_terminal_joins_and_asks(host, capsys, tmp_path):
    link = tmp_path / "link.txt"
    link.write_text(host.invite.url)
    block = next(each for each in blocks(GUEST_GUIDE, "bash", heading="Ask"))
    join, chat, _piped = commands(block)
    assert cli.main([word.replace("~/link.txt", str(link)) for word in join]) == 0
    assert cli.main(chat) == 0
    assert chat[-1] in capsys.readouterr().out


def test_the_guest_guides_python_streams(host, capsys):
    (streaming,) = blocks(GUEST_GUIDE, "python", heading="From Python")
    exec(compile(streaming.code, streaming.place, "exec"), {"url": host.invite.url})
    assert "Why is the sky blue?" in capsys.readouterr().out


def test_the_host_guides_table_becomes_a_data_frame(host):
    pandas = pytest.importorskip("pandas")
    with qmt.join(host.invite.url, name="Ada") as mesh:
        mesh.chat("one two three").read()
    names = {"rows": host.usage_rows(), "pandas": pandas}
    (frame,) = (
        each
        for each in blocks(HOST_GUIDE, "python", heading="What did they use?")
        if "DataFrame" in each.code
    )
    exec(compile(frame.code.replace("pandas.Data", "summed = pandas.Data"), "", "exec"), names)
    assert names["summed"].loc["Ada", "completion_tokens"] == 3
