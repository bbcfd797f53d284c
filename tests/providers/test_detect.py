"""What runs on this machine is found, and nothing that answers can do any harm."""

from __future__ import annotations

import asyncio
import json
import secrets
import threading
import time
from dataclasses import replace

import pytest

from qmt_jupyter.providers import detect
from qmt_jupyter.providers.detect import OTHER, PRODUCTS, Found

from .local_servers import LocalServer, http, listed, llama_server, lm_studio, ollama, vllm

BY_NAME = {product.name: product for product in PRODUCTS}
PATIENT = 20.0  # what is to be found, a busy machine finds later


@pytest.fixture
def servers():
    """Starts servers; ``start.at`` says where a product is looked for instead."""
    running = []

    def start(paths, name="vLLM", **how):
        running.append(LocalServer(paths, **how))
        return replace(BY_NAME[name], port=running[-1].port)

    start.running = running
    yield start
    for server in running:
        server.close()


def look(*products, deadline=PATIENT):
    return asyncio.run(detect.detect(products, deadline))


def url(product):
    return f"http://127.0.0.1:{product.port}/v1"


def test_each_product_is_looked_for_at_its_usual_port():
    ports = {product.name: product.port for product in PRODUCTS}
    assert ports == {"Ollama": 11434, "LM Studio": 1234, "llama-server": 8080, "vLLM": 8000}


@pytest.mark.parametrize(
    ("name", "paths", "models"),
    [
        ("Ollama", ollama("llama3.2:latest", "qwen3:8b"), ("llama3.2:latest", "qwen3:8b")),
        ("LM Studio", lm_studio("qwen2.5-7b-instruct"), ("qwen2.5-7b-instruct",)),
        ("llama-server", llama_server("/models/a.gguf"), ("/models/a.gguf",)),
        ("vLLM", vllm("Qwen/Qwen3-8B"), ("Qwen/Qwen3-8B",)),
    ],
)
def test_each_product_is_found_with_its_models(servers, name, paths, models):
    product = servers(paths, name)
    assert look(product) == (Found(name, url(product), models, needs_key=False),)
    asked = "".join(servers.running[0].asked)
    assert "Authorization" not in asked
    assert f"Host: 127.0.0.1:{product.port}" in asked


@pytest.mark.parametrize(
    ("name", "paths"),
    [("llama-server", llama_server(key=True)), ("vLLM", vllm(key=True))],
)
def test_one_that_wants_a_key_is_found_without_its_models(servers, name, paths):
    product = servers(paths, name)
    assert look(product) == (Found(name, url(product), (), needs_key=True),)


def test_another_server_that_lists_models_is_offered_as_what_it_is(servers):
    product = servers({"/v1/models": http(listed("m", owner="me"))})
    assert look(product) == (Found(OTHER, url(product), ("m",), needs_key=False),)


def test_all_are_asked_at_once_and_told_in_order(servers):
    everybody = threading.Barrier(6)

    def together(connection):
        everybody.wait(PATIENT)  # nobody answers before all have been asked
        connection.sendall(http(listed("late")))

    products = [
        servers({**vllm(), "/v1/models": together}, "vLLM"),
        servers(ollama("a"), "Ollama"),
        *(servers({**ollama(), "/v1/models": together}, "Ollama") for _ in range(5)),
    ]
    assert [each.models for each in look(*products)] == [("late",), ("a",), *[("late",)] * 5]


def test_a_server_that_leaves_the_connection_open_is_read_to_its_end(servers):
    product = servers(vllm("m"), keeps_open=True)
    assert look(product)[0].models == ("m",)


def test_a_body_in_chunks_is_read(servers):
    body = json.dumps(listed("m")).encode()
    parts = [body[:7], body[7:]]
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunked += b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
    product = servers({**vllm(), "/v1/models": chunked})
    assert look(product)[0] == Found("vLLM", url(product), ("m",), needs_key=False)


# What is something else -------------------------------------------------------------------------


def redirect(where):
    return http(b"", 302, Location=where)


