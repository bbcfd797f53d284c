"""The guest panel: what it says of the hosts, and leaving them from it."""

from __future__ import annotations

import json
import time

import pytest

import qmt_jupyter as qmt
from qmt_jupyter.notebook.panels import frozen
from qmt_jupyter.notebook.panels.guest import GuestPanel
from qmt_jupyter.notebook.state import State
from qmt_jupyter.providers.echo import Echo
from tests.notebook.conftest import errors
from tests.notebook.front import VIEW, Front, panels


class Told(GuestPanel):
    """Keeps what it would send."""

    def __init__(self, state):
        self.sent = []
        super().__init__(state)

    def send(self, content, buffers=None):
        self.sent.append(content)

    def asked(self, name, **given):
        """The answer to a question."""
        self._heard(self, {**given, "ask": name, "id": f"q{len(self.sent)}"}, [])
        deadline = time.monotonic() + 20
        while not (said := [each for each in list(self.sent) if "answer" in each]):
            assert time.monotonic() < deadline
            time.sleep(0.005)
        self.sent.clear()
        return said[-1]

    def until(self, condition):
        """The first host, once it is as wanted."""
        deadline = time.monotonic() + 20
        while not condition(host := self.view()["hosts"][0]):
            assert time.monotonic() < deadline, host
            time.sleep(0.01)
        return host


@pytest.fixture
def hosting(tmp_path, monkeypatch):
    """Starts hosts, each at home in a place of its own."""
    running = []

    def start(name, provider=None, **terms):
        monkeypatch.setenv("QMT_HOME", str(tmp_path / name))
        running.append(qmt.host(provider or Echo(), name=name, uses=0, **terms))
        monkeypatch.setenv("QMT_HOME", str(tmp_path / "guest"))
        return running[-1]

    yield start
    for each in running:
        each.close()


@pytest.fixture
def joined():
    """A panel of the hosts that were joined."""
    made = []

    def join(*hosts):
        state = State(mesh=qmt.join([each.invite.url for each in hosts]))
        made.append(Told(state))
        return made[-1]

    yield join
    for panel in made:
        if panel._state.mesh is not None:
            panel._state.mesh.leave()
        panel.close()


def test_it_shows_the_way_the_models_the_load_and_what_is_left(hosting, joined):
    limits = qmt.Limits(tokens=1000, requests=5, requests_per_minute=60, per_guest=True)
    team = hosting("Team", Echo(slots=4), limits=limits)
    panel = joined(team)
    panel._state.mesh.chat("one two three").read()
    # What was reserved comes back, and the load is told, a moment after the last token.
    shown = panel.until(
        lambda host: (
            host["used"]["completion_tokens"] == 3
            and host["models"][0]["busy"] == 0
            and host["budgets"][0]["left"] >= 990
        )
    )
    assert (shown["mesh"], shown["state"], shown["path"]) == ("Team", "connected", "direct")
    assert shown["rtt_ms"] is not None
    (model,) = shown["models"]
    assert (model["name"], model["slots"]) == ("echo", 4)
    tokens, requests = shown["budgets"]
    assert (tokens["what"], tokens["of"]) == ("tokens", 1000)
    assert tokens["left"] < 1000
    assert requests == {"what": "requests", "left": 4, "of": 5}
    assert shown["shared"] is False
    assert "60 requests a minute" in shown["also"]
    assert shown["ends"] > time.time()
    json.dumps(panel.view())


def test_without_limits_there_is_no_bar_and_a_budget_of_the_invite_says_so(hosting, joined):
    free, bound = hosting("Free"), hosting("Bound", limits=qmt.Limits(tokens=100))
    first, second = joined(free, bound).view()["hosts"]
    assert first["budgets"] == []
    assert second["budgets"] == [{"what": "tokens", "left": 100, "of": 100}]
    assert second["shared"] is True


