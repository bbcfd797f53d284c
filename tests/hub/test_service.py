"""The service beside a real JupyterHub: one that the Hub starts, and one on a node of its own."""

from __future__ import annotations

import contextlib
import http.cookiejar
import json
import os
import re
import secrets
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

import pytest

import qmt_jupyter as qmt
from qmt_jupyter.errors import MembershipEnded, QmtError, Revoked
from qmt_jupyter.hub import configure
from qmt_jupyter.identity import keys
from qmt_jupyter.settings import Settings
from tests.hub.hub import Service, free_port
from tests.hub.test_metrics import samples

MANAGED, EXTERNAL = "qmt", "qmt-node"
METRICS_TOKEN = secrets.token_hex(16)
# A word of an answer takes its time, so that things can happen in the midst of one.
SLOW = """
import sys
from qmt_jupyter.providers import echo
from qmt_jupyter.hub.__main__ import main
echo.Echo.__init__.__kwdefaults__["delay"] = 0.05
sys.exit(main(sys.argv[1:]))
"""
LONG = "word " * 1200  # a minute
POLICY = """
only = ["course-a", "staff"]
[groups.course-a]
tokens_per_day = 90000
"""


def HUB(root):
    limits = root / "limits.toml"
    limits.write_text(POLICY)
    flags = ["--model", "echo", "--recheck", "1", "--config", str(limits)]
    external = Service(EXTERNAL, command=[sys.executable, "-c", SLOW, *flags])

    def both(c, hub):
        configure(
            c, name=MANAGED, model="echo", config=limits, groups=["course-a", "staff"],
            admins=["group:staff"], url=f"http://127.0.0.1:{free_port()}", hub_url=hub.url,
            arguments=["--recheck", "1"], metrics_token=METRICS_TOKEN,
            environment={
                "QMT_HOME": str(root / "managed"), "QMT_INTERFACES": "127.0.0.1",
                "QMT_DETECT": "off", "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
            },
        )  # fmt: skip
        configure(
            c, name=EXTERNAL, groups=["course-a", "staff"], url=external.url,
            api_token=external.token, hub_url=hub.url,
        )  # fmt: skip

    return {
        "groups": {"course-a": ["ann", "ben", "cleo"], "staff": ["zoe"], "course-b": ["eve"]},
        "services": [external],
        "configure": both,
    }


def guest_id():
    return keys.load_or_create(Settings.from_environment().guest_dir / "identity.key").peer_id


def seat(hub, name, token, guest=None):
    body = {"guest": guest or guest_id()}
    return hub.ask("POST", f"services/{name}/api/seat", token=token, body=body)


def until(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.05)


@contextlib.contextmanager
def in_the_midst(link):
    """A guest of ours that hears a long answer: what it got, and a call that waits for the end."""
    with qmt.join(link) as mesh:
        got, ended = [], []

        def read():
            try:
                for piece in mesh.chat(LONG):
                    got.append(piece)
                ended.append(None)
            except QmtError as error:
                ended.append(error)

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        until(lambda: len(got) > 3)

        def end():
            reader.join(30)
            assert ended, "it goes on"
            return ended[0]

        yield got, end
    reader.join(30)


def test_the_hub_starts_one_and_finds_the_other(hub):
    until(lambda: hub.ask("GET", f"services/{MANAGED}/health").status == 200)
    for name in (MANAGED, EXTERNAL):
        health = hub.ask("GET", f"services/{name}/health")
        assert (health.status, health.value["status"]) == (200, "ok")
    for name, log in ((MANAGED, hub.log), (EXTERNAL, hub.service_log(EXTERNAL))):
        (ready,) = [line for line in log.splitlines() if f"The service {name} shares echo" in line]
        assert "can read all prompts" in ready
    assert hub.services[EXTERNAL].token not in hub.service_log(EXTERNAL) + hub.log
    assert METRICS_TOKEN not in hub.log


def test_a_notebook_server_s_own_token_gets_a_seat_and_keeps_its_own_rights(hub):
    server = hub.start_server("ann")
    token, urls = server.run(
        "import os; print(os.environ['JUPYTERHUB_API_TOKEN'], os.environ['QMT_HUB_URL'])"
    ).split()
    assert urls == f"{hub.url}services/{MANAGED}/,{hub.url}services/{EXTERNAL}/"
    model = hub.api("GET", "user", token=token)
    assert model["groups"] == ["course-a"]
    assert set(model["scopes"]) == {
        f"access:services!service={MANAGED}", f"access:services!service={EXTERNAL}",
        # What the Hub's own role "server" gives, and no more.
        "access:servers!server=ann/", "users:activity!user=ann", "read:users:activity!user=ann",
        "read:users:name!user=ann", "read:users:groups!user=ann",
    }  # fmt: skip
    for name in (MANAGED, EXTERNAL):
        given = seat(hub, name, token)
        assert given.status == 200, given.value
        assert given.value["user"] == "ann"
        with qmt.join(given.value["link"]) as mesh:
            assert mesh.chat("Hello there").read() == "Hello there"
            assert mesh.status()[0]["mesh"] == name


def test_a_forged_and_a_foreign_token_get_nothing(hub):
    def made_for(user, *scopes):
        body = {"note": "narrow", "scopes": list(scopes)}
        return hub.api("POST", f"users/{user}/tokens", body)["token"]

    other = f"access:services!service={EXTERNAL}"
    tokens = {
        "forged": (secrets.token_hex(16), 401),
        "of a service": (hub.services[EXTERNAL].token, 403),
        "of the Hub's administrator": (hub._token, 403),
        "of who collects metrics": (METRICS_TOKEN, 403),
        "for another service": (made_for("ann", other), 403),
        "for the notebook alone": (made_for("ann", "access:servers!user=ann"), 403),
        "of a user of no group of ours": (hub.token_of("eve"), 403),
    }
    for what, (token, status) in tokens.items():
        refused = seat(hub, MANAGED, token)
        assert (refused.status, refused.value["code"]) == (status, "hub-refused"), what
    assert seat(hub, MANAGED, None).status == 401
    # The same token opens what it is for.
    assert seat(hub, EXTERNAL, tokens["for another service"][0]).status == 200
    # No cookie of the Hub's stands in for a token.
    cookie = {"Cookie": f"service-{MANAGED}={hub.token_of('ann')}"}
    refused = hub.ask(
        "POST", f"services/{MANAGED}/api/seat", body={"guest": guest_id()}, headers=cookie
    )
    assert refused.status == 401


def test_metrics_are_for_who_has_the_scope(hub):
    address = f"services/{MANAGED}/metrics"
    assert hub.ask("GET", address, token=METRICS_TOKEN).status == 200
    # As Prometheus sends it, and for all services of the Hub.
    bearer = {"Authorization": f"Bearer {METRICS_TOKEN}"}
    for name in (MANAGED, EXTERNAL):
        told = hub.ask("GET", f"services/{name}/metrics", headers=bearer)
        assert samples(told.body)["qmt_slots", ()] > 0
        for path in ("api/state", "api/node"):
            assert hub.ask("GET", f"services/{name}/{path}", headers=bearer).status in (401, 403)
    assert hub.ask("GET", address, token=hub.token_of("ann")).status == 403
    assert hub.ask("GET", address, token=secrets.token_hex(16)).status == 401


def signed_in(hub, user):
    """Asks as a browser does in which the user has signed in at the Hub: ``look(path)``."""
    jar = http.cookiejar.CookieJar()
    browser = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPCookieProcessor(jar)
    )

    def look(path, **form):
        data = urllib.parse.urlencode(form).encode() if form else None
        asked = urllib.request.Request(f"{hub.url}{path}", data, {"Sec-Fetch-Mode": "navigate"})
        try:
            with browser.open(asked, timeout=30) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    look("hub/login")
    (xsrf,) = [each.value for each in jar if each.name == "_xsrf"]
    look("hub/login?next=%2Fhub%2Fhome", username=user, password="any", _xsrf=xsrf)
    return look


@pytest.mark.parametrize(
    ("user", "page", "state"), [("ann", 200, 403), ("zoe", 200, 200), ("eve", 403, 401)]
)
def test_the_page_knows_a_user_and_an_administrator_by_the_hub_s_login(hub, user, page, state):
    look = signed_in(hub, user)
    # The Hub asks nobody whether its own service may know who it is.
    status, text = look(f"services/{MANAGED}/")
    assert status == page, text[:2000]
    if page == 200:
        assert f"<bdi>{user}</bdi>" in text
        status, mine = look(f"services/{MANAGED}/api/me")
        assert (status, json.loads(mine)["user"]) == (200, user)
    status, said = look(f"services/{MANAGED}/api/state")
    assert status == state, said
    assert set(json.loads(said)) >= ({"users", "totals"} if state == 200 else {"code", "sentence"})


@pytest.mark.parametrize("how", ["leaves the group", "is deleted", "loses the token"])
def test_who_loses_the_right_on_the_hub_loses_the_running_answer(hub, how):
    user = {"leaves the group": "ben", "is deleted": "cleo", "loses the token": "ann"}[how]
    made = hub.api("POST", f"users/{user}/tokens", {"note": how})
    given = seat(hub, EXTERNAL, made["token"])
    assert given.status == 200, given.value
    with in_the_midst(given.value["link"]) as (got, end):
        if how == "leaves the group":
            hub.remove_from_group(user, "course-a")
        elif how == "is deleted":
            hub.delete_user(user)
        else:
            hub.api("DELETE", f"users/{user}/tokens/{made['id']}")
        ended = end()
        assert isinstance(ended, Revoked)
        assert "does not let you use this service any more" in ended.sentence
        assert len(got) < 1200
    assert seat(hub, EXTERNAL, made["token"]).status == (403 if how == "leaves the group" else 401)
    with pytest.raises(MembershipEnded):
        qmt.join(given.value["link"])


def test_a_service_that_was_restarted_gives_seats_and_ends_those_that_nobody_renews(hub):
    kept = seat(hub, EXTERNAL, hub.token_of("ann"))
    left = seat(hub, EXTERNAL, hub.token_of("zoe"), keys.Identity.fresh().peer_id)
    assert (kept.status, left.status) == (200, 200)
    hub.stop_service(EXTERNAL)
    assert hub.ask("GET", f"services/{EXTERNAL}/health").status == 503
    hub.start_service(EXTERNAL)
    again = seat(hub, EXTERNAL, hub.token_of("ann"))
    assert again.status == 200
    with qmt.join(again.value["link"]) as mesh:
        assert mesh.chat("Still me").read() == "Still me"
        time.sleep(4)  # three times --recheck, and it is still here
        assert mesh.chat("And again").read() == "And again"
    for log in (hub.log, hub.service_log(EXTERNAL)):
        assert not re.search(r"\[E [^]]* qmt_jupyter", log)
    assert log.count("told to stop") == 1
    assert "Traceback" not in log and "never retrieved" not in log
