"""The panel of a host: what it shares, its invites, and who uses them; with everything to do."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from ...errors import NotHosting, OptionInvalid
from ...facade import Limits
from ...words import count, grant_line, reach_line, revoked_line
from .base import Action, Panel, script, style, text_of
from .host_view import host_view, totals
from .invite import CLOSED, shown, standing

if TYPE_CHECKING:
    from ...api import Host
    from ...facade import Invite

_ID = re.compile(r"[0-9a-f-]{36}")
_WHOLE = re.compile(r"[0-9]{1,15}", re.ASCII)


class HostPanel(Panel):
    """One host; displayed as often as one likes, it is the same everywhere."""

    _esm = script("secret", "table", "chart", "grant", "host")
    _css = style("host")

    def __init__(self, host: Host) -> None:
        self._host = host
        self._since = time.time()
        began = datetime.now().strftime("%Y-%m-%d %H:%M")
        self._shared = f"{', '.join(host.models[:5])}{' …' if len(host.models) > 5 else ''}"
        super().__init__(
            f"A host that shared {self._shared}",
            [
                f"It was started from this notebook on {began}.",
                "Invites, guests and usage are shown while it runs; its link is in no file.",
            ],
        )

    @property
    def host(self) -> Host:
        """The host that is shown."""
        return self._host

    @property
    def actions(self) -> Mapping[str, Action]:
        """``show`` an invite, make an ``invite``, ``revoke`` and ``stop``."""
        return {
            "show": self._show,
            "invite": self._new_invite,
            "revoke": self._revoke,
            "stop": self._stop,
        }

    # The view --------------------------------------------------------------------------------

    def view(self) -> dict[str, Any]:
        """Everything that is shown; see :func:`.host_view.host_view`."""
        if not self._host.is_running:
            return self._closed()
        status = self._host.status()
        seen = host_view(
            self._host.usage(),
            self._host.activity(),
            since=self._since,
            now=time.time(),
            linked={each.invite_id for each in self._host.invites},
        )
        return {
            **seen,
            "title": f"Sharing {self._shared} on {status['device']}, {status['slots']} at a time.",
            "reach": reach_line(status),
            "name": self._host.invite.name,
        }

    def _closed(self) -> dict[str, Any]:
        """What was used; nobody is here any more, and nothing can be done."""
        usage = self._host.usage()
        guests, requests, prompt, completion = totals(usage)
        used = f"{count(guests, 'guest')} made {count(requests, 'request')}"
        total = f"{used} with {prompt} tokens in and {completion} out."
        title = f"This host has stopped. It shared {self._shared}."
        if self.frozen["title"] != title:
            self.freeze(title, [total])
        seen = host_view(usage, _NOTHING, since=self._since, now=time.time(), linked=())
        kept = {name: seen[name] for name in ("guests", "earlier", "more")}
        return {"state": CLOSED, "title": title, "total": total, **kept}

    # Actions ---------------------------------------------------------------------------------

    def _show(self, given: Mapping[str, Any]) -> dict[str, Any]:
        wanted = text_of(given, "invite")
        invite = next((e for e in self._host.invites if e.invite_id == wanted), None)
        if invite is None:
            raise OptionInvalid(
                "This notebook has no link of that invite.", next_step="Make a new invite."
            )
        return shown(invite, self._state(invite))

    def _state(self, invite: Invite) -> str:
        reports = self._host.usage()["invites"]
        found = [each for each in reports if each["invite_id"] == invite.invite_id]
        if not self._host.is_running or not found:
            return CLOSED
        return standing(found[0], time.time())

    def _new_invite(self, given: Mapping[str, Any]) -> dict[str, Any]:
        self._require_running()
        made = self._host.new_invite(
            name=text_of(given, "name") or None,
            uses=_required(given, "uses", "a number of guests"),
            ttl=text_of(given, "ttl"),
            limits=Limits(
                tokens=_whole(given, "tokens", "a number of tokens"),
                concurrent=_whole(given, "concurrent", "a number of requests"),
                requests_per_minute=_whole(given, "requests_per_minute", "a number of requests"),
                per_guest=given.get("per_guest") is True,
            ),
        )
        return {"id": made.invite_id, "said": grant_line(made)}

    def _revoke(self, given: Mapping[str, Any]) -> dict[str, Any]:
        self._require_running()
        which = text_of(given, "which")
        if not _ID.fullmatch(which):
            raise OptionInvalid("That is no id of an invite or a guest.")
        return {"said": revoked_line(self._host.revoke(which))}

    def _stop(self, _given: Mapping[str, Any]) -> dict[str, Any]:
        self._host.close()
        return {"said": "Stopped hosting."}

    def _require_running(self) -> None:
        if not self._host.is_running:
            raise NotHosting("This host has stopped.")


_NOTHING: dict[str, Any] = {
    "models": [],
    "guests": {},
    "own": {"tokens_per_second": 0.0},
    "tokens": {"every": 5, "series": []},
}


def _whole(given: Mapping[str, Any], name: str, what: str) -> int | None:
    """A whole number that was typed, or None where nothing was."""
    text = text_of(given, name)
    if not text:
        return None
    if not _WHOLE.fullmatch(text):
        raise OptionInvalid(
            f"{text[:40]!r} is not {what}.", next_step="Give a whole number, such as 5."
        )
    return int(text)


def _required(given: Mapping[str, Any], name: str, what: str) -> int:
    """The same where leaving it out must not mean that there is no limit."""
    number = _whole(given, name, what)
    if number is None:
        raise OptionInvalid(
            f"There is no {what[2:]}.", next_step="Give 1 or more; 0 is any number."
        )
    return number