def test_a_request_that_waits_shows_its_place_in_the_queue(hosting, joined):
    panel = joined(hosting("Team", Echo(slots=1, delay=0.02, repeat=True)))
    answers = [panel._state.mesh.chat("on and on", max_tokens=100_000) for _ in range(3)]
    shown = panel.until(lambda host: host["running"] == 3 and len(host["waiting"]) == 2)
    assert shown["waiting"] == sorted(shown["waiting"])
    for answer in answers:
        answer.stop()
    panel.until(lambda host: host["running"] == 0 and host["waiting"] == [])


def test_a_host_that_revokes_is_shown_with_its_sentence(hosting, joined):
    team = hosting("Team")
    panel = joined(team)
    team.revoke(team.invite.invite_id)
    shown = panel.until(lambda host: host["state"] == "away")
    assert "revoked" in shown["problem"]


def test_a_host_that_stops_is_looked_for(hosting, joined):
    team = hosting("Team")
    panel = joined(team)
    team.close()
    assert panel.until(lambda host: host["state"] == "returning")["path"] is None


def test_one_host_is_left_by_its_whole_id_and_then_the_others(hosting, joined):
    team, lab = hosting("Team"), hosting("Lab")
    panel = joined(team, lab)
    for wrong in ("Team", team.peer_id[-8:], "", None, 5, ["x"], "x" * 10_000):
        assert "problem" in panel.asked("leave", host=wrong)
    assert len(panel.view()["hosts"]) == 2
    assert "problem" not in panel.asked("leave", host=team.peer_id)
    assert [each["id"] for each in panel.view()["hosts"]] == [lab.peer_id]
    assert "left already" in panel.asked("leave", host=team.peer_id)["problem"]
    assert "problem" not in panel.asked("leave_all")
    assert panel.view() == {"hosts": []}
    assert panel._state.mesh is None, "as %qmt_leave leaves it"
    assert "problem" not in panel.asked("leave_all"), "the same from another view"
    assert "left already" in panel.asked("leave", host=lab.peer_id)["problem"]


def test_what_a_host_calls_itself_and_offers_is_bounded(hosting, joined):
    many = [f"model-{number}" for number in range(40)]
    panel = joined(hosting("<b>evil</b>"))
    (link,) = panel._state.mesh._mesh.links
    offer = link._models[0]
    link._models = [type(offer)(name=name * 50) for name in many]
    (shown,) = panel.view()["hosts"]
    assert (len(shown["models"]), shown["more_models"]) == (12, 28)
    assert max(len(each["name"]) for each in shown["models"]) <= 80
    html = frozen.bundle(GuestPanel(panel._state).frozen)["text/html"]
    assert "<b>" not in html
    assert "&lt;b&gt;" in html


def test_in_a_kernel_every_join_shows_the_same_panel(kernel, tmp_path):
    guest, links = kernel("guest"), []
    for name in ("Team", "Lab"):
        links.append(tmp_path / f"{name}.link")
        host = kernel(name)
        host.text(f"%qmt_host --model echo --name {name} --uses 0 --link-file {links[-1]}")
    first = guest.run(f"%qmt_join --file {links[0]}")
    second = guest.run(f"%qmt_join --file {links[1]}")
    calm, live = [m["content"]["data"] for m in second if m["msg_type"] == "display_data"]
    assert VIEW not in calm
    assert "Team, Lab" in calm["text/plain"]
    assert live["text/html"] == "<span></span>", "beside the calm text nothing else is seen"
    assert panels(first) == panels(second)
    front = Front(guest, panels(first)[0])
    view = front.watch()
    assert [each["mesh"] for each in view["hosts"]] == ["Team", "Lab"]
    assert "problem" not in front.ask("leave", host=view["hosts"][0]["id"])
    assert "Left 1 mesh." in guest.text("%qmt_leave")
    assert front.watch(lambda view: not view["hosts"]) == {"hosts": []}
    assert not errors(guest.run(f"%qmt_join --file {links[0]}"))
    assert len(front.watch(lambda view: view["hosts"])["hosts"]) == 1
