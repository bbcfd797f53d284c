"""The page behind the Hub's login: who sees what, what a forged request gets, and hostile names.

The Hub is a scripted one and so is the host; the rest (desk, policy, overrides, handlers) is real.
"""

from __future__ import annotations

import asyncio
import csv
import io
import json
import re
import time

import pytest

pytest.importorskip("jupyterhub", reason="the extra hub is not installed")

from qmt_jupyter.hub.app import make_app
from qmt_jupyter.hub.desk import Desk
from qmt_jupyter.hub.options import Options
from qmt_jupyter.hub.overrides import Overrides
from qmt_jupyter.hub.page.handlers import READERS
from qmt_jupyter.hub.page.login import REMEMBERED_S
from qmt_jupyter.hub.page.standing import standing
from qmt_jupyter.hub.page.usage_csv import text_cell, usage_csv
from qmt_jupyter.hub.policy import read_policy
from qmt_jupyter.hub.rights import Rights
from tests.hub.scripted_hub import (
    ACCESS,
    ADMIN,
    PREFIX,
    SERVICE,
    SERVICE_TOKEN,
    Browser,
    ScriptedHub,
    serving,
)  # fmt: skip

pytestmark = pytest.mark.anyio

# Names that the Hub may hand on, from whatever it authenticates with.
HOSTILE = [
    ".", "..", "a/b", "../../hub/home", "<img src=x onerror=alert(1)>", "\u202eecila", "=1+1",
    "a b", "%2e%2e", "?x=1#y", "ä\N{COMBINING ACUTE ACCENT}", "'\"`${1}", "</script>", "x" * 255,
]  # fmt: skip
POLICY = """
zone = "Europe/Berlin"
[everybody]
tokens_per_day = 1000
[groups.staff]
priority = 4
"""


