"""What the host's panel shows, from what the host says of itself. Pure.

What guests call themselves, and what models are called, comes from elsewhere: bounded, made
printable, and shown as text alone.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from ...harmless import printable
from ...identity.peer_id import short
from ...tables import limits_phrase
from .invite import EXPIRED, OPEN, REVOKED, standing

MOST_INVITES = 50
MOST_GUESTS = 200
_MOST_MODELS = 40

ENDED = "ended"
ANSWERING, WAITING, CONNECTED, AWAY = "answering", "waiting", "connected", "away"
_OVER = (REVOKED, EXPIRED)
_NOT_HERE = {AWAY: 1, REVOKED: 2, ENDED: 2}
_IDLE: dict[str, Any] = {"connections": 0, "running": 0, "waiting": 0, "tokens_per_second": 0.0}


def host_view(
    usage: Mapping[str, Any],
    activity: Mapping[str, Any],
    *,
    since: float,
    now: float,
    linked: Collection[str],
) -> dict[str, Any]:
    """Models, invites, guests and tokens over time, as plain values.

    ``linked`` are the invites whose link can be shown. Invites that ended, and guests whose
    membership ended, before ``since`` are only counted (``earlier``), and so is what goes beyond
    :data:`MOST_INVITES` and :data:`MOST_GUESTS` (``more``). Times are in seconds since 1970.
    """
    invites, guests = [], []
    earlier = {"invites": 0, "guests": 0}
    for report in usage["invites"]:
        invite = _invite(report, activity["guests"], now, report["invite_id"] in linked)
        if _ended(report, now) is not None and (_ended(report, now) or 0) < since:
            earlier["invites"] += 1
        else:
            invites.append(invite)
    for report, user in [
        *((report, "") for report in usage["invites"]),
        *((seat, each["user"]) for each in usage["users"] for seat in each["seats"]),
    ]:
        for each in report["guests"]:
            doing = activity["guests"].get(each["membership"], _IDLE)
            guest = _guest(each, report, doing, now, user)
            if guest["state"] in (REVOKED, ENDED) and each["last_seen"] < since:
                earlier["guests"] += 1
            else:
                guests.append(guest)
    # Newest first, and who is here before who is not: what is cut off is what matters least.
    invites.reverse()
    invites.sort(key=lambda each: each["state"] in _OVER)
    openest = sorted(invites, key=lambda each: (each["state"] in _OVER, each["state"] != OPEN))
    kept = {each["id"] for each in openest[:MOST_INVITES]}
    guests.sort(key=lambda each: (_NOT_HERE.get(each["state"], 0), -each["seen"]))
    own = usage["own"]
    return {
        "state": "hosting",
        "since": since,
        "models": [
            {**model, "name": printable(model["name"], 80)}
            for model in activity["models"][:_MOST_MODELS]
        ],
        "invites": [each for each in invites if each["id"] in kept],
        "guests": guests[:MOST_GUESTS],
        "earlier": earlier,
        "more": {
            "models": max(0, len(activity["models"]) - _MOST_MODELS),
            "invites": max(0, len(invites) - MOST_INVITES),
            "guests": max(0, len(guests) - MOST_GUESTS),
        },
        "own": {
            "requests": own["requests"],
            "in": own["prompt_tokens"],
            "out": own["completion_tokens"],
            "speed": activity["own"]["tokens_per_second"],
        },
        "chart": activity["tokens"],
    }


def _ended(report: Mapping[str, Any], now: float) -> float | None:
    """When an invite ended, if it has; one that is used up has not, for its guests."""
    expired = report["expires_at"]
    ends = [report["revoked_at"], expired if expired is not None and now > expired else None]
    return min((each for each in ends if each is not None), default=None)


def _invite(
    report: Mapping[str, Any], activity: Mapping[str, Any], now: float, linked: bool
) -> dict[str, Any]:
    here = sum(
        1 for each in report["guests"] if activity.get(each["membership"], _IDLE)["connections"]
    )
    return {
        "id": report["invite_id"],
        "name": printable(report["name"], 60),
        "uses": report["uses"],
        "most": report["max_uses"],
        "here": here,
        "ends": report["expires_at"],
        "state": standing(report, now),
        "limits": limits_phrase(report["limits"]),
        "left": report["left"],
        "linked": linked,
    }


def _guest(
    report: Mapping[str, Any],
    invite: Mapping[str, Any],
    doing: Mapping[str, Any],
    now: float,
    user: str,
) -> dict[str, Any]:
    return {
        "id": report["membership"],
        "who": short(report["peer_id"]),
        "claim": printable(report["claimed_name"], 64),
        "invite": f"seat of {printable(user, 40)}" if user else printable(invite["name"], 60),
        "state": _state(report, invite, doing, now),
        "requests": report["requests"],
        "in": report["prompt_tokens"],
        "out": report["completion_tokens"],
        "speed": doing["tokens_per_second"],
        "seen": report["last_seen"],
        "left": report["left"],
        "shared": not invite["limits"].get("per_guest", False),
    }


def _state(
    report: Mapping[str, Any], invite: Mapping[str, Any], doing: Mapping[str, Any], now: float
) -> str:
    if report["revoked_at"] is not None or invite["revoked_at"] is not None:
        return REVOKED
    if invite["expires_at"] is not None and now > invite["expires_at"]:
        return ENDED
    if doing["running"]:
        return ANSWERING
    if doing["waiting"]:
        return WAITING
    return CONNECTED if doing["connections"] else AWAY


def totals(usage: Mapping[str, Any]) -> tuple[int, int, int, int]:
    """Guests, requests, prompt tokens and answer tokens of all guests together."""
    invites, users = usage["invites"], usage["users"]
    return (
        sum(each["uses"] for each in invites) + len(users),
        *(
            sum(each[key] for each in (*invites, *users))
            for key in ("requests", "prompt_tokens", "completion_tokens")
        ),
    )
