"""A panel's page side alone: what it makes of a kernel that is lost, late, full or of another time.

Its kernel is played by the test, because a real one cannot be made to do these things on time.
"""

from __future__ import annotations

import re

import pytest

from qmt_jupyter.notebook.panels.host import HostPanel
from tests.notebook.test_host_view import doing, guest, invite, seen

expect = pytest.importorskip("playwright.sync_api").expect

# A model as anywidget hands it to `render`; `hear` is the kernel speaking.
_SHOW = """async ([code, style]) => {
    const listeners = new Map();
    const on = (name, call) => listeners.set(name, [...(listeners.get(name) ?? []), call]);
    const off = (name, call) => listeners.set(name, (listeners.get(name) ?? []).filter((e) => e !== call));
    const tell = (name, ...given) => (listeners.get(name) ?? []).forEach((call) => call(...given));
    globalThis.sent = [];
    globalThis.hear = (message) => tell("msg:custom", message);
    globalThis.lose = () => tell("comm_live_update");
    const frozen = { id: "0a1b2c3d", title: "It was here", lines: ["and is calm"] };
    const model = { get: () => frozen, on, off, send: (message) => sent.push(message) };
    document.head.append(Object.assign(document.createElement("style"), { textContent: style }));
    const url = URL.createObjectURL(new Blob([code], { type: "text/javascript" }));
    const { default: widget } = await import(url);
    globalThis.views = 0;
    globalThis.render = () => {
        const el = document.createElement("div");
        el.id = `view-${views += 1}`;
        document.body.append(el);
        return widget.render({ model, el });
    };
    globalThis.dispose = render();
}"""
_ASKED = "(name) => sent.filter((each) => each.ask === name).at(-1)"


class Shown:
    """One panel in an empty page, and the kernel that it asks."""

    def __init__(self, page, panel):
        self.page = page
        self.view = page.locator("#view-1")
        page.set_content("<!doctype html><title>A panel</title>")
        page.evaluate(_SHOW, [panel._esm, panel._css])

    def asked(self, name):
        """The newest question of that name."""
        self.page.wait_for_function(_ASKED, arg=name)
        return self.page.evaluate(_ASKED, name)

    def hear(self, **message):
        self.page.evaluate("(message) => hear(message)", message)

    def answer(self, name, **said):
        self.hear(answer=self.asked(name)["id"], **said)


def host_view(*invites, **facts):
    return {**seen(*invites, **facts), "title": "Sharing", "reach": "Here.", "name": "Team"}


@pytest.fixture
def shown(window):
    """Shows panels, each in a page of a window with a clock that the test may move."""

    def show(panel, **options):
        page = window(**options).context.new_page()
        page.clock.install()
        return Shown(page, panel)

    return show


def test_what_is_asked_of_a_kernel_that_is_lost_fails_with_a_sentence_and_can_be_asked_again(shown):
    panel = shown(HostPanel)
    panel.hear(view=host_view(invite(1)))
    panel.view.get_by_role("button", name="New invite").click()
    make = panel.view.get_by_role("button", name="Make invite")
    make.click()
    panel.asked("invite")
    expect(make).to_be_disabled()
    panel.page.evaluate("lose()")
    expect(make).to_be_enabled()
    expect(panel.view.get_by_role("alert")).to_have_text(re.compile("lost before it answered"))
    panel.page.clock.run_for(6_000)
    expect(panel.view.get_by_text("It was here")).to_be_visible()
    expect(make).to_be_hidden()


def test_a_problem_is_said_until_the_view_comes_back_and_takes_nothing_else_away(shown):
    panel = shown(HostPanel)
    said = panel.view.locator(".qmt-said")
    panel.hear(view={"problem": "The kernel cannot say."})
    expect(said).to_have_text("The kernel cannot say.")
    expect(panel.view.get_by_text("It was here")).to_be_visible()
    panel.hear(view=host_view(invite(1)))
    expect(said).to_have_text("")
    panel.view.get_by_role("button", name="Revoke").click()
    panel.view.get_by_role("button", name="Revoke invite").click()
    panel.answer("revoke", said="Revoked it.")
    panel.hear(view=host_view(invite(1, revoked_at=1.0)))
    expect(said).to_have_text("Revoked it.")


def test_a_link_that_comes_too_late_or_is_used_up_meanwhile_is_not_in_the_page(shown):
    panel = shown(HostPanel)
    panel.hear(view=host_view(invite(1)))
    show = panel.view.get_by_role("button", name="Show link and QR code")
    field = panel.view.get_by_role("textbox", name="The link")
    show.click()
    panel.answer("show", secret="qmt://one")
    expect(field).to_have_value("qmt://one")
    panel.page.clock.run_for(61_000)
    expect(field).to_have_count(0)
    show.click()
    late = panel.asked("show")
    panel.page.clock.run_for(6_000)
    panel.hear(answer=late["id"], secret="qmt://two")
    show.click()
    panel.answer("show", secret="qmt://three")
    expect(field).to_have_value("qmt://three")
    panel.hear(view=host_view(invite(1, uses=5)))
    expect(field).to_have_count(0)
    assert "qmt://" not in panel.page.content()