class ScriptedHost:
    """What the page asks of a host: seats, load, hours; and what it is told to allow."""

    peer_id = "12D3KooWScripted"

    def __init__(self) -> None:
        self.users: dict[str, dict] = {}
        self.told: list[tuple] = []
        self.looks = 0
        self.asked_hours: list[tuple] = []

    def uses(self, user, today=0, **more):
        self.users[user] = {
            "user": user, "allowance": {}, "paused": False, "seats": [], "requests": 3,
            "prompt_tokens": 10, "completion_tokens": 20, "tokens_today": today,
            "tokens_month": today, "elsewhere": {"day": 0, "month": 0},
            "left": {"day": 1000 - today, "month": None}, "running": 0, "waiting": 0,
            "tokens_per_second": 0.0, "last_seen": 1_790_000_000.0, **more,
        }  # fmt: skip

    async def seats(self):
        self.looks += 1
        return list(self.users.values())

    async def activity(self):
        return {"models": [{"name": "echo", "slots": 4, "busy": 1, "waiting": 0}]}

    async def allow(self, user, allowance):
        self.told.append((user, allowance))

    async def hours(self, since, user=None):
        self.asked_hours.append((since, user))
        return [[time.time() // 3600 * 3600, 5, 7]]


class Stage:
    def __init__(self, tmp_path):
        self.hub = ScriptedHub({"ann": {ACCESS}, "zoe": {ACCESS, ADMIN}, "eve": set()})
        self.host = ScriptedHost()
        self.root = tmp_path
        self.port = 0

    def app(self):
        options = Options(
            name=SERVICE, prefix=PREFIX, api_url=self.hub.api_url, api_token=SERVICE_TOKEN
        )
        self.desk = Desk(
            self.host, policy=read_policy(POLICY), overrides=Overrides(self.root / "overrides.json"),
            rights=Rights(self.hub.api_url), options=options,
        )  # fmt: skip
        return make_app(self.desk)

    async def browser(self, user):
        """A browser in which ``user`` has opened the page."""
        self.hub.now = user
        browser = Browser(self.hub, self.port)
        answer = await browser.go()
        assert answer.code == 200, answer.body
        return browser


@pytest.fixture
async def stage(tmp_path, anyio_backend):
    made = Stage(tmp_path)
    async with serving(made.hub.app()) as made.hub.port:
        app = made.app()
        async with serving(app) as made.port:
            yield made
        made.desk.rights.close()


def refusal(answer):
    """The error that an answer is: JSON with one sentence, and nothing of the inside."""
    said = json.loads(answer.body)
    assert set(said) == {"code", "sentence", "next_step"}
    assert said["sentence"].endswith(".")
    assert "Traceback" not in answer.body.decode()
    return said


# Signing in ------------------------------------------------------------------------------------


async def test_the_page_is_shown_after_the_hubs_login(stage):
    browser = await stage.browser("ann")
    page = (await browser.go()).body.decode()
    assert "signed in as <bdi>ann</bdi>" in page
    assert browser.xsrf
    assert SERVICE_TOKEN not in page
    assert all(token not in page for token in stage.hub.tokens)


async def test_a_page_that_is_opened_without_a_login_leads_to_the_hub(stage):
    answer = await Browser(stage.hub, stage.port).go(hops=1)
    assert answer.code == 302
    assert answer.headers["Location"].startswith("/hub/api/oauth2/authorize?client_id=service-qmt&")


async def test_the_address_without_its_last_stroke_leads_to_the_page(stage):
    stage.hub.now = "ann"
    answer = await Browser(stage.hub, stage.port).go(PREFIX.rstrip("/"))
    assert (answer.code, "signed in as <bdi>ann</bdi>" in answer.body.decode()) == (200, True)


async def test_only_a_browser_that_began_to_sign_in_can_end_it(stage):
    stage.hub.now = "ann"
    began = Browser(stage.hub, stage.port)
    to_hub = await began.go(hops=1)
    back = (await began.ask("GET", to_hub.headers["Location"])).headers["Location"]
    # Somebody is made to follow the link that ends another's login.
    other = Browser(stage.hub, stage.port)
    answer = await other.go(back, hops=1)
    assert answer.code == 403
    assert "Signing in did not come to its end." in answer.body.decode()
    assert "qmt-xsrf" not in answer.body.decode()
    assert f"service-{SERVICE}" not in other.cookies


@pytest.mark.parametrize(
    "query", ["", "?error=x&error_description=<b>y", "?code=x", "?code=x&state=y"]
)
async def test_a_login_that_goes_wrong_is_one_sentence(stage, query):
    answer = await Browser(stage.hub, stage.port).go(f"oauth_callback{query}", hops=1)
    assert answer.code in (400, 403)
    assert "<h1>Signing in did not come to its end.</h1>" in answer.body.decode()
    assert "<b>" not in answer.body.decode()


async def test_who_has_no_access_sees_a_sentence(stage):
    stage.hub.now = "eve"
    answer = await Browser(stage.hub, stage.port).go()
    assert answer.code == 403
    assert "<h1>This JupyterHub does not let you use this service.</h1>" in answer.body.decode()


async def test_a_hub_that_is_away_is_one_sentence(stage):
    browser = await stage.browser("ann")
    stage.desk.rights.close()
    stage.hub.is_away = True
    stage.hub.tokens.clear()
    zoe = Browser(stage.hub, stage.port)
    zoe.cookies = {**browser.cookies, "jupyterhub-session-id": "another"}
    answer = await zoe.go()
    assert answer.code == 503
    assert "cannot be asked" in answer.body.decode()


# What is sent ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", ["", "api/me", "api/state", "api/hours", "api/usage.csv", "api/users"]
)
async def test_every_answer_forbids_what_the_page_does_not_need(stage, path):
    browser = await stage.browser("zoe")
    answer = await browser.fetch(path)
    policy = dict(
        part.strip().split(" ", 1) for part in answer.headers["Content-Security-Policy"].split(";")
    )
    assert policy == {
        "default-src": "'none'", "script-src": "'self'", "style-src": "'self'", "img-src": "'self'",
        "connect-src": "'self'", "frame-ancestors": "'none'", "base-uri": "'none'",
        "form-action": "'self'",
    }  # fmt: skip
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Referrer-Policy"] == "no-referrer"


async def test_the_page_loads_only_what_is_its_own_and_there(stage):
    browser = await stage.browser("zoe")
    page = (await browser.go()).body.decode()
    loaded = {*re.findall(r'<(?:script|img)[^>]* src="([^"]*)"', page)}
    loaded |= {*re.findall(r'<link[^>]* href="([^"]*)"', page)}
    assert {"static/page.css", "static/me.js", "static/admin.js", "static/mark.svg"} <= loaded
    assert " style=" not in page and "<style" not in page and " on" + "click" not in page
    todo, seen = sorted(loaded), set()
    while todo:
        path = todo.pop()
        if path in seen:
            continue
        seen.add(path)
        assert path.startswith("static/"), path
        answer = await browser.go(path)
        assert (answer.code, answer.headers["X-Content-Type-Options"]) == (200, "nosniff"), path
        assert "http://" not in answer.body.decode().replace("http://www.w3.org/2000/svg", "")
        imported = re.findall(r'from "\./([^"]*)"', answer.body.decode())
        todo += [f"static/{each}" for each in imported]
    assert "static/users.js" in seen


@pytest.mark.parametrize(
    "path",
    [
        "static/",
        "static/nothing.js",
        "static/..%2fpage.html",
        "static/../page.html",
        "static/page.html",
    ],
)
async def test_nothing_else_of_the_folder_is_sent(stage, path):
    answer = await (await stage.browser("ann")).go(path)
    assert answer.code == 404
    refusal(answer)


async def test_a_name_of_the_hub_is_text_on_the_page(stage):
    for name in HOSTILE:
        stage.hub.users[name] = {ACCESS}
        browser = await stage.browser(name)
        page = (await browser.go()).body.decode()
        for markup in ("<img src=x", "</script>a"):
            assert markup not in page
        mine = await browser.fetch("api/me")
        assert json.loads(mine.body)["user"] == name
        assert "<" not in mine.body.decode()


# Who may what ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "api/state",
        "api/usage.csv",
        "api/hours?everybody=1",
        "api/hours?user=zoe",
        "api/hours?user=",
    ],
)
async def test_who_is_no_admin_sees_nobody_else(stage, path):
    stage.host.uses("zoe", today=99)
    answer = await (await stage.browser("ann")).fetch(path)
    assert answer.code == 403
    assert refusal(answer)["code"] == "hub-refused"
    assert stage.host.asked_hours == []


