"""What the host decides, without a network: parameters, memberships, places in the queue, counts."""

from __future__ import annotations

import time
import uuid

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmt_jupyter.errors import (
    AdmissionRefused,
    Busy,
    GenerationFailed,
    InviteExpired,
    InviteUsedUp,
    MembershipEnded,
    NotHosting,
    OptionInvalid,
    RequestInvalid,
)
from qmt_jupyter.host.allowlist import PARAMETERS, checked
from qmt_jupyter.host.dispatch import Dispatcher
from qmt_jupyter.host.granting import ReachFile, Terms, invite_from_files, sign_invite
from qmt_jupyter.host.membership import Memberships
from qmt_jupyter.host.queue import SlotQueue
from qmt_jupyter.host.usage import UsageBook
from qmt_jupyter.identity import keys, statement
from qmt_jupyter.providers.base import Model, Provider
from qmt_jupyter.wire import messages

USER = [{"role": "user", "content": "hi"}]
GOOD = {
    "model": "m", "temperature": 0.5, "top_p": 1, "top_k": 40, "min_p": 0.1, "max_tokens": 5,
    "max_completion_tokens": 5, "seed": 1, "stop": ["a"], "n": 1, "presence_penalty": 1,
    "frequency_penalty": -1, "repeat_penalty": 1.1, "logit_bias": {"5": 1}, "logprobs": True,
    "top_logprobs": 3, "response_format": {"type": "json_object"},
    "tools": [{"type": "function", "function": {"name": "f", "parameters": {"$ref": "#/x"}}}],
    "tool_choice": "auto", "parallel_tool_calls": False, "reasoning_effort": "low",
}  # fmt: skip


def test_every_allowed_parameter_passes_unchanged():
    assert set(GOOD) | {"messages"} == set(PARAMETERS)
    assert checked({"messages": USER, **GOOD}) == {"messages": USER, **GOOD}
    assert checked({"messages": USER, "stream": True, "stream_options": {}, "seed": None}) == {
        "messages": USER
    }


@pytest.mark.parametrize("name", sorted(GOOD))
@pytest.mark.parametrize("value", [{"x": object()}, b"bytes", [[1]], -1e308, float("nan")])
def test_a_wrong_value_is_refused_by_name(name, value):
    with pytest.raises(RequestInvalid, match=name):
        checked({"messages": USER, name: value})


@pytest.mark.parametrize(
    "name",
    ["base_url", "api_key", "extra_body", "extra_headers", "user", "slot_id", "id_slot", "cache_prompt",
     "grammar", "lora", "model_path", "n_predict", "timings_per_token", "__proto__", "", "a\nb" * 100],
)  # fmt: skip
def test_what_names_a_url_header_key_file_or_engine_setting_is_refused(name):
    with pytest.raises(RequestInvalid) as raised:
        checked({"messages": USER, name: "x"})
    assert "\n" not in str(raised.value)


def image(url):
    return [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]


def nested(depth):
    value = "x"
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"messages": []},
        {"messages": "hi"},
        {"messages": [{"content": "hi"}]},
        {"messages": [{"role": "root", "content": "hi"}]},
        {"messages": [{"role": "user", "content": 5}]},
        {"messages": [{"role": "user", "content": "hi", "url": "x"}]},
        {"messages": image("http://198.51.100.1/x.png")},
        {"messages": image("file:///etc/passwd")},
        {"messages": image("data:text/html,x")},
        {"messages": [{"role": "user", "content": [{"type": "file", "file": {}}]}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "x", "url": "y"}]}]},
        {"messages": [{"role": "user", "content": "x", "tool_calls": nested(40)}]},
        {"messages": USER, "tools": [{"type": "function", "function": {"parameters": {"$ref": "http://x"}}}]},
        {"messages": USER, "response_format": {"type": "json_schema", "json_schema": {"a": [{"$ref": "file:///x"}]}}},
    ],
)  # fmt: skip
def test_a_message_that_reaches_outside_or_makes_no_sense_is_refused(body):
    with pytest.raises(RequestInvalid):
        checked(body)
    assert checked({"messages": image("data:image/png;base64,AAAA")})


HOST, GUEST, OTHER, ENDPOINT = (keys.Identity(bytes([n]) * 32) for n in (1, 2, 3, 4))
NOW = float(int(time.time()))


def admit(memberships, invite, guest=GUEST, now=NOW, host=HOST, endpoint=ENDPOINT):
    return memberships.admit(
        invite.token,
        statement.create(guest, ENDPOINT.public_key, host.public_key, now),
        endpoint_key=endpoint.public_key,
        claimed_name="",
        membership_id=str(uuid.uuid4()),
        now=now,
    )


def test_a_guest_that_comes_back_has_the_membership_it_had():
    memberships = Memberships(HOST.public_key)
    invite = sign_invite(HOST, Terms("x", 1, 60), NOW)
    first = admit(memberships, invite)
    assert admit(memberships, invite) == first
    with pytest.raises(InviteUsedUp, match="1 uses"):
        admit(memberships, invite, guest=OTHER)
    unlimited = sign_invite(HOST, Terms("x", 0, None), NOW)
    ids = {admit(memberships, unlimited, guest=keys.Identity.fresh()).guest_id for _ in range(20)}
    assert len(ids) == len(memberships.members_of(unlimited.invite_id)) == 20


