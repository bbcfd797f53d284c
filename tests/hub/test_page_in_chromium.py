"""The page in a real browser, on a real Hub with a real host, while users ask.

Users of the mesh are processes of their own, as in a notebook server. A test fails, too, when the
page logs anything or asks for anything beyond the Hub's own address.
"""

from __future__ import annotations

import csv
import io
import os
import re
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest

playwright = pytest.importorskip("playwright.sync_api", reason="the group browser is not installed")
expect = playwright.expect

from tests.browser.appearance import faint, sticking_out  # noqa: E402
from tests.browser.chromium import chromium, installed  # noqa: E402
from tests.hub.hub import Service  # noqa: E402
from tests.hub.visitors import Guest, Visitor  # noqa: E402

POLICY = """
zone = "Pacific/Auckland"
[everybody]
tokens_per_day = 50_000
[groups.closed]
hours = ["Mon 00:00-00:01"]
"""
# The service itself, with a model that takes its time.
SLOW = """
import sys
from qmt_jupyter.providers.echo import Echo
Echo.__init__.__kwdefaults__.update(delay=0.02, repeat=True)
from qmt_jupyter.hub.__main__ import main
sys.exit(main(sys.argv[1:]))
"""
HOSTILE = [
    "..", "a/b", "<img src=x onerror=\"document.title='taken'\">", "\u202eecila", "=1+1", "x" * 255,
]  # fmt: skip
# What a control says of itself to those who do not see it.
NAMELESS = """() => [...document.querySelectorAll("a, button, input, textarea, select, summary, dialog")]
    .filter((node) => node.checkVisibility() && !(
        node.getAttribute("aria-label")?.trim()
        || (node.getAttribute("aria-labelledby") ?? "").split(" ").some(
            (id) => document.getElementById(id)?.textContent.trim())
        || [...(node.labels ?? [])].some((label) => label.textContent.trim())
        || (!node.matches("input, textarea") && node.textContent.trim())))
    .map((node) => node.outerHTML.slice(0, 120))"""
# Headings one level after the other, no id twice, no reference to nothing, each cell under a head.
ODD = """() => {
    const levels = [...document.querySelectorAll("h1, h2, h3")]
        .filter((node) => node.checkVisibility()).map((node) => Number(node.localName[1]));
    const ids = [...document.querySelectorAll("[id]")].map((node) => node.id);
    const told = ["aria-labelledby", "aria-describedby", "for", "aria-controls"];
    const dangling = told.flatMap((name) => [...document.querySelectorAll(`[${name}]`)]
        .flatMap((node) => node.getAttribute(name).split(" ")).filter((id) => !document.getElementById(id)));
    return {
        skipped: levels.filter((level, at) => level > (levels[at - 1] ?? 0) + 1),
        firsts: levels.filter((level) => level === 1).length,
        twice: ids.filter((id, at) => ids.indexOf(id) !== at),
        dangling,
        bare: [...document.querySelectorAll("table")].filter((table) => !table.querySelector("th[scope=col]")).length,
        mains: document.querySelectorAll("main").length,
        lang: document.documentElement.lang,
    };
}"""


def HUB(root: Path):
    policy = root / "policy.toml"
    policy.write_text(POLICY, encoding="utf-8")
    service = Service()
    service.command = [
        sys.executable, "-c", SLOW, "--model", "echo", "--slots", "2", "--config", str(policy),
    ]  # fmt: skip

    def configure(c, hub):
        from qmt_jupyter.hub import configure

        configure(c, url=service.url, api_token=service.token, admins=["group:teachers"])

    return {
        "users": ["ann"],
        "groups": {"teachers": ["zoe", "yve"], "closed": ["ben"]},
        "services": [service],
        "configure": configure,
    }


@pytest.fixture(scope="module")
def browser(hub):
    if installed() is None:
        pytest.skip("there is no Chromium on this machine (on Debian: apt install chromium)")
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def used(hub):
    """What ann and zoe have asked and taken, as (prompt, answer) tokens; ben only has a seat."""
    taken = {}
    for user, tokens in (("ann", 120), ("zoe", 30)):
        guest = Guest(hub, user)
        usage = guest.ask("the tide comes in", tokens)
        taken[user] = (usage["prompt_tokens"], usage["completion_tokens"])
        taken[f"{user}'s guest"] = guest
    Guest(hub, "ben").take_seat()
    return taken