async def test_who_is_no_admin_changes_nothing_and_is_sent_no_script_for_it(stage):
    browser = await stage.browser("ann")
    page = (await browser.go()).body.decode()
    assert "admin.js" not in page and "everybody" not in page
    answer = await browser.fetch("api/users", {"user": "ann", "limits": {"tokens_per_day": None}})
    assert answer.code == 403
    assert stage.host.told == []


async def test_an_admin_who_loses_the_scope_loses_the_page(stage):
    browser = await stage.browser("zoe")
    assert (await browser.fetch("api/state")).code == 200
    stage.hub.users["zoe"] = {ACCESS}
    # A change asks the Hub anew, whatever is remembered.
    assert (await browser.fetch("api/users", {"user": "ann", "paused": True})).code == 403
    assert stage.host.told == []
    assert REMEMBERED_S <= 10


async def test_many_who_look_at_once_cost_the_host_one_look(stage, monkeypatch):
    monkeypatch.setattr("qmt_jupyter.hub.desk.LOOK", 60)
    monkeypatch.setattr("qmt_jupyter.hub.page.handlers.KEPT_S", 60)
    browsers = [await stage.browser("ann") for _ in range(3)]
    stage.host.uses("ann", today=1)
    await stage.desk.change("ann", paused=False)
    stage.host.looks = 0
    seen = [json.loads((await each.fetch("api/me")).body) for each in browsers]
    assert [each["tokens_today"] for each in seen] == [1, 1, 1]
    for each in browsers:
        await each.fetch("api/hours")
    assert (stage.host.looks, len(stage.host.asked_hours)) == (0, 1)


async def test_one_who_asks_for_the_same_hours_in_a_flood_does_not_have_them_read_as_often(stage):
    ann = await stage.browser("ann")
    usual, going = stage.host.hours, asyncio.Event()

    async def slow(since, user=None):
        read = await usual(since, user)
        await going.wait()
        return read

    stage.host.hours = slow
    flood = [asyncio.ensure_future(ann.fetch("api/hours?days=31")) for _ in range(8)]
    while len(stage.host.asked_hours) < 1:
        await asyncio.sleep(0.01)
    going.set()
    assert {each.code for each in await asyncio.gather(*flood)} == {200}
    assert len(stage.host.asked_hours) <= READERS


