"""A notebook that is opened again: live where its kernel lives, calm where nothing is left."""

from __future__ import annotations

import pytest

from tests.browser.people import LOAD, host_cell

expect = pytest.importorskip("playwright.sync_api").expect

BROKEN = "Error displaying widget", "Loading widget", "model not found", "Error creating widget"


def live(notebook):
    """What only a panel with a kernel has."""
    return notebook.cell(2).get_by_role("button", name="Show link and QR code")


def expect_calm(notebook):
    """The text that stands for the panel, once, and no trace of a broken widget."""
    expect(live(notebook)).not_to_be_visible()
    expect(
        notebook.output(2).get_by_text("A host that shared echo").filter(visible=True)
    ).to_have_count(1)
    for words in BROKEN:
        expect(notebook.cell(2).get_by_text(words).filter(visible=True)).to_have_count(0)


@pytest.mark.parametrize("app", ["lab", "notebook"])
def test_a_panel_lives_on_through_a_reload_and_is_calm_where_nothing_lives(
    opened, desk, app, screenshots
):
    host = opened("host", LOAD, host_cell(), "%qmt_host", app=app)
    host.run(0, 1, 2)
    expect(live(host)).to_be_visible()

    host.save(widgets=False)
    copies = [host.document.copy("without-state")]
    host.save(widgets=True)
    copies.append(host.document.copy("with-state"))
    if app == "lab":  # both applications draw what they do not trust alike
        copies.append(host.document.copy("from-elsewhere", trusted=False))
    host.reload()
    live(host).click()
    expect(host.cell(2).get_by_role("textbox", name="The link")).to_have_value(
        host.value("STATE.started.invite.url").strip("'")
    )
    host.cell(2).get_by_role("button", name="Hide").click()

    host.restart()
    expect_calm(host)
    for document in copies:
        host.show(document)
        host.page.screenshot(path=screenshots / f"reopened-{document.what}-{app}.png")
        expect_calm(host)
    # The application's own words for the lost widget, which are for its console.
    desk.window.pardon("widget model not found")
