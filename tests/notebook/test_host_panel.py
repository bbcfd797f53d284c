"""The host's panel in real kernels: what it shows, what it does, and what a file could keep."""

from __future__ import annotations

import re

import pytest

from tests.notebook.conftest import errors
from tests.notebook.front import Front, panels, states

SLOW = (
    "import qmt_jupyter as qmt\n"
    "from qmt_jupyter.notebook.state import STATE\n"
    "from qmt_jupyter.providers.echo import Echo\n"
    "h = STATE.started = qmt.host(Echo(delay=0.02, repeat=True), name='Team', uses=0)\n"
    "open({link!r}, 'w').write(h.invite.url)"
)


def hosted(kernel, link):
    """A kernel whose host streams for as long as one likes, and its panel."""
    host = kernel("host")
    host.text(SLOW.format(link=str(link)))
    (comm,) = panels(host.run("%qmt_host"))
    return host, Front(host, comm)


def only_guest(state):
    return lambda view: [each["state"] for each in view["guests"]] == [state]


@pytest.fixture
def link(tmp_path):
    return tmp_path / "link"


def test_the_panel_shows_who_is_here_and_revokes_while_an_answer_streams(kernel, link):
    _, front = hosted(kernel, link)
    view = front.watch()
    assert view["state"] == "hosting"
    assert view["title"].startswith("Sharing echo on ")
    assert view["reach"].startswith("Reachable at 127.0.0.1:")
    assert view["models"] == [{"name": "echo", "slots": 4, "busy": 0, "waiting": 0}]
    assert (view["guests"], [each["state"] for each in view["invites"]]) == ([], ["open"])

    guest = kernel("guest")
    guest.text(f"%qmt_join --file {link} --name Ada")
    front.watch(only_guest("connected"))
    cell = guest.start("%%chat --max-tokens 100000\nfor ever")
    view = front.watch(lambda view: only_guest("answering")(view) and view["guests"][0]["speed"])
    (row,) = view["guests"]
    assert (row["claim"], row["requests"], len(row["who"])) == ("Ada", 1, 8)
    assert row["out"] > 0
    assert view["models"][0]["busy"] == 1
    view = front.watch(lambda view: view["chart"]["series"])
    assert all(start % view["chart"]["every"] == 0 for start, _, _ in view["chart"]["series"])

    said = front.ask("revoke", which=row["id"])["said"]
    assert said.startswith(f"Revoked guest {row['id'][:8]}.")
    (failed,) = errors(list(guest.messages(cell)))
    assert failed["ename"] == "Revoked"
    front.watch(only_guest("revoked"))

    # And the invite with all that it admitted.
    said = front.ask("revoke", which=view["invites"][0]["id"])["said"]
    assert "which 1 guest had used" in said
    front.watch(lambda view: view["invites"][0]["state"] == "revoked")
    problem = front.ask("show", invite=view["invites"][0]["id"])["problem"]
    assert problem.startswith("This invite is revoked.")


def test_invites_are_made_and_shown_by_messages_that_no_file_keeps(kernel, link):
    host, front = hosted(kernel, link)
    first = link.read_text()
    view = front.watch()
    answer = front.ask("show", invite=view["invites"][0]["id"])
    assert answer["secret"] == first
    assert answer["svg"].lstrip().startswith("<svg")

    form = {"name": "Lab", "uses": "1", "ttl": "15m", "tokens": "500", "per_guest": True}
    made = front.ask("invite", **form)
    assert "Lab: 1 guest, for 15 minutes, 500 tokens, each for every guest." in made["said"]
    view = front.watch(lambda view: len(view["invites"]) == 2)
    (newest, _) = view["invites"]
    assert (newest["id"], newest["name"], newest["most"]) == (made["id"], "Lab", 1)
    second = front.ask("show", invite=made["id"])["secret"]
    assert second.startswith("qmt://mesh/join/")
    assert second != first

    for nonsense, word in (
        ({"ttl": "soon"}, "not a lifetime"),
        ({"uses": "some"}, "not a number of guests"),
        ({"tokens": "0"}, "not a limit for tokens"),
        ({"name": "x" * 150}, "name"),
    ):
        assert word in front.ask("invite", **{**form, **nonsense})["problem"]
    assert len(front.watch()["invites"]) == 2

    # Used up, it is not shown any more.
    guest = kernel("guest")
    link.write_text(second)
    guest.text(f"%qmt_join --file {link}")
    front.watch(lambda view: view["invites"][0]["state"] == "used up")
    assert "used up" in front.ask("show", invite=made["id"])["problem"]

    tokens = [each.rpartition("/")[2].partition("?")[0] for each in (first, second)]
    kept = [m["content"] for m in host.published if m["msg_type"] != "comm_msg"]
    assert not any(token in repr(kept) for token in tokens)
    assert not any(token in repr(states(host.published)) for token in tokens)
    views = repr(front.views)
    assert not any(token in views for token in tokens)
    state = states(host.published)[front.comm]
    frozen = repr(state["frozen"])
    assert not re.search(r"127\.0\.0\.1|12D3KooW|qmt://", frozen), frozen


