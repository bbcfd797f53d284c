"""``qmt serve`` as a process of its own, in front of a host that is another."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys

import pytest

import qmt_jupyter as qmt
from qmt_jupyter import serve_command
from qmt_jupyter.providers.echo import Echo
from qmt_jupyter.terminal import Output
from tests.endpoint.conftest import Client


@pytest.fixture
def link():
    with qmt.host(Echo(), name="Team", uses=0) as host:
        yield host.invite.url


@pytest.fixture
def serve(tmp_path):
    """Starts ``qmt serve`` with a home of its own; all are ended afterwards."""
    running = []

    def start(*words, **environment):
        process = subprocess.Popen(
            [sys.executable, "-m", "qmt_jupyter.cli", "serve", *words],
            env={**os.environ, "QMT_HOME": str(tmp_path / "guest"), **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        running.append(process)
        return process

    yield start
    for process in running:
        if process.poll() is None:
            process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()


class Told:
    """An endpoint as its ready line describes it."""

    def __init__(self, ready):
        self.base_url, self.api_key = ready["base_url"], ready["api_key"]


def ended(process):
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    return process.returncode, out, err


def test_it_says_first_where_it_is_and_ends_cleanly(serve, link):
    process = serve("--join", link, "--json")
    ready = json.loads(process.stdout.readline())
    assert ready["event"] == "ready"
    assert ready["models"] == ["echo"]
    assert ready["base_url"].startswith("http://127.0.0.1:")
    assert Client(Told(ready)).chat("hello").json["choices"][0]["message"]["content"] == "hello"
    status, out, err = ended(process)
    assert (status, json.loads(out), err) == (0, {"event": "stopped"}, "")


def test_the_link_comes_from_the_environment_and_the_key_goes_to_a_file(serve, link, tmp_path):
    file = tmp_path / "key"
    process = serve("--json", "--key-file", str(file), QMT_INVITE=link)
    ready = json.loads(process.stdout.readline())
    assert (ready["api_key"], ready["key_file"]) == (None, str(file))
    key = file.read_text().strip()
    assert Client(Told({**ready, "api_key": key})).chat().status == 200
    if os.name == "posix":
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    status, out, err = ended(process)
    assert status == 0
    assert key not in out + err


def test_a_person_reads_address_key_and_an_example(serve, link):
    process = serve("--join", link, PYTHONUNBUFFERED="1")
    said = ""
    while "Ctrl-C stops serving." not in said:
        line = process.stdout.readline()
        assert line, process.stderr.read()
        said += line
    assert "Serving echo of Team" in said
    assert "base URL  http://127.0.0.1:" in said
    assert "key       qmt-" in said
    assert '"model": "echo"' in said
    status, out, err = ended(process)
    assert (status, out.strip(), err) == (0, "Stopped serving.", "")


def test_without_a_link_it_says_what_to_do(serve):
    process = serve()
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (1, "")
    assert "qmt join" in err


def test_several_hosts_stand_behind_one_endpoint(serve, link, tmp_path, monkeypatch):
    monkeypatch.setenv("QMT_HOME", str(tmp_path / "other"))
    with qmt.host(Echo(), name="Others", uses=0) as other:
        process = serve("--json", "--join", link, "--join", other.invite.url)
        told = json.loads(process.stdout.readline())
        assert told["models"] == ["echo"]
        client = Client(Told(told))
        other.close()
        for _ in range(2):
            answer = client.chat("still there")
            assert answer.json["choices"][0]["message"]["content"] == "still there"


def test_no_models_name_gets_into_a_line_that_a_shell_would_take_apart(tmp_path, capsys):
    class Endpoint:
        base_url, api_key = "http://127.0.0.1:1/v1", "key"

    class Mesh:
        models = ({"name": "a'$(touch here)'"},)

        def status(self):
            return [{"mesh": "x"}]

    serve_command.announce(Mesh(), Endpoint(), None, Output(as_json=False))
    said = capsys.readouterr().out
    line = said[said.index("curl") :].split("Ctrl-C")[0].replace("curl", "printf '%s\\n'", 1)
    done = subprocess.run(
        ["sh", "-c", line], cwd=tmp_path, capture_output=True, text=True, timeout=20
    )
    assert "a'$(touch here)'" in done.stdout
    assert not (tmp_path / "here").exists()
