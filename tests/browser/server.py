"""One Jupyter server for the browser tests: JupyterLab at ``/lab``, Notebook 7 at ``/notebooks``.

It has folders, settings and a token of its own and listens on loopback alone. Each notebook gets a
kernel specification of its own, whose only difference is ``QMT_HOME``: two notebooks are then two
people, as on two machines.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import nbformat
from jupyter_client.blocking.client import BlockingKernelClient

from tests.conftest import MODELS

# Neither server nor page may ask the outside for news, and no side panel takes room.
SETTINGS = {
    "@jupyterlab/apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}


@dataclass(frozen=True)
class Document:
    """A notebook file, and whose it is."""

    name: str
    path: Path
    home: Path
    kernel: str
    what: str

    def copy(self, name: str, *, trusted: bool = True) -> Document:
        """The file as it is now under another name; or as if it came from somebody else.

        Jupyter knows what was written here by its content, and trusts no other output.
        """
        saved = nbformat.read(self.path, as_version=4)
        if not trusted:
            saved.cells.append(nbformat.v4.new_markdown_cell("from elsewhere"))
        path = self.path.with_name(f"{self.name}-{name}.ipynb")
        nbformat.write(saved, path)
        return Document(path.stem, path, self.home, self.kernel, name)


class JupyterServer:
    """Starts with the object; :meth:`stop` ends it and every kernel."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.log = root / "server.log"
        self._token = secrets.token_hex(16)
        self._made = 0
        for name in ("config", "data", "runtime", "work"):
            (root / name).mkdir(parents=True)
        for plugin, settings in SETTINGS.items():
            path = root / "config/lab/user-settings" / f"{plugin}.jupyterlab-settings"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(settings), encoding="utf-8")
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                self._command(), env=self._environment(), cwd=root, stdin=subprocess.DEVNULL,
                stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip
        try:
            self.url = self._wait_until_up()
        except BaseException:
            self.stop()
            raise

    def _command(self) -> list[str]:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        # The page's own application object tells when a notebook is ready; nothing on it does.
        exposed = [
            f"--{app}.expose_app_in_browser=True" for app in ("LabApp", "JupyterNotebookApp")
        ]
        return [
            sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root",
            "--ServerApp.ip=127.0.0.1", f"--ServerApp.port={port}", "--ServerApp.port_retries=50",
            f"--ServerApp.root_dir={self.root / 'work'}", "--LabApp.extension_manager=readonly",
            *exposed,
        ]  # fmt: skip

    def _environment(self) -> dict[str, str]:
        ours = {
            "JUPYTER_CONFIG_DIR": str(self.root / "config"),
            "JUPYTER_DATA_DIR": str(self.root / "data"),
            "JUPYTER_RUNTIME_DIR": str(self.root / "runtime"),
            "JUPYTER_TOKEN": self._token,
            "IPYTHONDIR": str(self.root / "ipython"),
            "QMT_MODELS": str(MODELS),
            "QMT_INTERFACES": "127.0.0.1",
            "QMT_DETECT": "off",
        }
        return {**os.environ, **ours}

    def _wait_until_up(self, seconds: float = 90) -> str:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and self._process.poll() is None:
            for info in (self.root / "runtime").glob("jpserver-*.json"):
                try:
                    url = json.loads(info.read_text(encoding="utf-8"))["url"].rstrip("/")
                    self._ask(url, "GET", "/api/status")
                except (OSError, ValueError):
                    continue  # half written, or not listening yet
                return str(url)
            time.sleep(0.05)
        raise RuntimeError(f"Jupyter did not start:\n{self.tail()}")

    def _ask(self, url: str, method: str, path: str) -> bytes:
        asked = urllib.request.Request(f"{url}{path}", method=method)
        asked.add_header("Authorization", f"token {self._token}")
        with urllib.request.urlopen(asked, timeout=30) as answer:
            return bytes(answer.read())

    def address(self, path: str) -> str:
        """Where a browser opens ``path``, with what lets it in."""
        return f"{self.url}{path}?token={self._token}"

    def tail(self, characters: int = 3000) -> str:
        """The end of the server's log."""
        return self.log.read_text(encoding="utf-8", errors="replace")[-characters:]

    def write(self, name: str, *sources: str) -> Document:
        """A new notebook of these code cells, whose kernel has a home of its own."""
        self._made += 1
        what, name = name, f"{name}-{self._made}"
        home = self.root / "homes" / name
        kernel = {
            "argv": [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
            "display_name": name,
            "language": "python",
            "env": {"QMT_HOME": str(home)},
        }
        folder = self.root / "data/kernels" / name
        folder.mkdir(parents=True)
        (folder / "kernel.json").write_text(json.dumps(kernel), encoding="utf-8")
        cells = [nbformat.v4.new_code_cell(source) for source in sources]
        named = {"kernelspec": {"name": name, "display_name": name, "language": "python"}}
        path = self.root / "work" / f"{name}.ipynb"
        nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=named), path)
        return Document(name, path, home, name, what)

    def value(self, document: Document, expression: str) -> str:
        """The repr of an expression in a notebook's kernel, which nothing on the page shows.

        It waits until the kernel's running cell has ended.
        """
        client = BlockingKernelClient()
        (kernel,) = self._kernels(document)
        client.load_connection_file(self.root / f"runtime/kernel-{kernel}.json")
        client.start_channels(hb=False)  # one question needs no heart to be listened to
        try:
            reply = client.execute(
                "", silent=True, user_expressions={"it": expression}, reply=True, timeout=60
            )
        finally:
            client.stop_channels()
        answer = reply["content"]["user_expressions"]["it"]
        assert answer["status"] == "ok", answer
        return str(answer["data"]["text/plain"])

    def end_kernels(self, document: Document) -> None:
        """End the kernels that run for a notebook and its copies."""
        for kernel in self._kernels(document):
            self._ask(self.url, "DELETE", f"/api/kernels/{kernel}")

    def _kernels(self, document: Document) -> list[str]:
        running = json.loads(self._ask(self.url, "GET", "/api/kernels"))
        return [each["id"] for each in running if each["name"] == document.kernel]

    def stop(self) -> None:
        """End the server and its kernels."""
        self._process.terminate()
        try:
            self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
