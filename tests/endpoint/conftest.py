"""A host, a guest and its endpoint in this process; clients over real sockets."""

from __future__ import annotations

import http.client
import json
import socket
import time
from dataclasses import dataclass
from typing import Any

import pytest

import qmt_jupyter as qmt
from qmt_jupyter.providers.echo import Echo


@dataclass
class Response:
    """What came back, whole."""

    status: int
    headers: dict[str, str]
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)

    @property
    def error(self) -> dict[str, Any]:
        """OpenAI's error object; exactly its four fields."""
        (error,) = self.json.values()
        assert set(self.json) == {"error"}
        assert set(error) == {"message", "type", "param", "code"}
        return error


class Client:
    """Asks an endpoint; headers of None are left out."""

    def __init__(self, endpoint) -> None:
        self.endpoint = endpoint
        self.port = int(endpoint.base_url.split(":")[2].split("/")[0])
        self.key = endpoint.api_key

    def open(self, method, path, body=None, **headers):
        """The response before its body is read, and its connection."""
        sent = {"Authorization": f"Bearer {self.key}"}
        if body is not None:
            sent["Content-Type"] = "application/json"
        sent.update({name.replace("_", "-"): value for name, value in headers.items()})
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        data = json.dumps(body).encode() if isinstance(body, dict) else body
        kept = {name: value for name, value in sent.items() if value is not None}
        try:
            connection.request(method, path, data, kept)
            return connection, connection.getresponse()
        except BaseException:
            connection.close()
            raise

    def send(self, method, path, body=None, **headers) -> Response:
        connection, answer = self.open(method, path, body, **headers)
        try:
            names = {name.lower(): value for name, value in answer.getheaders()}
            return Response(answer.status, names, answer.read().decode())
        finally:
            connection.close()

    def chat(self, text="one two three", **parameters) -> Response:
        return self.send("POST", "/v1/chat/completions", question(text, **parameters))

    def raw(self, data: bytes, *, wait: float = 10.0) -> bytes:
        """Send bytes as they are; what comes back until the connection closes or falls silent."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=wait) as connection:
            got = b""
            try:
                connection.sendall(data)
                while piece := connection.recv(65536):
                    got += piece
            except (TimeoutError, ConnectionError):
                pass
            return got


def question(text="one two three", **parameters):
    return {"model": "echo", "messages": [{"role": "user", "content": text}], **parameters}


def events(text: str) -> list[Any]:
    """The data of server-sent events; comments are left out."""
    blocks = [block for block in text.split("\n\n") if block and not block.startswith(":")]
    assert all(block.startswith("data: ") for block in blocks)
    values = [block.removeprefix("data: ") for block in blocks]
    return [value if value == "[DONE]" else json.loads(value) for value in values]


def until(condition, seconds=20.0) -> None:
    """Wait for something that will become true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not become true in time"
        time.sleep(0.01)


@pytest.fixture
def provider():
    return Echo(slots=8)


@pytest.fixture
def host(provider):
    with qmt.host(provider, name="Team", uses=0) as running:
        yield running


@pytest.fixture
def mesh(host):
    with qmt.join(host.invite.url) as joined:
        yield joined


@pytest.fixture
def endpoint(mesh):
    with mesh.serve() as serving:
        yield serving


@pytest.fixture
def client(endpoint):
    return Client(endpoint)