async def test_what_the_hub_said_is_remembered_for_a_few_seconds_only(stage, monkeypatch):
    browser = await stage.browser("zoe")
    assert (await browser.fetch("api/state")).code == 200
    asked = stage.hub.asked
    assert (await browser.fetch("api/state")).code == 200
    assert stage.hub.asked == asked
    stage.hub.users["zoe"] = {ACCESS}
    real = time.monotonic
    monkeypatch.setattr(
        "jupyterhub.services.auth.time.monotonic", lambda: real() + REMEMBERED_S + 1
    )
    assert (await browser.fetch("api/state")).code == 403


async def test_who_signs_out_at_the_hub_is_signed_out_here(stage):
    browser = await stage.browser("zoe")
    stage.hub.tokens.clear()
    answer = await browser.fetch("api/users", {"user": "ann", "paused": True})
    assert answer.code == 401
    assert refusal(answer)["sentence"] == "You are signed out of this page."
    assert stage.host.told == []


async def test_a_program_with_an_admins_token_may_do_the_same(stage):
    program = Browser(stage.hub, stage.port)
    shown = {
        "Authorization": f"token {stage.hub.token_of('zoe')}",
        "Content-Type": "application/json",
    }
    answer = await program.ask("GET", f"{PREFIX}api/state", headers=shown)
    assert (answer.code, json.loads(answer.body)["service"]) == (200, SERVICE)
    body = json.dumps({"user": "ann", "paused": True})
    assert (await program.ask("POST", f"{PREFIX}api/users", headers=shown, body=body)).code == 200
    shown["Authorization"] = f"token {stage.hub.token_of('ann')}"
    assert (await program.ask("POST", f"{PREFIX}api/users", headers=shown, body=body)).code == 403
    assert len(stage.host.told) == 1


async def test_a_token_that_is_none_does_not_fall_back_on_the_cookie(stage):
    browser = await stage.browser("zoe")
    wrong = {"Authorization": "token nobodys", "X_XSRFToken": None}
    assert (await browser.fetch("api/state", **wrong)).code == 401
    assert (await browser.fetch("api/users", {"user": "ann", "paused": True}, **wrong)).code in (
        401,
        403,
    )
    assert stage.host.told == []


# Forged requests -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "forged",
    [
        {"X_XSRFToken": None},
        {"X_XSRFToken": ""},
        {"X_XSRFToken": "wrong"},
        {"X_XSRFToken": "ä\N{SNOWMAN}".encode().decode("latin-1")},
        {"X_XSRFToken": None, "Sec_Fetch_Mode": "no-cors"},
        {"X_XSRFToken": None, "Sec_Fetch_Mode": "websocket"},
        {"X_XSRFToken": None, "Sec_Fetch_Mode": None, "Sec_Fetch_Site": None},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
        {"Sec_Fetch_Site": None, "Origin": "http://evil.example"},
        {"Sec_Fetch_Site": None, "Origin": "null"},
        {"Sec_Fetch_Site": None, "Origin": None},
    ],
    ids=str,
)
async def test_a_forged_change_is_refused(stage, forged):
    browser = await stage.browser("zoe")
    answer = await browser.fetch("api/users", {"user": "ann", "paused": True}, **forged)
    assert answer.code == 403
    assert stage.host.told == []
    # Not because changes are refused altogether.
    assert (await browser.fetch("api/users", {"user": "ann", "paused": True})).code == 200


async def test_another_admins_token_against_forgery_is_none_of_ones_own(stage):
    stage.hub.users["yve"] = {ACCESS, ADMIN}
    mallory, zoe = await stage.browser("yve"), await stage.browser("zoe")
    zoe.xsrf = mallory.xsrf
    zoe.cookies["_xsrf"] = mallory.cookies["_xsrf"]
    assert (await zoe.fetch("api/users", {"user": "ann", "paused": True})).code == 403


async def test_a_form_elsewhere_cannot_send_a_change(stage):
    browser = await stage.browser("zoe")
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", None):
        answer = await browser.fetch(
            "api/users", {"user": "ann", "paused": True}, Content_Type=kind
        )
        assert answer.code == 400
    assert stage.host.told == []


