"""Takes the pictures in ``docs/images`` from the real thing: ``make screenshots``.

JupyterLab and a JupyterHub run in a temporary folder, a host and its guests have homes of their own
there, and the small model answers. All traffic stays on loopback. What a picture shows can be used
by nobody: links stay hidden, and the identities are gone with the folder. The week that the page of
the Hub's service looks back on is made up: what was asked today, written into its records again.
"""

from __future__ import annotations

import argparse
import io
import os
import re
import sqlite3
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Browser, Locator, expect

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from tests.browser.chromium import Window, chromium  # noqa: E402
from tests.browser.notebook_page import NotebookPage  # noqa: E402
from tests.browser.server import Document, JupyterServer  # noqa: E402
from tests.conftest import MODELS  # noqa: E402
from tests.hub.hub import Hub, Service  # noqa: E402
from tests.hub.visitors import Guest, Visitor  # noqa: E402

IMAGES = HERE / "images"
LARGEST = 150_000  # bytes of one picture
LARGEST_OF_HUB = 80_000
COLOURS_OF_HUB = 256  # its small words in red and green are the first to turn grey
COLOURS = 96  # of one picture; text and boxes need no more
MARGIN = 16  # pixels around a part of a page
PAGE = {"width": 1080, "height": 900}
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

# The class that the page of a Hub's service shows.
STUDENTS = ("ada", "alan", "barbara", "edsger", "grace")
TEACHER = "mary"
POLICY = """
zone = "Europe/Berlin"
[everybody]
tokens_per_day = 4000
tokens_per_month = 60_000
[groups.staff]
priority = 4
tokens_per_day = 0
"""
# Hours back, and how many times what was asked today was asked then.
PAST = [(24 * day + hour, (day * hour) % 7) for day in range(1, 7) for hour in range(2, 9)]


@dataclass
class Darkroom:
    """Where the pictures go."""

    folder: Path

    def develop(self, name: str, photograph: bytes, largest: int, colours: int = COLOURS) -> None:
        """Keep a photograph as a small file."""
        taken = Image.open(io.BytesIO(photograph))
        few = taken.convert("RGB").quantize(colours, dither=Image.Dither.NONE)
        path = self.folder / f"{name}.png"
        few.save(path, optimize=True)
        size = path.stat().st_size
        print(f"{path.name}: {few.width} x {few.height}, {size / 1000:.0f} kB")
        if size > largest:
            raise SystemExit(f"{path.name} is larger than {largest} bytes.")


@dataclass
class Studio(Darkroom):
    """A server and a browser."""

    server: JupyterServer
    window: Window

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
        self.develop(name, shown.screenshot(animations="disabled", caret="hide"), LARGEST)


@dataclass
class HubStudio(Darkroom):
    """A Hub with a class, and a browser."""

    hub: Hub
    browser: Browser

    def visit(self, user: str) -> Visitor:
        """The user at the page, in a window of its own."""
        zone = {"timezone_id": "Europe/Berlin"}
        return Visitor(self.browser, self.hub, user, viewport=PAGE, **zone)

    def keep(self, name: str, shown: Locator) -> None:
        """Photograph a part of the page, with a little of what is around it."""
        shown.page.mouse.move(0, 0)
        shown.page.evaluate("scrollTo(0, 0)")
        box = shown.bounding_box()
        assert box is not None
        sides = {"width": box["width"] + 2 * MARGIN, "height": box["height"] + 2 * MARGIN}
        clip = {"x": box["x"] - MARGIN, "y": box["y"] - MARGIN, **sides}
        taken = shown.page.screenshot(
            full_page=True, clip=clip, animations="disabled", caret="hide"
        )
        self.develop(name, taken, LARGEST_OF_HUB, COLOURS_OF_HUB)


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


def a_class(root: Path) -> dict[str, Any]:
    """The Hub of a course, with a service that shares the small model."""
    policy = root / "policy.toml"
    policy.write_text(POLICY, encoding="utf-8")
    arguments = ["--model", "smollm2", "--slots", "2", "--config", str(policy)]
    service = Service(arguments=arguments)

    def configure(c: Any, _: Hub) -> None:
        from qmt_jupyter.hub import configure

        configure(c, url=service.url, api_token=service.token, admins=[TEACHER])

    return {
        "groups": {"course-a": STUDENTS, "staff": [TEACHER]},
        "services": [service],
        "configure": configure,
    }


def look_back(hub: Hub) -> None:
    """Have what was asked today have been asked in the week before, too."""
    hub.stop_service("qmt")
    (ledger,) = hub.root.glob("services/qmt/**/ledger.db")
    columns = (
        "membership_id, model, queued_s, first_token_s, prompt_tokens, completion_tokens, "
        "estimated, ended_at, how"
    )
    records = sqlite3.connect(ledger)
    with records:
        for hours, times in PAST:
            for turn in range(times):
                records.execute(
                    f"INSERT INTO requests ({columns}, asked_at) SELECT {columns}, asked_at - ? "
                    "FROM requests WHERE (request_id + ?) % 2 AND asked_at > ?",
                    (3600 * hours, turn, time.time() - 1800),
                )
    records.close()
    hub.start_service("qmt")


def shoot_hub(studio: HubStudio) -> None:
    """Take the pictures of the page of a Hub's service."""
    guests = {user: Guest(studio.hub, user) for user in (*STUDENTS, TEACHER)}
    for number, guest in enumerate(guests.values()):
        guest.ask("What is a tide?", 30 + 10 * number)
    look_back(studio.hub)
    asking = [guests[user].begin("Explain recursion.", 900) for user in ("grace", "edsger")]
    teacher = studio.visit(TEACHER)
    for user in ("grace", "edsger"):
        expect(teacher.row(user)).to_have_attribute("data-state", "asking")
    teacher.row("alan").get_by_role("button", name="Pause").click()
    expect(teacher.row("alan")).to_have_attribute("data-state", "paused")
    teacher.page.reload()
    teacher.page.wait_for_timeout(2500)  # so that all figures are of one moment
    studio.keep("hub-page-admin", teacher.page.locator("#everybody"))
    teacher.row("ada").get_by_role("button", name="Limits").click()
    studio.keep("hub-page-limits", teacher.page.locator("#limits form"))
    student = studio.visit("ada")
    expect(student.page.locator("#own-hours figcaption")).to_contain_text("tokens in answers")
    studio.keep("hub-page-user", student.page.locator("#yours"))
    for each in asking:
        each.terminate()
        each.communicate()


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
            shoot(Studio(folder, server, window))
        finally:
            server.stop()
        place = Path(root) / "hub"
        place.mkdir()
        with Hub(place, **a_class(place)) as hub:
            shoot_hub(HubStudio(folder, hub, browser))


if __name__ == "__main__":
    main()