@pytest.fixture(scope="module")
def visit(browser, hub, used):
    visitors = []

    def visit(user, **options):
        visitors.append(Visitor(browser, hub, user, **options))
        return visitors[-1]

    visit.all = visitors
    yield visit
    for each in visitors:
        each.context.close()


@pytest.fixture(scope="module")
def ann(visit):
    return visit("ann", timezone_id="America/New_York")


@pytest.fixture(scope="module")
def zoe(visit):
    return visit("zoe", timezone_id="Europe/Berlin")


@pytest.fixture(autouse=True)
def nothing_is_amiss(visit):
    """Holds for every test here."""
    yield
    said = [line for each in visit.all for line in each.said]
    foreign = [line for each in visit.all for line in each.foreign]
    for each in visit.all:
        each.said.clear()
    assert (said, foreign) == ([], [])


@pytest.fixture(scope="session")
def screenshots(tmp_path_factory):
    chosen = os.environ.get("QMT_TEST_SCREENSHOTS")
    folder = Path(chosen).absolute() if chosen else tmp_path_factory.mktemp("screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


# A user ----------------------------------------------------------------------------------------


def test_a_user_sees_own_use_and_limits(ann, used):
    page = ann.page
    expect(page.get_by_role("heading", level=1)).to_have_text("Your use")
    expect(page.locator("#standing")).to_have_text("You can ask now.")
    taken = sum(used["ann"])
    meters = page.locator("#meters")
    expect(meters).to_contain_text(f"{taken} tokens of 50,000 today")
    expect(meters).to_contain_text(f"{taken} tokens this month, without a limit")
    expect(meters).to_contain_text("Days and months begin at midnight, Pacific/Auckland.")
    bar = page.get_by_role("progressbar").first
    assert bar.evaluate("bar => [bar.value, bar.max]") == [taken, 50_000]
    assert page.locator("#rules dt").all_inner_texts() == [
        "Hours", "Models", "Requests at the same time", "Requests in a minute", "Tokens of one answer",
    ]  # fmt: skip
    expect(page.locator("#rules dd").nth(1)).to_have_text("echo")
    assert page.get_by_text("Everybody").count() == 0
    assert "admin.js" not in page.content()


def test_the_chart_says_its_numbers_without_being_seen(ann, used):
    prompt, answer = used["ann"]
    words = f"{answer} tokens in answers, {prompt} in prompts"
    picture = ann.page.get_by_role("img", name=re.compile("Your tokens"))
    expect(picture).to_have_attribute("aria-label", re.compile(words))
    hour = ann.page.get_by_role("slider", name="Your tokens, hour")
    expect(hour).to_have_attribute("aria-valuetext", re.compile(f": {words}$"))
    hour.focus()
    ann.page.keyboard.press("ArrowLeft")
    expect(hour).to_have_attribute(
        "aria-valuetext", re.compile(": 0 tokens in answers, 0 in prompts$")
    )
    expect(ann.page.locator("#own-hours output")).to_contain_text("0 tokens in answers")
    ann.page.keyboard.press("End")
    ann.page.get_by_text("The same as a table").click()
    table = ann.page.get_by_role("table", name="Your tokens by hour")
    cells = table.get_by_role("row").nth(1).get_by_role("cell")
    assert cells.all_inner_texts() == [str(prompt), str(answer)]
    expect(table.get_by_role("columnheader").first).to_have_text("hour (America/New_York)")
    ann.page.get_by_text("The same as a table").click()


def test_the_cells_to_run_can_be_copied(ann):
    ann.page.get_by_role("button", name="Copy the first cell").click()
    expect(ann.page.get_by_role("status").first).to_have_text("Copied.")
    assert (
        ann.page.evaluate("navigator.clipboard.readText()")
        == "%load_ext qmt_jupyter\n%qmt_join hub"
    )


def test_a_user_outside_the_hours_is_told_when_they_begin(visit):
    ben = visit("ben", timezone_id="Europe/Berlin")
    said = ben.page.locator("#standing")
    expect(said).to_contain_text(
        re.compile(
            r"^It is not one of your hours\. You can ask again on .*Monday.* \(Pacific/Auckland\), which is Sun"
        )
    )
    expect(ben.page.locator("#rules dd").first).to_have_text(
        "Mon 00:00-00:01 (Pacific/Auckland) (for your group closed)"
    )
    ben.context.close()
    visit.all.remove(ben)


# An admin --------------------------------------------------------------------------------------


def test_an_admin_sees_everybody(zoe, used):
    page = zoe.page
    expect(zoe.row("ann").get_by_role("cell").nth(1)).to_have_text(f"{sum(used['ann'])} of 50,000")
    total = sum(used["ann"]) + sum(used["zoe"])
    totals = dict(
        zip(
            *(page.locator(f"#totals {each}").all_inner_texts() for each in ("dt", "dd")),
            strict=True,
        )
    )
    assert int(totals["tokens today"]) == total
    assert page.locator("#models tr").all_inner_texts() == ["echo\t2\t0\t0"]
    answers = used["ann"][1] + used["zoe"][1]
    expect(page.locator("#hours figcaption")).to_contain_text(f"{answers} tokens in answers")


def test_the_table_is_sorted_and_searched_by_keys(zoe):
    page = zoe.page
    names = page.locator("#users tr:visible th")
    expect(names).to_have_text(["ann", "ben", "zoe"])
    head = page.get_by_role("columnheader", name="today")
    head.get_by_role("button").focus()
    page.keyboard.press("Enter")
    expect(head).to_have_attribute("aria-sort", "descending")
    expect(names).to_have_text(["ann", "zoe", "ben"])
    page.keyboard.press("Enter")
    expect(head).to_have_attribute("aria-sort", "ascending")
    expect(names).to_have_text(["ben", "zoe", "ann"])
    page.get_by_role("searchbox", name="find").fill("AN")
    expect(names).to_have_text(["ann"])
    expect(page.locator("#shown")).to_have_text("1 of 3")
    page.get_by_role("searchbox", name="find").fill("")
    page.get_by_role("columnheader", name="user").get_by_role("button").click()
    page.mouse.move(0, 0)


def test_pausing_ends_what_is_being_written(zoe, ann, used):
    asking = used["ann's guest"].begin("word", 20_000)
    row = zoe.row("ann")
    expect(row).to_have_attribute("data-state", "asking")
    expect(ann.page.locator("#standing")).to_contain_text("1 answer being written")
    row.get_by_role("button", name="Pause ann").click()
    out, wrong = asking.communicate(timeout=20)
    assert asking.returncode == 1
    assert '"done"' not in out
    assert "paused" in out + wrong
    assert 0 < out.count('"delta"') < 20_000
    expect(row).to_have_attribute("data-state", "paused")
    expect(zoe.page.get_by_role("status").first).to_have_text(
        "ann is paused; what was being written has ended."
    )
    expect(ann.page.locator("#standing")).to_contain_text("You are paused")
    expect(ann.page.get_by_role("status").first).to_contain_text("You are paused")
    row.get_by_role("button", name="Resume ann").click()
    expect(row.get_by_role("button", name="Pause ann")).to_be_visible()
    expect(ann.page.locator("#standing")).to_have_text("You can ask now.")
    assert used["ann's guest"].ask("again", 2)["completion_tokens"] == 2


def test_limits_are_changed_and_given_back_in_a_dialog(zoe, ann, hub, screenshots):
    page, row = zoe.page, zoe.row("ann")
    opener = row.get_by_role("button", name="Limits… ann")
    opener.focus()
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog", name="Limits of ann")
    day = dialog.get_by_role("textbox", name="Tokens a day")
    expect(day).to_be_focused()
    expect(day).to_have_accessible_description("Policy: 50,000")
    assert page.evaluate(NAMELESS) == []
    assert faint(dialog) == []
    page.screenshot(path=screenshots / "hub-page-limits.png")
    day.fill("many")
    page.keyboard.press("Enter")
    expect(dialog.get_by_role("alert")).to_contain_text("many is not a whole number.")
    expect(day).to_have_attribute("aria-invalid", "true")
    day.fill("")
    dialog.get_by_role("textbox", name="Hours").fill("whenever")
    dialog.get_by_role("button", name="Set").click()
    expect(dialog.get_by_role("alert")).to_contain_text("does not read like hours of the week.")
    dialog.get_by_role("textbox", name="Hours").fill("")
    day.fill("50 ")
    dialog.get_by_role("textbox", name="Requests in a minute").fill("no limit")
    dialog.get_by_role("button", name="Set").click()
    expect(dialog).to_be_hidden()
    expect(opener).to_be_focused()
    expect(row.get_by_role("cell").nth(1)).to_contain_text("of 50")
    expect(row.get_by_role("cell").first).to_have_text("day used up")
    expect(ann.page.locator("#standing")).to_have_text(
        "Today's tokens are used up. There are new ones at midnight (Pacific/Auckland)."
    )
    expect(ann.page.locator("#rules dd").nth(3)).to_have_text("no limit")
    page.keyboard.press("Enter")
    expect(day).to_have_value("50")
    expect(dialog.get_by_role("textbox", name="Requests in a minute")).to_have_value("no limit")
    dialog.get_by_role("button", name="Back to the policy").click()
    expect(row.get_by_role("cell").nth(1)).to_contain_text("of 50,000")
    page.keyboard.press("Enter")
    expect(day).to_have_value("")
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(opener).to_be_focused()
    zoe.pardon("400 (Bad Request)")


def test_the_file_is_downloaded(zoe, used):
    with zoe.page.expect_download() as download:
        zoe.page.get_by_role("link", name="CSV file").click()
    assert re.fullmatch(r"qmt-usage-[0-9-]{10}\.csv", download.value.suggested_filename)
    text = Path(download.value.path()).read_text(encoding="utf-8-sig")
    rows = {row["user"]: row for row in csv.DictReader(io.StringIO(text))}
    assert {"ann", "ben", "zoe"} == set(rows)
    assert rows["zoe"]["tokens_today"] == str(sum(used["zoe"]))


def test_hostile_names_are_text_and_can_be_paused(zoe, hub):
    token = hub.token_of("zoe")
    for name in HOSTILE:
        body = {"user": name, "limits": {"tokens_per_day": 7}}
        assert hub.ask("POST", "services/qmt/api/users", token=token, body=body).status == 200
    heads = zoe.page.locator("#users th bdi")
    expect(heads).to_have_count(3 + len(HOSTILE))
    assert {*heads.all_text_contents()} == {"ann", "ben", "zoe", *HOSTILE}
    assert zoe.page.locator("#users img, #users script").count() == 0
    for name in HOSTILE:
        row = zoe.page.locator("#users tr").nth(heads.all_text_contents().index(name))
        row.get_by_role("button", name="Pause").click()
        expect(row.get_by_role("button", name="Resume")).to_be_visible()
    state = hub.ask("GET", "services/qmt/api/state", token=token).value
    assert {each["user"] for each in state["users"] if each["paused"]} == {*HOSTILE}
    assert zoe.page.title() == "qmt: use and limits"
    assert sticking_out(zoe.page.locator("body")) == []
    for name in HOSTILE:
        body = {"user": name, "limits": None, "paused": False}
        assert hub.ask("POST", "services/qmt/api/users", token=token, body=body).status == 200


# How it looks ----------------------------------------------------------------------------------

LOOKS = {
    "light": {},
    "dark": {"color_scheme": "dark"},
    "narrow": {"viewport": {"width": 400, "height": 900}},
    "zoomed": {"viewport": {"width": 590, "height": 450}, "device_scale_factor": 2},
    "calm": {"reduced_motion": "reduce", "forced_colors": "active"},
}


@pytest.mark.parametrize("user", ["ann", "zoe"])
def test_it_can_be_read_and_reached(visit, browser, user, screenshots):
    visitor = visit(user)
    page = visitor.page
    expect(page.locator("#standing")).not_to_have_text("One moment…")
    expect(page.locator("#own-hours figcaption")).to_contain_text("tokens in answers")
    for look, options in LOOKS.items():
        options = dict(options)
        page.set_viewport_size(options.pop("viewport", {"width": 1180, "height": 900}))
        options.pop("device_scale_factor", None)
        page.emulate_media(**{"color_scheme": "light", "forced_colors": "none", **options})
        page.wait_for_timeout(100)
        page.screenshot(path=screenshots / f"hub-page-{user}-{look}.png", full_page=True)
        assert faint(page.locator("body")) == [], look
        assert sticking_out(page.locator("body")) == [], look
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), look
    page.set_viewport_size({"width": 1180, "height": 900})
    assert page.evaluate(NAMELESS) == []
    assert page.evaluate(ODD) == {
        "skipped": [], "firsts": 1, "twice": [], "dangling": [], "bare": 0, "mains": 1, "lang": "en",
    }  # fmt: skip
    # Every stop of the tab key is to be seen, and the first leads past the links.
    page.evaluate("document.activeElement.blur(); scrollTo(0, 0)")
    stops = []
    for _ in range(12):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement === document.body"):
            break
        stops.append(page.evaluate(
            "(({outlineStyle, outlineWidth}) => [outlineStyle, outlineWidth])(getComputedStyle(document.activeElement))"
        ))  # fmt: skip
    assert len(stops) > 7
    assert {tuple(each) for each in stops} == {("solid", "2px")}
    visitor.context.close()
    visit.all.remove(visitor)


