"""One invite in a notebook: its terms, and its link and QR code on demand only."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ...errors import NotHosting
from ...words import grant_line
from .base import Action, Panel, script

if TYPE_CHECKING:
    from ...api import Host
    from ...facade import Invite

OPEN, USED_UP, REVOKED, EXPIRED, CLOSED = "open", "used up", "revoked", "expired", "closed"


def standing(report: Mapping[str, Any], now: float) -> str:
    """Whether an invite of a usage report still admits somebody at ``now``, or why not."""
    if report["revoked_at"] is not None:
        return REVOKED
    if report["expires_at"] is not None and now > report["expires_at"]:
        return EXPIRED
    if report["max_uses"] and report["uses"] >= report["max_uses"]:
        return USED_UP
    return OPEN


class InvitePanel(Panel):
    """Shows one invite of a host."""

    _esm = script("secret", "invite")

    def __init__(self, host: Host, invite: Invite) -> None:
        self._host = host
        self._invite = invite
        super().__init__(grant_line(invite), ["Its link is shown in the running notebook only."])

    @property
    def actions(self) -> Mapping[str, Action]:
        """``show`` gives the link and its QR code."""
        return {"show": self._show}

    def view(self) -> dict[str, Any]:
        """The terms, how often it was used, and whether it still admits somebody."""
        return {
            "terms": self.frozen["title"],
            "state": self._state(),
            "uses": self._uses(),
            "ends": self._invite.expires_at,
        }

    def _report(self) -> Mapping[str, Any] | None:
        invites = self._host.usage()["invites"]
        return next((e for e in invites if e["invite_id"] == self._invite.invite_id), None)

    def _uses(self) -> int:
        report = self._report()
        return 0 if report is None else int(report["uses"])

    def _state(self) -> str:
        report = self._report()
        if not self._host.is_running or report is None:
            return CLOSED
        return standing(report, time.time())

    def _show(self, _given: Mapping[str, Any]) -> dict[str, Any]:
        return shown(self._invite, self._state())


def shown(invite: Invite, state: str) -> dict[str, Any]:
    """What *Show* is answered. Raises where the invite admits nobody any more."""
    if state == CLOSED:
        raise NotHosting("This host has stopped.")
    if state != OPEN:
        raise NotHosting(f"This invite is {state}.", next_step="Make a new one.")
    return {"secret": invite.url, "svg": invite.svg(), "ends": invite.expires_at}
