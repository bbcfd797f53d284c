"""What a guest is told of its own: what it may, what it has used, and what remains. Pure."""

from __future__ import annotations

from ..wire import messages
from .membership import Member

MAX_STREAMS = 128  # of one connection, the control stream included


def limits(member: Member) -> messages.Limits:
    """What a member may do, as the guest is told."""
    granted = member.granted.record
    return messages.Limits(
        concurrent=granted.limits.concurrent,
        expires_at=granted.expires_at,
        requests=granted.limits.requests,
        tokens=granted.limits.tokens,
        requests_per_minute=granted.limits.requests_per_minute,
        tokens_per_minute=granted.limits.tokens_per_minute,
        answer_tokens=granted.limits.answer_tokens,
        per_guest=granted.limits.per_guest,
    )


def standing(member: Member) -> messages.Standing:
    """What a member has used and what remains, as the guest is told."""
    left = member.account.left()
    return messages.Standing(
        requests=member.usage.requests,
        prompt_tokens=member.usage.prompt_tokens,
        completion_tokens=member.usage.completion_tokens,
        requests_left=left["requests"],
        tokens_left=left["tokens"],
    )
