"""What all panels promise: what is saved, what travels, who is answered."""

from __future__ import annotations

import json
import threading
import time

import pytest
import traitlets

from qmt_jupyter.errors import OptionInvalid
from qmt_jupyter.notebook.panels import feed
from qmt_jupyter.notebook.panels.base import Panel, script, text_of
from tests.notebook.conftest import errors
from tests.notebook.front import Front, panels, states

# ipywidgets 7.7 in a process without a kernel
pytestmark = pytest.mark.filterwarnings("ignore:Deprecated in traitlets 4.1:DeprecationWarning")

# What anywidget and ipywidgets keep for themselves: code, style and layout.
_FRAMEWORK = {"_esm", "_css", "_anywidget_id", "layout", "tabbable", "tooltip", "_dom_classes"}
_FRAMEWORK |= {f"_{part}_{what}" for part in ("model", "view") for what in ("name", "module", "module_version", "count")}  # fmt: skip


class Counting(Panel):
    """A panel that shows a number."""

    _esm = script("table")

    def __init__(self):
        self.heard = []
        self.number = 0
        self.gate = threading.Event()
        super().__init__("A number", ["for tests"])

    @property
    def actions(self):
        return {"add": self._add, "wait": self._wait, "break": self._break, "refuse": self._refuse}

    def view(self):
        return {"number": self.number}

    def send(self, content, buffers=None):
        self.heard.append((time.monotonic(), content))

    def _add(self, given):
        self.number += int(text_of(given, "by") or 1)
        return {"number": self.number}

    def _wait(self, given):
        self.gate.wait(30)

    def _break(self, given):
        raise ZeroDivisionError("secret detail")

    def _refuse(self, given):
        raise OptionInvalid("No.", next_step="Ask otherwise.")

    def views(self):
        return [content["view"] for _, content in list(self.heard) if "view" in content]

    def answers(self):
        return {
            content["answer"]: content for _, content in list(self.heard) if "answer" in content
        }

    def until(self, condition):
        deadline = time.monotonic() + 20
        while not condition():
            assert time.monotonic() < deadline, self.heard
            time.sleep(0.005)


@pytest.fixture
def shown():
    panel = Counting()
    yield panel
    panel.gate.set()
    panel.close()


def test_the_only_state_that_can_be_saved_is_the_calm_view(shown):
    synced = {name for name, trait in shown.traits().items() if trait.metadata.get("sync")}
    assert synced - _FRAMEWORK == {"frozen"}
    assert shown.frozen["title"] == "A number"
    shown.freeze("a\x1b[31m\u202eb", ["x" * 5000, *["line"] * 500])
    assert shown.frozen["title"] == "a [31m b"
    assert len(json.dumps(shown.frozen)) < 5000
    with pytest.raises(traitlets.TraitError):
        shown.frozen = "not a dict"


def test_a_view_is_sent_only_while_somebody_watches_and_only_when_it_has_changed(shown):
    shown.number = 1
    time.sleep(3 * feed.TELL_EVERY)
    assert shown.heard == []
    shown._heard(None, {"ask": "watch", "id": "w1", "fresh": True}, None)
    shown.until(lambda: shown.views() == [{"number": 1}])
    time.sleep(3 * feed.TELL_EVERY)
    assert len(shown.views()) == 1
    shown.number = 2
    shown.until(lambda: shown.views()[1:] == [{"number": 2}])
    # Another front end has seen nothing yet.
    shown._heard(None, {"ask": "watch", "id": 7, "fresh": True}, None)
    shown.until(lambda: len(shown.views()) == 3)


def test_a_view_that_changes_all_the_time_is_sent_four_times_a_second_at_most(shown, monkeypatch):
    monkeypatch.setattr(Counting, "view", lambda self: {"now": time.monotonic()})
    shown._heard(None, {"ask": "watch", "id": "w", "fresh": True}, None)
    shown.until(lambda: len(shown.views()) >= 6)
    times = [at for at, content in shown.heard if "view" in content]
    assert times[5] - times[0] > 5 * feed.TELL_EVERY * 0.9


