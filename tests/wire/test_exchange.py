"""Frames, messages and the order they come in: whatever arrives, only one error comes out."""

from __future__ import annotations

import struct

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmt_jupyter.wire import completions, exchange, frames, messages
from qmt_jupyter.wire.frames import FrameError

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(max_size=40),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=9), inner, max_size=5),
    max_leaves=20,
)  # fmt: skip
EXAMPLES = [
    messages.Greeting(version=1, token=b"t" * 150, statement=b"s" * 176, software="x"),
    messages.Present(),
    messages.Welcome(version=1, membership="m", models=[messages.ModelOffer("a", 1)]),
    messages.Refusal(code="busy", sentence="No.", retry_after=1.5),
    messages.Models(models=[]),
    messages.Ask(id="12345678", body={"messages": [{"role": "user", "content": "hi"}]}),
    messages.Queued(position=3),
    messages.Started(id="i", model="m", created=5),
    messages.Delta(seq=1, choices=[{"index": 0, "delta": {"content": "x"}}]),
    messages.Usage(usage={"total_tokens": 3}),
    messages.Done(finish_reason="stop"),
    messages.Failed(code="busy", sentence="No."),
    messages.Beat(),
]
DECODERS = [
    messages.decode_from_guest,
    messages.decode_to_guest,
    messages.decode_asked,
    messages.decode_reply,
    messages.peer_version,
]


def payloads(data, limit=frames.ASK_LIMIT):
    return list(frames.FrameDecoder(limit).feed(data))


@pytest.mark.parametrize("message", EXAMPLES, ids=lambda m: type(m).__name__)
def test_every_message_comes_back_from_its_frame(message):
    (payload,) = payloads(messages.encode(message))
    decoded = []
    for decode in DECODERS[:-1]:
        try:
            decoded.append(decode(payload))
        except FrameError:
            continue
    assert decoded == [message], "by exactly one of the decoders"


def test_frames_arrive_in_any_pieces():
    whole = b"".join(messages.encode(each) for each in EXAMPLES)
    decoder = frames.FrameDecoder(frames.ASK_LIMIT)
    got = [payload for i in range(len(whole)) for payload in decoder.feed(whole[i : i + 1])]
    assert got == payloads(whole)
    assert not decoder.mid_frame


@pytest.mark.parametrize("declared", [0, 101, 2**32 - 1])
def test_a_frame_beyond_its_limit_is_refused_before_it_comes(declared):
    with pytest.raises(FrameError):
        payloads(declared.to_bytes(4, "big"), limit=100)


FRAMES = [messages.encode(each) for each in EXAMPLES]


# A hundred frames a draw: hypothesis takes longer over a draw than a frame takes.
@given(st.binary(min_size=3200, max_size=3200))
@settings(max_examples=100)
def test_ten_thousand_mutated_frames_raise_nothing_but_a_frame_error(drawn):
    for start in range(0, len(drawn), 32):
        whole = FRAMES[drawn[start] % len(FRAMES)]
        edits = drawn[start + 2 :][: 6 * (1 + drawn[start + 1] % 5)]
        frame = bytearray(whole)
        for kind, at, data in struct.iter_unpack(">BB4s", edits):
            at %= len(whole)
            if kind % 3 == 0:
                frame[at : at + 1] = data[:1]
            elif kind % 3 == 1:
                frame[at:at] = data[: 1 + kind % 4]
            elif at:
                del frame[at:]
        for decode in (*DECODERS, frames.require_modest_shape):
            for declared in (True, False):
                try:
                    if declared:
                        for payload in payloads(bytes(frame)):
                            decode(payload)
                    else:
                        decode(bytes(frame[4:]))
                except FrameError as error:
                    assert "\n" not in str(error)


@given(JSON)
def test_every_request_that_is_json_has_a_modest_shape(value):
    frames.require_modest_shape(msgspec.msgpack.encode({"body": value}))


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\x91" * 40 + b"\xc0",
        b"\xdd\xff\xff\xff\xff" + b"\x80" * 200_000,
        b"\xdc\xea\x60" + b"\x80" * 60_000,
        b"\xc7\x01\x05x",
        b"\xd6\xff\x00\x00\x00\x00",
        b"\xdb\xff\xff\xff\xffx",
        b"\x81\xa1a",
        b"\xc0\xc0",
        b"\xc1",
    ],
    ids=["empty", "deep", "4 billion", "60,000", "extension", "timestamp", "string", "cut", "two", "unused"],
)  # fmt: skip
def test_what_would_cost_more_memory_than_bytes_is_refused(payload):
    with pytest.raises(FrameError):
        frames.require_modest_shape(payload)


def test_versions_that_do_not_match_name_the_side_to_update():
    assert "the host's side" in exchange.version_sentence(ours=1, theirs=2, we_are="host")
    assert "the guest's side" in exchange.version_sentence(ours=1, theirs=2, we_are="guest")
    assert "the guest's side" in exchange.version_sentence(ours=3, theirs=2, we_are="host")


