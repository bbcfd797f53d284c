"""The main path with the real small model, the other way round: host in Notebook 7, guest in
JupyterLab."""

from __future__ import annotations

import re

import pytest

from tests.browser.people import LOAD

expect = pytest.importorskip("playwright.sync_api").expect


def test_a_real_model_answers_a_guest_in_jupyterlab(opened, screenshots):
    host = opened("host", LOAD, "%qmt_host --model smollm2 --name Team", app="notebook")
    host.run(0, 1)
    host.cell(1).get_by_role("button", name="Copy link").click()
    expect(host.cell(1).get_by_role("status").filter(has_text="Copied")).to_be_visible()
    link = host.page.evaluate("navigator.clipboard.readText()")
    guest = opened("guest", LOAD, "%qmt_join", "%%chat --max-tokens 40 --seed 1\nWhat is the sea?")
    guest.run(0)
    guest.start(1)
    guest.reply(link)
    guest.wait_until_done(1)
    guest.run(2)
    expect(guest.answer(2)).to_contain_text(re.compile(r"smollm2 on \w{8} · \d+ tokens"))
    words = guest.answer(2).inner_text().split("smollm2 on")[0].split()
    assert len(words) > 10
    host.page.screenshot(path=screenshots / "real-model-host.png")
    guest.page.screenshot(path=screenshots / "real-model-guest.png")
