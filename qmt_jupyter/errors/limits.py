"""A host's no because of a limit."""

from __future__ import annotations

from .refusals import Refused


class LimitReached(Refused):
    """A limit of the invite does not allow this request, at least not now."""

    code = "limit"
    default_next_step = "Ask the host for an invite with wider limits."


class RequestsUsedUp(LimitReached):
    """All requests that the invite allows have been made."""

    code = "requests-used-up"


class TokensUsedUp(LimitReached):
    """The invite's tokens are spent, or too few are left for the prompt."""

    code = "tokens-used-up"


class TokensReserved(LimitReached):
    """What is left of the tokens is held by requests that are running."""

    code = "tokens-reserved"
    default_next_step = "Try again when a running request has ended."


class RequestRateReached(LimitReached):
    """The invite's requests for this minute have been made."""

    code = "request-rate"
    default_next_step = ""


class TokenRateReached(LimitReached):
    """The invite's tokens for this minute are spent."""

    code = "token-rate"
    default_next_step = ""


class TooManyAtOnce(LimitReached):
    """As many requests run or wait as the invite allows side by side."""

    code = "too-many-at-once"
    default_next_step = "Try again when a running request has ended."


class ModelNotAllowed(LimitReached):
    """The invite does not include this model."""

    code = "model-not-allowed"
    default_next_step = "%qmt_models (or qmt join --json) lists what is offered."


class DayUsedUp(LimitReached):
    """The tokens that a seat has for a day are spent, or too few are left for the prompt."""

    code = "day-used-up"
    default_next_step = "Ask whoever runs the service for more, or wait."


class MonthUsedUp(LimitReached):
    """The tokens that a seat has for a month are spent, or too few are left for the prompt."""

    code = "month-used-up"
    default_next_step = "Ask whoever runs the service for more, or wait."


class OutsideHours(LimitReached):
    """It is not one of the hours of the week in which a seat may be used."""

    code = "outside-hours"
    default_next_step = "Ask whoever runs the service for other hours, or wait."


class Paused(LimitReached):
    """Whoever runs the service has paused a seat."""

    code = "paused"
    default_next_step = "Ask whoever runs the service."
