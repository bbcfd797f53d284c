"""IPython in a real terminal: the QR code and plain text that streams."""

from __future__ import annotations

import os
import sys

import pytest

pexpect = pytest.importorskip("pexpect")
if sys.platform == "win32":
    pytest.skip("there are no pseudo-terminals", allow_module_level=True)


@pytest.fixture
def terminal(home, tmp_path):
    """A terminal IPython with the extension, and an empty profile."""
    child = pexpect.spawn(
        sys.executable,
        ["-m", "IPython", "--simple-prompt", "--no-banner", "--colors=NoColor"],
        env={**os.environ, "IPYTHONDIR": str(tmp_path / "ipython"), "PYTHONUNBUFFERED": "1"},
        encoding="utf-8",
        dimensions=(80, 200),
        timeout=30,
    )
    child.expect_exact("In [1]: ")
    child.sendline("%load_ext qmt_jupyter")
    child.expect_exact("In [2]: ")
    yield child
    child.close(force=True)


def test_a_terminal_shows_the_link_and_streams_plain_text(terminal):
    terminal.sendline("%qmt_host --model echo")
    terminal.expect_exact("Reachable at ")
    terminal.expect("[▀▄█]{5}")
    terminal.expect(r"qmt://mesh/join/\S+")
    terminal.expect_exact("In [3]: ")
    terminal.sendline("%chat four words of text")
    terminal.expect(r"\n[^\n]*four words of text\r\n\r\necho on \S+ · 4 tokens")
    terminal.expect_exact("In [4]: ")
    terminal.sendline("%chat --model other hello")
    terminal.expect_exact("ModelUnknown: There is no model 'other' here")
    terminal.expect_exact("In [5]: ")
    assert "Traceback" not in terminal.before
    terminal.sendline("exit()")
    terminal.expect(pexpect.EOF)
    terminal.wait()
    assert terminal.exitstatus == 0
