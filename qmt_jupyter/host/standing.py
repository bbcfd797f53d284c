"""What a guest is told of its own: what it may, what it has used, and what remains. Pure."""

from __future__ import annotations

from ..wire import messages
from .membership import Member

MAX_STREAMS = 128  # of one connection, the control stream included


def limits(member: Member) -> messages.Limits:
    """What a member may do, as the guest is told."""
    allowed = member.account.limits
    return messages.Limits(
        concurrent=allowed.concurrent,
        expires_at=member.granted.record.expires_at,
        requests=allowed.requests,
        tokens=allowed.tokens,
        requests_per_minute=allowed.requests_per_minute,
        tokens_per_minute=allowed.tokens_per_minute,
        answer_tokens=allowed.answer_tokens,
        per_guest=allowed.per_guest,
    )


def standing(member: Member, now: float) -> messages.Standing:
    """What a member has used and what remains at ``now`` (since 1970), as the guest is told."""
    left = member.account.left(now)
    return messages.Standing(
        requests=member.usage.requests,
        prompt_tokens=member.usage.prompt_tokens,
        completion_tokens=member.usage.completion_tokens,
        requests_left=left["requests"],
        tokens_left=left["tokens"],
    )
