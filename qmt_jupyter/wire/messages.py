"""The messages of the exchange ``qmt/1``, typed and strict.

Each is a MessagePack map with its kind under ``t``. Unknown kinds are refused; unknown fields of
a known kind are ignored, so that a later release may add some. Sizes are bounded by the frame
limits in :mod:`.frames` and by the annotations here.
"""

from __future__ import annotations

from typing import Annotated, Any, Union

import msgspec

from .frames import FrameError, frame

ALPN = b"qmt/1"
VERSION = 1
MOST_DIMENSIONS = 16_384

Name = Annotated[str, msgspec.Meta(max_length=200)]
LONGEST_SENTENCE = 2000
Sentence = Annotated[str, msgspec.Meta(max_length=LONGEST_SENTENCE)]
NodeAddress = Annotated[str, msgspec.Meta(max_length=64)]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
JsonObject = dict[str, Any]
RequestId = Annotated[str, msgspec.Meta(min_length=8, max_length=64, pattern="^[A-Za-z0-9-]+$")]
Floats = Annotated[bytes, msgspec.Meta(min_length=4, max_length=4 * MOST_DIMENSIONS)]

MOST_SLOTS = 2**16
MOST_BUSY = 2**20


class Message(msgspec.Struct, frozen=True, tag_field="t", omit_defaults=True):
    """Base of all messages."""


class ModelOffer(msgspec.Struct, frozen=True, omit_defaults=True):
    """A model that the host offers: its name, and its context in tokens (None: unknown).

    ``chats`` and ``embeds`` say what it can be asked for. ``slots`` requests run on it side by
    side, and ``busy`` run or wait there now, whoever asked (None: the host does not tell).
    """

    name: Name
    context: Count | None = None
    chats: bool = True
    embeds: bool = False
    slots: Annotated[int, msgspec.Meta(ge=1, le=MOST_SLOTS)] | None = None
    busy: Annotated[int, msgspec.Meta(ge=0, le=MOST_BUSY)] | None = None


