"""An endpoint's key in a notebook: a card that shows it on demand only.

It travels as a custom message, which no notebook saves; the synced state says only where the
endpoint is.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anywidget
import traitlets

from ..endpoints import Endpoint

_HERE = Path(__file__).parent


class KeyCard(anywidget.AnyWidget):
    """Shows one endpoint's key. ``address`` is the only state that a notebook may save."""

    _esm = (_HERE / "key_card.js").read_text(encoding="utf-8")
    _css = (_HERE / "card.css").read_text(encoding="utf-8")
    address = traitlets.Unicode("").tag(sync=True)

    def __init__(self, endpoint: Endpoint) -> None:
        super().__init__(address=endpoint.base_url)
        self._endpoint = endpoint
        self.on_msg(self._asked)

    def _asked(self, _widget: Any, content: Any, _buffers: Any) -> None:
        """The front end's *Show* button. Answers with a message; nothing is kept or printed."""
        if isinstance(content, dict) and content.get("ask") == "show" and self._endpoint.is_open:
            self.send({"key": self._endpoint.api_key})

    def __repr__(self) -> str:
        return f"<Key card: {self.address}>"