def test_silence_ends_the_feed_and_its_thread(shown, monkeypatch):
    monkeypatch.setattr(feed, "WATCHED_FOR", 0.3)
    shown._heard(None, {"ask": "watch", "id": "w", "fresh": True}, None)
    shown.until(shown.views)
    (thread,) = [each for each in threading.enumerate() if each.name == "qmt-panels"]
    thread.join(20)
    assert not thread.is_alive()
    shown.number += 1
    time.sleep(2 * feed.TELL_EVERY)
    assert len(shown.views()) == 1
    shown._heard(None, {"ask": "watch", "id": "w", "fresh": False}, None)
    shown.until(lambda: len(shown.views()) == 2)


def test_a_panel_that_is_thrown_away_while_another_is_watched_stops_no_feed():
    class Watched:
        def tell(self):
            pass

        def __hash__(self):
            # Python may look for garbage at any moment, and a widget that it finds closes itself.
            feeding.forget(object())
            return 1

    feeding = feed.Feed()
    watching = threading.Thread(target=feeding.watch, args=(Watched(),), daemon=True)
    watching.start()
    watching.join(20)
    assert not watching.is_alive()
    feeding.end()


def test_a_view_that_fails_is_said_and_comes_back(shown, monkeypatch):
    def fail(self):
        raise ZeroDivisionError("secret detail")

    shown._heard(None, {"ask": "watch", "id": "w", "fresh": True}, None)
    shown.until(shown.views)
    with monkeypatch.context() as broken:
        broken.setattr(Counting, "view", fail)
        shown.until(lambda: "problem" in shown.views()[-1])
        assert "secret detail" not in repr(shown.heard)
    shown.until(lambda: "number" in shown.views()[-1])


class Mute:
    """Cannot be told of."""

    def tell(self):
        raise OSError("secret detail")


def test_a_panel_that_cannot_be_told_of_silences_no_other(shown, monkeypatch, capfd):
    mute = Mute()
    feed.FEED.watch(mute)
    try:
        shown._heard(None, {"ask": "watch", "id": "w", "fresh": True}, None)
        shown.until(shown.views)
        shown.number += 1
        shown.until(lambda: len(shown.views()) == 2)
    finally:
        feed.FEED.forget(mute)
    assert capfd.readouterr().err == "", "a background thread does not print"


def test_an_answer_that_can_no_longer_be_sent_ends_quietly(shown, monkeypatch):
    def closed(*_):
        raise OSError("the socket is closed")

    monkeypatch.setattr(Counting, "send", closed)
    assert shown._acting.acquire(blocking=False)
    shown._act(shown._add, {"by": "2"}, "late")
    assert shown.number == 2


def test_views_that_are_much_work_come_less_often(shown, monkeypatch):
    def laborious(self):
        time.sleep(0.1)
        return {"now": time.monotonic()}

    monkeypatch.setattr(Counting, "view", laborious)
    shown._heard(None, {"ask": "watch", "id": "w", "fresh": True}, None)
    shown.until(lambda: len(shown.views()) == 2)
    one, other = (content["view"]["now"] for _, content in shown.heard if "view" in content)
    assert other - one > 10 * 0.1


def test_actions_are_answered_with_what_came_of_them_or_one_sentence(shown):
    asked = ("add", "break", "refuse", "unknown", "_add", "view", None, ["add"])
    for number, name in enumerate(asked):
        shown._heard(None, {"ask": name, "id": number}, None)
    shown._heard(None, {"ask": "add", "id": "last", "by": ["nonsense"]}, None)
    shown.until(lambda: len(shown.answers()) == 9)
    said = shown.answers()
    assert said[0]["number"] == 1
    assert said[1]["problem"] == "That did not work (ZeroDivisionError)."
    assert said[2]["problem"] == "No. Ask otherwise."
    assert said["last"]["problem"].startswith("The by is not a text of modest length.")
    assert all("cannot do that" in said[number]["problem"] for number in range(3, 8))
    assert shown.number == 1


