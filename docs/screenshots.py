"""Takes the pictures in ``docs/images`` from the real thing: ``make screenshots``.

JupyterLab runs in a temporary folder, a host and its guests have homes of their own there, and the
small model answers. All traffic stays on loopback. What a picture shows can be used by nobody:
links stay hidden, and the identities are gone with the folder.
"""

from __future__ import annotations

import argparse
import io
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from playwright.sync_api import Locator, expect

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from tests.browser.chromium import Window, chromium  # noqa: E402
from tests.browser.notebook_page import NotebookPage  # noqa: E402
from tests.browser.server import Document, JupyterServer  # noqa: E402
from tests.conftest import MODELS  # noqa: E402

IMAGES = HERE / "images"
LARGEST = 150_000  # bytes of one picture
COLOURS = 96  # of one picture; text and boxes need no more
WIDE, NARROW = {"width": 1180, "height": 1200}, {"width": 560, "height": 1600}
LIGHT, DARK = "JupyterLab Light", "JupyterLab Dark"

LINK = "link.txt"
LOAD = "%load_ext qmt_jupyter"
HOST = '%qmt_host --model smollm2 --name "Team GPU" --uses 5 --ttl 7d --tokens 20000 --per-guest'
# The host hands the link over as a person would, but for the picture.
HAND_OVER = f"""from pathlib import Path
from qmt_jupyter.notebook.state import STATE
_ = Path("{LINK}").write_text(STATE.host.invite.url)"""
JOIN = f"%qmt_join --file {LINK} --name Ada"
SHORT = "%%chat --max-tokens 60 --temperature 0\nWhy is the sky blue?"
LONG = (
    "%%chat --new --max-tokens 300 --temperature 0\n"
    "Write a Python function that counts the words of a text, then explain it step by step."
)
# What the other guests ask, so that the host has something to show.
OTHERS = (("Grace", "Name three prime numbers."), ("Alan", "What is a Turing machine?"))
PATIENCE_MS = 180_000


@dataclass
class Studio:
    """A server and a browser, and where the pictures go."""

    server: JupyterServer
    window: Window
    folder: Path

    def open(self, document: Document, theme: str = LIGHT) -> NotebookPage:
        """A notebook in a page of its own, with nothing around it that takes room."""
        page = NotebookPage(self.window.context.new_page(), self.server, document, "lab")
        page.command("apputils:change-theme", theme=theme)
        page.command("application:set-mode", mode="single-document")
        page.page.evaluate("jupyterapp.shell.collapseLeft(); jupyterapp.shell.collapseRight()")
        return page

    def keep(self, name: str, shown: Locator) -> None:
        """Photograph an element, as a small file."""
        # The frame around the current cell is not to reach into the picture.
        shown.page.evaluate("jupyterapp.shell.currentWidget.content.activeCellIndex = 0")
        shown.page.mouse.move(0, 0)
        shown.scroll_into_view_if_needed()
        taken = Image.open(io.BytesIO(shown.screenshot(animations="disabled", caret="hide")))
        few = taken.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
        path = self.folder / f"{name}.png"
        few.save(path, optimize=True)
        size = path.stat().st_size
        print(f"{path.name}: {few.width} x {few.height}, {size / 1000:.0f} kB")
        if size > LARGEST:
            raise SystemExit(f"{path.name} is larger than {LARGEST} bytes.")


def ask_as(name: str, prompt: str, root: Path) -> None:
    """Be another guest, from a terminal."""
    environment = {
        **os.environ,
        "QMT_HOME": str(root / "homes" / name),
        "QMT_MODELS": str(MODELS),
        "QMT_INTERFACES": "127.0.0.1",
    }
    link = str(root / "work" / LINK)
    words = ["chat", "--file", link, "--name", name, "--max-tokens", "40", "--seed", "7", prompt]
    command = [sys.executable, "-m", "qmt_jupyter.cli", *words]
    subprocess.run(
        command, env=environment, check=True, stdout=subprocess.DEVNULL, timeout=PATIENCE_MS / 1000
    )


def shoot(studio: Studio) -> None:
    """Take every picture."""
    expect.set_options(timeout=PATIENCE_MS)
    server = studio.server
    host = studio.open(server.write("host", LOAD, HOST, HAND_OVER))
    host.run(0, 1, 2)
    for name, prompt in OTHERS:
        ask_as(name, prompt, server.root)
    guest = studio.open(server.write("guest", LOAD, JOIN, SHORT, LONG))
    guest.run(0, 1, 2)
    studio.keep("chat-done", guest.cell(2))
    guest.start(3)
    expect(guest.output(3)).to_have_text(re.compile(r".{300}", re.S), timeout=PATIENCE_MS)
    studio.keep("chat-streaming", guest.cell(3))
    guest.interrupt()
    guest.wait_until_done(3)
    guest.page.wait_for_timeout(3000)  # so that the panels have the latest counts
    studio.keep("guest-panel", guest.cell(1))
    host.page.bring_to_front()
    studio.keep("usage", host.output(1).get_by_role("region", name="Guests and what they used"))
    studio.keep("host-panel-light", host.cell(1))
    host.command("apputils:change-theme", theme=DARK)
    host.page.wait_for_timeout(1500)
    studio.keep("host-panel-dark", host.cell(1))
    host.command("apputils:change-theme", theme=LIGHT)
    host.page.set_viewport_size(NARROW)
    host.page.wait_for_timeout(1500)
    studio.keep("narrow", host.cell(1))


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--to", type=Path, default=IMAGES, help="where the pictures go")
    folder: Path = parser.parse_args().to
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="qmt-pictures-") as root, chromium() as browser:
        server = JupyterServer(Path(root))
        try:
            window = Window(browser, viewport=WIDE, device_scale_factor=1.25)
            shoot(Studio(server, window, folder))
        finally:
            server.stop()


if __name__ == "__main__":
    main()
