"""The hosts that this kernel has joined: how they are reached, what they offer, what is left."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...errors import NotJoined
from ...harmless import printable
from ...tables import limits_phrase
from ..state import State
from . import frozen
from .base import Action, Panel, script, style, text_of

_MOST_MODELS = 12
_BUDGETS = ("tokens", "requests")


class GuestPanel(Panel):
    """Shows whatever mesh the kernel has joined at the moment; several views show the same."""

    _esm = script("guest")
    _css = style("guest")

    def __init__(self, state: State) -> None:
        self._state = state
        super().__init__(*_calm(state))

    @property
    def actions(self) -> Mapping[str, Action]:
        """``leave`` leaves one ``host``, named by its peer id, ``leave_all`` every one."""
        return {"leave": self._leave, "leave_all": self._leave_all}

    def view(self) -> dict[str, Any]:
        """The hosts in the order they were joined; see :func:`_host`."""
        mesh = self._state.mesh
        if mesh is None:
            return {"hosts": []}
        statuses, models = mesh.status(), mesh.models
        return {"hosts": [_host(each, models) for each in statuses]}

    def _leave(self, given: Mapping[str, Any]) -> None:
        host = text_of(given, "host")
        mesh = self._state.mesh
        joined = [] if mesh is None else [each["host"] for each in mesh.status()]
        # Only a whole peer id: what else would do is for people, and may mean another by now.
        if host not in joined:
            raise NotJoined("This host has been left already.")
        self._state.leave(host)

    def _leave_all(self, _given: Mapping[str, Any]) -> None:
        self._state.leave()


def show(state: State) -> None:
    """Display the kernel's guest panel once more; it is one, however often it is shown."""
    panel = state.guest_panel
    if panel is None or panel.comm is None:  # closed, by `Widget.close_all` or the like
        panel = state.guest_panel = GuestPanel(state)
    else:
        panel.freeze(*_calm(state))
    frozen.show(panel)


def _calm(state: State) -> tuple[str, list[str]]:
    joined = [] if state.mesh is None else state.mesh.status()
    names = ", ".join(printable(each["mesh"], 60) for each in joined)
    return (
        f"Joined {names}" if names else "No host was joined",
        ["The connection lasts as long as the kernel; %qmt_join joins again."],
    )


def _host(status: Mapping[str, Any], models: list[dict[str, Any]]) -> dict[str, Any]:
    """One host as the panel shows it. What it says of itself is bounded and made printable."""
    offered = [each for each in models if each["host"] == status["host"]]
    limits = status["limits"]
    return {
        "id": status["host"],
        "mesh": printable(status["mesh"], 60),
        "state": _state(status),
        "path": status["path"],
        "rtt_ms": _rounded(status["rtt_ms"]),
        "problem": printable(status["problem"]) if status["problem"] else None,
        "models": [
            {
                "name": printable(each["name"], 80),
                "context": each["context"],
                "busy": each["busy"],
                "slots": each["slots"],
                "embeds": each["embeds"] and not each["chats"],
            }
            for each in offered[:_MOST_MODELS]
        ],
        "more_models": max(0, len(offered) - _MOST_MODELS),
        "used": status["used"],
        "budgets": [
            {"what": each, "left": status["left"][each], "of": limits[each]}
            for each in _BUDGETS
            if status["left"][each] is not None and limits[each] is not None
        ],
        "shared": not limits["per_guest"],
        "also": limits_phrase(
            {k: v for k, v in limits.items() if k not in (*_BUDGETS, "per_guest")}
        ),
        "ends": status["expires_at"],
        "renewed": status["seat"] is not None,
        "running": status["running"],
        "waiting": status["waiting"],
    }


def _state(status: Mapping[str, Any]) -> str:
    if status["connected"]:
        return "connected"
    return "returning" if status["returning"] else "away"


def _rounded(milliseconds: float | None) -> float | None:
    """Two digits: a round trip that trembles is no news."""
    return None if milliseconds is None else float(f"{milliseconds:.2g}")