def test_what_is_not_this_hosts_or_not_this_connections_is_refused():
    memberships = Memberships(HOST.public_key)
    with pytest.raises(AdmissionRefused, match="another host's"):
        admit(memberships, sign_invite(OTHER, Terms("x", 0, 60), NOW))
    mine = sign_invite(HOST, Terms("x", 0, 60), NOW)
    with pytest.raises(AdmissionRefused, match="another connection"):
        admit(memberships, mine, endpoint=OTHER)
    with pytest.raises(AdmissionRefused, match="another host"):
        admit(memberships, mine, host=OTHER)
    with pytest.raises(InviteExpired):
        admit(memberships, mine, now=NOW + 61)
    assert memberships.members_of(mine.invite_id) == ()


def test_a_membership_ends_with_its_invite():
    memberships = Memberships(HOST.public_key)
    member = admit(memberships, sign_invite(HOST, Terms("x", 0, 60), NOW))
    assert memberships.require_live(member.membership_id, NOW + 60) == member
    with pytest.raises(MembershipEnded, match="expired"):
        memberships.require_live(member.membership_id, NOW + 62)
    with pytest.raises(MembershipEnded, match="does not know"):
        memberships.require_live("another", NOW)


@pytest.mark.parametrize("terms", [Terms("x", -1, 1), Terms("", 1, 1), Terms("a\nb", 1, 1), Terms("x" * 101, 1, 1), Terms("x", 2**32, 1)])  # fmt: skip
def test_terms_that_no_invite_can_carry_are_refused(terms):
    with pytest.raises(OptionInvalid):
        sign_invite(HOST, terms, NOW)


def test_another_process_finds_the_hosts_files(tmp_path):
    with pytest.raises(NotHosting):
        invite_from_files(tmp_path, Terms("x", 1, 60))
    host = keys.load_or_create(tmp_path / "identity.key")
    ReachFile(tmp_path).write(("127.0.0.1:5", "[::1]:6"))
    made = invite_from_files(tmp_path, Terms("x", 1, 60))
    assert made.invite.host_key == host.public_key
    assert made.hints.addresses == ("127.0.0.1:5", "[::1]:6")
    (tmp_path / "reach.json").write_text('{"addresses": [5, "nonsense", null]}')
    assert ReachFile(tmp_path).read() == ()
    ReachFile(tmp_path).remove()
    ReachFile(tmp_path).remove()
    assert invite_from_files(tmp_path, Terms("x", 1, 60)).hints.addresses == ()


def test_a_full_queue_is_busy_with_a_time():
    queue = SlotQueue(slots=1, room=1)
    queue.enter()
    queue.enter()
    with pytest.raises(Busy) as raised:
        queue.enter()
    assert raised.value.retry_after


@given(st.integers(1, 4), st.lists(st.integers(0, 9), max_size=80))
@settings(deadline=None, derandomize=True, database=None)
def test_never_more_than_the_slots_run_and_everybody_is_served_in_turn(slots, moves):
    queue = SlotQueue(slots)
    inside = []
    for move in moves:
        if move < 5 or not inside:
            inside.append(queue.enter())
        else:
            queue.leave(inside.pop(move % len(inside)))
        with_slot = [ticket for ticket in inside if ticket.has_slot]
        waiting = [ticket for ticket in inside if not ticket.has_slot]
        assert len(with_slot) == min(slots, len(inside))
        assert [ticket.position for ticket in waiting] == list(range(len(waiting)))
        assert queue.waiting == len(waiting)


class Scripted(Provider):
    """Yields the chunks it was given."""

    slots = 1
    models = (Model("m"),)

    def __init__(self, *chunks):
        self.chunks = chunks

    async def chat(self, model, request):
        for chunk in self.chunks:
            yield chunk


def piece(text, finish=None):
    return {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish}]}


@pytest.mark.anyio
async def test_the_engines_count_replaces_the_running_one():
    book = UsageBook()
    usage = {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 5}}
    dispatcher = Dispatcher(Scripted(piece("a"), piece("b", "stop"), usage), book)
    replies = [type(r) async for r in dispatcher.answer("guest", {"messages": USER})]
    assert replies == [
        messages.Started,
        messages.Delta,
        messages.Delta,
        messages.Usage,
        messages.Done,
    ]
    counted = book.of("guest").as_dict()
    assert (counted["prompt_tokens"], counted["completion_tokens"]) == (7, 5)
    assert (counted["running"], counted["ended"]) == (0, {"completed": 1})


@pytest.mark.anyio
async def test_an_answer_that_just_stops_is_a_failure_and_its_pieces_count():
    book = UsageBook()
    dispatcher = Dispatcher(Scripted(piece("a"), piece("b")), book)
    with pytest.raises(GenerationFailed):
        async for _ in dispatcher.answer("guest", {"messages": USER}):
            pass
    counted = book.of("guest").as_dict()
    assert (counted["completion_tokens"], counted["ended"]) == (2, {"failed": 1})


@pytest.mark.anyio
async def test_leaving_the_queue_frees_the_place():
    dispatcher = Dispatcher(Scripted(piece("a"), piece("b", "stop")), UsageBook())
    first, second = (dispatcher.answer(g, {"messages": USER}) for g in "ab")
    assert isinstance(await anext(first), messages.Started)
    assert isinstance(await anext(second), messages.Queued)
    await second.aclose()
    assert dispatcher.waiting == 0
    await first.aclose()
    assert isinstance(await anext(dispatcher.answer("c", {"messages": USER})), messages.Started)