async def test_a_browser_on_plain_http_says_its_origin_alone(stage):
    browser = await stage.browser("zoe")
    plain = {"Sec_Fetch_Site": None, "Sec_Fetch_Mode": None}
    assert (await browser.fetch("api/users", {"user": "ann", "paused": True}, **plain)).code == 200


async def test_what_a_script_reads_needs_the_token_too(stage):
    browser = await stage.browser("zoe")
    assert (await browser.fetch("api/state", X_XSRFToken=None)).code == 401


async def test_nothing_changes_by_get(stage):
    browser = await stage.browser("zoe")
    assert (await browser.fetch("api/users?user=ann&paused=true")).code == 405
    assert stage.host.told == []


# Changes ---------------------------------------------------------------------------------------


async def test_an_admin_pauses_limits_and_goes_back_to_the_policy(stage):
    stage.host.uses("ann", today=600)
    browser = await stage.browser("zoe")
    paused = json.loads((await browser.fetch("api/users", {"user": "ann", "paused": True})).body)
    assert (paused["paused"], paused["user"]) == (True, "ann")
    assert stage.host.told[-1][1].paused
    limits = {"tokens_per_day": 5, "concurrent": None, "hours": ["Mon 08:00-09:00"]}
    body = {"user": "ann", "limits": limits, "paused": False}
    entry = json.loads((await browser.fetch("api/users", body)).body)
    assert entry["allowance"]["tokens_per_day"] == 5
    assert "concurrent" not in entry["allowance"]
    assert entry["limits"] == limits
    assert entry["policy"]["tokens_per_day"] == 1000
    assert entry["rules"]["tokens_per_day"] == "admin"
    told = stage.host.told[-1][1]
    assert (told.tokens_per_day, told.concurrent, told.paused) == (5, None, False)
    entry = json.loads((await browser.fetch("api/users", {"user": "ann", "limits": None})).body)
    assert (entry["allowance"]["tokens_per_day"], entry["limits"]) == (1000, None)


async def test_hostile_names_can_be_changed(stage):
    browser = await stage.browser("zoe")
    for name in HOSTILE:
        answer = await browser.fetch("api/users", {"user": name, "paused": True})
        assert (answer.code, json.loads(answer.body)["user"]) == (200, name)
        assert stage.host.told[-1][0] == name
        assert (
            await browser.fetch(f"api/users/{name.encode().hex()}", {"paused": False})
        ).code == 404


@pytest.mark.parametrize(
    "body",
    [
        {}, {"user": "ann"}, {"paused": True}, {"user": "", "paused": True},
        {"user": "x" * 256, "paused": True}, {"user": 1, "paused": True},
        {"user": ["ann"], "paused": True}, {"user": "ann", "paused": "yes"},
        {"user": "ann", "paused": None}, {"user": "ann", "paused": 1},
        {"user": "ann", "limits": []}, {"user": "ann", "limits": {"tokens_per_day": -1}},
        {"user": "ann", "limits": {"tokens_per_day": 1.5}},
        {"user": "ann", "limits": {"tokens_per_day": "9" * 400}},
        {"user": "ann", "limits": {"hours": 1}}, {"user": "ann", "limits": {"hours": ["always"]}},
        {"user": "ann", "limits": {"priority": 101}}, {"user": "ann", "admin": True, "paused": True},
        [], "x", 1, None, b"{", b"\xff", b"", b"[" * 9000, b'{"user": "ann", "limits": NaN}',
        b'{"user": "\\ud800", "paused": true}',
        json.dumps({"user": "ann", "limits": {"models": ["m" * 100] * 1000}}).encode(),
    ],
    ids=lambda body: str(body)[:40],
)  # fmt: skip
async def test_a_change_that_makes_no_sense_is_one_sentence(stage, body):
    browser = await stage.browser("zoe")
    body = b"null" if body is None else body
    answer = await browser.fetch("api/users", body)
    assert answer.code == 400, answer.body
    refusal(answer)
    assert stage.host.told == []


# What is read ----------------------------------------------------------------------------------


