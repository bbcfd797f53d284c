"""The panels as they look and as they are reached: themes, zoom, narrow columns, keys, names."""

from __future__ import annotations

import pytest

from tests.browser.people import LOAD, host_cell

playwright = pytest.importorskip("playwright.sync_api")
from tests.browser.appearance import faint, sticking_out  # noqa: E402

expect = playwright.expect

JOIN = """\
from unittest.mock import patch

with patch("getpass.getpass", lambda _: STATE.started.invite.url):
    get_ipython().run_line_magic("qmt_join", "")"""
CHAT = """\
%%chat --new --max-tokens 30
A [link](https://example.org), `code`, and

```python
def wave(height=2.0):  # metres
    return f"{height} m"
```
"""
# 125 % zoom: fewer pixels of the page's own, each of them larger.
ZOOMED = {"viewport": {"width": 1024, "height": 1200}, "device_scale_factor": 1.25}


@pytest.fixture(scope="module")
def both(lasting, desk):
    """Host and guest in one notebook, and an answer below."""
    window = desk.open_window(**ZOOMED)
    both = lasting("both", LOAD, host_cell(), "%qmt_host", JOIN, CHAT, window=window)
    both.command("application:toggle-left-area")
    both.run(0, 1, 2, 3, 4)
    yield both
    desk.close_window(window)


@pytest.fixture(scope="module")
def host(both):
    return both.cell(2).get_by_role("region", name="Host", exact=True)


@pytest.fixture(scope="module")
def guest(both):
    return both.cell(3).get_by_role("region", name="Joined hosts")


@pytest.mark.parametrize("theme", ["Light", "Dark"])
def test_everything_can_be_read_in_both_themes_zoomed_and_in_a_narrow_column(
    both, host, guest, theme, screenshots
):
    both.command("apputils:change-theme", theme=f"JupyterLab {theme}")
    body = both.page.locator("body")
    expect(body).to_have_attribute("data-jp-theme-light", str(theme == "Light").lower())
    host.get_by_role("button", name="New invite").click()
    for width in (1024, 440):
        both.page.set_viewport_size({"width": width, "height": 1200})
        for name, part in (("host", host), ("guest", guest), ("answer", both.output(4))):
            part.scroll_into_view_if_needed()
            part.screenshot(path=screenshots / f"{name}-{theme.lower()}-{width}.png")
            assert faint(part) == [], (theme, width, name)
            assert sticking_out(part) == [], (theme, width, name)
    host.get_by_role("button", name="Cancel").click()
    both.page.set_viewport_size(ZOOMED["viewport"])


def test_a_panel_is_used_with_keys_alone(both, host):
    press = both.page.keyboard.press
    show = host.get_by_role("button", name="Show link and QR code")
    show.focus()
    press("Enter")
    hide = host.get_by_role("button", name="Hide")
    expect(hide).to_be_focused()
    press("Tab")
    expect(host.get_by_role("button", name="Copy link")).to_be_focused()
    press("Tab")
    press("Enter")  # revoke: it asks first
    expect(host.get_by_role("button", name="Revoke invite")).to_be_focused()
    press("Escape")
    expect(host.get_by_role("button", name="Revoke", exact=True)).to_be_focused()
    press("Tab")
    expect(host.get_by_role("textbox", name="The link")).to_be_focused()
    hide.focus()
    press("Space")
    expect(show).to_be_focused()
    expect(host.get_by_role("textbox", name="The link")).to_have_count(0)


def test_the_link_is_hidden_again_after_a_minute(both, host):
    both.page.clock.install()
    host.get_by_role("button", name="Show link and QR code").click()
    link = host.get_by_role("textbox", name="The link")
    expect(link).to_be_visible()
    both.page.clock.fast_forward(50_000)
    expect(link).to_be_visible()
    both.page.clock.fast_forward(11_000)
    expect(link).to_have_count(0)
    assert "qmt://" not in both.page.content()


def test_screen_readers_are_told_what_is_what(host, guest):
    expect(host).to_match_aria_snapshot("""
        - region "Host":
          - button "Stop hosting"
          - heading "Models" [level=3]
          - list:
            - listitem: /echo/
          - heading "Invites" [level=3]
          - list:
            - listitem:
              - paragraph: /Team GPU/
              - button "Show link and QR code"
              - button "Copy link"
              - button "Revoke"
          - button "New invite"
          - heading "Tokens" [level=3]
          - heading "Guests" [level=3]
          - region "Guests and what they used":
            - table "Guests and what they used"
    """)
    expect(guest).to_match_aria_snapshot("""
        - region "Joined hosts":
          - article /Team GPU/:
            - button "Leave"
            - list:
              - listitem: /echo/
    """)
