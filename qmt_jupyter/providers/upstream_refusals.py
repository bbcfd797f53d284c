"""What an upstream's refusal means to who asked. No I/O; its words are scrubbed already."""

from __future__ import annotations

import time
from email.utils import parsedate_to_datetime
from typing import Any

from ..errors import (
    Busy,
    PromptTooLong,
    QmtError,
    RequestInvalid,
    UpstreamRefused,
    UpstreamUnreachable,
)


class Status(Exception):
    """The upstream answered with an error instead of a stream; attributes as the client's own."""

    def __init__(self, response: Any, body: Any) -> None:
        super().__init__()
        self.status_code: int = response.status_code
        self.response = response
        self.body = body


def is_connection_problem(error: Exception) -> bool:
    """Whether the client did not get through, as against what the server said."""
    # The client's own kind, and that of the HTTP library below it.
    kinds = {"APIConnectionError", "TransportError"}
    return any(cls.__name__ in kinds for cls in type(error).__mro__)


def retry_after(error: Exception, now: float | None = None) -> float | None:
    """For how many seconds the upstream wants to be left alone; None where it does not say.

    The header has seconds, or the date when to come back; ``now`` is in seconds since 1970.
    """
    said = getattr(getattr(error, "response", None), "headers", {}).get("retry-after", "")
    try:
        seconds = float(said)
    except ValueError:
        try:
            at = parsedate_to_datetime(said)
            seconds = max(0.0, at.timestamp() - (time.time() if now is None else now))
        except (ValueError, OverflowError):
            return None
    return seconds if 0 <= seconds < 1e6 else None


def unwilling(host: str, status: int, wait: float | None) -> QmtError:
    """The error for a status that may pass: too many requests, or a failure of its own."""
    if status == 429:
        return Busy(f"The upstream {host} takes no more requests now.", retry_after=wait or 30.0)
    return UpstreamUnreachable(f"The upstream {host} failed (status {status}).", retry_after=wait)


def refusal(host: str, status: int, said: str) -> QmtError:
    """What a refusal by the upstream means to who asked; ``said`` is scrubbed already."""
    if status in (401, 403):
        return UpstreamRefused(f"The upstream {host} does not accept the host's key.")
    if status in (400, 413, 422):
        if "context" in said and ("length" in said or "maximum" in said):
            return PromptTooLong("The prompt does not fit the upstream model's context.")
        return RequestInvalid(f"The upstream cannot take this request{said}.")
    return UpstreamRefused(f"The upstream {host} refused (status {status}){said}.")