@pytest.mark.parametrize(
    "nonsense",
    [
        None, 7, "add", [], [{"ask": "add"}], {}, {"ask": "add"}, {"id": "x" * 65, "ask": "add"},
        {"ask": "add", "id": True}, {"ask": "add", "id": -1}, {"ask": "add", "id": 2**60},
        {"ask": "add", "id": 1.5}, {"ask": "add", "id": {}}, {"ask": "add", "id": "a b"},
        {"ask": "watch"}, {"ask": "add", "id": "<b>"},
    ],
    ids=repr,
)  # fmt: skip
def test_what_names_nobody_to_answer_does_nothing(shown, nonsense):
    shown._heard(None, nonsense, None)
    assert (shown.heard, shown.number) == ([], 0)


def test_a_page_that_asks_without_end_is_told_to_wait(shown):
    for number in range(40):
        shown._heard(None, {"ask": "wait", "id": number}, None)
    assert len(shown.answers()) == 40 - 8
    assert all("Try again" in each["problem"] for each in shown.answers().values())
    shown.gate.set()
    shown.until(lambda: len(shown.answers()) == 40)
    shown._heard(None, {"ask": "add", "id": 99}, None)
    shown.until(lambda: 99 in shown.answers())


def test_a_closed_panel_is_fed_no_more(shown):
    shown._heard(None, {"ask": "watch", "id": "w", "fresh": True}, None)
    shown.until(shown.views)
    shown.close()
    shown.number += 1
    time.sleep(2 * feed.TELL_EVERY)
    assert len(shown.views()) == 1
    shown.close()


def test_no_state_is_taken_from_a_front_end(shown):
    before = dict(shown.get_state())
    state = {"frozen": {"title": "qmt://"}, "_esm": "export default {}", "_css": "* {}"}
    data = {"method": "update", "state": state}
    shown._handle_msg({"content": {"data": data}, "buffers": []})
    assert dict(shown.get_state()) == before


# In a kernel ---------------------------------------------------------------------------------


def test_an_invites_panel_hands_over_the_link_by_a_message_that_no_notebook_saves(kernel, tmp_path):
    host = kernel("host")
    host.text("%qmt_host --model echo")
    link = tmp_path / "link"
    published = host.run(f"%qmt_invite --uses 2 --link-file {link}")
    url = link.read_text().strip()
    (comm,) = panels(published)
    assert "2 guests" in states(published)[comm]["frozen"]["title"]
    front = Front(host, comm)
    view = front.watch()
    assert (view["state"], view["uses"]) == ("open", 0)
    assert "qmt://" not in repr(host.published), "in no output, no state and no view"
    answer = front.ask("show")
    assert answer["secret"] == url
    assert answer["svg"].lstrip().startswith("<svg")
    assert "qmt://" not in repr(states(host.published))

    invite = view["terms"].split()[1]
    host.text(f"%qmt_revoke {invite}")
    assert front.watch(lambda view: view["state"] == "revoked")
    assert front.ask("show")["problem"].startswith("This invite is revoked.")
    host.text("%qmt_host --stop")
    assert front.watch(lambda view: view["state"] == "closed")
    assert "stopped" in front.ask("show")["problem"]
    assert "qmt://" not in repr([m for m in host.published if m["msg_type"] != "comm_msg"])


def test_a_panel_answers_while_a_cell_runs(kernel, tmp_path):
    host = kernel("host")
    host.text("%qmt_host --model echo")
    (comm,) = panels(host.run("%qmt_invite"))
    front = Front(host, comm)
    told = host.client.kernel_info(reply=True, timeout=30)["content"]
    if "kernel subshells" not in told.get("supported_features", ()):
        pytest.skip("this ipykernel has no subshells")
    control = host.client.control_channel
    control.send(host.client.session.msg("create_subshell_request"))
    subshell = host.client.get_control_msg(timeout=30)["content"]["subshell_id"]
    cell = host.start("import time\nfor _ in range(600): time.sleep(0.1)")
    try:
        # The feed has spoken, too, before the second question.
        for _ in range(2):
            assert "secret" in front.ask("show", subshell=subshell, timeout=20)
            front.ask("watch", subshell=subshell, fresh=True, timeout=20)
            while not front.views:
                front.take()
    finally:
        host.manager.interrupt_kernel()
    assert errors(list(host.messages(cell)))[0]["ename"] == "KeyboardInterrupt"
