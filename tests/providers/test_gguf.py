from __future__ import annotations

import struct

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qmt_jupyter.errors import ModelFileInvalid, ModelFileMissing
from qmt_jupyter.providers.gguf import read_head

from .conftest import gguf, model_head, text


def test_the_demo_model_says_what_it_is(smollm2):
    head = read_head(smollm2.path)
    assert head.architecture == "llama"
    assert head.context == 8192
    assert head.kv_bytes_per_token == 30 * 3 * (64 + 64) * 2
    assert head.size == 98_362_432


def test_the_cache_of_a_token_is_counted_over_layers_and_heads(write_model):
    assert read_head(write_model()).kv_bytes_per_token == 2 * 2 * (16 + 16) * 2
    wide = {"attention.key_length": 128, "attention.value_length": 64}
    assert read_head(write_model(data=model_head(**wide))).kv_bytes_per_token == 2 * 2 * 192 * 2


def test_layers_with_different_heads_are_added_up(write_model):
    number = {"block_count": 3, "embedding_length": 64, "attention.head_count": 4}
    pairs = [("general.architecture", 8, text("x"))]
    pairs += [(f"x.{name}", 4, struct.pack("<I", value)) for name, value in number.items()]
    heads = struct.pack("<IQ", 5, 3) + struct.pack("<3i", 0, 1, 4)
    pairs += [("x.attention.head_count_kv", 9, heads)]
    assert read_head(write_model(data=gguf(*pairs))).kv_bytes_per_token == 5 * 32 * 2


@pytest.mark.parametrize("special", ["attention.sliding_window", "ssm.state_size"])
def test_a_cache_that_is_not_a_plain_one_is_left_unknown(write_model, special):
    assert read_head(write_model(data=model_head(**{special: 16}))).kv_bytes_per_token is None


def test_the_vocabulary_is_not_read(write_model):
    # A vocabulary of 10**18 words could not be.
    words = struct.pack("<IQ", 8, 10**18)
    data = gguf(
        ("general.architecture", 8, text("llama")),
        ("llama.context_length", 4, struct.pack("<I", 512)),
        ("tokenizer.ggml.tokens", 9, words),
    )
    assert read_head(write_model(data=data)).context == 512


def test_other_kinds_of_values_are_stepped_over(write_model):
    data = gguf(
        ("general.languages", 9, struct.pack("<IQ", 8, 2) + text("en") + text("de")),
        ("general.flag", 7, b"\x01"),
        ("general.long", 9, struct.pack("<IQ", 0, 5000) + bytes(5000)),
        ("general.float", 6, struct.pack("<f", 1.5)),
        ("general.architecture", 8, text("llama")),
        ("llama.context_length", 10, struct.pack("<Q", 99)),
    )
    head = read_head(write_model(data=data))
    assert (head.architecture, head.context, head.kv_bytes_per_token) == ("llama", 99, None)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "not a GGUF"),
        (b"PK\x03\x04 a zip file", "not a GGUF"),
        (b"GGUF", "damaged or incomplete"),
        (gguf(version=1), "version 1"),
        (gguf(version=0x03000000), "little-endian"),
        (gguf(count=2**40), "damaged"),
        (gguf(("k", 99, b"")), "damaged"),
        (model_head()[:-3], "damaged"),
    ],
)
def test_what_is_no_model_is_refused_with_a_reason(write_model, data, said):
    with pytest.raises(ModelFileInvalid) as caught:
        read_head(write_model(data=data))
    assert said in str(caught.value)


def test_a_file_that_is_not_there_is_missing(tmp_path):
    with pytest.raises(ModelFileMissing, match="cannot be read"):
        read_head(tmp_path / "none.gguf")


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_damage_escapes_as_another_error(write_model, data):
    head = bytearray(model_head())
    for _ in range(data.draw(st.integers(1, 8))):
        head[data.draw(st.integers(4, len(head) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(head)))
    try:
        read_head(write_model(data=bytes(head[: len(head) - cut])))
    except ModelFileInvalid:
        pass
