"""An endpoint's key in a notebook: shown on demand, for a minute, and in no file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ...errors import NotHosting
from .base import Action, Panel, script

if TYPE_CHECKING:
    from ...endpoints import Endpoint


class KeyPanel(Panel):
    """Shows where one endpoint is, and its key to who asks."""

    _esm = script("secret", "key")

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        super().__init__(
            "An OpenAI endpoint for other tools",
            ["Its address and its key are shown in the running notebook only."],
        )

    @property
    def actions(self) -> Mapping[str, Action]:
        """``show`` gives the key."""
        return {"show": self._show}

    def view(self) -> dict[str, Any]:
        """Where it is, and whether it is open."""
        return {"address": self._endpoint.base_url, "open": self._endpoint.is_open}

    def _show(self, _given: Mapping[str, Any]) -> dict[str, Any]:
        if not self._endpoint.is_open:
            raise NotHosting("This endpoint is closed.", next_step="%qmt_serve opens another.")
        return {"secret": self._endpoint.api_key}
