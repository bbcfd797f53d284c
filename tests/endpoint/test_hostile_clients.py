"""Clients that go away, do not read, dawdle, flood or talk nonsense; an honest one is served."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

import qmt_jupyter as qmt
from qmt_jupyter.guest.openai import server, stream
from qmt_jupyter.providers.base import Model, Provider
from qmt_jupyter.providers.echo import Echo
from qmt_jupyter.wire.frames import ASK_LIMIT
from tests.endpoint.conftest import Client, events, question, until

FOR_EVER = {"max_tokens": 1_000_000}


@pytest.fixture
def provider():
    """Repeats for ever, slowly, one request at a time."""
    return Echo(slots=1, delay=0.02, repeat=True)


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_goes_away_stops_the_engine(client, provider, stream):
    connection = socket.create_connection(("127.0.0.1", client.port))
    connection.sendall(request(client, question("on ", stream=stream, **FOR_EVER)))
    if stream:
        assert connection.recv(100)
    until(lambda: provider.running == 1)
    connection.close()
    until(lambda: (provider.running, provider.cancelled) == (0, 1))


def test_a_client_that_goes_away_while_it_waits_leaves_the_queue(client, provider, host):
    first = socket.create_connection(("127.0.0.1", client.port))
    first.sendall(request(client, question("on ", stream=True, **FOR_EVER)))
    until(lambda: provider.running == 1)
    second = socket.create_connection(("127.0.0.1", client.port))
    second.sendall(request(client, question("on ", stream=True, **FOR_EVER)))
    until(lambda: host.status()["waiting"] == 1)
    second.close()
    until(lambda: host.status()["waiting"] == 0)
    first.close()
    until(lambda: provider.running == 0)
    assert provider.cancelled == 1, "the one that waited has never run"


def test_a_request_that_waits_long_is_kept_alive_by_comments(client, provider, monkeypatch):
    monkeypatch.setattr(stream, "QUIET", 0.2)
    first = socket.create_connection(("127.0.0.1", client.port))
    first.sendall(request(client, question("on ", stream=True, **FOR_EVER)))
    until(lambda: provider.running == 1)
    body = question("one two", stream=True, max_tokens=3)
    connection, answer = client.open("POST", "/v1/chat/completions", body)
    assert answer.status == 200
    # One that comes before the host has said a position has none.
    said = [answer.readline()]
    while b"waiting" not in said[-1]:
        assert said[-1] in (b":\n", b"\n")
        said.append(answer.readline())
    assert said[-1] == b": waiting, 0 before you\n"
    first.close()
    rest = answer.read().decode().lstrip()
    connection.close()
    *chunks, done = events(rest)
    assert done == "[DONE]"
    assert "".join(each["choices"][0]["delta"].get("content", "") for each in chunks) == "one two one "  # fmt: skip


class Torrent(Provider):
    """As much as anyone takes; counts it."""

    models = (Model("echo"),)
    slots = 4
    device = "paper"

    def __init__(self) -> None:
        self.sent = 0
        self.running = 0

    async def chat(self, model, request):
        self.running += 1
        try:
            for _ in range(1_000_000):
                self.sent += 1
                delta = {"content": "x" * 10_000}
                yield {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
        finally:
            self.running -= 1


def test_a_client_that_does_not_read_holds_up_its_answer_alone(monkeypatch):
    monkeypatch.setattr(stream, "READER_PATIENCE", 1.0)
    torrent = Torrent()
    with qmt.host(torrent, uses=0) as host, qmt.join(host.invite.url) as mesh:
        client = Client(mesh.serve())
        lazy = socket.create_connection(("127.0.0.1", client.port))
        lazy.sendall(request(client, question(stream=True)))
        until(lambda: torrent.sent > 0)
        until(lambda: torrent.running == 0, 60)
        assert torrent.sent * 10_000 < 64 * 1024 * 1024, "what waits for it is bounded"
        got = b""
        lazy.settimeout(20)
        with lazy, contextlib.suppress(ConnectionResetError):
            while piece := lazy.recv(1 << 20):
                got = piece
        assert got, "and its connection is closed"


def test_a_hundred_clients_at_once_each_get_their_own(host_of_many):
    client = host_of_many
    ready = threading.Barrier(100)

    def ask(number):
        ready.wait(60)
        text = f"answer number {number} of a hundred"
        answer = client.chat(text, stream=number % 2 == 0)
        assert answer.status == 200, answer.text
        if number % 2:
            return answer.json["choices"][0]["message"]["content"] == text
        *chunks, done = events(answer.text)
        pieces = [each["choices"][0]["delta"].get("content", "") for each in chunks]
        return "".join(pieces) == text and done == "[DONE]"

    with ThreadPoolExecutor(100) as pool:
        assert all(pool.map(ask, range(100)))


@pytest.fixture
def host_of_many():
    with qmt.host(Echo(slots=100), uses=0) as host, qmt.join(host.invite.url) as mesh:
        yield Client(mesh.serve())


def test_a_head_or_a_body_that_dawdles_is_cut_off(mesh, monkeypatch):
    monkeypatch.setattr(server, "_IDLE", 0.5)
    monkeypatch.setattr(server, "_BODY_DEADLINE", 0.5)
    with mesh.serve() as endpoint:
        client = Client(endpoint)
        assert client.raw(b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ", wait=30) == b""
        whole = request(client, question())
        assert client.raw(whole[:-5], wait=30) == b""
        assert client.raw(b"", wait=30) == b""
        until(lambda: answers(client))


def test_more_connections_than_there_may_be_are_closed_at_once(mesh, monkeypatch):
    monkeypatch.setattr(server, "MOST_CONNECTIONS", 5)
    with mesh.serve() as endpoint:
        client = Client(endpoint)
        held = [socket.create_connection(("127.0.0.1", client.port)) for _ in range(5)]
        assert client.raw(b"") == b""
        for each in held:
            each.close()
        until(lambda: answers(client))


def answers(client) -> bool:
    try:
        return client.send("GET", "/v1/models").status == 200
    except OSError:
        return False


@pytest.mark.parametrize(
    "data",
    [
        b"\x00\x01\x02\x03\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nBad Header\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"X-Y: " + b"z" * 70_000 + b"\r\n\r\n",
        b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: " + b"9" * 30 + b"\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 100,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
    ids=range(13),
)
def test_nonsense_is_ended_and_tells_nothing(client, data):
    said = client.raw(data, wait=2.0)
    assert b"Traceback" not in said
    assert b" 200 " not in said
    assert client.send("GET", "/v1/models").status == 200


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "invalid_json"),
        (b"nonsense", "invalid_json"),
        (b"[]", "invalid_json"),
        (b'"text"', "invalid_json"),
        (b'{"model": "echo"', "invalid_json"),
        (b"\xff\xfe", "invalid_json"),
        (b'{"messages": [], "seed": NaN}', "invalid_json"),
        (b"[" * 100_000, "invalid_json"),
        (b'{"messages":' + b"[" * 500 + b"]" * 500 + b"}", None),
        (b'{"messages": [' + b"{}," * 60_000 + b"{}]}", None),
        (b'{"model": "echo"}', "missing_required_parameter"),
        (b'{"model": "echo", "messages": "hi"}', "request-invalid"),
        (b'{"model": "echo", "messages": []}', "request-invalid"),
        (b'{"model": 7, "messages": []}', None),
        (b'{"model": "' + b"m" * 1000 + b'", "messages": []}', None),
        (b'{"model": "echo", "messages": [{"role": "user", "content": "\\ud800"}]}', "request-invalid"),
        (b'{"model": "echo", "messages": [1], "seed": 1e400}', "request-invalid"),
        (b'{"model": "echo", "messages": [1], "seed": ' + b"9" * 400 + b"}", "request-invalid"),
        (b'{"messages": [], "stream": "yes"}', None),
        (b'{"messages": [], "stream_options": {}}', None),
        (b'{"messages": [], "stream": true, "stream_options": 1}', None),
        (b'{"model": "echo", "messages": [{"role": "user", "content": "x"}], "\\u0000\\n": 1}', "request-invalid"),
    ],
    ids=range(22),
)  # fmt: skip
def test_a_body_that_is_no_request_is_400(client, body, code):
    answer = client.send("POST", "/v1/chat/completions", body)
    assert (answer.status, answer.error["code"]) == (400, code)


def test_a_body_that_is_too_large_is_413_and_its_sender_reads_so(client):
    large = question("x" * ASK_LIMIT)
    answer = client.send("POST", "/v1/chat/completions", large)
    assert (answer.status, answer.error["code"]) == (413, "request_too_large")
    pieces = iter([json.dumps(large).encode()])
    answer = client.send("POST", "/v1/chat/completions", pieces)
    assert answer.status == 413
    head = request(client, {}, length=10**12)
    assert b" 413 " in client.raw(head).partition(b"\r\n")[0], "nobody waits for a terabyte"
    head = request(client, {}, length=ASK_LIMIT + 1, more="Expect: 100-continue\r\n")
    assert b" 413 " in client.raw(head).partition(b"\r\n")[0]


def test_a_body_beyond_what_is_drained_ends(client):
    piece = b"100000\r\n" + b"x" * 0x100000 + b"\r\n"
    head = request(client, {}, length=None, more="Transfer-Encoding: chunked\r\n")
    with socket.create_connection(("127.0.0.1", client.port), timeout=30) as connection:
        connection.sendall(head)
        with pytest.raises(OSError):
            for _ in range(200):
                connection.sendall(piece)
    assert client.send("GET", "/v1/models").status == 200


def test_requests_sent_ahead_are_answered_in_turn(client):
    sent = request(client, question("one ", max_tokens=1)) + request(
        client, question("two ", max_tokens=1), more="Connection: close\r\n"
    )
    said = client.raw(sent)
    assert said.count(b"HTTP/1.1 200 OK") == 2
    assert said.index(b'"one ') < said.index(b'"two ')


class Odd(Provider):
    """Its answer holds what JSON cannot."""

    models = (Model("echo"),)
    slots = 4
    device = "paper"

    async def chat(self, model, request):
        delta = {"content": "x", "odd": float("inf")}
        yield {"choices": [{"index": 0, "delta": {"content": "a"}, "finish_reason": None}]}
        yield {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
        yield {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}


def test_a_host_that_answers_what_json_cannot_hold_is_502():
    with qmt.host(Odd(), uses=0) as host, qmt.join(host.invite.url) as mesh:
        client = Client(mesh.serve())
        whole = client.chat()
        assert (whole.status, whole.error["code"]) == (502, "protocol")
        *_, last = events(client.chat(stream=True).text)
        assert last["error"]["code"] == "protocol"


def request(client, body, *, length: int | None = -1, more: str = "") -> bytes:
    """A request's bytes; ``length`` is what it claims (None: nothing)."""
    data = json.dumps(body).encode()
    claimed = len(data) if length == -1 else length
    size = "" if claimed is None else f"Content-Length: {claimed}\r\n"
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:{client.port}\r\n"
        f"Authorization: Bearer {client.key}\r\nContent-Type: application/json\r\n{size}{more}\r\n"
    )
    return head.encode() + (b"" if length != -1 else data)
