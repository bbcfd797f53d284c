"""Users of a service on a Hub: processes that ask by a seat, and browsers at its page."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

from playwright.sync_api import Browser, Locator, Request

from qmt_jupyter.identity.keys import load_or_create
from tests.browser.chromium import PATIENCE_MS
from tests.hub.hub import Hub


class Guest:
    """A user's process that asks through a seat."""

    def __init__(self, hub: Hub, user: str) -> None:
        self.hub, self.user = hub, user
        self.home = hub.root / "guests" / user
        self.home.mkdir(parents=True)
        self.peer_id = load_or_create(self.home / "guest" / "identity.key").peer_id

    def begin(self, prompt: str, tokens: int) -> subprocess.Popen[str]:
        self.take_seat()
        words = ["chat", "--file", str(self.home / "link"), "--max-tokens", str(tokens)]
        return subprocess.Popen(
            [sys.executable, "-m", "qmt_jupyter.cli", *words, "--json", prompt],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "QMT_HOME": str(self.home), "QMT_INTERFACES": "127.0.0.1"},
        )  # fmt: skip

    def take_seat(self) -> None:
        seat = self.hub.ask(
            "POST",
            "services/qmt/api/seat",
            token=self.hub.token_of(self.user),
            body={"guest": self.peer_id},
        )
        assert seat.status == 200, seat.value
        (self.home / "link").write_text(seat.value["link"], encoding="utf-8")

    def ask(self, prompt: str, tokens: int) -> dict[str, int]:
        """What an answer took."""
        out, wrong = self.begin(prompt, tokens).communicate(timeout=60)
        assert wrong == "", wrong
        return json.loads(out.splitlines()[-1])["usage"]


class Visitor:
    """Somebody's browser, signed in at the Hub, with all that its pages complain of or ask for."""

    def __init__(self, browser: Browser, hub: Hub, user: str, **options: Any) -> None:
        self.hub = hub
        self.address = f"{hub.url}services/qmt/"
        self.context = browser.new_context(
            **{"viewport": {"width": 1180, "height": 900}, **options}
        )
        self.context.set_default_timeout(PATIENCE_MS)
        self.context.grant_permissions(["clipboard-read", "clipboard-write"])
        self.said: list[str] = []
        self.foreign: list[str] = []
        self.page = self.context.new_page()
        # The Hub's own pages are not ours to judge.
        self.page.goto(f"{hub.url}hub/login?next=/services/qmt/")
        self.page.get_by_label("Username").fill(user)
        self.page.get_by_label("Password").fill("any")
        self.page.get_by_role("button", name="Sign in").click()
        self.page.wait_for_url(self.address)
        self.context.on("console", lambda message: self.said.append(message.text))
        self.context.on("weberror", lambda error: self.said.append(str(error.error)))
        self.context.on("request", self._request)
        self.page.reload()

    def _request(self, request: Request) -> None:
        if not request.url.startswith(self.hub.url):
            self.foreign.append(request.url)

    def pardon(self, *words: str) -> None:
        """Forget what a test brought about on purpose."""
        self.said = [each for each in self.said if not any(word in each for word in words)]

    def row(self, user: str) -> Locator:
        return self.page.locator("#users tr").filter(
            has=self.page.get_by_role("rowheader", name=user, exact=True)
        )