ELSE = {
    "a web page": {None: http(b"<html>Welcome</html>")},
    "an API that answers everything": {None: http({"status": "ok", "version": "1", "lmstudio": True})},
    "one that wants a login": {None: http({"detail": "Not authenticated"}, 401)},
    "one that forbids": {None: http(b"", 403), "/version": http({"version": "1"})},
    "one without models": {**ollama(), "/v1/models": http({"object": "list", "data": None})},
    "an empty list": vllm(),
    "a list of files": {"/v1/models": http({"object": "list", "data": [{"id": "f", "object": "file"}]})},
    "no list": {"/v1/models": http({"data": [{"id": "m", "object": "model"}]})},
    "a bare list": {"/v1/models": http([{"id": "m", "object": "model"}])},
    "names that are none": {"/v1/models": http({"object": "list", "data": [
        5, None, {"object": "model"}, {"id": 5, "object": "model"}, {"id": "", "object": "model"},
        {"id": "x" * 201, "object": "model"}, {"id": "a\x1b[2J", "object": "model"},
        {"id": "\u202egpj", "object": "model"}, {"id": "a\nb", "object": "model"}]})},
    "no JSON": {None: http(b"{")},
    "no UTF-8": {None: http(b"\xff\xfe\x80")},
    "JSON without a bottom": {None: http(b"[" * 100_000)},
    "a number without an end": {None: http(b"9" * 200_000)},
    "no HTTP": {None: b"SSH-2.0-OpenSSH_9.6\r\n\r\n"},
    "nothing": {None: b""},
    "half an answer": {None: http(listed("m"))[:-5]},
    "half a header": {None: b"HTTP/1.1 200 OK\r\nContent-Le"},
    "a wrong status": {None: b"HTTP/1.1 abc OK\r\n\r\n{}"},
    "a length below zero": {None: b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n{"},
    "chunks without end": {None: b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffff\r\n{}"},
    "a failure": {None: http(listed("m"), 500)},
}  # fmt: skip


@pytest.mark.parametrize("name", PRODUCTS, ids=lambda product: product.name)
@pytest.mark.parametrize("paths", ELSE.values(), ids=ELSE)
def test_a_server_that_is_something_else_is_not_offered(servers, paths, name):
    assert look(servers(paths, name.name)) == ()


def test_nothing_is_found_where_nothing_listens(servers):
    product = servers({})
    servers.running.pop().close()
    assert look(product) == ()


def test_a_redirect_is_not_followed(servers):
    servers(vllm("m"))
    (target,) = servers.running
    where = f"http://127.0.0.1:{target.port}/v1/models"
    product = servers({None: redirect(where), "/version": http({"version": "1"})})
    assert look(product) == ()
    assert target.asked == []


def test_no_proxy_of_the_environment_is_asked(servers, monkeypatch):
    servers({None: http(listed("m"))})
    (proxy,) = servers.running
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
    product = servers(vllm("m"))
    assert len(look(product)) == 1
    assert proxy.asked == []


def test_a_body_that_is_too_large_is_given_up_after_its_bound(servers):
    sent = []

    def endless(connection):
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n" + b'{"object": "list", "data": [')
        while len(sent) < 2000:
            connection.sendall(b" " * 65536)
            sent.append(1)

    def head(connection):
        connection.sendall(b"HTTP/1.1 200 OK\r\n")
        while len(sent) < 2000:
            connection.sendall(b"X-More: " + b"x" * 60000 + b"\r\n")
            sent.append(1)

    for answer in (endless, head):
        sent.clear()
        started = time.monotonic()
        assert look(servers({None: answer})) == ()
        assert len(sent) < 1000, "it was not read to its end"
        assert time.monotonic() - started < PATIENT


def test_one_that_promises_more_than_the_bound_is_not_waited_for(servers):
    promise = (
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n" + json.dumps(listed("m")).encode()
    )
    assert look(servers({None: promise})) == ()


def test_a_list_that_is_long_is_cut(servers):
    names = [f"model-{number}" for number in range(1000)]
    (found,) = look(servers(vllm(*names)))
    assert found.models == tuple(names[:256])


def test_who_is_slow_holds_up_nobody(servers):
    def silent(connection):
        servers.running[0].closing.wait(60)

    def drip(connection):
        for byte in http(listed("m")):
            connection.sendall(bytes([byte]))
            if servers.running[0].closing.wait(0.5):
                return

    slow = [servers({None: silent}), servers({None: drip})]
    quick = servers(vllm("m"))
    started = time.monotonic()
    found = look(*slow, quick, deadline=3)
    assert time.monotonic() - started < 20
    assert [each.url for each in found] == [url(quick)]


def test_the_real_engines_server_is_found(smollm2):
    xllamacpp = pytest.importorskip("xllamacpp")

    def serve(key=None):
        params = xllamacpp.CommonParams()
        params.model.path = str(smollm2.path)
        params.n_ctx, params.verbosity, params.endpoint_metrics = 256, -1, True
        if key:
            params.api_keys = [key]
        server = xllamacpp.Server(params)
        server.handle_metrics()  # its own thread answers: from now on it can be ended
        port = int(server.listening_address.rpartition(":")[2])
        return server, replace(BY_NAME["llama-server"], port=port)

    (open_one, first), (closed_one, second) = serve(), serve(secrets.token_hex(16))
    found = look(first, second)
    assert [each.product for each in found] == ["llama-server", "llama-server"]
    assert found[0].models == (str(smollm2.path),)
    assert (found[1].models, found[1].needs_key) == ((), True)
    del open_one, closed_one
