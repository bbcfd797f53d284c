"""What can be wrong with an invite link."""

from __future__ import annotations

from .base import QmtError


class InviteError(QmtError):
    """Something is wrong with an invite link; no packet has left this machine."""

    code = "invite"


class InviteMalformed(InviteError):
    """The text is not an invite of a version this release reads."""

    code = "invite-malformed"
    default_next_step = "Copy the whole line that begins with qmt://mesh/join/ and try again."


class InviteSignatureInvalid(InviteError):
    """The invite was altered after it was signed, or never signed by the host it names."""

    code = "invite-signature"
    default_next_step = "Ask the host for a fresh link."


class InviteExpired(InviteError):
    """The invite's lifetime is over."""

    code = "invite-expired"
    default_next_step = "Ask the host for a fresh link."
