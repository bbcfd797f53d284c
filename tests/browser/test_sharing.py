"""The main path, seen: host in one notebook, guest in another, brought together by the link alone."""

from __future__ import annotations

import re

import pytest

from tests.browser.people import LOAD, host_cell

expect = pytest.importorskip("playwright.sync_api").expect


@pytest.fixture(scope="module")
def host(lasting):
    host = lasting("host", LOAD, host_cell(delay=0.02), "%qmt_host")
    host.run(0, 1, 2)
    return host


@pytest.fixture(scope="module")
def guest(lasting, host):
    """Joined by what the host's notebook shows, in the other application."""
    card = host.cell(2).get_by_role("region", name="Invite")
    card.get_by_role("button", name="Show link and QR code").click()
    link = card.get_by_role("textbox", name="The link").input_value()
    card.get_by_role("button", name="Hide").click()
    guest = lasting(
        "guest", LOAD, "%qmt_join", "%%chat --max-tokens 60\nwaves roll in",
        app="notebook",
    )  # fmt: skip
    guest.run(0)
    guest.start(1)
    guest.reply(link)
    guest.wait_until_done(1)
    return guest


def test_a_guest_joins_by_the_link_alone_and_sees_the_answer_grow(host, guest):
    expect(guest.output(1)).to_contain_text("Joined Team GPU")
    counts = guest.watch(2, "waves")
    guest.run(2)
    assert len(counts()) >= 4, "it grows"
    assert counts() == sorted(counts())
    assert counts()[-1] == 20
    expect(guest.answer(2)).to_contain_text("waves roll in waves roll in")
    expect(guest.answer(2)).to_contain_text(re.compile(r"echo on \w{8} · 60 tokens .* tokens/s"))


def test_the_interrupt_button_ends_the_answer_on_both_sides(host, guest):
    guest.type(2, "%%chat --max-tokens 50000\nfor ever")
    guest.start(2)
    expect(guest.answer(2)).to_contain_text("for ever for ever")
    guest.interrupt()
    guest.wait_until_done(2)
    expect(guest.answer(2)).to_contain_text("for ever for ever")
    expect(guest.answer(2)).to_contain_text("interrupted")
    assert host.value("echo.running, echo.cancelled") == "(0, 1)"


def secrets_of(opened):
    """What no saved file may hold any longer piece of: token, identities, keys."""
    keys = [path.read_text().strip() for path in opened.document.home.rglob("*.key")]
    assert keys
    return keys


def test_neither_file_holds_what_is_secret(host, guest):
    link = host.value("STATE.started.invite.url").strip("'")
    secret = [link.rpartition("/")[2].partition("?")[0], host.value("STATE.started.peer_id")]
    secret += [key for each in (host, guest) for key in secrets_of(each)]
    for each in (host, guest):
        for widgets in (False, True):
            saved = each.save(widgets=widgets)
            assert "qmt" in saved
            assert [text for text in secret for part in pieces(text) if part in saved] == []


def pieces(text, length=16):
    return [text[at : at + length] for at in range(len(text) - length + 1)]
