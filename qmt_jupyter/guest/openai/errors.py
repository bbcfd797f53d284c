"""Which HTTP status, and which of OpenAI's words, an error has at the guest's endpoint. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from ... import errors
from ...errors import QmtError
from ...wire.frames import ASK_LIMIT

INVALID_REQUEST = "invalid_request_error"
SERVER_ERROR = "server_error"
UNAVAILABLE = "service_unavailable_error"
RATE_LIMIT = "rate_limit_error"
NO_QUOTA = "insufficient_quota"
NOT_PERMITTED = "permission_error"


@dataclass(frozen=True)
class ErrorAnswer:
    """An error in OpenAI's shape. ``retry_after``: in how many seconds another try makes sense."""

    status: int
    kind: str
    code: str | None
    message: str
    param: str | None = None
    retry_after: float | None = None

    def body(self) -> dict[str, Any]:
        """What the client reads."""
        return {
            "error": {
                "message": self.message,
                "type": self.kind,
                "param": self.param,
                "code": self.code,
            }
        }

    def headers(self) -> dict[str, str]:
        """``Retry-After`` in whole seconds, rounded up; or that trying again is of no use.

        OpenAI's own clients try 429 and 5xx again by themselves unless told not to.
        """
        if self.retry_after is not None and math.isfinite(self.retry_after):
            return {"Retry-After": str(max(1, math.ceil(self.retry_after)))}
        return {"X-Should-Retry": "false"} if self.status in (429, 500) else {}


class NotServed(Exception):
    """A request that the endpoint itself turns away."""

    def __init__(self, answer: ErrorAnswer) -> None:
        super().__init__(answer.message)
        self.answer = answer


@dataclass(frozen=True)
class _Rule:
    status: int
    kind: str
    code: str | None = None  # None: the error's own
    param: str | None = None
    retry_after: float | None = None  # where the error itself names no time


# The first class that fits counts, so what is special stands above what is general.
_RULES: tuple[tuple[type[QmtError], _Rule], ...] = (
    (errors.RequestInvalid, _Rule(400, INVALID_REQUEST)),
    (
        errors.PromptTooLong,
        _Rule(400, INVALID_REQUEST, "context_length_exceeded", "messages"),
    ),
    (errors.ModelUnknown, _Rule(404, INVALID_REQUEST, "model_not_found", "model")),
    (errors.ModelNotAllowed, _Rule(404, INVALID_REQUEST, "model_not_found", "model")),
    (errors.RequestsUsedUp, _Rule(429, NO_QUOTA, NO_QUOTA)),
    (errors.TokensUsedUp, _Rule(429, NO_QUOTA, NO_QUOTA)),
    (errors.DayUsedUp, _Rule(429, NO_QUOTA, NO_QUOTA)),
    (errors.MonthUsedUp, _Rule(429, NO_QUOTA, NO_QUOTA)),
    (errors.TokensReserved, _Rule(429, RATE_LIMIT, "rate_limit_exceeded", retry_after=1)),
    (errors.RequestRateReached, _Rule(429, RATE_LIMIT, "rate_limit_exceeded", retry_after=60)),
    (errors.TokenRateReached, _Rule(429, RATE_LIMIT, "rate_limit_exceeded", retry_after=60)),
    (errors.TooManyAtOnce, _Rule(429, RATE_LIMIT, "rate_limit_exceeded", retry_after=1)),
    (errors.Busy, _Rule(429, RATE_LIMIT, "rate_limit_exceeded", retry_after=5)),
    (errors.Stopped, _Rule(503, UNAVAILABLE, retry_after=5)),
    (errors.RecordsUnwritable, _Rule(503, UNAVAILABLE, retry_after=30)),
    (errors.HostNotFound, _Rule(503, UNAVAILABLE, retry_after=5)),
    (errors.HostGone, _Rule(503, UNAVAILABLE, retry_after=5)),
    (errors.NotJoined, _Rule(503, UNAVAILABLE)),
    (errors.NotHosting, _Rule(503, UNAVAILABLE)),
    (errors.MeshError, _Rule(502, SERVER_ERROR)),
    (errors.ProviderError, _Rule(502, SERVER_ERROR)),
    # Memberships that have ended, invites that are over or used up, and whatever else a host says.
    (errors.InviteError, _Rule(403, NOT_PERMITTED)),
    (errors.Refused, _Rule(403, NOT_PERMITTED)),
)
_OTHERWISE = _Rule(500, SERVER_ERROR, "internal_error")
_FAILED = "The endpoint failed while answering; its log says more."


