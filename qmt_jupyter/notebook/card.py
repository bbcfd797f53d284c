"""The invite in a notebook: a card that shows the QR code and the link on demand only.

Both travel as custom messages, which no notebook saves; the widget's synced traits, which "Save
Widget State" writes into the file, hold nothing but what the invite is called and when it ends.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anywidget
import traitlets

from ..facade import Invite
from ..words import grant_line

_HERE = Path(__file__).parent


class InviteCard(anywidget.AnyWidget):
    """Shows one invite. ``terms`` is the only state that a notebook may save."""

    _esm = (_HERE / "card.js").read_text(encoding="utf-8")
    _css = (_HERE / "card.css").read_text(encoding="utf-8")
    terms = traitlets.Unicode("").tag(sync=True)

    def __init__(self, invite: Invite) -> None:
        super().__init__(terms=grant_line(invite))
        self._invite = invite
        self.on_msg(self._asked)

    def _asked(self, _widget: Any, content: Any, _buffers: Any) -> None:
        """The front end's *Show* button. Answers with a message; nothing is kept or printed."""
        if isinstance(content, dict) and content.get("ask") == "show":
            self.send({"svg": self._invite.svg(), "link": self._invite.url})

    def __repr__(self) -> str:
        return f"<Invite card: {self.terms}>"
