"""Several models and servers by flags, in a real process."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.providers.mock_upstream import MockUpstream

from .test_commands import homes, objects, qmt

__all__ = ["homes"]


def test_flags_are_repeated_and_names_given(homes):
    first, second = MockUpstream("sk-its-own-key"), MockUpstream(None, ["plain"])
    host = None
    try:
        words = [
            "--model", "echo", "--as", "tiny=echo", "--as", "cloud=127.0.0.1/plain",
            "--upstream", first.url, "--upstream", second.url, "--upstream-model", "plain",
            "--upstream-key", "env:MY_KEY", "--upstream-key", "none", "--allow-model", "tiny",
            "--allow-model", "cloud", "--uses", "2",
        ]  # fmt: skip
        host = subprocess.Popen(
            [sys.executable, "-m", "qmt_jupyter.cli", "host", "--json", *words],
            env={**homes("host"), "MY_KEY": "sk-its-own-key"}, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        ready = json.loads(host.stdout.readline())
        assert ready["models"] == ["cloud", "plain", "tiny"]
        joined = objects(qmt(homes("guest"), "join", ready["invite"], "--json"))[0]
        assert [model["name"] for model in joined["models"]] == ["cloud", "tiny"]
        done = objects(qmt(homes("guest"), "chat", "--model", "tiny", "--json", "one two"))[-1]
        assert (done["event"], done["model"]) == ("done", "tiny")
        refused = objects(qmt(homes("guest"), "chat", "--model", "plain", "--json", "x"))[-1]
        assert refused["code"] == "model-unknown"
    finally:
        if host is not None:
            host.kill()
            host.communicate()
        first.close()
        second.close()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--model", "echo", "--as", "a b"], "must not have"),
        (["--model", "echo", "--as", "a=b"], "no model 'b'"),
        (["--model", "echo", "--model", "echo"], "given twice"),
        (["--model", "whisper:large"], "no provider plugin whisper"),
        (["--model", "smollm2", "--engine", "vllm"], "is no engine"),
        (
            ["--upstream", "http://127.0.0.1:9/v1", "--upstream", "http://127.0.0.1:8/v1",
             "--upstream-key", "env:HOME"],
            "do not match",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_shared_is_one_line(homes, words, said):
    done = qmt(homes("somebody"), "host", *words)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert said in done.stderr
