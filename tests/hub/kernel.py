"""A kernel of a user's server, spoken to as JupyterLab does: over its WebSocket, through the proxy."""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Callable

import websocket


class CellFailedError(AssertionError):
    """A cell ended with an error; the text is what a user sees."""


class CellRunsOnError(AssertionError):
    """A cell has not ended in the time it had."""


class Cell:
    """One piece of code that runs, or has run."""

    def __init__(self) -> None:
        self.error = ""
        self._parts: list[str] = []
        self._displays: dict[str, int] = {}
        self._over = threading.Event()

    @property
    def text(self) -> str:
        """All that stands below the cell by now, as plain text."""
        return "".join(self._parts)

    @property
    def is_over(self) -> bool:
        return self._over.is_set()

    def wait(self, seconds: float = 60) -> str:
        """The whole text; :class:`CellFailedError` where the cell fails."""
        if not self._over.wait(seconds):
            raise CellRunsOnError(f"still running after {seconds} s, so far:\n{self.text}")
        if self.error:
            raise CellFailedError(f"{self.text}\n{self.error}")
        return self.text

    def finish(self, seconds: float = 30) -> str:
        """The whole text, however the cell ends."""
        if not self._over.wait(seconds):
            raise CellRunsOnError(f"still running after {seconds} s")
        return self.text

    def wait_for(self, words: str, seconds: float = 30) -> str:
        """The text by the time that ``words`` stand in it, or in the error."""
        deadline = time.monotonic() + seconds
        while words not in self.text + self.error:
            if time.monotonic() > deadline or self.is_over:
                raise CellFailedError(f"never said {words!r}:\n{self.text}\n{self.error}")
            time.sleep(0.02)
        return self.text

    def hear(self, kind: str, content: dict) -> None:
        if kind == "stream":
            self._parts.append(content["text"])
        elif kind in ("execute_result", "display_data", "update_display_data"):
            self._show(content)
        elif kind == "error":
            self.error = "\n".join(content["traceback"]) or content["evalue"]
        elif kind == "execute_reply" and content["status"] != "ok" and not self.error:
            self.error = content.get("evalue") or content["status"]
        elif kind == "status" and content["execution_state"] == "idle":
            self._over.set()

    def lose(self, why: str) -> None:
        if not self.is_over:
            self.error = self.error or why
            self._over.set()

    def _show(self, content: dict) -> None:
        text = content["data"].get("text/plain", "")
        name = (content.get("transient") or {}).get("display_id")
        if name in self._displays:
            self._parts[self._displays[name]] = text
            return
        if name:
            self._displays[name] = len(self._parts)
        self._parts.append(text)


class Kernel:
    """Reads in a thread of its own, which ends with :meth:`close`."""

    def __init__(self, url: str, headers: list[str], interrupt: Callable[[], object]) -> None:
        self.interrupt = interrupt
        self._session = uuid.uuid4().hex
        self._cells: dict[str, Cell] = {}
        self._socket = websocket.create_connection(url, header=headers, timeout=30)
        self._socket.settimeout(None)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def begin(self, code: str) -> Cell:
        """Have ``code`` run, and go on here."""
        cell, name = Cell(), uuid.uuid4().hex
        self._cells[name] = cell
        header = {
            "msg_id": name, "msg_type": "execute_request", "username": "", "version": "5.3",
            "session": self._session, "date": "",
        }  # fmt: skip
        content = {
            "code": code, "silent": False, "store_history": True, "user_expressions": {},
            "allow_stdin": False, "stop_on_error": False,
        }  # fmt: skip
        self._socket.send(
            json.dumps(
                {"header": header, "parent_header": {}, "metadata": {}, "content": content,
                 "channel": "shell", "buffers": []}
            )
        )  # fmt: skip
        return cell

    def close(self) -> None:
        self._socket.close()
        self._reader.join(10)

    def _read(self) -> None:
        why = "the kernel's connection ended"
        try:
            while text := self._socket.recv():
                if isinstance(text, bytes):
                    continue  # a message with buffers: a widget's
                message = json.loads(text)
                cell = self._cells.get(message["parent_header"].get("msg_id", ""))
                if cell is not None:
                    cell.hear(message["header"]["msg_type"], message["content"])
        except (OSError, ValueError, websocket.WebSocketException) as error:
            why = f"{why}: {error}"
        for cell in self._cells.values():
            cell.lose(why)
