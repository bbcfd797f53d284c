"""The endpoint's key is where it is used, and nowhere else."""

from __future__ import annotations

import logging
import sys
import traceback

import pytest

import qmt_jupyter as qmt
from qmt_jupyter.errors import GenerationFailed, PortInUse
from qmt_jupyter.guest.openai import handlers
from qmt_jupyter.providers.secret import Secret
from tests.endpoint.conftest import Client
from tests.endpoint.test_hostile_clients import request
from tests.endpoint.test_statuses import Failing


def is_clean(text: str, key: str) -> bool:
    """Whether the text has no part of the key of more than six characters."""
    return Secret(key.removeprefix("qmt-")).scrub(text) == text


def test_logs_reprs_errors_and_answers_are_without_the_key(
    client, endpoint, mesh, caplog, monkeypatch
):
    caplog.set_level(logging.DEBUG)
    key = endpoint.api_key
    told = [client.chat().text, client.chat(stream=True).text, client.send("GET", "/").text]
    told += [client.send("GET", f"/nothing?{'x' * 50}").text]
    told += [client.send("GET", "/v1/models", Origin="http://evil").text]
    told += [client.send("GET", "/v1/models", Authorization=f"Basic {key}").text]
    told += [client.send("POST", "/v1/chat/completions", f"{{{key}".encode()).text]
    told += [client.raw(request(client, {})[:-2] + b"\x00", wait=1.0).decode()]

    def broken(body):
        raise RuntimeError("broken")

    monkeypatch.setattr(handlers.requests, "chat_request", broken)
    answer = client.chat()
    assert (answer.status, answer.error["code"]) == (500, "internal_error")
    assert "broken" not in answer.text
    told.append(answer.text)
    with pytest.raises(PortInUse) as taken:
        mesh.serve(port=client.port)
    told += traceback.format_exception(taken.value)
    server = endpoint._server
    told += [repr(each) for each in (endpoint, server, server._service, vars(endpoint))]
    told += [repr(vars(server)), repr(vars(server._service)), repr(server._server), repr(mesh)]
    told += [caplog.text, *(repr(record.__dict__) for record in caplog.records)]
    assert "broken" in caplog.text, "the log says what the answer does not"
    assert all(is_clean(each, key) for each in told)


def test_a_failure_in_mid_stream_is_logged_without_headers_or_prompt(caplog):
    caplog.set_level(logging.DEBUG)
    provider = Failing(GenerationFailed("gave up"), pieces=1)
    with qmt.host(provider, uses=0) as host, qmt.join(host.invite.url) as mesh:
        client = Client(mesh.serve())
        client.chat("a very private prompt", stream=True)
        client.chat("a very private prompt")
        assert is_clean(caplog.text, client.key)
        assert "private" not in caplog.text


def test_nothing_of_the_server_is_loaded_before_it_serves():
    code = (
        "import sys\n"
        "import qmt_jupyter.api, qmt_jupyter.aio, qmt_jupyter.cli\n"
        "print([name for name in sys.modules if name.startswith('tornado')])"
    )
    assert run(code) == "[]\n"


def run(code: str) -> str:
    import subprocess

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout
