"""A class on a real JupyterHub: two GPU nodes, three users of two groups, and an administrator.

Students and staff join by ``%qmt_join`` alone, in their own notebook servers. The tests stand in the
order of a day and share the Hub; each leaves everybody as it found them.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.hub.hub import RefusedError, Service
from tests.hub.kernel import CellFailedError

RECHECK = 2.0  # three times that is what guests have for renewing their seats after a start
STUDENTS = 4000  # tokens a day
DELAY = 0.02  # seconds for each word of the model "echo"

POLICY = f"""
zone = "UTC"
only = ["course-a", "staff"]
[everybody]
concurrent = 8
requests_per_minute = 1000
[groups.course-a]
tokens_per_day = {STUDENTS}
[groups.staff]
priority = 4
tokens_per_day = 0
"""

SHORT = "%%chat --new --model echo --max-tokens 3 {}\nalpha beta gamma"
LONG = "%%chat --new --model echo --max-tokens 1500 {}\nalpha beta gamma"
HERE, THERE = "--host qmt", "--host qmt-b"

MANY = """
import threading, time, qmt_jupyter as qmt
mesh, ends = qmt.join("hub"), []
def one():
    for _ in mesh.chat("alpha beta", model="echo", max_tokens=8, host="qmt"):
        pass
    ends.append(time.time())
threads = [threading.Thread(target=one) for _ in range(6)]
for each in threads: each.start()
for each in threads: each.join()
print(sorted(ends))
"""

OWN_SEAT = """
import json, os, urllib.request
asked = urllib.request.Request(
    os.environ["QMT_HUB_URL"].split(",")[0] + "api/seat", json.dumps({"guest": "GUEST"}).encode(),
    {"Authorization": "token " + os.environ["JUPYTERHUB_API_TOKEN"], "Content-Type": "application/json"},
)
print(json.load(urllib.request.urlopen(asked))["link"])
"""


def HUB(root: Path):
    policy = root / "policy.toml"
    policy.write_text(POLICY, encoding="utf-8")
    one, two = Service("qmt"), Service("qmt-b")
    for each, other in ((one, two), (two, one)):
        each.arguments = [
            "--model", f"slow:{DELAY}", "--slots", "1", "--config", str(policy),
            "--recheck", str(RECHECK), "--peer", f"{other.url}{other.prefix}",
        ]  # fmt: skip
    one.arguments += ["--model", "smollm2", "--context", "512"]

    def configure(c, hub):
        from qmt_jupyter.hub import configure

        for each in hub.services.values():
            configure(
                c, name=each.name, url=each.url, api_token=each.token, admins=["boss"],
                groups=["course-a", "staff"],
            )  # fmt: skip

    return {
        "groups": {"course-a": ["ann", "ben"], "staff": ["zoe"]},
        "users": ["boss", "out"],
        "services": [one, two],
        "configure": configure,
    }


def until(condition, seconds=15.0):
    """What ``condition`` gives once that is something."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not come to be"
        time.sleep(0.05)
    return found


class Office:
    """What the administrator does, by the service's API."""

    def __init__(self, hub) -> None:
        self._hub = hub
        self._token = hub.token_of("boss")

    def ask(self, method, path, body=None, service="qmt", token=None):
        return self._hub.ask(
            method, f"services/{service}/{path}", token=token or self._token, body=body
        )

    def state(self, service="qmt"):
        answer = self.ask("GET", "api/state", service=service)
        assert answer.status == 200, answer.value
        return answer.value

    def user(self, name, service="qmt"):
        users = self.state(service)["users"]
        return next((each for each in users if each["user"] == name), {"running": 0, "waiting": 0})

    def change(self, name, service="qmt", **change):
        answer = self.ask("POST", "api/users", {"user": name, **change}, service)
        assert answer.status == 200, answer.value
        return answer.value

    def used(self, name, service="qmt"):
        """Tokens of today, wherever they were used."""
        user = self.user(name, service)
        return user["tokens_today"] + user["elsewhere"]["day"]

    def is_running(self, name, service="qmt"):
        return self.user(name, service)["running"] > 0


@pytest.fixture(scope="module")
def office(hub):
    return Office(hub)


@pytest.fixture(scope="module")
def people(hub):
    """Everybody's notebook, which has joined."""
    names = ("ann", "ben", "zoe")
    servers = dict(zip(names, hub.start_servers(*names), strict=True))
    cells = [each.begin("%load_ext qmt_jupyter\n%qmt_join") for each in servers.values()]
    for cell, server in zip(cells, servers.values(), strict=True):
        cell.wait()
        # Joined is who has one connection; the other service may take longer.
        until(lambda server=server: server.run("%qmt_status").count(" yes ") == 2)
    return servers


def chats(people, *names, where=HERE):
    for name in names:
        assert "alpha" in people[name].run(SHORT.format(where))


def refusal(people, name, where=HERE):
    """What somebody reads who asks now and may not."""
    with pytest.raises(CellFailedError) as failed:
        people[name].run(SHORT.format(where))
    return str(failed.value)


@contextlib.contextmanager
def asking(people, name, where=HERE):
    """Somebody whose answer is being written; it is stopped at the end."""
    cell = people[name].begin(LONG.format(where))
    try:
        cell.wait_for("alpha")
        yield cell
    finally:
        if not cell.is_over:
            people[name].interrupt()
            cell.finish()


def seat(hub, token, guest, service="qmt"):
    return hub.ask("POST", f"services/{service}/api/seat", token=token, body={"guest": guest})


def test_everybody_joins_without_a_link_and_is_known_by_name(hub, office, people):
    seen = {each["user"]: each for each in office.state()["users"]}
    assert set(seen) >= {"ann", "ben", "zoe"}
    assert seen["ann"]["allowance"]["tokens_per_day"] == STUDENTS
    assert seen["zoe"]["allowance"]["priority"] == 4
    assert "tokens_per_day" not in seen["zoe"]["allowance"]
    assert seen["ann"]["groups"] == ["course-a"] and seen["zoe"]["groups"] == ["staff"]
    guests = [each["seats"][0]["guest"] for each in (seen["ann"], seen["ben"], seen["zoe"])]
    assert len(set(guests)) == 3
    shown = people["ann"].run("%qmt_status")
    assert "qmt://" not in shown and people["ann"].token not in shown


def test_a_real_model_answers_in_a_students_notebook(people, office):
    before = office.user("ann")["tokens_today"]
    answer = people["ann"].run(
        "%%chat --model smollm2 --max-tokens 12 --temperature 0\nSay hello in one sentence."
    )
    assert len(answer.split()) > 3
    until(lambda: office.user("ann")["tokens_today"] > before)


def test_guests_spread_over_the_services_and_count_together(people, office):
    # What ran before has to be over in his eyes too, or he takes its place for the busy one.
    until(lambda: "100%" not in people["ben"].run("%qmt_status"))
    with asking(people, "ann", ""):
        until(lambda: "100%" in people["ben"].run("%qmt_status"))  # told once a second
        with asking(people, "ben", ""):
            places = [
                sorted(name for name in ("ann", "ben") if office.is_running(name, service))
                for service in ("qmt", "qmt-b")
            ]
            assert sorted(places) == [["ann"], ["ben"]]
            other = "qmt-b" if places[0] == ["ann"] else "qmt"
            before = office.user("ann", other)["elsewhere"]["day"]
            until(lambda: office.user("ann", other)["elsewhere"]["day"] > before + 20)
    assert all(each["answers"] for each in office.state()["peers"])


def test_a_pause_at_one_service_ends_a_stream_at_another(people, office):
    with asking(people, "ann", THERE) as cell:
        office.change("ann", paused=True, service="qmt")
        with pytest.raises(CellFailedError, match="(?i)pause"):
            cell.wait(20)
    # The newest word holds, wherever it was said.
    office.change("ann", paused=False, service="qmt-b")
    until(lambda: not office.user("ann")["paused"])
    chats(people, "ann")


def test_staff_come_before_students_and_nobody_starves(people, office):
    with asking(people, "ann"):
        students = people["ben"].begin(MANY)
        until(lambda: office.user("ben")["waiting"] == 6)
        staff = people["zoe"].begin(MANY)
        until(lambda: office.user("zoe")["waiting"] == 6)
    ben, zoe = (json.loads(cell.wait(60)) for cell in (students, staff))
    his_before = [sum(end < hers for end in ben) for hers in zoe]
    # His were there first. Four of hers for each of his; his go on meanwhile.
    assert his_before[3] <= 2 and his_before[5] <= 3, (ben, zoe)
    assert his_before[5] >= 1, (ben, zoe)


def test_a_day_limit_ends_in_a_sentence_and_a_larger_one_lets_go_on(people, office):
    used = until(lambda: office.used("ann"))
    office.change("ann", limits={"tokens_per_day": used + 200})
    try:
        # The answer is cut where the tokens end, and the next question is refused.
        people["ann"].run(LONG.format(HERE))
        assert "00:00 (UTC)" in refusal(people, "ann")
        assert used + 100 <= office.used("ann") <= used + 200
        chats(people, "ben")
    finally:
        office.change("ann", limits=None)
    chats(people, "ann")


def test_outside_the_course_hours_a_question_is_told_when_they_begin(people, office):
    day = time.strftime("%A", time.gmtime(time.time() + 3 * 86400))
    office.change("ben", limits={"hours": [f"{day[:3]} 08:00-09:00"]})
    try:
        assert f"{day} 08:00 (UTC)" in refusal(people, "ben")
        chats(people, "ann", "zoe")
    finally:
        office.change("ben", limits=None)
    chats(people, "ben")


def test_an_administrator_pauses_somebody_in_mid_stream(people, office):
    with asking(people, "ann") as cell:
        office.change("ann", paused=True)
        with pytest.raises(CellFailedError, match="(?i)pause"):
            cell.wait(20)
    assert "ause" in refusal(people, "ann")
    assert office.user("ann")["paused"]
    chats(people, "ben")
    office.change("ann", paused=False)
    chats(people, "ann")


def test_a_student_is_no_administrator(people, office):
    token = people["ann"].run("import os; print(os.environ['JUPYTERHUB_API_TOKEN'])").strip()
    for path in ("api/state", "api/usage.csv"):
        assert office.ask("GET", path, token=token).status == 403
    paused = office.ask("POST", "api/users", {"user": "ben", "paused": True}, token=token)
    assert paused.status == 403
    assert not office.user("ben")["paused"]


def test_a_service_that_is_restarted_finds_its_users_again(hub, people, office):
    office.change("ben", paused=True)
    before = office.user("zoe")["requests"]
    hub.stop_service("qmt")
    hub.start_service("qmt")
    chats(people, "ann", "zoe")
    assert "ause" in refusal(people, "ben")
    office.change("ben", paused=False)
    chats(people, "ben")
    assert office.user("zoe")["requests"] == before + 1
    # It ends what is not renewed once it had the time to be; theirs have been.
    with asking(people, "zoe") as cell:
        time.sleep(3 * RECHECK + 1)
        assert not cell.is_over, cell.error


def test_another_users_link_opens_nothing(people, office):
    guest = office.user("ben")["seats"][0]["guest"]
    link = people["ben"].run(OWN_SEAT.replace("GUEST", guest)).strip()
    assert link.startswith("qmt://mesh/join/")
    with pytest.raises(CellFailedError, match="another user"):
        people["zoe"].run(f"%qmt_join {link}")
    chats(people, "ben", "zoe")


def test_forged_foreign_and_powerless_tokens_get_no_seat(hub, people, office):
    guest = office.user("ann")["seats"][0]["guest"]
    assert seat(hub, None, guest).status == 401
    assert seat(hub, "0" * 32, guest).status == 401
    given = hub.api("POST", "users/ann/tokens", {"note": "lost", "expires_in": 3600})
    assert seat(hub, given["token"], guest).status == 200
    hub.api("DELETE", f"users/ann/tokens/{given['id']}")
    assert seat(hub, given["token"], guest).status == 401
    # A token that may say whose it is and no more, one of a user of no group, one of a service.
    weak = hub.api("POST", "users/ann/tokens", {"scopes": ["read:users:name!user"]})["token"]
    for token in (weak, hub.token_of("out"), hub.services["qmt"].token):
        refused = seat(hub, token, guest)
        assert refused.status == 403
        assert refused.value["code"] == "hub-refused" and refused.value["sentence"]


def test_who_is_removed_from_the_group_loses_a_running_stream(hub, people, office):
    with asking(people, "ann") as cell:
        hub.remove_from_group("ann", "course-a")
        with pytest.raises(CellFailedError, match="JupyterHub does not let you"):
            cell.wait(60)
    assert "HubRefused" in refusal(people, "ann")
    with pytest.raises(CellFailedError, match="HubRefused"):
        people["ann"].run("%qmt_join")
    hub.add_to_group("ann", "course-a")
    people["ann"].run("%qmt_join")
    chats(people, "ann")


def test_a_node_that_goes_away_moves_its_users_to_the_others(hub, people, office):
    chats(people, "ann", where=THERE)
    used = until(lambda: office.user("ann")["elsewhere"]["day"])
    with asking(people, "ann", THERE) as cell:
        hub.kill_service("qmt-b")
        chats(people, "ben", "zoe", where="")
        cell.finish(60)
    chats(people, "ann", where="")
    until(lambda: not office.state()["peers"][0]["answers"])
    # What was used there stays used.
    assert office.user("ann")["elsewhere"]["day"] >= used


def test_who_is_deleted_on_the_hub_loses_a_running_stream(hub, people, office, tmp_path):
    # Outside of the Hub's reach: deleting a user ends the user's own server at once.
    environment = {
        **hub.environment(tmp_path),
        "QMT_HUB_URL": f"{hub.url}services/qmt/",
        "JUPYTERHUB_API_TOKEN": hub.token_of("ben"),
    }
    command = [sys.executable, "-m", "qmt_jupyter.cli", "chat", "--join", "hub", "--model", "echo"]
    guest = subprocess.Popen(
        [*command, "--max-tokens", "1500", "--json", "alpha beta"], env=environment,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert "alpha" in until(guest.stdout.readline)
        hub.delete_user("ben")
        output, errors = guest.communicate(timeout=60)
    finally:
        guest.kill()
        guest.communicate()
    assert guest.returncode == 1 and "JupyterHub does not" in output + errors
    until(lambda: not office.is_running("ben"))
    with pytest.raises(RefusedError):
        hub.api("GET", "user", token=environment["JUPYTERHUB_API_TOKEN"])


def test_no_token_and_no_link_stands_in_a_log(hub, people):
    logs = hub.log + hub.service_log("qmt") + hub.service_log("qmt-b")
    tokens = [each.token for each in (*people.values(), *hub.services.values())]
    assert [token for token in tokens if token in logs] == []
    assert "qmt://mesh/join/" not in logs