class Limits(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the invite allows: until when (seconds since 1970; 0: open), and its limits.

    None where there is none: requests at once, in all and a minute, tokens in all and a minute,
    the longest answer in tokens; for all its guests together or for each by itself.
    """

    expires_at: Count = 0
    concurrent: Count | None = None
    requests: Count | None = None
    tokens: Count | None = None
    requests_per_minute: Count | None = None
    tokens_per_minute: Count | None = None
    answer_tokens: Count | None = None
    per_guest: bool = False


# Control stream, guest to host ----------------------------------------------------------------


def as_dict(value: msgspec.Struct) -> JsonObject:
    """A message's fields as plain values."""
    return msgspec.structs.asdict(value)


class Greeting(Message, frozen=True, tag="greeting"):
    """First message of a guest. ``token`` is the whole invite, ``statement`` its identity's."""

    version: Count
    token: Annotated[bytes, msgspec.Meta(max_length=1024)]
    statement: Annotated[bytes, msgspec.Meta(max_length=1024)]
    software: Name = ""
    name: Annotated[str, msgspec.Meta(max_length=64)] = ""


class Present(Message, frozen=True, tag="present"):
    """A guest with a running request is still there; sent every two seconds."""


# Control stream, host to guest ----------------------------------------------------------------


class Standing(Message, frozen=True, tag="standing"):
    """What this guest has used, and what remains of the invite (None: not limited)."""

    requests: Count = 0
    prompt_tokens: Count = 0
    completion_tokens: Count = 0
    requests_left: Count | None = None
    tokens_left: Count | None = None


class Welcome(Message, frozen=True, tag="welcome"):
    """The guest is admitted.

    The host's node of the DHT listens at UDP port ``dht_port`` (0: it has none); ``nodes``
    (``IP:PORT``) are its addresses and other nodes. With them a guest finds the host again after
    it has moved.
    """

    version: Count
    membership: Name
    models: Annotated[list[ModelOffer], msgspec.Meta(max_length=256)]
    limits: Limits = Limits()
    standing: Standing = Standing()
    software: Name = ""
    dht_port: Annotated[int, msgspec.Meta(ge=0, lt=65536)] = 0
    nodes: Annotated[list[NodeAddress], msgspec.Meta(max_length=16)] = []


class Refusal(Message, frozen=True, tag="refusal"):
    """The guest is not admitted, or not any more. The connection closes after it."""

    code: Name
    sentence: Sentence
    retry_after: float | None = None
    version: Count = VERSION


class Models(Message, frozen=True, tag="models"):
    """The host's models, or how busy they are, changed."""

    models: Annotated[list[ModelOffer], msgspec.Meta(max_length=256)]


# Request stream, guest to host ----------------------------------------------------------------


class Ask(Message, frozen=True, tag="ask"):
    """One chat completion: ``body`` is an OpenAI request without ``stream``.

    ``after`` is the last sequence number that the guest has of this request; 0 begins it.
    """

    id: RequestId
    body: JsonObject
    after: Count = 0


class Embed(Message, frozen=True, tag="embed"):
    """Embeddings of some texts: ``body`` is an OpenAI embeddings request."""

    id: RequestId
    body: JsonObject


# Request stream, host to guest ----------------------------------------------------------------


class Queued(Message, frozen=True, tag="queued"):
    """The request waits; ``position`` requests are served before it.

    ``wait``: what serves it cannot begin for about so many seconds.
    """

    position: Count
    wait: float | None = None


class Started(Message, frozen=True, tag="started"):
    """A slot took the request. The fields are common to all its chunks."""

    id: Name
    model: Name
    created: Count


class Delta(Message, frozen=True, tag="delta"):
    """A piece of the answer: ``choices`` of an OpenAI chunk. ``seq`` counts from 1 by ones."""

    seq: Count
    choices: list[JsonObject]


class Vector(Message, frozen=True, tag="vector"):
    """The embedding of text number ``index``, as 32-bit floats, little-endian.

    ``seq`` counts from 1 by ones, as a delta's does.
    """

    seq: Count
    index: Count
    values: Floats


class Usage(Message, frozen=True, tag="usage"):
    """What the answer took: OpenAI's usage object, and the engine's timings where it has any."""

    usage: JsonObject
    timings: JsonObject | None = None


class Done(Message, frozen=True, tag="done"):
    """The answer is complete."""

    finish_reason: Name


class Failed(Message, frozen=True, tag="failed"):
    """The request was refused, or ended without a whole answer."""

    code: Name
    sentence: Sentence
    retry_after: float | None = None


class Beat(Message, frozen=True, tag="beat"):
    """Nothing new, and still here; at least every second while a request runs."""


FromGuest = Union[Greeting, Present]  # noqa: UP007  (msgspec reads the union at run time)
ToGuest = Union[Welcome, Refusal, Models, Standing]  # noqa: UP007
Asked = Union[Ask, Embed]  # noqa: UP007
Reply = Union[Queued, Started, Delta, Vector, Usage, Done, Failed, Beat]  # noqa: UP007
Final = (Done, Failed)


class _Envelope(msgspec.Struct):
    t: str
    version: Count = VERSION


_encoder = msgspec.msgpack.Encoder()
_envelope = msgspec.msgpack.Decoder(_Envelope)
_from_guest = msgspec.msgpack.Decoder(FromGuest)
_to_guest = msgspec.msgpack.Decoder(ToGuest)
_asked = msgspec.msgpack.Decoder(Asked)
_reply = msgspec.msgpack.Decoder(Reply)


class UnsendableError(Exception):
    """What a message was to carry is no JSON, or holds a number beyond 64 bits."""


def encode(message: Message) -> bytes:
    """A message as one whole frame. Raises :class:`UnsendableError`."""
    try:
        return frame(_encoder.encode(message))
    except (msgspec.MsgspecError, TypeError, ValueError, OverflowError, RecursionError):
        raise UnsendableError(type(message).__name__) from None


def encoded_size(value: JsonObject) -> int:
    """How many bytes ``value`` takes in a frame. TypeError where it holds what JSON does not."""
    return len(_encoder.encode(value))


def _decode(decoder: msgspec.msgpack.Decoder[Any], payload: bytes) -> Any:
    try:
        return decoder.decode(payload)
    # ValueError: bad UTF-8, times out of range, and in later releases msgspec's own errors.
    except (msgspec.MsgspecError, ValueError, RecursionError, OverflowError) as error:
        raise FrameError(f"not a message: {type(error).__name__}") from None


def peer_version(payload: bytes) -> int:
    """The version that a greeting, welcome or refusal declares, readable across versions."""
    envelope: _Envelope = _decode(_envelope, payload)
    return envelope.version


def decode_from_guest(payload: bytes) -> FromGuest:
    """A guest's message on the control stream. Raises :class:`~.frames.FrameError`."""
    message: FromGuest = _decode(_from_guest, payload)
    return message


def decode_to_guest(payload: bytes) -> ToGuest:
    """A host's message on the control stream. Raises :class:`~.frames.FrameError`."""
    message: ToGuest = _decode(_to_guest, payload)
    return message


def decode_asked(payload: bytes) -> Asked:
    """A guest's request. Raises :class:`~.frames.FrameError`."""
    message: Asked = _decode(_asked, payload)
    return message


def decode_reply(payload: bytes) -> Reply:
    """A host's message on a request stream. Raises :class:`~.frames.FrameError`."""
    message: Reply = _decode(_reply, payload)
    return message
