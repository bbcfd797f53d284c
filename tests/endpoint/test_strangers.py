"""Who may not use the endpoint: whoever lacks the key, and every web page."""

from __future__ import annotations

import pytest

from tests.endpoint.conftest import Client, question

ORIGIN = "http://localhost:3000"


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/echo", "/nothing"])
@pytest.mark.parametrize("given", [None, "Bearer", "Bearer ", "Bearer wrong", "Basic x", "x"])
def test_without_the_key_nothing_is_said(client, path, given):
    answer = client.send("GET", path, Authorization=given)
    assert (answer.status, answer.error["code"]) == (401, "invalid_api_key")
    assert "echo" not in answer.text
    assert answer.headers["www-authenticate"] == "Bearer"


def test_a_key_that_almost_fits_does_not(client):
    for given in (client.key[:-1], client.key + "x", client.key.lower(), "ключ"):
        assert client.send("GET", "/v1/models", Authorization=f"Bearer {given}".encode()).status == 401  # fmt: skip
    assert client.send("GET", "/v1/models", Authorization=f"bearer {client.key}").status == 200


def test_asking_without_the_key_reaches_no_host(client, provider):
    for stream in (False, True):
        body = question(stream=stream)
        answer = client.send("POST", "/v1/chat/completions", body, Authorization="Bearer x")
        assert answer.status == 401
    assert (provider.completed, provider.running) == (0, 0)


@pytest.mark.parametrize(
    "name",
    ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "127.0.0.1.evil.example:{port}",
     "0.0.0.0:{port}", "localhost", "[::1]", "", "127.0.0.1:{port}:{port}"],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/", "/v1/models"])
def test_a_name_that_was_made_to_point_here_is_refused(client, name, path):
    answer = client.send("GET", path, Host=name.format(port=client.port))
    assert (answer.status, answer.error["code"]) == (403, "host_not_allowed")


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost", "LOCALHOST", "[::1]"])
def test_the_names_of_this_machine_are_taken(client, name):
    assert client.send("GET", "/v1/models", Host=f"{name}:{client.port}").status == 200


def test_a_request_without_a_host_is_refused(client):
    sent = f"GET /v1/models HTTP/1.0\r\nAuthorization: Bearer {client.key}\r\n\r\n"
    assert b" 403 " in client.raw(sent.encode()).partition(b"\r\n")[0]


@pytest.mark.parametrize(
    "headers",
    [{"Origin": "http://evil.example"}, {"Origin": "null"}, {"Origin": ""}, {"Origin": ORIGIN},
     {"Sec_Fetch_Site": "cross-site"}, {"Sec_Fetch_Site": "same-site"}],
)  # fmt: skip
def test_web_pages_are_refused_even_with_the_key(client, headers):
    for method, path, body in (
        ("GET", "/", None),
        ("GET", "/v1/models", None),
        ("POST", "/v1/chat/completions", question()),
        ("OPTIONS", "/v1/chat/completions", None),
    ):
        answer = client.send(method, path, body, **headers)
        assert (answer.status, answer.error["code"]) == (403, "origin_not_allowed")
        assert not any(name.startswith("access-control") for name in answer.headers)


def test_a_browsers_form_or_beacon_cannot_ask(client, provider):
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", None):
        answer = client.send("POST", "/v1/chat/completions", question(), Content_Type=kind)
        assert (answer.status, answer.error["code"]) == (415, "unsupported_media_type")
    assert provider.completed == 0
    kind = "application/json; charset=utf-8"
    assert client.send("POST", "/v1/chat/completions", question(), Content_Type=kind).status == 200


def test_options_is_no_way_in(client):
    answer = client.send("OPTIONS", "/v1/chat/completions")
    assert (answer.status, answer.headers["allow"]) == (405, "POST")
    assert client.send("OPTIONS", "/v1/models", Authorization=None).status == 401


def test_an_origin_that_was_allowed_can_use_it_with_the_key(mesh):
    with mesh.serve(allow_origins=[ORIGIN]) as endpoint:
        client = Client(endpoint)
        before = client.send(
            "OPTIONS", "/v1/chat/completions", Authorization=None, Origin=ORIGIN,
            Access_Control_Request_Method="POST",
        )  # fmt: skip
        assert before.status == 204
        assert before.headers["access-control-allow-origin"] == ORIGIN
        assert "Authorization" in before.headers["access-control-allow-headers"]
        answer = client.send("POST", "/v1/chat/completions", question(), Origin=ORIGIN)
        assert (answer.status, answer.headers["access-control-allow-origin"]) == (200, ORIGIN)
        assert answer.headers["vary"] == "Origin"
        stranger = client.send("GET", "/v1/models", Authorization="Bearer x", Origin=ORIGIN)
        assert stranger.status == 401
        assert stranger.headers["access-control-allow-origin"] == ORIGIN
        for other in (
            "http://localhost:3001",
            "https://localhost:3000",
            "null",
            "http://localhost",
        ):
            assert client.send("GET", "/v1/models", Origin=other).status == 403


@pytest.mark.parametrize("path", ["/", "/v1/models", "/v1/models/echo"])
def test_a_get_with_a_body_is_turned_away_like_one_without(client, path):
    """What the door had decided was looked at only where a body was wanted."""
    evil = {"Host": "evil.example", "Origin": "http://evil.example"}
    answer = client.send("GET", path, {"a": 1}, Authorization=None, **evil)
    assert (answer.status, answer.error["code"]) == (403, "host_not_allowed")
    if path != "/":
        assert client.send("GET", path, {"a": 1}, Authorization=None).status == 401
