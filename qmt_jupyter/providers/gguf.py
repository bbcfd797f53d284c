"""What the head of a GGUF file says about a model, read without the engine.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md (versions 2 and 3,
little-endian). Only the few keys needed before loading are kept; the vocabulary, which makes up
most of the head, is not read: its keys come after the architecture's.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import ModelFileInvalid, ModelFileMissing

MAGIC = b"GGUF"

_VERSIONS = (2, 3)
_STRING, _ARRAY = 8, 9
_SCALARS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
# A file that claims more than this is damaged: no real head comes near.
_MOST_KEYS = 1 << 16
_LONGEST_STRING = 1 << 24
_LONGEST_LAYER_LIST = 4096

_POOLING = (1, 2, 3)  # mean, first token, last token; 0 is none, 4 ranks

_KV_BYTES = 2  # the engine keeps keys and values as 16-bit floats


@dataclass(frozen=True)
class GgufHead:
    """Facts about a model file; None where the file does not say.

    ``context`` is the length in tokens that the model was trained for. ``kv_bytes_per_token`` is
    what one token of context occupies in the engine; None for architectures whose cache is not a
    plain one (sliding windows, latent attention, recurrent layers). ``is_embedding``: the model
    was made for embeddings, and does not chat.
    """

    size: int
    architecture: str | None
    context: int | None
    kv_bytes_per_token: int | None
    is_embedding: bool = False


def read_head(path: Path) -> GgufHead:
    """Read the head of ``path``.

    Raises :class:`~qmt_jupyter.errors.ModelFileMissing` where there is no readable file, and
    :class:`~qmt_jupyter.errors.ModelFileInvalid` where it is not a GGUF model.
    """
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            return _head(path, file, size)
    except OSError as error:
        raise ModelFileMissing(
            f"The model file {path} cannot be read ({error.strerror or error})."
        ) from None


def _head(path: Path, file: BinaryIO, size: int) -> GgufHead:
    if file.read(4) != MAGIC:
        raise ModelFileInvalid(
            f"{path} is not a GGUF model.",
            next_step="llama.cpp reads .gguf files only; look for a GGUF version of the model.",
        )
    try:
        (version,) = struct.unpack("<I", _exactly(file, 4))
        if version not in _VERSIONS:
            raise ModelFileInvalid(
                f"{path} is a GGUF file of version {version}, which is not supported.",
                next_step="Get the model as a little-endian GGUF file of version 3.",
            )
        _tensors, count = struct.unpack("<QQ", _exactly(file, 16))
        if count > _MOST_KEYS:
            raise ValueError(count)
        found: dict[str, Any] = {}
        for _ in range(count):
            key = _string(file)
            if key.startswith("tokenizer.") and "general.architecture" in found:
                break
            (kind,) = struct.unpack("<I", _exactly(file, 4))
            found[key] = _value(file, kind)
    except (ValueError, EOFError, struct.error):
        raise ModelFileInvalid(
            f"{path} begins like a GGUF model but is damaged or incomplete.",
            next_step="Delete it and get it again.",
        ) from None
    architecture = found.get("general.architecture")
    if not isinstance(architecture, str):
        return GgufHead(size, None, None, None)
    context = found.get(f"{architecture}.context_length")
    return GgufHead(
        size=size,
        architecture=architecture,
        context=context if isinstance(context, int) and context > 0 else None,
        kv_bytes_per_token=_kv_bytes_per_token(architecture, found),
        is_embedding=found.get(f"{architecture}.pooling_type") in _POOLING,
    )


def _kv_bytes_per_token(architecture: str, found: dict[str, Any]) -> int | None:
    def of(name: str) -> Any:
        return found.get(f"{architecture}.{name}")

    if any(
        of(name)
        for name in ("attention.sliding_window", "attention.kv_lora_rank", "ssm.state_size")
    ):
        return None
    layers, heads, width = of("block_count"), of("attention.head_count"), of("embedding_length")
    kv_heads = of("attention.head_count_kv") or heads
    if not (isinstance(layers, int) and isinstance(width, int) and heads and kv_heads):
        return None
    most_heads = max(heads) if isinstance(heads, list) else heads
    per_head = width // most_heads if most_heads else 0
    key, value = of("attention.key_length") or per_head, of("attention.value_length") or per_head
    all_heads = sum(kv_heads) if isinstance(kv_heads, list) else kv_heads * layers
    return int(all_heads * (key + value) * _KV_BYTES) or None


def _exactly(file: BinaryIO, count: int) -> bytes:
    data = file.read(count)
    if len(data) != count:
        raise EOFError
    return data


def _string(file: BinaryIO) -> str:
    (length,) = struct.unpack("<Q", _exactly(file, 8))
    if length > _LONGEST_STRING:
        raise ValueError(length)
    return _exactly(file, length).decode("utf-8", "replace")


def _value(file: BinaryIO, kind: int) -> Any:
    if kind == _STRING:
        return _string(file)
    if kind != _ARRAY:
        code = "<" + _code(kind)
        return struct.unpack(code, _exactly(file, struct.calcsize(code)))[0]
    inner, count = struct.unpack("<IQ", _exactly(file, 12))
    if inner == _STRING:
        if count > _LONGEST_STRING:
            raise ValueError(count)
        for _ in range(count):
            _string(file)
        return None
    width = struct.calcsize("<" + _code(inner))
    if count > _LONGEST_LAYER_LIST:
        file.seek(count * width, 1)
        return None
    return list(struct.unpack(f"<{count}{_code(inner)}", _exactly(file, count * width)))


def _code(kind: int) -> str:
    try:
        return _SCALARS[kind]
    except KeyError:
        raise ValueError(kind) from None
