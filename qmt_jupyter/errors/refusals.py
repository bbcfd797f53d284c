"""A host's no, but for limits."""

from __future__ import annotations

from .base import QmtError


class Refused(QmtError):
    """The host answered, and the answer was no."""

    code = "refused"


class AdmissionRefused(Refused):
    """The invite, or the identity that showed it, is not accepted by the host."""

    code = "admission-refused"
    default_next_step = "Ask the host for a fresh link."


class InviteUsedUp(AdmissionRefused):
    """All uses of the invite are taken by other guests."""

    code = "invite-used-up"
    default_next_step = "Ask the host for an invite with more uses."


class MembershipEnded(Refused):
    """The membership has expired, or is none of this host's."""

    code = "membership-ended"
    default_next_step = "Ask the host for a fresh link."


class Revoked(MembershipEnded):
    """The host has revoked the invite, or this guest's membership."""

    code = "revoked"


class RequestInvalid(Refused):
    """The request has a parameter or a shape that the host does not take."""

    code = "request-invalid"


class ModelUnknown(Refused):
    """No host in reach offers a model of that name."""

    code = "model-unknown"
    default_next_step = "%qmt_models (or qmt join --json) lists what is offered."


class PromptTooLong(Refused):
    """The prompt has more tokens than the model's context holds."""

    code = "prompt-too-long"
    default_next_step = "Shorten it, start over with --new, or ask the host for a larger context."


class Busy(Refused):
    """The host's queue is full."""

    code = "busy"
    default_next_step = "Try again in a moment."


class RecordsUnwritable(Refused):
    """The host cannot write its records, and lets nobody in uncounted."""

    code = "records-unwritable"
    default_next_step = "Try again later; the host has to free some disk space."


class Stopped(Refused):
    """The host stopped hosting while something was under way."""

    code = "stopped"
    default_next_step = "Try again when the host is back."


class HubRefused(Refused):
    """The JupyterHub, or its service, does not give this user a seat."""

    code = "hub-refused"
    default_next_step = "Ask whoever runs the JupyterHub."
