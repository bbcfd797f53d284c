"""A front end's side of a panel, at the level of messages."""

from __future__ import annotations

import itertools
import queue
import time

VIEW = "application/vnd.jupyter.widget-view+json"


def panels(published: list[dict]) -> list[str]:
    """The ids of the widgets that a cell has displayed."""
    shown = [m["content"]["data"] for m in published if m["msg_type"] == "display_data"]
    return [data[VIEW]["model_id"] for data in shown if VIEW in data]


def states(published: list[dict]) -> dict[str, dict]:
    """What "Save Widget State" would write: each widget's state, with all updates."""
    kept: dict[str, dict] = {}
    for message in published:
        content = message["content"]
        if message["msg_type"] == "comm_open":
            kept[content["comm_id"]] = dict(content["data"]["state"])
        elif message["msg_type"] == "comm_msg" and content["data"]["method"] != "custom":
            kept[content["comm_id"]] |= content["data"].get("state", {})
    return kept


class Front:
    """Shows one panel of a kernel. What the kernel says meanwhile is kept like a cell's."""

    def __init__(self, kernel, comm: str) -> None:
        self.kernel = kernel
        self.comm = comm
        self.views: list[dict] = []
        self.said: list[dict] = []
        self._ids = itertools.count(1)

    def send(self, content, subshell: str | None = None) -> None:
        """Say anything at all to the panel."""
        data = {"comm_id": self.comm, "data": {"method": "custom", "content": content}}
        message = self.kernel.client.session.msg("comm_msg", data)
        if subshell is not None:
            message["header"]["subshell_id"] = subshell
        self.kernel.client.shell_channel.send(message)

    def take(self, timeout: float = 1.0) -> dict | None:
        """One more message of the panel's own, if one comes in time."""
        deadline = time.monotonic() + timeout
        while (left := deadline - time.monotonic()) > 0:
            try:
                message = self.kernel.client.get_iopub_msg(timeout=left)
            except queue.Empty:
                return None
            self.kernel.published.append(message)
            content = message["content"]
            if message["msg_type"] == "comm_msg" and content["comm_id"] == self.comm:
                assert content["data"]["method"] in ("custom", "update", "echo_update"), content
                if content["data"]["method"] == "custom":
                    said = content["data"]["content"]
                    self.said.append(said)
                    if "view" in said:
                        self.views.append(said["view"])
                    return said
        return None

    def ask(
        self, name: str, /, *, subshell: str | None = None, timeout: float = 30, **given
    ) -> dict:
        """The answer to one question."""
        wanted = f"q-{next(self._ids)}"
        self.send({**given, "ask": name, "id": wanted}, subshell)
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            said = self.take(deadline - time.monotonic())
            if said is not None and said.get("answer") == wanted:
                return said
        raise TimeoutError(f"no answer to {name}")

    def watch(self, until=lambda view: True, timeout: float = 30) -> dict:
        """Look at the panel until the view is as wanted, and return it."""
        self.ask("watch", fresh=True)
        deadline = time.monotonic() + timeout
        again = time.monotonic() + 10
        seen = len(self.views)
        while time.monotonic() < deadline:
            for view in self.views[seen:]:
                if until(view):
                    return view
            seen = len(self.views)
            self.take(0.5)
            if time.monotonic() > again:
                again += 10
                self.send({"ask": "watch", "id": next(self._ids)})
        raise AssertionError(f"never seen; last: {self.views[-1:]}")
