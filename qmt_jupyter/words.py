"""The sentences that the command line and the magics print alike."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from .errors import printable
from .identity.lifetime import describe
from .identity.peer_id import short
from .tables import models_table, table, usage_table

if TYPE_CHECKING:
    from .api import Host, Mesh
    from .facade import Invite

READS_PROMPTS = "As host you can read the prompts of your guests; they are told so."


def grant_line(invite: Invite) -> str:
    """What an invite grants, without the invite."""
    uses = (
        "any number of guests"
        if not invite.max_uses
        else ("1 guest" if invite.max_uses == 1 else f"{invite.max_uses} guests")
    )
    ends = invite.expires_at
    left = "without end" if ends is None else f"for {describe(ends - time.time())}"
    return f"Invite {invite.invite_id[:8]} to {printable(invite.name, 60)}: {uses}, {left}."


def reach_line(status: dict[str, Any]) -> str:
    """Where a host can be reached."""
    lan = status["lan"]
    found = (
        "found by the link alone on the local network"
        if lan in ("announced", "starting")
        else f"not announced on the local network ({lan})"
    )
    return f"Reachable at {', '.join(status['addresses'])}; {found}."


def host_lines(host: Host) -> list[str]:
    """What runs, where, and what the person who hosts should know."""
    status = host.status()
    return [
        f"Sharing {', '.join(host.models)} on {status['device']}, {status['slots']} at a time.",
        *host.notices,
        reach_line(status),
        READS_PROMPTS,
    ]


def joined_lines(mesh: Mesh) -> list[str]:
    """Which mesh, which models, and who can read what is asked."""
    status = mesh.status()[0]
    models = ", ".join(printable(name, 80) for name in status["models"])
    return [
        f"Joined {status['mesh']} ({status['path']}, host {short(status['host'])}): {models}.",
        "The host can read your prompts. Ask with %%chat.",
    ]


def models_text(host: Host | None, meshes: list[Mesh]) -> str:
    """Every model that ``%%chat`` can ask."""
    offered: list[dict[str, Any]] = []
    if host is not None:
        here = {"context": None, "mesh": "this kernel", "host": host.peer_id}
        offered += [{"name": name, **here} for name in host.models]
    offered += [each for mesh in meshes for each in mesh.models]
    return models_table(offered)


def status_text(host: Host | None, meshes: list[Mesh]) -> str:
    """What this kernel hosts and what it has joined."""
    parts = []
    if host is not None:
        status = host.status()
        parts.append(
            f"Hosting {', '.join(status['models'])}: {status['guests']} guests connected, "
            f"{status['waiting']} requests waiting.\n{reach_line(status)}"
        )
        parts.append(usage_table(host.usage()))
    rows = [
        (
            each["mesh"],
            short(each["host"]),
            "yes" if each["connected"] else "no",
            each["path"] or "",
            "" if each["rtt_ms"] is None else f"{each['rtt_ms']:.0f} ms",
            each["running"],
        )
        for mesh in meshes
        for each in mesh.status()
    ]
    if rows:
        heads = ("mesh", "host", "connected", "path", "round trip", "running")
        parts.append(table(heads, rows))
    return "\n\n".join(parts) or "Neither hosting nor joined: run %qmt_host or %qmt_join."
