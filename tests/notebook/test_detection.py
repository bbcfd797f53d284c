"""``%qmt_host`` without a model, in an IPython of this process."""

from __future__ import annotations

import pytest

from qmt_jupyter.notebook.state import STATE
from qmt_jupyter.providers import detect
from tests.notebook.scripted import run
from tests.providers.local_servers import LocalServer, ollama


@pytest.fixture
def local(monkeypatch):
    server = LocalServer(ollama("llama3.2:latest"))
    product = detect.Product("Ollama", server.port, "/api/version", detect.PRODUCTS[0].is_it)
    monkeypatch.setattr(detect, "PRODUCTS", (product,))
    monkeypatch.setattr(detect, "DEADLINE", 20.0)
    yield server
    server.close()


def test_what_runs_here_is_shown_and_nothing_is_shared(shell, local):
    said = run(shell, "%qmt_host --uses 4 --save h")
    url = f"http://127.0.0.1:{local.port}/v1"
    assert (
        f"    %qmt_host --uses 4 --save h --upstream {url} --upstream-model llama3.2:latest\n"
        in said
    )
    assert "    %qmt_host --uses 4 --save h --model smollm2\n" in said
    assert STATE.host is None
    assert "h" not in shell.user_ns
    assert all("GET " in asked for asked in local.asked)


def test_who_hosts_already_is_not_asked_again(shell, local):
    run(shell, "%qmt_host --model echo")
    run(shell, "%qmt_host --model echo")
    assert local.asked == []
    assert STATE.hosting().models == ["echo"]


def test_an_alias_is_all_that_a_kernel_shows(shell, local, tmp_path):
    said = run(shell, f"%qmt_host --model echo --as team=echo --link-file {tmp_path / 'link'}")
    assert "Sharing team on" in said
    assert "team" in run(shell, "%qmt_models")
    said = run(shell, "%%chat --model team\nhello there")
    assert "hello there\n" in said
    assert "team on " in said
