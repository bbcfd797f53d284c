"""Framing: a 4-byte big-endian length, then that many bytes of MessagePack.

The limits are hard: a declared length beyond the limit of its place in the exchange ends the
stream before a byte of the payload is kept.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

GREETING_LIMIT = 8 * 1024
CONTROL_LIMIT = 64 * 1024
ASK_LIMIT = 4 * 1024 * 1024
REPLY_LIMIT = 256 * 1024

ASK_MAX_ITEMS = 50_000
ASK_MAX_DEPTH = 32

_LENGTH = struct.Struct(">I")


class FrameError(Exception):
    """The other side's bytes are not frames of this exchange."""


def frame(payload: bytes) -> bytes:
    """One payload with its length in front."""
    return _LENGTH.pack(len(payload)) + payload


class FrameDecoder:
    """Cuts arriving bytes into payloads of at most ``limit`` bytes each."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Add bytes and yield every payload that is now whole.

        Raises :class:`FrameError` for an empty frame or one beyond the limit.
        """
        buffer = self._buffer
        buffer += data
        start = 0
        try:
            while len(buffer) - start >= _LENGTH.size:
                (length,) = _LENGTH.unpack_from(buffer, start)
                if length == 0 or length > self.limit:
                    raise FrameError(f"a frame of {length} bytes, {self.limit} are allowed")
                end = start + _LENGTH.size + length
                if len(buffer) < end:
                    return
                payload = bytes(buffer[start + _LENGTH.size : end])
                start = end
                yield payload
        finally:
            del buffer[:start]

    @property
    def mid_frame(self) -> bool:
        """Whether a frame has begun and not ended: a stream must not end here."""
        return bool(self._buffer)


# MessagePack's first bytes whose value is followed by a fixed number of bytes that hold no items.
_FIXED_SIZE = {
    0xC0: 0, 0xC2: 0, 0xC3: 0, 0xCA: 4, 0xCB: 8, 0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8,
    0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8,
}  # fmt: skip
_STRING_LENGTH = {0xD9: 1, 0xDA: 2, 0xDB: 4, 0xC4: 1, 0xC5: 2, 0xC6: 4}
_ARRAY_LENGTH = {0xDC: 2, 0xDD: 4}
_MAP_LENGTH = {0xDE: 2, 0xDF: 4}


def require_modest_shape(
    payload: bytes, max_items: int = ASK_MAX_ITEMS, max_depth: int = ASK_MAX_DEPTH
) -> None:
    """Refuse MessagePack that would cost far more memory decoded than it has bytes.

    A megabyte of empty maps becomes a hundred of Python objects. This walks the headers, builds
    nothing, and raises :class:`FrameError` past ``max_items`` values, past ``max_depth`` levels,
    at an extension type, and where the bytes end early.
    """
    position = 0
    items = 0
    open_counts = [1]
    size = len(payload)
    while open_counts:
        if open_counts[-1] == 0:
            open_counts.pop()
            continue
        open_counts[-1] -= 1
        items += 1
        if items > max_items:
            raise FrameError("too many values")
        if position >= size:
            raise FrameError("cut off")
        first = payload[position]
        position += 1
        children = 0
        if first <= 0x7F or first >= 0xE0:
            continue
        if first <= 0x8F:
            children = 2 * (first & 0x0F)
        elif first <= 0x9F:
            children = first & 0x0F
        elif first <= 0xBF:
            position += first & 0x1F
        elif first in _FIXED_SIZE:
            position += _FIXED_SIZE[first]
        else:
            width = _STRING_LENGTH.get(first) or _ARRAY_LENGTH.get(first) or _MAP_LENGTH.get(first)
            if width is None:
                raise FrameError("an extension type")
            length = int.from_bytes(payload[position : position + width], "big")
            position += width
            if first in _STRING_LENGTH:
                position += length
            else:
                children = length * (2 if first in _MAP_LENGTH else 1)
        if children:
            if len(open_counts) >= max_depth:
                raise FrameError("nested too deeply")
            open_counts.append(children)
    if position != size:
        raise FrameError("cut off or followed by more")
