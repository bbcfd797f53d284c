"""Real kernels with homes of their own, everything on loopback, and an IPython of this process."""

from __future__ import annotations

import os
import queue
import sys
import time
from pathlib import Path

import pytest
from IPython.core.interactiveshell import InteractiveShell
from jupyter_client.manager import KernelManager

import qmt_jupyter as qmt
from qmt_jupyter.notebook.state import STATE
from qmt_jupyter.providers.base import Provider
from tests.conftest import MODELS


class Kernel:
    """A running kernel, driven as a front end does it; every message it publishes is kept."""

    def __init__(self, home: Path) -> None:
        environment = {
            **os.environ,
            "QMT_HOME": str(home),
            "QMT_MODELS": str(MODELS),
            "QMT_INTERFACES": "127.0.0.1",
        }
        self.home = home
        self.published: list[dict] = []
        self.manager = KernelManager(kernel_name="python3")
        self.manager.start_kernel(env=environment)
        self.client = self.manager.client()
        self.client.start_channels(hb=False)  # whether it lives, its manager knows
        self.client.wait_for_ready(timeout=60)

    def start(self, code: str) -> str:
        """Send a cell; returns its id."""
        return self.client.execute(code, allow_stdin=False)

    def messages(self, cell: str, timeout: float = 60):
        """What the cell publishes, as it comes, until it is idle."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            try:
                message = self.client.get_iopub_msg(timeout=1)
            except queue.Empty:
                continue
            self.published.append(message)
            if message["parent_header"].get("msg_id") != cell:
                continue
            if message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
                return
            yield message
        raise TimeoutError(f"the cell did not end: {cell}")

    def run(self, code: str) -> list[dict]:
        """Run a cell to its end and return what it published."""
        published: list[dict] = []
        # For a moment after a cell that failed, the kernel turns away the cells that wait.
        while not any(message["msg_type"] == "execute_input" for message in published):
            published = list(self.messages(self.start(code)))
        return published

    def text(self, code: str) -> str:
        """What a cell prints; fails where the cell does."""
        published = self.run(code)
        assert not errors(published), errors(published)
        return "".join(m["content"]["text"] for m in published if m["msg_type"] == "stream")

    def stop(self) -> None:
        self.client.stop_channels()
        if self.manager.is_alive():
            self.manager.shutdown_kernel(now=True)
        self.manager.cleanup_resources()
        # The client's own, which older versions of jupyter_client leave to the garbage collector.
        self.client.context.destroy(linger=0)


def errors(published: list[dict]) -> list[dict]:
    return [message["content"] for message in published if message["msg_type"] == "error"]


@pytest.fixture
def kernel(tmp_path):
    """Starts kernels by name; each has an empty home. All are ended afterwards."""
    running: list[Kernel] = []

    def start(name: str) -> Kernel:
        running.append(Kernel(tmp_path / name))
        running[-1].text("%load_ext qmt_jupyter")
        return running[-1]

    yield start
    for each in running:
        each.stop()


@pytest.fixture
def shell():
    """A fresh IPython with the extension; what it hosts and joins is closed afterwards."""
    InteractiveShell.clear_instance()
    made = InteractiveShell.instance(
        colors="NoColor" if sys.version_info < (3, 11) else "nocolor", history_load_length=0
    )
    made.history_manager.enabled = False
    made.extension_manager.load_extension("qmt_jupyter")
    yield made
    if STATE.mesh is not None:
        STATE.mesh.leave()
    if STATE.host is not None:
        STATE.host.close()
    STATE.mesh = None
    STATE.forget()
    STATE.started, STATE.host_line = None, ""
    history = made.history_manager
    history.end_session()
    for database in (history, history.shadow_hist if hasattr(history, "shadow_hist") else None):
        if database is not None and getattr(database, "save_thread", None) is not None:
            database.save_thread.stop()
    InteractiveShell.clear_instance()


@pytest.fixture
def hosting(shell):
    """This process hosts a provider."""

    def start(provider: Provider) -> Provider:
        STATE.started = qmt.host(provider, uses=4, name="Team")
        return provider

    return start
