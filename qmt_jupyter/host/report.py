"""What was used and what remains, as plain values: per invite, and per guest within it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from .activity import EVERY
from .limits import COUNTED
from .membership import Granted, Member, Register
from .rows import HOW_ENDED
from .seats import User
from .usage import UsageBook

_SUMMED = ("requests", "running", "prompt_tokens", "completion_tokens")


def usage_report(register: Register, peer_id: str, now: float) -> dict[str, Any]:
    """``{"peer_id", "invites": [{…, "guests": [{…}]}], "users": [{…, "seats": [{…}]}], "own"}``.

    ``left`` holds ``requests`` and ``tokens`` that remain, None where nothing limits them: of the
    invite, or of each guest where the limits are per guest, or of the user for all of its seats.
    ``users`` count all of their seats, ``seats`` are the invites of those that are not long over.
    Times are in seconds since 1970, and so is ``now``.
    """
    return {
        "peer_id": peer_id,
        "invites": [_invite(each, now) for each in register.granted if not each.record.user],
        "users": [
            _user(each, now) for each in register.users if each.granted or each.usage().requests
        ],
        "own": register.owner.as_dict(),
    }


def _user(user: User, now: float) -> dict[str, Any]:
    return {
        "user": user.name,
        **user.usage().as_dict(),
        "left": user.account.left(now),
        "seats": [_invite(granted, now) for granted in user.granted.values()],
    }


def _invite(granted: Granted, now: float) -> dict[str, Any]:
    made, guests = granted.record, [_guest(member, now) for member in granted.members.values()]
    return {
        "invite_id": made.invite_id,
        "name": made.name,
        "made_at": made.made_at,
        "expires_at": made.expires_at or None,
        "revoked_at": made.revoked_at,
        "max_uses": made.max_uses,
        "uses": len(guests),
        "limits": made.limits.as_dict(),
        "left": None if made.limits.per_guest else granted.account.left(now),
        **{key: sum(guest[key] for guest in guests) for key in _SUMMED},
        "last_seen": max((guest["last_seen"] for guest in guests), default=0.0),
        "ended": dict(sum((Counter(guest["ended"]) for guest in guests), Counter())),
        "guests": guests,
    }


def _guest(member: Member, now: float) -> dict[str, Any]:
    return {
        "membership": member.membership.membership_id,
        "peer_id": member.membership.guest_id,
        "claimed_name": member.membership.claimed_name,
        "joined_at": member.membership.joined_at,
        "revoked_at": member.membership.revoked_at,
        **member.usage.as_dict(),
        "left": member.account.left(now),
    }


def activity_report(
    book: UsageBook,
    connections: Mapping[str, int],
    loads: Mapping[str, tuple[int, int]],
    clock: float,
) -> dict[str, Any]:
    """``{"models": […], "guests": {…}, "own": {…}, "tokens": {…}}``.

    ``models`` have their ``slots``, how many requests are ``busy`` (run or wait) and how many of
    these are ``waiting``. ``guests`` holds, by membership, who is connected or has requests:
    ``connections``, ``running``, ``waiting``, and ``tokens_per_second`` of answers over the last
    few seconds; ``own`` the same for the owner. ``tokens`` holds a ``series`` of ``[start, prompt
    tokens, answer tokens]`` for ``every`` so many seconds in which there were any, for the last
    quarter of an hour; ``start`` in seconds since 1970.
    """
    asking = book.running()

    def now_of(asker: str | None) -> dict[str, Any]:
        running, waiting = asking.get(asker, (0, 0))
        return {
            "connections": connections.get(asker, 0) if asker else 0,
            "running": running,
            "waiting": waiting,
            "tokens_per_second": round(book.meter.speed(asker, clock), 1),
        }

    return {
        "models": [
            {"name": name, "slots": slots, "busy": busy, "waiting": max(0, busy - slots)}
            for name, (slots, busy) in loads.items()
        ],
        "guests": {each: now_of(each) for each in {*connections, *asking} if each is not None},
        "own": now_of(None),
        "tokens": {"every": EVERY, "series": book.meter.series()},
    }


def seats_report(
    register: Register,
    book: UsageBook,
    connections: Mapping[str, int],
    now: float,
    clock: float,
) -> list[dict[str, Any]]:
    """The users that have seats, have used tokens this month, or are paused, by name.

    Each with ``user``, ``allowance`` (what is set of it), ``paused``, its ``seats`` that hold
    (``invite_id``, ``guest``, ``expires_at``, ``connections``), ``requests``, ``prompt_tokens`` and
    ``completion_tokens`` of all time, ``tokens_today`` and ``tokens_month`` here, the same
    ``elsewhere`` as ``day`` and ``month``, what is ``left`` of these (None: not limited), requests
    that are ``running`` and ``waiting``, ``tokens_per_second`` of answers over the last few seconds
    and ``last_seen`` (None: never), in seconds since 1970.
    """
    asking, report = book.running(), []
    for user in sorted(register.users, key=lambda each: each.name):
        live, account = user.live(now), user.account
        here, elsewhere = account.used(now), account.elsewhere(now)
        if not (live or account.is_paused or here["month"] or elsewhere["month"]):
            continue
        ids = [
            member.membership.membership_id
            for granted in user.granted.values()
            for member in granted.members.values()
        ]
        usage, asked = user.usage(), [asking.get(each, (0, 0)) for each in ids]
        report.append(
            {
                "user": user.name,
                "allowance": account.allowance.as_dict(),
                "paused": account.is_paused,
                "seats": [_seat(granted, connections) for granted in live],
                "requests": usage.requests,
                "prompt_tokens": usage.prompt_tokens,
                "completion_tokens": usage.completion_tokens,
                "tokens_today": here["day"],
                "tokens_month": here["month"],
                "elsewhere": elsewhere,
                "left": account.rest(now),
                "running": sum(running for running, _ in asked),
                "waiting": sum(waiting for _, waiting in asked),
                "tokens_per_second": round(sum(book.meter.speed(each, clock) for each in ids), 1),
                "last_seen": usage.last_seen or None,
            }
        )
    return report


def _seat(granted: Granted, connections: Mapping[str, int]) -> dict[str, Any]:
    ids = [member.membership.membership_id for member in granted.members.values()]
    return {
        "invite_id": granted.record.invite_id,
        "guest": granted.record.guest,
        "expires_at": granted.record.expires_at,
        "connections": sum(connections.get(each, 0) for each in ids),
    }


def usage_rows(usage: dict[str, Any]) -> list[dict[str, Any]]:
    """A report as one flat row a guest, for a data frame or a CSV file.

    An invite that nobody has used is one row without a guest; a ``user`` with seats is one row
    with all that was used through them. ``ended_*`` count how requests ended.
    """
    rows = []
    for invite in usage["invites"]:
        common = {
            "invite_id": invite["invite_id"],
            "mesh": invite["name"],
            "user": None,
            "expires_at": invite["expires_at"],
            "invite_revoked_at": invite["revoked_at"],
            "uses": invite["uses"],
            "max_uses": invite["max_uses"],
            **{f"limit_{name}": invite["limits"].get(name) for name in COUNTED},
        }
        # Whoever comes first has what the invite has.
        left = invite["left"] or {
            name: invite["limits"].get(name) for name in ("requests", "tokens")
        }
        nobody = {**_NOBODY, "left": left}
        rows += [{**common, **_row(guest)} for guest in invite["guests"] or [nobody]]
    for user in usage["users"]:
        used = {key: value for key, value in user.items() if key not in ("user", "seats")}
        rows.append({**_NO_INVITE, "user": user["user"], **_row({**_NOBODY, **used})})
    return rows


_NO_INVITE: dict[str, Any] = {
    "invite_id": None,
    "mesh": None,
    "user": None,
    "expires_at": None,
    "invite_revoked_at": None,
    "uses": None,
    "max_uses": None,
    **{f"limit_{name}": None for name in COUNTED},
}
_NOBODY: dict[str, Any] = {
    "membership": None,
    "peer_id": None,
    "claimed_name": None,
    "joined_at": None,
    "revoked_at": None,
    "requests": 0,
    "running": 0,
    "prompt_tokens": 0,
    "completion_tokens": 0,
    "last_seen": 0.0,
    "ended": {},
}


def _row(guest: dict[str, Any]) -> dict[str, Any]:
    flat = {key: value for key, value in guest.items() if key not in ("ended", "left")}
    flat["last_seen"] = flat["last_seen"] or None
    flat["requests_left"] = guest["left"]["requests"]
    flat["tokens_left"] = guest["left"]["tokens"]
    flat |= {f"ended_{how}": guest["ended"].get(how, 0) for how in HOW_ENDED}
    return flat
