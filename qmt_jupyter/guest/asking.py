"""A request as the frame that carries it, checked before anything is sent, and a whole result."""

from __future__ import annotations

import uuid
from contextlib import aclosing
from typing import TYPE_CHECKING

from ..errors import ProtocolViolation, RequestInvalid
from ..wire import frames, messages
from ..wire.embeddings import EmbeddingList, texts_of
from ..wire.exchange import ExchangeError
from .returning import Away

if TYPE_CHECKING:
    from .link import HostLink


def ask_frame(body: messages.JsonObject, kind: type[messages.Asked] = messages.Ask) -> bytes:
    """The frame of one request of that kind. Raises :class:`~qmt_jupyter.errors.RequestInvalid`."""
    try:
        frame = messages.encode(kind(id=uuid.uuid4().hex, body=body))
    except messages.UnsendableError:
        raise RequestInvalid(
            "The request holds something that JSON cannot.",
            next_step="Leave out what is not text, and numbers beyond 64 bits.",
        ) from None
    if len(frame) > frames.ASK_LIMIT:
        raise RequestInvalid(
            f"The request has {len(frame)} bytes; {frames.ASK_LIMIT} are allowed.",
            next_step="Shorten the conversation or use smaller images.",
        )
    return frame


async def embedded(
    link: HostLink, body: messages.JsonObject, patience: float
) -> messages.JsonObject:
    """One host's embeddings, as an OpenAI response. Raises like :meth:`HostLink.ask`."""
    vectors = EmbeddingList(texts_of(body))
    try:
        async with aclosing(link.ask(body, messages.Embed, patience=patience)) as replies:
            async for reply in replies:
                if not isinstance(reply, Away):
                    vectors.add(reply)
        return vectors.result()
    except ExchangeError as error:
        raise ProtocolViolation(f"The host broke the exchange ({error}).") from None