async def test_a_user_sees_use_limits_and_where_they_come_from(stage):
    stage.host.uses("ann", today=600)
    stage.hub.groups["ann"] = ["staff"]
    seen = json.loads((await (await stage.browser("ann")).fetch("api/me")).body)
    assert (seen["user"], seen["tokens_today"], seen["left"]["day"]) == ("ann", 600, 400)
    assert (seen["offered"], seen["zone"]) == (["echo"], "Europe/Berlin")
    assert seen["standing"] == {"state": "open", "again": None}
    assert (seen["rules"]["priority"], seen["rules"]["tokens_per_day"]) == (
        "group staff",
        "everybody",
    )


async def test_hours_are_ones_own_or_an_admins_choice(stage):
    ann, zoe = await stage.browser("ann"), await stage.browser("zoe")
    assert json.loads((await ann.fetch("api/hours")).body)["hours"][0][1:] == [5, 7]
    await ann.fetch("api/hours?user=ann&days=31")
    await zoe.fetch("api/hours?everybody=1&days=1")
    await zoe.fetch("api/hours?user=..")
    assert [user for _, user in stage.host.asked_hours] == ["ann", "ann", None, ".."]
    now = time.time()
    back = [(now - since) / 86400 for since, _ in stage.host.asked_hours]
    assert [round(days) for days in back] == [7, 31, 1, 7]
    assert all(since % 3600 == 0 for since, _ in stage.host.asked_hours)


@pytest.mark.parametrize("days", ["0", "32", "-1", "x", "", "1e1", "²", "9" * 5000])
async def test_hours_of_no_number_of_days_are_refused(stage, days):
    from urllib.parse import quote

    answer = await (await stage.browser("zoe")).fetch(f"api/hours?days={quote(days)}")
    assert answer.code == 400
    refusal(answer)


async def test_the_file_has_a_row_a_user_and_no_formula(stage):
    for name in HOSTILE:
        stage.host.uses(name, today=5)
    answer = await (await stage.browser("zoe")).fetch("api/usage.csv")
    assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
    assert re.fullmatch(
        r'attachment; filename="qmt-usage-[0-9-]{10}\.csv"', answer.headers["Content-Disposition"]
    )
    head, *rows = csv.reader(io.StringIO(answer.body.decode("utf-8-sig"), newline=""))
    assert [row[0] for row in rows] == [text_cell(name) for name in HOSTILE]
    assert dict(zip(HOSTILE, rows, strict=True))["=1+1"][0] == "'=1+1"
    assert all(len(row) == len(head) for row in rows)
    first = dict(zip(head, rows[0], strict=True))
    assert (first["tokens_today"], first["tokens_per_day"], first["left_month"]) == (
        "5",
        "1000",
        "",
    )
    assert first["last_seen"].endswith("+00:00")


@pytest.mark.parametrize(
    "text",
    [
        "=1",
        "+1",
        "-1",
        "@x",
        "\t=1",
        "\r=1",
        " =1",
        "\n@x",
        "\N{FULLWIDTH EQUALS SIGN}1",
        "'=1",
        '"=1',
        "\ufeff=1",
        "|x",
    ],
)
def test_no_cell_of_the_file_is_a_formula(text):
    assert text_cell(text).startswith("'")
    rows = list(csv.reader(io.StringIO(usage_csv([{"user": text}]), newline="")))
    assert len(rows) == 2, "nothing breaks a line"


def test_what_is_no_formula_stays_as_it_is():
    assert [text_cell(each) for each in ("ann", "a=b", "x-1", "ö@b")] == [
        "ann",
        "a=b",
        "x-1",
        "ö@b",
    ]


@pytest.mark.parametrize(
    ("limits", "left", "state"),
    [
        ({}, (None, None), "open"),
        ({}, (1, 1), "open"),
        ({}, (0, 5), "day"),
        ({}, (0, 0), "month"),
        ({"hours": ("Sat 08:00-09:00",)}, (0, 0), "closed"),
        ({"hours": ("Sat 08:00-09:00",), "paused": True}, (0, 0), "paused"),
    ],
)
def test_the_longest_hindrance_is_the_one_that_is_said(limits, left, state):
    from qmt_jupyter.facade import Allowance

    monday_noon = 1_796_040_000.0
    entry = {"left": {"day": left[0], "month": left[1]}}
    said = standing(entry, Allowance(**limits), monday_noon)
    assert said["state"] == state
    if state == "closed":
        assert time.strftime("%a %H:%M", time.gmtime(said["again"])) == "Sat 08:00"