# Five hundred users ----------------------------------------------------------------------------


def many_users(count, tokens):
    return [
        {
            "user": f"student{n:03}", "allowance": {"tokens_per_day": 50_000}, "paused": False,
            "seats": [], "tokens_today": tokens if n == 7 else n, "tokens_month": n,
            "elsewhere": {"day": 0, "month": 0}, "left": {"day": 1, "month": None}, "running": 0,
            "waiting": 0, "tokens_per_second": 0.0, "last_seen": 1.0, "limits": None, "policy": {},
        }
        for n in range(count)
    ]  # fmt: skip


def test_five_hundred_users_are_changed_in_place_and_only_while_looked_at(visit):
    zoe = visit("zoe")
    asked = []

    def answer(route):
        asked.append(time.monotonic())
        users = many_users(500, 1000 + len(asked))
        totals = {"users": 500}
        route.fulfill(
            json={"models": [], "users": users, "totals": totals, "zone": "UTC", "now": 2.0}
        )

    zoe.page.route("**/api/state", answer)
    zoe.page.reload()
    rows = zoe.page.locator("#users tr")
    expect(rows).to_have_count(500)
    zoe.page.evaluate("""() => {
        globalThis.changed = [];
        new MutationObserver((seen) => changed.push(...seen.map((each) =>
            each.target.closest("tr")?.querySelector("th").textContent ?? "elsewhere")))
            .observe(document.getElementById("users"), {childList: true, subtree: true, characterData: true});
    }""")
    before = len(asked)
    expect(rows.nth(7).get_by_role("cell").nth(1)).to_contain_text(f"{1002 + before:,} of")
    assert set(zoe.page.evaluate("changed")) == {"student007"}
    assert len(asked) - before >= 2
    pauses = [later - earlier for earlier, later in zip(asked, asked[1:], strict=False)]
    assert min(pauses) > 1.5
    zoe.page.evaluate("""() => {
        Object.defineProperty(document, "hidden", {value: true, configurable: true});
        document.dispatchEvent(new Event("visibilitychange"));
    }""")
    zoe.page.wait_for_timeout(300)
    before = len(asked)
    zoe.page.wait_for_timeout(3_000)
    assert len(asked) == before
    zoe.page.evaluate("""() => {
        delete document.hidden;
        document.dispatchEvent(new Event("visibilitychange"));
    }""")
    zoe.page.wait_for_timeout(1_000)
    assert len(asked) == before + 1
    zoe.page.unroute("**/api/state")
    zoe.context.close()
    visit.all.remove(zoe)


