"""What all panels have in common: what may be saved, the live feed, and actions.

The only state that a notebook can save is :attr:`Panel.frozen`: a title and a few lines of safe
text. All else travels in custom messages, which nothing saves. A front end sends ``{"ask": NAME,
"id": ID, …}`` and gets ``{"answer": ID, …}``, with a ``problem`` where it went wrong. While it
watches (it says so every ten seconds) it gets ``{"view": {…}, "now": T}`` whenever that changed.

What arrives is believed to be nothing: a page is not the person. Nothing here blocks the kernel:
views are made in a thread of their own, and each action runs in one, so that both go on while a
cell runs.
"""

from __future__ import annotations

import logging
import re
import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import anywidget
import traitlets

from ...errors import OptionInvalid, QmtError
from ...harmless import printable
from ..subshells import hear_at_once
from .feed import FEED

_HERE = Path(__file__).parent
_ID = re.compile(r"[A-Za-z0-9-]{1,64}")
_MOST_AT_ONCE = 8
_LONGEST_LINE = 400
_MOST_LINES = 40

# What the front end sent, without ``ask`` and ``id``, to what it is answered.
Action = Callable[[Mapping[str, Any]], "dict[str, Any] | None"]

log = logging.getLogger(__name__)


def script(*names: str) -> str:
    """The module of a panel: the common parts, then its own, in one text.

    The parts are written to be joined: only the last one exports, none imports.
    """
    parts = ("elements", "feed", *names)
    return "\n".join((_HERE / f"{name}.js").read_text(encoding="utf-8") for name in parts)


def style(*names: str) -> str:
    """The style of a panel: the common one, then its own."""
    return "\n".join(
        (_HERE / f"{name}.css").read_text(encoding="utf-8") for name in ("panels", *names)
    )


class Panel(anywidget.AnyWidget):
    """A live view of something in this kernel.

    A subclass has ``_esm = script(…)``, gives :meth:`view` and names its :attr:`actions`.
    """

    _css = style()
    frozen = traitlets.Dict().tag(sync=True)

    def __init__(self, title: str, lines: Sequence[str]) -> None:
        self.panel_id = secrets.token_hex(4)
        self._sent: dict[str, Any] | None = None
        self._acting = threading.Semaphore(_MOST_AT_ONCE)
        super().__init__(frozen=self._calm(title, lines))
        self.on_msg(self._heard)

    def open(self) -> None:
        """Open the comm; from the very next moment on the front end is heard."""
        super().open()
        hear_at_once(self)

    def freeze(self, title: str, lines: Sequence[str]) -> None:
        """Set what a saved notebook shows: never a token, key, address, guest or whole peer id."""
        self.frozen = self._calm(title, lines)

    def _calm(self, title: str, lines: Sequence[str]) -> dict[str, Any]:
        return {
            "id": self.panel_id,
            "title": printable(title, _LONGEST_LINE),
            "lines": [printable(line, _LONGEST_LINE) for line in lines[:_MOST_LINES]],
        }

    # What a panel is made of -----------------------------------------------------------------

    @property
    def actions(self) -> Mapping[str, Action]:
        """What a front end can ask for, by name.

        Each is called in a thread of its own with what was sent, which may be anything, and may
        wait; what it returns is the answer, a :class:`~qmt_jupyter.errors.QmtError` the problem.
        """
        return {}

    def view(self) -> dict[str, Any]:
        """What is shown now, as plain values that JSON has. Cheap; called four times a second.

        It is called in the panels' thread and may ask the facade.
        """
        return {}

    # The feed --------------------------------------------------------------------------------

    def tell(self) -> None:
        """Send the view where it has changed. Called by the feed."""
        try:
            view = self.view()
        except QmtError as error:
            view = {"problem": str(error)}
        except Exception:
            log.debug("a panel's view failed", exc_info=True)
            view = {"problem": "The kernel cannot say what there is to show here."}
        if view != self._sent:
            self._sent = view
            self.send({"view": view, "now": time.time()})

    def close(self) -> None:
        """Take the panel out of every notebook. Safe to call twice."""
        FEED.forget(self)
        super().close()

    def set_state(self, sync_data: Any) -> None:
        """Take no state from a front end: it would be saved, and reach every other page."""

    # Asking ----------------------------------------------------------------------------------

    def _heard(self, _widget: Any, content: Any, _buffers: Any) -> None:
        """A message from a front end. It may come in any thread, and have any shape."""
        if not isinstance(content, dict) or not _is_id(ask_id := content.get("id")):
            return  # there is nobody to answer
        name = content.get("ask")
        if name == "watch":
            if content.get("fresh") is True:
                self._sent = None
            FEED.watch(self)
            self.send({"answer": ask_id, "now": time.time()})
            return
        action = self.actions.get(name) if isinstance(name, str) else None
        if action is None:
            problem = "This panel cannot do that. Reload the page, or run the cell again."
            self.send({"answer": ask_id, "problem": problem})
            return
        if not self._acting.acquire(blocking=False):
            problem = "This panel is busy with what it was asked before. Try again in a moment."
            self.send({"answer": ask_id, "problem": problem})
            return
        given = {key: value for key, value in content.items() if key not in ("ask", "id")}
        threading.Thread(
            target=self._act, args=(action, given, ask_id), name="qmt-panel-action", daemon=True
        ).start()

    def _act(self, action: Action, given: Mapping[str, Any], ask_id: str | int) -> None:
        try:
            answer = action(given) or {}
        except QmtError as error:
            answer = {"problem": str(error)}
        except Exception as error:
            log.debug("a panel's action failed", exc_info=True)
            answer = {"problem": f"That did not work ({type(error).__name__})."}
        finally:
            self._acting.release()
        try:
            self.send({"answer": ask_id, **answer})
        except Exception:  # the kernel ends, or the panel was closed: nobody waits for it
            log.debug("a panel's answer could not be sent", exc_info=True)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.frozen.get('title', '')}>"


def _is_id(given: Any) -> bool:
    if isinstance(given, str):
        return _ID.fullmatch(given) is not None
    return isinstance(given, int) and not isinstance(given, bool) and 0 <= given < 2**53


def text_of(given: Mapping[str, Any], name: str, longest: int = 200) -> str:
    """A text that a front end sent, empty where it sent none.

    Raises :class:`~qmt_jupyter.errors.OptionInvalid` for anything else.
    """
    value = given.get(name, "")
    if not isinstance(value, str) or len(value) > longest:
        raise OptionInvalid(f"The {name.replace('_', ' ')} is not a text of modest length.")
    return value.strip()
