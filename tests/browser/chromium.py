"""The browser: Debian's Chromium, driven by Playwright, and all that its pages complain of."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import Browser, ConsoleMessage, Request, WebError, expect, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome")
# Generous: others may use the same two cores. Nothing waits longer than it has to.
PATIENCE_MS = 45_000
QUIET = (
    "--disable-gpu", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--no-first-run",
)  # fmt: skip
HERE = {"127.0.0.1", "localhost"}
INSIDE = {"data", "blob", "about"}  # schemes that ask nobody
# An error is laid at our door when its text, its stack or its place names a widget (ours are the
# only ones), a module that a widget brought (blob:), us, the server's message limits, or something
# that a page was kept from loading. JupyterLab logs errors of its own, at its start above all.
OURS = re.compile(r"widget|blob:|qmt|IOPub|rate limit|refused|security policy", re.IGNORECASE)


def installed() -> str | None:
    """The path of a Chromium on this machine."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser; closed at the end."""
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=installed(), args=QUIET)
        try:
            yield browser
        finally:
            browser.close()


class Window:
    """A browsing context: storage, theme and clock of its own.

    ``complaints`` are the errors of ours that its pages logged or left uncaught, ``foreign`` the
    addresses beyond this machine that they asked for, both since :meth:`begin` was last called.
    """

    def __init__(self, browser: Browser, **options: Any) -> None:
        self.context = browser.new_context(
            **{"viewport": {"width": 1280, "height": 960}, **options}
        )
        self.context.set_default_timeout(PATIENCE_MS)
        self.context.grant_permissions(["clipboard-read", "clipboard-write"])
        self.context.tracing.start(snapshots=True)
        self.complaints: list[str] = []
        self.foreign: list[str] = []
        self.context.on("console", self._console)
        self.context.on("weberror", self._error)
        self.context.on("request", self._request)
        self.begin()

    def begin(self) -> None:
        """Forget what was heard and recorded."""
        self.complaints.clear()
        self.foreign.clear()
        self.context.tracing.start_chunk()

    def pardon(self, words: str) -> None:
        """Forget complaints that a test brings about on purpose."""
        self.complaints[:] = [each for each in self.complaints if words not in each]

    def end(self) -> None:
        """Stop recording."""
        self.context.tracing.stop_chunk()

    def keep(self, path: Path) -> None:
        """Save what was recorded, which ``playwright show-trace`` opens, and how pages look now."""
        for number, page in enumerate(self.context.pages):
            page.screenshot(path=f"{path}-{number}.png")
        self.context.tracing.stop_chunk(path=f"{path}.zip")
        self.context.tracing.start_chunk()

    def _console(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self._hear(f"{message.text} ({message.location.get('url', '')})")

    def _error(self, error: WebError) -> None:
        self._hear(f"uncaught: {error.error} {error.error.stack}")

    def _hear(self, complaint: str) -> None:
        if OURS.search(complaint):
            self.complaints.append(complaint)

    def _request(self, request: Request) -> None:
        parts = urlsplit(request.url)
        if parts.scheme not in INSIDE and parts.hostname not in HERE:
            self.foreign.append(request.url)
