"""What a guest can be told of an invite: what it allows, what was used of it, and what is left."""

from __future__ import annotations

from typing import Any

from ..harmless import printable
from ..identity.invite import Invite
from ..mesh.path import Path
from ..wire import messages


def link_facts(
    invite: Invite, limits: messages.Limits, standing: messages.Standing
) -> dict[str, Any]:
    """An invite and this guest's use of it as plain values; times in seconds since 1970."""
    return {
        "mesh": printable(invite.name, 100),
        "host": invite.peer_id,
        "expires_at": invite.expires_at or None,
        "invite_id": invite.invite_id,
        "limits": messages.as_dict(limits),
        "used": {
            "requests": standing.requests,
            "prompt_tokens": standing.prompt_tokens,
            "completion_tokens": standing.completion_tokens,
        },
        "left": {"requests": standing.requests_left, "tokens": standing.tokens_left},
    }


def path_facts(path: Path | None) -> dict[str, Any]:
    """The way to a host as plain values, with the round trip in milliseconds; None: no way."""
    return {
        "path": None if path is None else path.way,
        "rtt_ms": None if path is None else path.rtt_ms,
    }
