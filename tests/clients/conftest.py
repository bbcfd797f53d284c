"""Other people's clients, each in an environment of its own, against ``qmt serve``.

Host, endpoint and client are processes of their own. ``make test`` makes the clients'
environments; where they are not, these tests are skipped.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import MODELS

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
BIN = Path("Scripts" if os.name == "nt" else "bin")

# What clients would send to their makers, or fetch from them, by themselves.
QUIET = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LANGSMITH_TRACING": "false",
    "LANGCHAIN_TRACING_V2": "false",
    "DO_NOT_TRACK": "1",
    "NO_PROXY": "*",
}


@dataclass(frozen=True)
class Served:
    """An endpoint that is up, and what it serves."""

    base_url: str
    api_key: str
    models: tuple[str, ...]


def python_of(environment: str) -> str:
    """The interpreter of a clients' environment; skips where there is none."""
    folder = ROOT / environment
    if not (folder / ".installed").exists():
        pytest.skip(f"{environment} is not made: make {environment}/.installed")
    return str(folder / BIN / "python")


def told(served: Served, *words: str, environment: str, program: str, home: Path, **more: str):
    """Run a program of ``programs/`` against an endpoint; the JSON object that it prints last."""
    plain = {
        name: value
        for name, value in os.environ.items()
        if name in ("PATH", "SYSTEMROOT", "LANG", "TMPDIR", "TEMP", "TMP")
    }
    done = subprocess.run(
        [python_of(environment), str(HERE / "programs" / program), *words],
        cwd=home,
        env={
            **plain,
            **QUIET,
            "HOME": str(home),
            "OPENAI_BASE_URL": served.base_url,
            "OPENAI_API_BASE": served.base_url,  # LangChain's and LiteLLM's older name for it
            "OPENAI_API_KEY": served.api_key,
            **more,
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=110,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


class Running:
    """Processes of this project, each with a home of its own."""

    def __init__(self, homes: Path) -> None:
        self._homes = homes
        self._closing = contextlib.ExitStack()

    def start(self, name: str, *words: str, **environment: str) -> dict:
        """Start one; the JSON object that it prints first."""
        process = subprocess.Popen(
            [sys.executable, *words],
            env={
                **os.environ,
                "QMT_HOME": str(self._homes / name),
                "QMT_MODELS": str(MODELS),
                "QMT_INTERFACES": "127.0.0.1",
                **environment,
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._closing.callback(self._end, process)
        first = process.stdout.readline()
        assert first, f"{name} said nothing"
        return {**json.loads(first), "process": process}

    def serve(self, name: str, link: str) -> Served:
        """``qmt serve`` for a link."""
        ready = self.start(name, "-m", "qmt_jupyter.cli", "serve", "--json", QMT_INVITE=link)
        return Served(ready["base_url"], ready["api_key"], tuple(ready["models"]))

    @staticmethod
    def _end(process: subprocess.Popen) -> None:
        # A host that ends with its input has been told; a command is interrupted.
        process.stdin.close()
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()

    def close(self) -> None:
        self._closing.close()


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    processes = Running(tmp_path_factory.mktemp("homes"))
    yield processes
    processes.close()


@pytest.fixture(scope="module")
def smollm2(running):
    """The endpoint of a guest whose host has the real engine and a small model."""
    words = ("host", "--json", "--model", "smollm2", "--embeddings", "--slots", "4", "--uses", "0")
    ready = running.start("engine-host", "-m", "qmt_jupyter.cli", *words)
    return running.serve("engine-guest", ready["invite"])


@pytest.fixture(scope="module")
def scripted_links(running):
    return running.start("scripted-host", str(HERE / "scripted_host.py"))


@pytest.fixture(scope="module")
def scripted(running, scripted_links):
    """The endpoint of a guest whose host's model calls tools by a script."""
    return running.serve("scripted-guest", scripted_links["plenty"])


@pytest.fixture(scope="module")
def one_request(running, scripted_links):
    """The endpoint of a guest who may ask once."""
    return running.serve("frugal-guest", scripted_links["one"])


@pytest.fixture(scope="module")
def abandoned(running):
    """The endpoint of a guest whose host has been killed."""
    links = running.start("doomed-host", str(HERE / "scripted_host.py"))
    served = running.serve("abandoned-guest", links["plenty"])
    links["process"].kill()
    links["process"].wait()
    return served


@pytest.fixture(scope="module")
def client_home(tmp_path_factory):
    """Where a client finds nothing of this machine's user."""
    return tmp_path_factory.mktemp("client")
