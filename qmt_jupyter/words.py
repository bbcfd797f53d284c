"""The sentences that the command line and the magics print alike."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from .harmless import printable
from .identity.lifetime import describe
from .identity.peer_id import short
from .tables import limits_phrase, models_table, round_trip, table, usage_table

if TYPE_CHECKING:
    from .api import Answer, Host, Mesh
    from .facade import Invite

READS_PROMPTS = "As host you can read the prompts of your guests; they are told so."


def called_in(status: dict[str, Any]) -> str:
    """What a joined host is called: its mesh, and the end of its peer id."""
    return f"{printable(status['mesh'], 60)} ({short(status['host'])})"


def count(number: int, what: str) -> str:
    """``1 request``, ``2 requests``."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def grant_line(invite: Invite) -> str:
    """What an invite grants, without the invite."""
    uses = "any number of guests" if not invite.max_uses else count(invite.max_uses, "guest")
    ends = invite.expires_at
    left = "without end" if ends is None else f"for {describe(ends - time.time())}"
    limits = limits_phrase(invite.limits.as_dict())
    terms = ", ".join(each for each in (uses, left, limits) if each)
    return f"Invite {invite.invite_id[:8]} to {printable(invite.name, 60)}: {terms}."


def reach_line(status: dict[str, Any]) -> str:
    """Where a host can be reached."""
    lan = status["lan"]
    found = (
        "found by the link alone on the local network"
        if lan in ("announced", "starting")
        else f"not announced on the local network ({lan})"
    )
    at = ", ".join(status["addresses"]) or "no address now"
    known = status["dht"]["nodes"]
    beyond = f" Beyond it the token finds the host through the DHT ({count(known, 'node')} known)."
    dht = beyond if known else ""
    return f"Reachable at {at}; {found}.{dht} {_relay_sentence(status['relay'])}"


def _relay_sentence(relay: dict[str, Any] | None) -> str:
    if relay is None:
        return "For guests on other networks add --relay URL (a relay of yours) or --relay public."
    url = relay["url"] or "a public relay"
    if relay["connected"]:
        return f"Guests on other networks come through {url}; it cannot read what passes."
    return f"The relay {url} has not answered yet; until it does, it brings no guests."


def host_lines(host: Host) -> list[str]:
    """What runs, where, and what the person who hosts should know."""
    status = host.status()
    return [
        f"Sharing {', '.join(host.models)} on {status['device']}, {status['slots']} at a time.",
        *host.notices,
        reach_line(status),
        READS_PROMPTS,
    ]


def joined_lines(mesh: Mesh, host: str) -> list[str]:
    """Of the host that was joined: which mesh, which models, and who can read what is asked."""
    statuses = mesh.status()
    status = next(each for each in statuses if each["host"] == host)
    models = ", ".join(printable(name, 80) for name in status["models"])
    limits = limits_phrase(status["limits"])
    seat = status["seat"]
    return [
        f"Joined {status['mesh']} ({status['path']}, host {short(status['host'])}): {models}.",
        *([f"Your seat as {seat['user']} is renewed until you leave."] if seat else []),
        *([f"The {'seat' if seat else 'invite'} allows {limits}."] if limits else []),
        *_several_lines(len(statuses)),
        "The host can read your prompts. Ask with %%chat.",
    ]


def _several_lines(hosts: int) -> list[str]:
    if hosts < 2:
        return []
    return [
        f"With {hosts} hosts joined, %%chat asks the least loaded that has the model, or the next "
        "where that one cannot; --host NAME asks one alone."
    ]


def rerouted_phrase(answer: Answer) -> str:
    """Who was asked before and could not, and who is asked now; empty where nobody was."""
    if not answer.passed:
        return ""
    last = answer.passed[-1]
    why = last.code.replace("-", " ")
    now = "" if answer.host is None else f"; asking {short(answer.host)}"
    return f"{short(last.host_id)} could not ({why}){now}"


def revoked_line(done: dict[str, Any]) -> str:
    """What a revocation did."""
    if done["kind"] == "guest":
        return f"Revoked guest {done['id'][:8]}. What it was asking has ended; it cannot come back."
    return (
        f"Revoked invite {done['id'][:8]}, which {count(done['guests'], 'guest')} had used. What "
        "they were asking has ended; they cannot come back."
    )


def _standing_line(status: dict[str, Any], now: float) -> str:
    """What a guest has used of an invite, what is left, and where its requests wait."""
    used, left = status["used"], status["left"]
    said = [
        f"{printable(status['mesh'], 60)}: you have made {count(used['requests'], 'request')} with "
        f"{used['prompt_tokens']} tokens in and {used['completion_tokens']} out"
    ]
    said += [
        f"{left[key]} {key} are left" for key in ("requests", "tokens") if left[key] is not None
    ]
    ends = status["expires_at"]
    if status["seat"]:
        said.append("renewed while the JupyterHub lets you")
    else:
        said.append("without end" if ends is None else f"ends in {describe(ends - now)}")
    if status["waiting"]:
        before = ", ".join(str(each) for each in status["waiting"])
        said.append(f"waiting, {before} before you")
    return "; ".join(said) + "."


def models_text(host: Host | None, mesh: Mesh | None) -> str:
    """Every model that ``%%chat`` can ask."""
    offered: list[dict[str, Any]] = []
    if host is not None:
        status = host.status()
        here = {"context": None, "mesh": "this kernel", "host": host.peer_id, "rtt_ms": None}
        load = {"busy": status["busy"], "slots": status["slots"]}
        offered += [{"name": name, **here, **load} for name in host.models]
    offered += mesh.models if mesh is not None else []
    return models_table(offered)


def status_text(host: Host | None, mesh: Mesh | None) -> str:
    """What this kernel hosts and what it has joined."""
    parts = []
    if host is not None:
        status = host.status()
        parts.append(
            f"Hosting {', '.join(status['models'])}: {count(status['guests'], 'guest')} "
            f"connected, {count(status['waiting'], 'request')} waiting.\n{reach_line(status)}"
        )
        parts.append(usage_table(host.usage()))
    joined = mesh.status() if mesh is not None else []
    rows = [
        (
            each["mesh"],
            short(each["host"]),
            "yes" if each["connected"] else "coming back" if each["returning"] else "no",
            each["path"] or "",
            round_trip(each["rtt_ms"]),
            "" if each["load"] is None else f"{each['load']:.0%}",
            each["running"],
        )
        for each in joined
    ]
    if rows:
        heads = ("mesh", "host", "connected", "path", "round trip", "load", "running")
        parts.append(table(heads, rows))
        parts += [f"{called_in(each)}: {each['problem']}" for each in joined if each["problem"]]
        parts.append("\n".join(_standing_line(each, time.time()) for each in joined))
    return "\n\n".join(parts) or "Neither hosting nor joined: run %qmt_host or %qmt_join."