def answer_for(error: BaseException, body: dict[str, Any] | None = None) -> ErrorAnswer:
    """What a client is told of ``error``; ``body`` is the request that it came of.

    An error that is none of ours says nothing of itself: its text could hold anything.
    """
    if isinstance(error, NotServed):
        return error.answer
    if not isinstance(error, QmtError):
        return ErrorAnswer(_OTHERWISE.status, _OTHERWISE.kind, _OTHERWISE.code, _FAILED)
    rule = next((rule for kind, rule in _RULES if isinstance(error, kind)), _OTHERWISE)
    if type(error) in (errors.LimitReached, errors.Refused) and error.retry_after is not None:
        # A limit that a newer host knows and this release does not: it says when it is over.
        rule = _Rule(429, RATE_LIMIT, "rate_limit_exceeded")
    elif type(error) is errors.LimitReached:
        rule = _Rule(429, NO_QUOTA, NO_QUOTA)
    after = rule.retry_after if error.retry_after is None else error.retry_after
    return ErrorAnswer(
        rule.status,
        rule.kind,
        rule.code or error.code,
        str(error),
        rule.param or _parameter_meant(error, body),
        None if rule.kind == NO_QUOTA else after,
    )


def _parameter_meant(error: QmtError, body: dict[str, Any] | None) -> str | None:
    """The parameter that the host's sentence is about, if it is one of the request's."""
    if not isinstance(error, errors.RequestInvalid) or body is None:
        return None
    quoted = next((key for key in body if repr(key[:60]) in error.sentence), None)
    if quoted is not None:
        return quoted
    # Of these it says what is wrong inside, without their name in quotes.
    inside = {"message": "messages", "image": "messages", "input": "input"}
    return next(
        (key for word, key in inside.items() if word in error.sentence and key in body), None
    )


# What the endpoint itself turns away -----------------------------------------------------------


def invalid(message: str, param: str | None = None, code: str | None = None) -> NotServed:
    """400: the request cannot be taken as it is."""
    return NotServed(ErrorAnswer(400, INVALID_REQUEST, code, message, param))


def wrong_key(given: bool) -> NotServed:
    """401: no key, or another one."""
    said = "The key is not this endpoint's." if given else "There is no key in the request."
    message = f"{said} Send 'Authorization: Bearer KEY' with the key that was shown at its start."
    return NotServed(ErrorAnswer(401, INVALID_REQUEST, "invalid_api_key", message))


def wrong_host() -> NotServed:
    """403: addressed to another name, as a page does that has its name point at this machine."""
    message = "The Host header is not this endpoint's address. Use its base URL as it was shown."
    return NotServed(ErrorAnswer(403, NOT_PERMITTED, "host_not_allowed", message))


def wrong_origin() -> NotServed:
    """403: sent by a web page."""
    message = (
        "Web pages may not use this endpoint. For an application of your own, start it with "
        "--allow-origin ORIGIN."
    )
    return NotServed(ErrorAnswer(403, NOT_PERMITTED, "origin_not_allowed", message))


def unknown_path(method: str, path: str) -> NotServed:
    """404: nothing is there."""
    message = f"Unknown request URL: {method} {path}. There are /v1/models, /v1/chat/completions "
    message += "and /v1/embeddings."
    return NotServed(ErrorAnswer(404, INVALID_REQUEST, "unknown_url", message))


def unknown_model(name: str) -> NotServed:
    """404: no host offers the model."""
    message = f"The model {name!r} is not offered on this mesh. GET /v1/models lists what is."
    return NotServed(ErrorAnswer(404, INVALID_REQUEST, "model_not_found", message, "model"))


def wrong_method(method: str, path: str) -> NotServed:
    """405: something is there, but not for this method."""
    message = f"Not allowed: {method} on {path}."
    return NotServed(ErrorAnswer(405, INVALID_REQUEST, "method_not_supported", message))


def too_large() -> NotServed:
    """413: longer than a request on the mesh may be."""
    message = f"The request is too large: {ASK_LIMIT} bytes are allowed. Shorten the conversation "
    message += "or use smaller images."
    return NotServed(ErrorAnswer(413, INVALID_REQUEST, "request_too_large", message))


def wrong_type() -> NotServed:
    """415: the body is not declared as JSON."""
    message = "The body must come as JSON, with Content-Type: application/json."
    return NotServed(ErrorAnswer(415, INVALID_REQUEST, "unsupported_media_type", message))
