"""The provider that ``docs/providers.md`` writes works as it stands there, from host to guest."""

from __future__ import annotations

import os
import re
import sys
import time
from pathlib import Path

import pytest

import qmt_jupyter as qmt
from qmt_jupyter.errors import GenerationFailed, OptionInvalid, RequestInvalid

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PAGE = (Path(__file__).parents[2] / "docs" / "providers.md").read_text(encoding="utf-8")
SHOUT = "import sys; print(sys.stdin.read().upper(), end='')"
ENDLESS = """
import os, sys, time
with open(sys.argv[0] + ".pids", "a") as file:
    print(os.getpid(), file=file)
while True:
    print("on and on", flush=True)
    time.sleep(0.01)
"""


def block(language):
    (found,) = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    return found


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Installs the page's package, and writes programs; gives ``--model``'s value for one."""
    (group,) = tomllib.loads(block("toml"))["project"]["entry-points"].items()
    info = tmp_path / "site" / "qmt_command-1.0.dist-info"
    info.mkdir(parents=True)
    lines = [f"[{group[0]}]", *(f"{name} = {target}" for name, target in group[1].items())]
    (info / "entry_points.txt").write_text("\n".join(lines))
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: qmt-command\nVersion: 1.0\n")
    (tmp_path / "site" / "qmt_command.py").write_text(block("python"))
    monkeypatch.syspath_prepend(tmp_path / "site")

    def write(code):
        (tmp_path / "program.py").write_text(code)
        python, file = (Path(each).as_posix() for each in (sys.executable, tmp_path / "program.py"))
        return f"command:'{python}' '{file}'"

    yield write
    sys.modules.pop("qmt_command", None)


def test_the_code_is_what_was_promised():
    lines = [line for line in block("python").splitlines() if line.strip()]
    assert len(lines) <= 40


def test_a_guest_is_answered_by_the_pages_provider(program):
    with qmt.host(program(SHOUT), slots=2, uses=0, aliases="shout") as host:
        assert host.status()["slots"] == 2
        with qmt.join(host.invite.url) as mesh:
            whole = mesh.complete(messages=[{"role": "user", "content": "grüße, 你好"}])
    assert whole["choices"][0]["message"]["content"] == "USER: GRÜSSE, 你好\n"
    assert whole["model"] == "shout"
    assert whole["usage"]["estimated"]


def lives(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.skipif(sys.platform == "win32", reason="os.kill ends a process there")
def test_leaving_ends_the_program(program, tmp_path):
    with qmt.host(program(ENDLESS), uses=0) as host, qmt.join(host.invite.url) as mesh:
        answer = mesh.chat("go on")
        next(iter(answer))
        answer.stop()
        limits = qmt.Limits(tokens=200)
        with qmt.join(host.new_invite(limits=limits).url) as poor:
            cut = poor.chat("go on")
            cut.read()
            assert cut.finish_reason == "budget"
        pids = [int(line) for line in (tmp_path / "program.py.pids").read_text().split()]
        assert len(pids) == 2
        deadline = time.monotonic() + 20
        while any(lives(pid) for pid in pids):
            assert time.monotonic() < deadline
            time.sleep(0.02)


def test_what_goes_wrong_is_one_sentence(program):
    with pytest.raises(OptionInvalid, match="Which program"):
        qmt.host("command:")
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}
    with qmt.host(program("raise SystemExit(3)"), uses=0) as host:
        with qmt.join(host.invite.url) as mesh, pytest.raises(GenerationFailed, match="gave up"):
            mesh.chat("x").read()
        with pytest.raises(RequestInvalid, match="nothing but text"):
            host.chat([{"role": "user", "content": [image]}]).read()