def test_a_kernel_that_tells_but_does_not_answer_is_busy_and_has_not_ended(shown):
    panel = shown(HostPanel)
    panel.page.clock.pause_at("2030-01-01T10:00:00")
    panel.hear(view=host_view(invite(1)))
    panel.page.clock.run_for(16_000)  # it was asked again, and has not answered
    note = panel.view.locator(".qmt-note")
    expect(note).to_contain_text("The kernel is busy or has ended. This was so at 10:00:00")
    panel.hear(view=host_view(invite(1, uses=1)))
    expect(note).to_have_text("The kernel is busy: what is asked waits.")
    panel.page.clock.run_for(16_000)
    expect(note).to_contain_text("This was so at 10:00:16")
    panel.answer("watch")
    expect(note).to_be_hidden()


def test_times_are_those_of_the_kernel_whatever_the_pages_clock_says(shown):
    panel = shown(HostPanel)
    now = 1_800_000_000.0  # of the tests' kernel; the page lives in another year
    row = guest("g", last_seen=now - 130)
    panel.hear(view=host_view(invite(1, [row], expires_at=now + 10_800)), now=now)
    expect(panel.view.get_by_text("3 h left")).to_be_visible()
    expect(panel.view.get_by_role("cell", name="2 min ago")).to_be_visible()


def test_forty_invites_and_fifty_guests_with_hostile_names_leave_the_panel_readable(
    shown, screenshots
):
    names = ["אבגדה 12", "مرحبا (5)", "W" * 400, "Z\u0301\u0302\u0303" * 20, "<b>bold</b>", "Ada"]
    guests = [guest(f"{n:08}", claimed_name=names[n % 6]) for n in range(50)]
    invites = [invite(n, name=names[n % 6]) for n in range(2, 41)]
    gone = [invite(n, revoked_at=1_800_000_000.0) for n in range(41, 46)]
    linked = [f"invite-{n}" for n in range(1, 41)]
    busy = {guests[0]["membership"]: doing(1, 1, 0, 9.5)}
    view = host_view(
        invite(1, guests, max_uses=0, name="שלום"), *invites, *gone, guests=busy, linked=linked
    )
    for width in (480, 1000):
        panel = shown(HostPanel, viewport={"width": width, "height": 1_600})
        panel.hear(view=view)
        expect(panel.view.get_by_role("row")).to_have_count(51)
        panel.page.screenshot(path=screenshots / f"full-panel-{width}.png")
        assert panel.view.bounding_box()["height"] < 1_600
        assert panel.page.evaluate("document.documentElement.scrollWidth") <= width
        assert panel.page.locator("b").count() == 0
        expect(panel.view.locator("summary")).to_contain_text("5 invites")
        # The last of the list is reached by keys, and what it shows is seen.
        last = panel.view.get_by_role("button", name="Show link and QR code").last
        last.focus()
        panel.page.keyboard.press("Enter")
        panel.answer("show", secret="qmt://one", svg="<svg xmlns='http://www.w3.org/2000/svg'/>")
        expect(panel.view.get_by_role("textbox", name="The link")).to_be_in_viewport()
        expect(panel.view.get_by_role("img", name="QR code of the link")).to_be_in_viewport(
            ratio=1.0
        )


def test_two_views_of_one_panel_each_take_their_own_answers(shown):
    panel = shown(HostPanel)
    panel.page.evaluate("() => void render()")
    panel.hear(view=host_view(invite(1)))
    one, other = panel.view, panel.page.locator("#view-2")
    one.get_by_role("button", name="Show link and QR code").click()
    panel.answer("show", secret="qmt://one")
    expect(one.get_by_role("textbox", name="The link")).to_have_value("qmt://one")
    expect(other.get_by_role("textbox", name="The link")).to_have_count(0)
    panel.page.evaluate("dispose()")
    panel.hear(view=host_view(invite(1, name="Lab")))
    expect(other.get_by_text("Lab (invite-1)")).to_be_visible()
    assert "qmt://" not in panel.page.content()


def test_names_written_from_right_to_left_leave_what_stands_beside_them_in_order(shown):
    panel = shown(HostPanel)
    # Digits after such a name would be drawn on its other side, and so would those of the facts.
    panel.hear(view=host_view(invite(1, invite_id="11111111", name="אבגדה"), linked=["11111111"]))
    places = """(line) => {
        const [name, facts] = line.querySelectorAll("span");
        const first = document.createRange();
        first.setStart(facts.firstChild, 0);
        first.setEnd(facts.firstChild, 1);
        return [name.getBoundingClientRect().right, first.getBoundingClientRect().left];
    }"""
    name, facts = panel.view.locator(".qmt-invites li").evaluate(places)
    assert name < facts
