"""A request as the frame that carries it, checked before anything is sent."""

from __future__ import annotations

import uuid

from ..errors import RequestInvalid
from ..wire import frames, messages


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