def test_a_whole_request_in_order():
    flow = exchange.RequestFlow(now=0.0)
    for reply in EXAMPLES[6:11]:
        assert flow.receive(reply, 0.0)
    assert flow.state is exchange.RequestState.ENDED


STARTED = EXAMPLES[7]


@pytest.mark.parametrize(
    "replies",
    [
        [EXAMPLES[8]],
        [EXAMPLES[9]],
        [EXAMPLES[10]],
        [STARTED, STARTED],
        [STARTED, EXAMPLES[6]],
        [STARTED, messages.Delta(seq=2, choices=[])],
        [STARTED, EXAMPLES[9], EXAMPLES[9]],
        [STARTED, EXAMPLES[9], EXAMPLES[8]],
        [STARTED, EXAMPLES[10], messages.Beat()],
        [EXAMPLES[11], EXAMPLES[11]],
    ],
)
def test_replies_out_of_order_are_refused(replies):
    flow = exchange.RequestFlow(now=0.0)
    for reply in replies[:-1]:
        flow.receive(reply, 0.0)
    with pytest.raises(exchange.ExchangeError):
        flow.receive(replies[-1], 0.0)


def test_a_repeated_delta_is_dropped():
    flow = exchange.RequestFlow(now=0.0)
    flow.receive(STARTED, 0.0)
    assert flow.receive(EXAMPLES[8], 0.0) is True
    assert flow.receive(EXAMPLES[8], 0.0) is False


def test_silence_is_noticed_and_excused():
    flow = exchange.RequestFlow(now=10.0)
    assert not flow.is_silent(13.0)
    assert flow.is_silent(13.1)
    flow.receive(messages.Beat(), 13.1)
    assert not flow.is_silent(16.0)
    flow.excuse(20.0)
    assert not flow.is_silent(22.0)
    flow.receive(EXAMPLES[11], 22.0)
    assert not flow.is_silent(99.0), "what has ended may be silent"


def test_a_beat_is_due_after_almost_a_second_and_never_after_the_end():
    writer = exchange.ReplyWriter(now=0.0)
    assert writer.beat_if_due(0.5) is None
    assert writer.beat_if_due(0.95) is not None
    writer.frame(EXAMPLES[11], 1.0)
    assert writer.beat_if_due(9.0) is None
    assert writer.ended


def test_a_completion_is_put_together_from_its_pieces():
    whole = completions.Completion()
    call = {
        "index": 0,
        "id": "c",
        "type": "function",
        "function": {"name": "f", "arguments": '{"a"'},
    }
    more = {"index": 0, "function": {"arguments": ": 1}"}}
    for choices in (
        [{"index": 0, "delta": {"role": "assistant", "content": None}}],
        [{"index": 0, "delta": {"content": "Hel"}, "logprobs": {"content": [{"token": "Hel"}]}}],
        [{"index": 0, "delta": {"content": "lo"}, "logprobs": {"content": [{"token": "lo"}]}}],
        [
            {"index": 0, "delta": {"reasoning_content": "hm"}},
            {"index": 1, "delta": {"content": "B"}},
        ],
        [{"index": 0, "delta": {"tool_calls": [call]}}],
        [{"index": 0, "delta": {"tool_calls": [more]}, "finish_reason": "tool_calls"}],
    ):
        whole.add(messages.Delta(seq=1, choices=choices))
    whole.add(STARTED)
    whole.add(messages.Usage(usage={"total_tokens": 9}))
    whole.add(messages.Done(finish_reason="tool_calls"))
    result = whole.result()
    first, second = result["choices"]
    assert whole.text == first["message"]["content"] == "Hello"
    assert first["message"]["reasoning_content"] == "hm"
    assert first["message"]["tool_calls"][0]["function"] == {"name": "f", "arguments": '{"a": 1}'}
    assert [each["token"] for each in first["logprobs"]["content"]] == ["Hel", "lo"]
    assert second["message"]["content"] == "B"
    assert result["usage"] == {"total_tokens": 9}
    assert (result["object"], result["model"]) == ("chat.completion", "m")


KEYS = st.sampled_from(["index", "delta", "logprobs", "finish_reason", "content", "tool_calls", "function", "arguments", "role", "id"])  # fmt: skip
HOSTILE = st.recursive(
    st.none() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=15,
)


@given(st.lists(st.lists(st.dictionaries(KEYS, HOSTILE, max_size=5), max_size=3), max_size=4))
@settings(max_examples=1000)
def test_a_hostile_hosts_chunks_raise_nothing(deltas):
    whole = completions.Completion()
    for choices in deltas:
        whole.add(messages.Delta(seq=1, choices=choices))
    whole.result()
