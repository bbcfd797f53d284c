"""Every kind of error has its status, OpenAI's shape, and the mesh's sentence."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest

import qmt_jupyter as qmt
from qmt_jupyter import errors
from qmt_jupyter.errors import (
    AdmissionRefused,
    Busy,
    DayUsedUp,
    EngineMissing,
    GenerationFailed,
    HostGone,
    HostNotFound,
    InviteExpired,
    InviteUsedUp,
    LimitReached,
    MembershipEnded,
    ModelNotAllowed,
    ModelUnknown,
    MonthUsedUp,
    NotHosting,
    NotJoined,
    OptionInvalid,
    OutOfMemory,
    OutsideHours,
    Paused,
    PromptTooLong,
    ProtocolViolation,
    RecordsUnwritable,
    Refused,
    RequestInvalid,
    RequestRateReached,
    RequestsUsedUp,
    Revoked,
    Stopped,
    TokenRateReached,
    TokensReserved,
    TokensUsedUp,
    TooManyAtOnce,
    UpstreamRefused,
    UpstreamUnreachable,
    VersionMismatch,
)
from qmt_jupyter.guest.link import HostLink
from qmt_jupyter.guest.openai.errors import answer_for
from qmt_jupyter.providers.base import Model, Provider
from qmt_jupyter.providers.echo import Echo
from tests.endpoint.conftest import Client, events, question, until

QUOTA, RATE = "insufficient_quota", "rate_limit_exceeded"


@pytest.mark.parametrize(
    ("error", "status", "code", "after"),
    [
        (RequestInvalid("x"), 400, "request-invalid", None),
        (PromptTooLong("x"), 400, "context_length_exceeded", None),
        (ModelUnknown("x"), 404, "model_not_found", None),
        (ModelNotAllowed("x"), 404, "model_not_found", None),
        (RequestsUsedUp("x"), 429, QUOTA, None),
        (TokensUsedUp("x", retry_after=5), 429, QUOTA, None),
        (DayUsedUp("x", retry_after=5), 429, QUOTA, None),
        (MonthUsedUp("x", retry_after=5), 429, QUOTA, None),
        (OutsideHours("x", retry_after=5), 403, "outside-hours", "5"),
        (Paused("x"), 403, "paused", None),
        (TokensReserved("x"), 429, RATE, "1"),
        (RequestRateReached("x", retry_after=12.01), 429, RATE, "13"),
        (TokenRateReached("x"), 429, RATE, "60"),
        (TooManyAtOnce("x"), 429, RATE, "1"),
        (Busy("x", retry_after=0.2), 429, RATE, "1"),
        (LimitReached("x"), 429, QUOTA, None),
        (LimitReached("x", retry_after=3), 429, RATE, "3"),
        (Refused("x"), 403, "refused", None),
        (Refused("x", retry_after=3), 429, RATE, "3"),
        (MembershipEnded("x"), 403, "membership-ended", None),
        (Revoked("x"), 403, "revoked", None),
        (InviteExpired("x"), 403, "invite-expired", None),
        (InviteUsedUp("x"), 403, "invite-used-up", None),
        (AdmissionRefused("x"), 403, "admission-refused", None),
        (HostNotFound("x"), 503, "host-not-found", "5"),
        (HostGone("x"), 503, "host-gone", "5"),
        (Stopped("x"), 503, "stopped", "5"),
        (RecordsUnwritable("x"), 503, "records-unwritable", "30"),
        (NotJoined("x"), 503, "not-joined", None),
        (NotHosting("x"), 503, "not-hosting", None),
        (VersionMismatch("x"), 502, "version-mismatch", None),
        (ProtocolViolation("x"), 502, "protocol", None),
        (GenerationFailed("x"), 502, "generation-failed", None),
        (OutOfMemory("x"), 502, "out-of-memory", None),
        (UpstreamUnreachable("x", retry_after=7), 502, "upstream-unreachable", "7"),
        (UpstreamRefused("x"), 502, "upstream-refused", None),
        (EngineMissing("x"), 502, "engine-missing", None),
        (OptionInvalid("x"), 500, "internal_error", None),
        (RuntimeError("x"), 500, "internal_error", None),
        (Refused("x", retry_after=float("nan")), 429, RATE, None),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_an_error_has_its_status_code_and_time(error, status, code, after):
    answer = answer_for(error)
    assert (answer.status, answer.code) == (status, code)
    assert answer.headers().get("Retry-After") == after
    if status == 429 and after is None:
        assert answer.headers() == {"X-Should-Retry": "false"}


def test_what_is_none_of_ours_says_nothing_of_itself():
    assert "secret" not in str(answer_for(KeyError("secret")).body())


class Failing(Provider):
    """Raises what it is told to, after so many pieces."""

    models = (Model("echo"),)
    slots = 8
    device = "paper"

    def __init__(self, error: Exception, pieces: int = 0) -> None:
        self.error, self.pieces = error, pieces

    async def chat(self, model, request):
        yield {"choices": [], "prompt_tokens": 1}
        for _ in range(self.pieces):
            yield {"choices": [{"index": 0, "delta": {"content": "word "}, "finish_reason": None}]}
        raise self.error


@pytest.fixture
def serving():
    """Starts a host, a guest and its endpoint; all end afterwards."""
    opened = []

    def start(provider, **invite):
        host = qmt.host(provider, uses=0, **invite)
        opened.append(host.close)
        mesh = qmt.join(host.invite.url)
        opened.append(mesh.leave)
        return host, Client(mesh.serve())

    yield start
    for close in reversed(opened):
        close()


@pytest.mark.parametrize("stream", [False, True])
def test_an_error_before_the_first_piece_is_a_status(serving, stream):
    _, client = serving(Failing(UpstreamUnreachable("The server is down.", retry_after=2.5)))
    answer = client.chat(stream=stream)
    assert answer.status == 502
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["retry-after"] == "3"
    assert answer.error["message"].startswith("The server is down. ")
    assert answer.error["code"] == "upstream-unreachable"


def test_an_error_after_it_is_an_event_and_the_stream_has_no_last_word(serving):
    _, client = serving(Failing(GenerationFailed("The engine gave up."), pieces=3))
    answer = client.chat(stream=True)
    assert answer.status == 200
    *chunks, last = events(answer.text)
    assert len(chunks) == 3
    assert last["error"]["code"] == "generation-failed"
    assert "[DONE]" not in answer.text
    whole = client.chat()
    assert (whole.status, whole.error["code"]) == (502, "generation-failed")


def test_openais_client_raises_what_comes_in_mid_stream(serving):
    _, client = serving(Failing(GenerationFailed("The engine gave up."), pieces=3))
    endpoint = client.endpoint
    with openai.OpenAI(base_url=endpoint.base_url, api_key=endpoint.api_key) as sdk:
        pieces = []
        with pytest.raises(openai.APIError, match="The engine gave up"):
            for chunk in sdk.chat.completions.create(**question(), stream=True):
                pieces.append(chunk.choices[0].delta.content)
    assert pieces == ["word "] * 3


def test_a_provider_that_breaks_shows_no_traceback(serving):
    _, client = serving(Failing(KeyError("a detail")))
    answer = client.chat()
    assert answer.status == 502
    assert "a detail" not in answer.text
    assert "Traceback" not in answer.text


def test_budgets_and_rates_are_429(serving):
    _, client = serving(Echo(), limits=qmt.Limits(requests=1))
    assert client.chat().status == 200
    spent = client.chat()
    assert (spent.status, spent.error["type"]) == (429, QUOTA)
    assert spent.headers["x-should-retry"] == "false"
    assert "retry-after" not in spent.headers


def test_a_rate_says_in_how_many_whole_seconds(serving):
    _, client = serving(Echo(), limits=qmt.Limits(requests_per_minute=1))
    assert client.chat().status == 200
    later = client.chat()
    assert (later.status, later.error["code"]) == (429, RATE)
    assert 1 <= int(later.headers["retry-after"]) <= 62


def test_too_many_at_once_is_429(serving):
    provider = Echo(delay=0.05, repeat=True)
    _, client = serving(provider, limits=qmt.Limits(concurrent=1))
    body = question("on and on", stream=True, max_tokens=10_000)
    connection, answer = client.open("POST", "/v1/chat/completions", body)
    assert answer.status == 200
    refused = client.chat()
    assert (refused.status, refused.error["code"]) == (429, RATE)
    assert int(refused.headers["retry-after"]) >= 1
    answer.close()
    connection.close()
    until(lambda: provider.running == 0)


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_cut_by_a_budget_says_length_and_why(serving, stream):
    _, client = serving(Echo(repeat=True), limits=qmt.Limits(tokens=200))
    answer = client.chat("again", max_tokens=10_000, stream=stream)
    if stream:
        *_, last, _ = events(answer.text)
        choice = last["choices"][0]
        assert choice["qmt_finish_reason"] == "budget"
    else:
        choice = answer.json["choices"][0]
    assert choice["finish_reason"] == "length"


def test_a_revoked_guest_is_403_and_a_running_stream_is_told(serving):
    provider = Echo(delay=0.02, repeat=True)
    host, client = serving(provider)
    body = question("on and on", stream=True, max_tokens=10_000)
    connection, answer = client.open("POST", "/v1/chat/completions", body)
    assert answer.readline().startswith(b"data: ")
    host.revoke(host.invite.invite_id)
    *_, last = events(answer.read().decode().lstrip())
    connection.close()
    assert last["error"]["code"] == "revoked"
    refused = client.chat()
    assert (refused.status, refused.error["code"]) == (403, "revoked")
    assert client.chat(stream=True).status == 403
    assert client.send("GET", "/v1/models").status == 200


def test_a_host_that_stops_is_503_and_works_again_when_it_is_back(serving):
    host, client = serving(Echo())
    assert client.chat().status == 200
    port = int(host.status()["addresses"][0].rpartition(":")[2])
    host.close()
    gone = client.chat()
    assert gone.status == 503
    assert gone.error["code"] in ("stopped", "host-not-found", "host-gone")
    assert int(gone.headers["retry-after"]) >= 1
    with qmt.host(Echo(), uses=0, port=port):
        until(lambda: client.chat().status == 200, 60)


class Other(Echo):
    """The echo by another name."""

    models = (Model("other"),)

    def chat(self, model, request):
        return super().chat("echo", request)


def test_a_host_that_comes_back_with_another_model_is_asked_for_it(serving):
    host, client = serving(Echo())
    assert client.chat().status == 200
    port = int(host.status()["addresses"][0].rpartition(":")[2])
    host.close()
    with qmt.host(Other(), uses=0, port=port):
        until(lambda: client.chat(model="other").status == 200)
        assert [each["id"] for each in client.send("GET", "/v1/models").json["data"]] == ["other"]
        gone = client.chat(model="echo")
        assert (gone.status, gone.error["code"]) == (404, "model_not_found")


def test_after_the_mesh_was_left_nothing_answers(host, provider):
    with qmt.join(host.invite.url) as mesh:
        client = Client(mesh.serve())
        assert client.chat().status == 200
    with pytest.raises(OSError):
        client.chat()


def test_closing_tells_a_running_stream(serving):
    provider = Echo(delay=0.02, repeat=True)
    _, client = serving(provider)
    body = question("on and on", stream=True, max_tokens=10_000)
    connection, answer = client.open("POST", "/v1/chat/completions", body)
    assert answer.readline().startswith(b"data: ")
    client.endpoint.close()
    assert b'"code":"stopped"' in answer.read()
    connection.close()
    until(lambda: provider.running == 0)


def test_every_error_class_has_a_status_by_its_family():
    for name in ("InviteError", "MeshError", "Refused", "ProviderError"):
        waiting = [getattr(errors, name)]
        while waiting:
            cls = waiting.pop()
            waiting.extend(cls.__subclasses__())
            assert answer_for(cls("x")).status != 500, cls


def test_many_clients_of_a_host_that_is_gone_wait_for_one_look_together(serving, monkeypatch):
    async def rests(link):
        """It would look too, in the background."""

    monkeypatch.setattr(HostLink, "_stay", rests)
    host, client = serving(Echo())
    host.close()
    running = client.endpoint._server._service.running
    looks = []

    async def locate(*_, **__):
        looks.append(1)
        while len(running) < 20:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)  # the last one has come to where it waits
        raise HostNotFound("It is not there.")

    monkeypatch.setattr("qmt_jupyter.guest.finding.locate", locate)
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: client.chat(), range(20)))
    assert {(answer.status, answer.error["code"]) for answer in answers} == {
        (503, "host-not-found")
    }
    assert looks == [1]
