"""Vectors on the wire: they come out as they went in, and a hostile host's raise one error."""

from __future__ import annotations

import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmt_jupyter.wire import messages
from qmt_jupyter.wire.embeddings import EmbeddingList, pack, texts_of, unpack
from qmt_jupyter.wire.exchange import ExchangeError
from qmt_jupyter.wire.messages import MOST_DIMENSIONS, Started, Usage, Vector

FLOATS = st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1)


@given(FLOATS)
def test_32_bit_floats_come_out_as_they_went_in(values):
    assert unpack(pack(values)) == values
    assert pack(values) == struct.pack(f"<{len(values)}f", *values)


@pytest.mark.parametrize(
    "values", [[], [math.nan], [1, math.inf], [1e300], ["a"], [None], [0] * (MOST_DIMENSIONS + 1)]
)
def test_what_is_no_vector_is_not_packed(values):
    with pytest.raises(ValueError, match="vector"):
        pack(values)


@pytest.mark.parametrize("packed", [b"", b"abc", b"abcde", struct.pack("<f", math.nan)])
def test_what_is_no_vector_is_not_unpacked(packed):
    with pytest.raises(ValueError, match="vector"):
        unpack(packed)


def vector(index, *values, seq=1):
    return Vector(seq=seq, index=index, values=pack(values))


def test_a_response_is_put_together_in_the_order_of_the_texts():
    vectors = EmbeddingList(2)
    vectors.add(Started(id="x", model="m", created=1))
    for reply in (vector(1, 0.5), vector(0, 0.25), Usage(usage={"prompt_tokens": 3})):
        vectors.add(reply)
    assert vectors.result() == {
        "object": "list",
        "data": [
            {"object": "embedding", "index": 0, "embedding": [0.25]},
            {"object": "embedding", "index": 1, "embedding": [0.5]},
        ],
        "model": "m",
        "usage": {"prompt_tokens": 3},
    }


@pytest.mark.parametrize(
    "replies",
    [
        [vector(2, 1.0)],
        [vector(0, 1.0), vector(0, 1.0)],
        [vector(0, 1.0), vector(1, 1.0, 2.0)],
        [Vector(seq=1, index=0, values=b"abcde")],
        [Vector(seq=1, index=0, values=struct.pack("<f", math.inf))],
        [vector(0, 1.0)],
        [],
    ],
)
def test_vectors_that_answer_no_text_or_one_twice_or_leave_one_out_are_an_error(replies):
    vectors = EmbeddingList(2)
    with pytest.raises(ExchangeError):
        for reply in replies:
            vectors.add(reply)
        vectors.result()


def test_many_texts_leave_no_room_for_endless_vectors():
    vectors = EmbeddingList(2048)
    with pytest.raises(ExchangeError, match="too long"):
        vectors.add(vector(0, *[0.0] * 5000))


@pytest.mark.parametrize(("given", "count"), [("a", 1), (["a", "b"], 2), (("a",), 1), (None, 1)])
def test_a_lone_text_counts_as_one(given, count):
    assert texts_of({"input": given}) == count


@pytest.mark.parametrize("value", [2**70, object(), {1: object()}, "\ud800"])
def test_what_no_frame_can_hold_is_one_error(value):
    """A model's log probability beyond 64 bits came out as an OverflowError once."""
    with pytest.raises(messages.UnsendableError):
        messages.encode(messages.Delta(seq=1, choices=[{"x": value}]))
