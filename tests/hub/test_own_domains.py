"""A Hub that gives each user and service a domain of its own, as the page's limits advise."""

from __future__ import annotations

import os
from urllib.parse import urlsplit

import pytest

pytest.importorskip("playwright.sync_api", reason="the group browser is not installed")

from qmt_jupyter.hub import configure
from qmt_jupyter.identity.keys import Identity
from tests.browser.chromium import PATIENCE_MS, chromium, installed
from tests.hub.hub import free_port
from tests.hub.test_documented import until_it_answers

TOLD = {}


def HUB(root):
    def each_its_own(c, hub):
        # Chromium takes whatever ends in .localhost for this machine.
        c.JupyterHub.subdomain_host = hub.url.replace("127.0.0.1", "hub.localhost").rstrip("/")
        configure(
            c, model="echo", admins=["zoe"], url=f"http://127.0.0.1:{free_port()}",
            environment={
                "QMT_HOME": str(root / "service"), "QMT_INTERFACES": "127.0.0.1",
                "QMT_DETECT": "off", "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
            },
        )  # fmt: skip
        TOLD["hub"], TOLD["service"] = (
            c.JupyterHub.subdomain_host,
            c.Spawner.environment["QMT_HUB_URL"],
        )

    return {"users": ["ann", "zoe"], "configure": each_its_own}


@pytest.fixture(scope="module", autouse=True)
def served(hub):
    until_it_answers(Asked(hub))


class Asked:
    """The Hub's proxy, asked for the domain that notebooks are told: no name is looked up."""

    def __init__(self, hub):
        self.hub = hub

    @property
    def log(self):
        return self.hub.log

    def ask(self, method, path, **options):
        host = {"Host": urlsplit(TOLD["service"]).netloc}
        return self.hub.ask(method, path, headers=host, **options)


def test_a_notebook_gets_its_seat_where_it_is_told(hub):
    body = {"guest": Identity.fresh().peer_id}
    seat = Asked(hub).ask("POST", "services/qmt/api/seat", token=hub.token_of("ann"), body=body)
    assert (seat.status, seat.value["user"]) == (200, "ann")


def test_an_admin_signs_in_at_the_page_and_pauses_somebody(hub):
    if installed() is None:
        pytest.skip("there is no Chromium on this machine (on Debian: apt install chromium)")
    with chromium() as browser:
        context = browser.new_context()
        context.set_default_timeout(PATIENCE_MS)
        page = context.new_page()
        page.goto(f"{TOLD['hub']}/hub/login?next=/hub/home")
        page.get_by_label("Username").fill("zoe")
        page.get_by_label("Password").fill("any")
        page.get_by_role("button", name="Sign in").click()
        page.wait_for_url(f"{TOLD['hub']}/hub/home")
        page.goto(TOLD["service"])
        page.locator("#users").get_by_role("button", name="Pause ann").click()
        page.locator("#users").get_by_role("button", name="Resume ann").wait_for()
        assert page.url == TOLD["service"]
        page.get_by_role("navigation").get_by_role("link", name="Hub").click()
        page.wait_for_url(f"{TOLD['hub']}/hub/home")
        context.close()
