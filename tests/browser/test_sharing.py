"""The main path, seen: host in one notebook, guest in another, brought together by the link alone.

The host is in JupyterLab, the guest in Notebook 7. The tests use one pair, in this order.
"""

from __future__ import annotations

import re

import pytest

from tests.browser.people import LOAD, host_cell

expect = pytest.importorskip("playwright.sync_api").expect

LINK = "Show link and QR code"
FOR_EVER = "%%chat --max-tokens 50000\nfor ever"


@pytest.fixture(scope="module")
def host(lasting):
    host = lasting("host", LOAD, host_cell(delay=0.02), "%qmt_host")
    host.run(0, 1, 2)
    return host


@pytest.fixture(scope="module")
def panel(host):
    return host.cell(2).get_by_role("region", name="Host", exact=True)


@pytest.fixture(scope="module")
def guest(lasting, host, panel):
    """Joined by what the host's notebook shows."""
    panel.get_by_role("button", name=LINK).click()
    link = panel.get_by_role("textbox", name="The link").input_value()
    panel.get_by_role("button", name="Hide").click()
    guest = lasting(
        "guest", LOAD, "%qmt_join", "%%chat --max-tokens 60\nwaves roll in", app="notebook"
    )
    guest.run(0)
    guest.start(1)
    guest.reply(link)
    guest.wait_until_done(1)
    return guest


def row_of_guest(panel):
    """The cells of the only guest in the host's table, by their heads."""
    table = panel.get_by_role("table", name="Guests and what they used")
    heads = table.get_by_role("columnheader").all_inner_texts()
    return {head: table.locator("tbody tr > *").nth(at) for at, head in enumerate(heads)}


def test_a_guest_joins_by_the_link_alone_and_is_answered(guest):
    expect(guest.output(1)).to_contain_text("Joined Team GPU")
    counts = guest.watch(2, "waves")
    guest.run(2)
    assert counts()[-1] == 20
    assert counts() == sorted(counts())
    expect(guest.answer(2)).to_contain_text("waves roll in waves roll in")
    expect(guest.answer(2)).to_contain_text(re.compile(r"echo on \w{8} · 60 tokens.* tokens/s"))


@pytest.mark.parametrize("by", ["strip", "interrupt"])
def test_an_answer_grows_until_stop_or_interrupt_ends_it_on_both_sides(host, panel, guest, by):
    cancelled = int(host.value("echo.cancelled"))
    guest.type(2, FOR_EVER)
    counts = guest.watch(2, "ever")
    guest.start(2)
    row = row_of_guest(panel)
    expect(row["State"]).to_contain_text("answering")
    counts.wait_for(5)
    assert counts() == sorted(counts())
    strip = guest.cell(2).get_by_role("group", name="Answer being written")
    if by == "strip":
        strip.get_by_role("button", name="Stop").click()
    else:
        guest.interrupt()
    guest.wait_until_done(2)
    expect(strip).to_have_count(0)
    expect(guest.answer(2)).to_contain_text("for ever for ever")
    expect(guest.answer(2)).to_contain_text(re.compile("stopped|interrupted"))
    expect(row["State"]).to_contain_text("connected")
    assert host.value(f"echo.running, echo.cancelled - {cancelled}") == "(0, 1)"


def test_the_usage_table_is_live(panel, guest):
    row = row_of_guest(panel)
    made = int(row["Requests"].inner_text())
    guest.type(2, "%%chat --new --max-tokens 150\ncount these")
    guest.start(2)
    expect(row["State"]).to_contain_text("answering")
    expect(row["Tokens/s"]).not_to_have_text("")
    guest.wait_until_done(2)
    expect(row["Requests"]).to_have_text(str(made + 1))
    expect(row["State"]).to_contain_text("connected")
    expect(row["Last seen"]).to_have_text("now")


def test_an_invite_is_made_by_the_form_and_its_link_copied(host, panel):
    panel.get_by_role("button", name="New invite").click()
    form = panel.get_by_role("form", name="New invite")
    form.get_by_role("textbox", name="Guests").fill("many")
    form.get_by_role("button", name="Make invite").click()
    expect(form.get_by_role("alert")).to_contain_text("many")
    form.get_by_role("textbox", name="Guests").fill("7")
    form.get_by_role("textbox", name="Tokens in all").fill("5000")
    form.get_by_role("textbox", name="Tokens in all").press("Enter")
    expect(form).to_have_count(0)
    made = panel.get_by_role("listitem").filter(has_text="0 of 7 used")
    expect(made).to_contain_text("5000 tokens")
    made.get_by_role("button", name="Copy link").click()
    expect(panel.get_by_role("status").filter(has_text="Copied")).to_be_visible()
    copied = host.page.evaluate("navigator.clipboard.readText()")
    assert repr(copied) == host.value("STATE.started.invites[-1].url")
    made.get_by_role("button", name="Revoke").click()
    made.get_by_role("button", name="Revoke invite").click()
    expect(
        panel.get_by_role("listitem").filter(has_text="0 of 7 used").filter(visible=True)
    ).to_have_count(0)


def test_neither_file_holds_what_is_secret(host, guest):
    links = host.value("' '.join(each.url for each in STATE.started.invites)").strip("'")
    secret = [link.rpartition("/")[2].partition("?")[0] for link in links.split()]
    secret += [host.value("STATE.started.peer_id").strip("'")]
    for each in (host, guest):
        keys = list(each.document.home.rglob("*.key"))
        assert keys
        secret += [key.read_text().strip() for key in keys]
    for each in (host, guest):
        for widgets in (False, True):
            saved = each.save(widgets=widgets)
            assert "qmt" in saved
            assert [text for text in secret for part in pieces(text) if part in saved] == []


def pieces(text, length=16):
    return [text[at : at + length] for at in range(len(text) - length + 1)]


def test_revoking_in_the_panel_ends_a_running_answer_and_the_guest_is_told(
    host, panel, guest, screenshots
):
    guest.type(2, FOR_EVER)
    guest.start(2)
    expect(guest.answer(2)).to_contain_text("for ever for ever")
    table = panel.get_by_role("table", name="Guests and what they used")
    row = row_of_guest(panel)
    table.get_by_role("button", name=re.compile("Revoke guest")).click()
    table.get_by_role("button", name="Revoke guest", exact=True).click()
    guest.wait_until_done(2)
    expect(guest.output(2)).to_contain_text("revoked")
    expect(guest.answer(2)).to_contain_text("for ever for ever")
    expect(row["State"]).to_contain_text("revoked")
    expect(guest.cell(1).get_by_role("region", name="Joined hosts")).to_contain_text("revoked")
    for name, each in (("host", host), ("guest", guest)):
        each.page.screenshot(path=screenshots / f"revoked-{name}.png")