def test_nonsense_from_a_page_is_answered_with_a_sentence_and_does_nothing(kernel, link):
    _, front = hosted(kernel, link)
    (before,) = front.watch()["invites"]
    asked = [
        {"ask": "show"}, {"ask": "show", "invite": 7}, {"ask": "show", "invite": "../../etc"},
        {"ask": "revoke"}, {"ask": "revoke", "which": before["id"][:8]}, {"ask": "invite"},
        {"ask": "__init__"}, {"ask": "close"}, {"ask": {"a": 1}},
    ]  # fmt: skip
    for number, content in enumerate(asked):
        front.send({**content, "id": 1000 + number})
    for content in (None, 7, [], "stop", {"ask": "stop"}, {"ask": "stop", "id": "<b>"}):
        front.send(content)
    front.ask("watch")
    while len({each.get("answer") for each in front.said} & set(range(1000, 1009))) < len(asked):
        assert front.take(20) is not None
    problems = [each for each in front.said if isinstance(each.get("answer"), int)]
    assert all(each["problem"].endswith(".") for each in problems)
    view = front.watch()
    assert (view["state"], view["invites"]) == ("hosting", [before])


def test_a_second_cell_shows_the_same_panel_and_stopping_ends_them_calmly(kernel, link):
    host, front = hosted(kernel, link)
    (again,) = panels(host.run("%qmt_host"))
    assert again == front.comm
    guest = kernel("guest")
    guest.text(f"%qmt_join --file {link}")
    guest.run("%%chat --max-tokens 5\nhello")
    front.watch(only_guest("connected"))
    assert front.ask("stop")["said"] == "Stopped hosting."
    view = front.watch(lambda view: view["state"] == "closed")
    assert view["title"] == "This host has stopped. It shared echo."
    assert view["total"].startswith("1 guest made 1 request with ")
    assert only_guest("away")(view)
    assert "invites" not in view
    for name in ("show", "invite", "revoke"):
        assert "problem" in front.ask(name, invite="x", which="x", uses="1", ttl="1h")
    assert front.ask("stop")["said"] == "Stopped hosting.", "it is what was wanted"
    frozen = states(host.published)[front.comm]["frozen"]
    assert frozen["title"] == view["title"]
    assert host.text("print(h.is_running)").strip() == "False"
    assert errors(host.run("%qmt_host --stop"))[0]["ename"] == "NotHosting"


def test_a_host_that_is_closed_elsewhere_is_closed_in_its_panel(kernel, link):
    host, front = hosted(kernel, link)
    front.watch(lambda view: view["state"] == "hosting")
    printed = [m["content"] for m in host.published if m["msg_type"] in ("stream", "display_data")]
    assert "127.0.0.1" not in repr(printed), "the panel says where, live"
    host.text("h.close()")
    front.watch(lambda view: view["state"] == "closed")
    (comm,) = panels(host.run("%qmt_host --model echo"))
    assert comm != front.comm, "another host has a panel of its own"
    other = Front(host, comm)
    other.watch(lambda view: view["state"] == "hosting")
    host.text("%qmt_host --stop")
    other.watch(lambda view: view["state"] == "closed")


def test_a_panel_that_was_closed_with_all_widgets_is_made_anew(kernel, link):
    host, front = hosted(kernel, link)
    host.text("import ipywidgets; ipywidgets.Widget.close_all()")
    (comm,) = panels(published := host.run("%qmt_host"))
    assert not errors(published)
    assert comm != front.comm
    assert Front(host, comm).watch()["state"] == "hosting"


def test_without_widgets_the_text_says_where_the_link_goes(kernel, link):
    host = kernel("host")
    host.text("import sys; sys.modules['anywidget'] = None")
    published = host.run(f"%qmt_host --model echo --link-file {link}")
    said = "".join(m["content"]["text"] for m in published if m["msg_type"] == "stream")
    assert not errors(published)
    assert "Sharing echo" in said
    assert "--link-file PATH" in said
    assert panels(published) == []
    assert "qmt://" not in repr(host.published)