# Rights that go, a service that goes -----------------------------------------------------------


def test_an_admin_who_is_none_any_more_is_told_so(visit, hub):
    yve = visit("yve")
    expect(yve.row("ann")).to_be_visible()
    hub.remove_from_group("yve", "teachers")
    yve.row("ann").get_by_role("button", name="Pause ann").click()
    expect(yve.row("ann").get_by_role("alert")).to_have_text(
        "This is for the admins of the service."
    )
    expect(yve.page.get_by_role("alert").first).to_have_text(
        "This is for the admins of the service."
    )
    yve.page.reload()
    expect(yve.page.get_by_role("heading", level=1)).to_have_text("Your use")
    assert yve.page.locator("#users").count() == 0
    yve.pardon("403 (Forbidden)")
    yve.context.close()
    visit.all.remove(yve)


def test_a_service_that_went_and_came_back_needs_one_reload(hub, zoe, ann):
    hub.stop_service("qmt")
    expect(ann.page.get_by_role("alert").first).to_have_text(
        re.compile("The service does not answer. This page tries again by itself.")
    )
    hub.start_service("qmt")
    expect(zoe.page.get_by_role("alert").first).to_have_text(
        "You are signed out of this page. Load it again to sign in."
    )
    for each in (zoe, ann):
        each.page.reload()
        expect(each.page.locator("#standing")).to_have_text("You can ask now.")
        expect(each.page.get_by_role("alert").first).to_be_empty()
        each.pardon("Failed to load resource")
    assert urlsplit(zoe.page.url).path == "/services/qmt/"
