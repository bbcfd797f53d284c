"""The magics in an IPython of this process, with a provider that remembers what it was asked."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest
from IPython.utils.capture import capture_output

import qmt_jupyter as qmt
from qmt_jupyter.errors import (
    GenerationFailed,
    IdentityInUse,
    ModelUnknown,
    NotHosting,
    NotJoined,
    OptionInvalid,
    RequestsUsedUp,
    Revoked,
)
from qmt_jupyter.guest.routing import Passed
from qmt_jupyter.notebook.chat import Interrupted
from qmt_jupyter.notebook.chat import _waiting as waiting
from qmt_jupyter.notebook.display import Growing, Streaming
from qmt_jupyter.notebook.state import STATE
from qmt_jupyter.providers.base import Provider
from qmt_jupyter.providers.echo import Echo
from qmt_jupyter.words import grant_line
from tests.notebook.scripted import Scripted, run


def test_the_second_question_is_sent_with_the_first(shell, hosting):
    provider = hosting(Scripted())
    run(shell, "%%chat --system 'Be brief.'\nFirst?")
    run(shell, "%%chat\nSecond?")
    assert provider.said(1) == [
        ("system", "Be brief."),
        ("user", "First?"),
        ("assistant", "Hello there."),
        ("user", "Second?"),
    ]
    run(shell, "%%chat --system 'Be long.'\nThird?")
    assert [text for role, text in provider.said(2) if role == "system"] == ["Be long."]
    run(shell, "%%chat --new\nFourth?")
    assert provider.said(3) == [("user", "Fourth?")]


def test_parameters_reach_the_model(shell, hosting):
    provider = hosting(Scripted())
    run(shell, "%%chat --temperature 0 --max-tokens 7 --seed 3 --model scripted\nHi")
    asked = provider.requests[0]
    assert (asked["temperature"], asked["max_tokens"], asked["seed"]) == (0, 7, 3)


def test_braces_and_dollars_in_a_prompt_stay(shell, hosting):
    provider = hosting(Scripted())
    shell.user_ns["name"] = "expanded"
    run(shell, "%%chat\n{name} costs $name")
    run(shell, '%chat {name} costs $name, "isn\'t" it')
    assert provider.said(0) == [("user", "{name} costs $name")]
    assert provider.said(1)[-1] == ("user", '{name} costs $name, "isn\'t" it')


def test_a_line_may_have_flags_before_its_prompt(shell, hosting):
    provider = hosting(Scripted())
    run(shell, "%chat --max-tokens 4 --save said why --not me")
    assert provider.said(0) == [("user", "why --not me")]
    assert provider.requests[0]["max_tokens"] == 4
    assert shell.user_ns["said"] == "Hello there."
    with pytest.raises(OptionInvalid):
        run(shell, "%chat --temprature 0 why")


def test_the_answer_goes_into_a_variable(shell, hosting):
    hosting(Scripted("forty ", "two"))
    run(shell, "%%chat --save number\nHow many?")
    assert shell.user_ns["number"] == "forty two"
    for name in ("1st", "class", "a.b"):
        with pytest.raises(OptionInvalid):
            run(shell, f"%%chat --save {name}\nHow many?")


def test_an_answer_that_fails_is_shown_and_forgotten(shell, hosting):
    provider = hosting(Scripted("half "))
    run(shell, "%%chat\nFirst?")
    provider.failing = True
    for flags in ("", "--new"):
        with capture_output() as captured:
            result = shell.run_cell(f"%%chat {flags}\nSecond?")
        assert isinstance(result.error_in_exec, GenerationFailed)
        assert "half" in captured.stdout
        assert "Traceback" not in captured.stdout + captured.stderr
    provider.failing = False
    run(shell, "%%chat\nThird?")
    assert [text for _, text in provider.said(-1)] == ["First?", "half ", "Third?"]


def test_an_interrupted_answer_keeps_its_text_and_fails_the_cell(shell, hosting, monkeypatch):
    provider = hosting(Scripted("one ", "two ", "three"))

    def interrupt(self, text, footer):
        if text.endswith("two "):
            monkeypatch.setattr("qmt_jupyter.notebook.display.Streaming.show", original)
            raise KeyboardInterrupt

    original = Streaming.show
    monkeypatch.setattr("qmt_jupyter.notebook.display.Streaming.show", interrupt)
    with capture_output() as captured:
        result = shell.run_cell("%%chat --save so_far\nCount.")
    assert isinstance(result.error_in_exec, Interrupted)
    assert "Traceback" not in captured.stdout + captured.stderr
    assert shell.user_ns["so_far"] == "one two "
    run(shell, "%%chat\nGo on.")
    assert provider.said(-1)[:2] == [("user", "Count."), ("assistant", "one two ")]


def test_an_answer_that_cannot_be_shown_is_stopped_too(shell, monkeypatch):
    provider = Echo(delay=0.01, repeat=True)
    STATE.started = qmt.host(provider)

    def broken(_, text, footer):
        if text:
            raise ValueError("no screen")

    monkeypatch.setattr(Streaming, "show", broken)
    with pytest.raises(ValueError, match="no screen"):
        run(shell, "%%chat --max-tokens 5000\nfor ever")
    deadline = time.monotonic() + 30
    while not provider.cancelled and time.monotonic() < deadline:
        time.sleep(0.02)
    assert provider.cancelled == 1


def test_an_error_is_one_line_even_with_an_exception_group_behind_it(shell, monkeypatch):
    def fail(self, model, host):
        group = getattr(__builtins__, "ExceptionGroup", None) or __builtins__.get("ExceptionGroup")
        try:
            raise (group("several", [ValueError("x")]) if group else ValueError("x"))
        except Exception:
            raise NotJoined("Nobody is there.")  # noqa: B904

    monkeypatch.setattr("qmt_jupyter.notebook.state.State.who_answers", fail)
    with capture_output() as captured:
        result = shell.run_cell("%%chat\nhello")
    assert isinstance(result.error_in_exec, NotJoined)
    said = (captured.stdout + captured.stderr).strip().splitlines()
    assert len(said) == 1
    assert "Nobody is there." in said[0]


@pytest.mark.parametrize(
    ("cell", "error"),
    [
        ("%%chat\nhello", NotJoined),
        ("%%chat\n  ", OptionInvalid),
        ("%%chat --max-tokens many\nhello", OptionInvalid),
        ("%%chat --system 'open\nhello", OptionInvalid),
        ("%qmt_models", NotJoined),
        ("%qmt_invite", NotHosting),
        ("%qmt_host --stop", NotHosting),
        ("%qmt_host --model echo --ttl soon", OptionInvalid),
        ("%qmt_host --model echo --save a-b", OptionInvalid),
        ("%qmt_join --file /nowhere/link", OptionInvalid),
    ],
)
def test_what_cannot_be_done_is_said_and_leaves_nothing(shell, cell, error):
    with pytest.raises(error):
        run(shell, cell)
    assert STATE.host is None
    assert STATE.mesh is None


def test_hosting_inviting_and_stopping(shell, tmp_path):
    link = tmp_path / "link"
    said = run(shell, f"%qmt_host --model echo --name Team --save h --link-file {link}")
    assert "Reachable at " in said
    assert "can read the prompts" in said
    assert link.read_text().strip() == shell.user_ns["h"].invite.url
    assert link.stat().st_mode & 0o077 == 0
    run(shell, f"%qmt_invite --uses 3 --ttl 1h --save i --link-file {link}")
    assert link.read_text().strip() == shell.user_ns["i"].url
    assert shell.user_ns["i"].max_uses == 3
    assert shell.user_ns["i"].name == "Team"
    assert "echo" in run(shell, "%qmt_models")
    assert "Hosting echo" in run(shell, "%qmt_status")
    with pytest.raises(IdentityInUse):
        qmt.host("echo")
    run(shell, "%qmt_host --stop")
    assert STATE.host is None
    qmt.host("echo").close()


def test_a_guest_joins_asks_and_leaves(shell, monkeypatch):
    with qmt.host(Scripted(), uses=0, name="Team") as host:
        monkeypatch.setenv("QMT_INVITE", host.invite.url)
        assert "Joined Team" in run(shell, "%qmt_join")
        run(shell, "%qmt_join")
        assert len(STATE.mesh.status()) == 1, "the same host again replaces the former link"
        assert "Hello there." in run(shell, "%%chat\nhi")
        with pytest.raises(ModelUnknown):
            run(shell, "%%chat --model other\nhi")
        assert run(shell, "%qmt_leave").strip() == "Left 1 mesh."
        with pytest.raises(NotJoined):
            run(shell, "%%chat\nhi")


@pytest.fixture
def others(shell, tmp_path, monkeypatch):
    """Hosts with homes of their own."""
    running = []

    def start(provider: Provider, name: str) -> qmt.Host:
        monkeypatch.setenv("QMT_HOME", str(tmp_path / name))
        running.append(qmt.host(provider, uses=0, name=name))
        monkeypatch.setenv("QMT_HOME", str(tmp_path / "home"))
        return running[-1]

    yield start
    for each in running:
        each.close()


def test_several_hosts_are_joined_listed_named_and_left(shell, others):
    providers = Scripted("from a"), Scripted("from b")
    a, b = others(providers[0], "Lab"), others(providers[1], "Class")
    run(shell, f"%qmt_join {a.invite.url}")
    said = run(shell, f"%qmt_join {b.invite.url}")
    assert "Joined Class" in said
    assert "With 2 hosts joined" in said
    listed = run(shell, "%qmt_models")
    for part in ("Lab", "Class", "load", "0 of 4", "round trip", a.peer_id[-8:], b.peer_id[-8:]):
        assert part in listed
    assert "from b" in run(shell, "%%chat --host Class\nhi")
    assert "from a" in run(shell, f"%%chat --host {a.peer_id[-8:]}\nhi")
    with pytest.raises(OptionInvalid, match="Lab"):
        run(shell, "%%chat --host Nobody\nhi")
    assert "0%" in run(shell, "%qmt_status")
    with pytest.raises(OptionInvalid):
        run(shell, "%qmt_leave Nobody")
    assert run(shell, "%qmt_leave Lab").strip() == "Left 1 mesh."
    assert [each["mesh"] for each in STATE.mesh.status()] == ["Class"]
    run(shell, f"%qmt_join {a.invite.url}")
    assert run(shell, "%qmt_leave").strip() == "Left 2 meshes."
    assert run(shell, "%qmt_leave").strip() == "Left 0 meshes."
    with pytest.raises(NotJoined):
        run(shell, "%qmt_leave Lab")


def test_the_next_host_answers_when_one_is_gone_and_the_footer_says_which(shell, others):
    a, b = others(Scripted("from a"), "Lab"), others(Scripted("from b"), "Class")
    for each in (a, b):
        run(shell, f"%qmt_join {each.invite.url}")
    a.close()
    assert "from b" in run(shell, "%%chat\nhi")
    assert "from b" in run(shell, "%%chat\nhi")


def test_the_status_line_says_who_could_not_and_who_is_asked():
    class Rerouted:
        text, model, position, wait, patience = "", None, None, None, None
        host = "12D3KooWsecond02"
        passed = (Passed("12D3KooWfirst001", "host-gone"),)

    assert waiting(Rerouted()) == "first001 could not (host gone); asking second02"
    Rerouted.position = 3
    assert waiting(Rerouted()).endswith("asking second02 · waiting, 3 before you")
    Rerouted.text = "x"
    assert waiting(Rerouted()) == ""


def test_an_own_model_that_cannot_answer_is_not_replaced_by_anothers(shell, hosting, others):
    own = hosting(Scripted(failing=True))
    own.pieces = ()
    joined = others(Scripted("from a third"), "Third")
    run(shell, f"%qmt_join {joined.invite.url}")
    for _ in range(2):
        with pytest.raises(GenerationFailed):
            run(shell, "%%chat\nsecret")
    assert joined.usage()["invites"][0]["requests"] == 0
    assert "from a third" in run(shell, "%%chat --host Third\nhi")
    with pytest.raises(GenerationFailed):
        run(shell, "%%chat --host Team\nhi")
    assert len(own.requests) == 3


def test_the_link_is_asked_for_without_echo(shell, monkeypatch):
    with qmt.host(Scripted(), name="Team") as host:
        monkeypatch.setattr("getpass.getpass", lambda prompt: host.invite.url)
        said = run(shell, "%qmt_join")
    assert "Joined Team" in said
    assert "qmt://" not in said


def test_help_is_printed_and_nothing_is_run(shell):
    for name in ("qmt_host", "qmt_invite", "qmt_join", "qmt_models", "qmt_status", "qmt_leave"):
        assert f"usage: %{name}" in run(shell, f"%{name} --help")
        assert f"usage: %{name}" in shell.find_line_magic(name).__doc__
    assert "--max-tokens" in run(shell, "%%chat --help\nhello")
    assert "--max-tokens" in run(shell, "%chat --help")
    assert STATE.host is None


def test_loading_and_unloading_may_be_repeated(shell, hosting):
    hosting(Scripted())
    for _ in range(3):
        shell.extension_manager.reload_extension("qmt_jupyter")
    assert "Hosting scripted" in run(shell, "%qmt_status")
    shell.extension_manager.unload_extension("qmt_jupyter")
    assert shell.find_line_magic("qmt_status") is None
    assert shell.find_cell_magic("chat") is None
    qmt.unload_ipython_extension(shell)
    qmt.load_ipython_extension(shell)
    assert "Hosting scripted" in run(shell, "%qmt_status")


def test_loading_the_extension_loads_nothing_heavy():
    heavy = [
        "anywidget",
        "iroh",
        "markdown_it",
        "msgspec",
        "nacl",
        "qrcode",
        "xllamacpp",
        "zeroconf",
    ]
    code = (
        "import sys; from IPython.core.interactiveshell import InteractiveShell\n"
        "import qmt_jupyter; before = set(sys.modules)\n"
        "import qmt_jupyter.notebook.extension; new = set(sys.modules) - before\n"
        f"print([m for m in new if m.split('.')[0] in {heavy} or m == 'qmt_jupyter.api'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr


def test_a_terminal_is_never_steered_by_a_model(shell, hosting):
    hosting(Scripted("\x1b[2J\x1b]0;title\x07", "\rover\x08written"))
    said = run(shell, "%%chat\nhi")
    assert "written" in said
    assert not set("\x1b\x07\r\x08") & set(said)


def test_drawing_keeps_to_ten_a_second_and_to_the_message_limits(monkeypatch):
    drawn: list[tuple[float, int]] = []
    now = 0.0

    class Handle:
        def update(self, data, **_):
            drawn.append((now, sum(len(each.encode()) for each in data.values())))

    def first(data, **_):
        handle = Handle()
        handle.update(data)
        return handle

    monkeypatch.setattr("IPython.display.display", first)
    monkeypatch.setattr(time, "monotonic", lambda: now)
    growing, text = Growing(), ""
    for _ in range(2000):
        now += 0.01
        text += "字 and words \n\n"
        growing.show(text, "")
    monkeypatch.undo()
    for second in range(20):
        sent = [size for at, size in drawn if second <= at < second + 1]
        assert len(sent) <= 11
    assert sum(size for _, size in drawn) / 20 < 300_000


def test_usage_is_a_table_json_csv_or_rows_for_a_data_frame(shell, hosting):
    hosting(Scripted())
    mesh = qmt.join(STATE.host.invite.url, name="Ada")
    mesh.chat("hello").read()
    assert '"Ada"' in run(shell, "%qmt_usage")
    usage = json.loads(run(shell, "%qmt_usage --json"))
    assert usage["invites"][0]["guests"][0]["requests"] == 1
    header, row = run(shell, "%qmt_usage --csv").splitlines()
    assert header.startswith("invite_id,mesh,")
    assert ",Ada," in row
    assert run(shell, "%qmt_usage --save rows") == ""
    assert shell.user_ns["rows"] == STATE.host.usage_rows()
    assert {type(value) for value in shell.user_ns["rows"][0].values()} <= {
        str, int, float, type(None)
    }  # fmt: skip
    mesh.leave()


def test_an_invite_has_limits_of_its_own_and_is_revoked_by_its_beginning(shell, hosting):
    hosting(Scripted())
    run(shell, "%qmt_invite --requests 1 --tokens 5000 --allow-model scripted --save made")
    made = shell.user_ns["made"]
    mesh = qmt.join(made.url)
    mesh.chat("hello").read()
    with pytest.raises(RequestsUsedUp):
        mesh.chat("hello").read()
    said = run(shell, f"%qmt_revoke {made.invite_id[:8]}")
    assert f"Revoked invite {made.invite_id[:8]}, which 1 guest had used" in said
    with pytest.raises(Revoked):
        mesh.chat("hello").read()
    assert grant_line(made).endswith(
        "1 guest, for 24 hours, 1 request, 5000 tokens, only scripted."
    )
    assert "uses taken, revoked" in run(shell, "%qmt_usage")
    with pytest.raises(OptionInvalid, match="No invite or guest"):
        run(shell, "%qmt_revoke ffffffff")
    mesh.leave()


def test_a_guest_sees_what_it_used_and_what_is_left(shell, hosting):
    hosting(Scripted())
    made = STATE.host.new_invite(uses=1, limits=qmt.Limits(requests=5, tokens=1000))
    with pytest.raises(OptionInvalid):
        qmt.join(made.url, name="x" * 65)
    said = run(shell, f"%qmt_join {made.url}")
    assert "The invite allows 5 requests, 1000 tokens." in said
    STATE.mesh.chat("hello").read()
    deadline = time.monotonic() + 10
    while "4 requests are left" not in (said := run(shell, "%qmt_status")):
        assert time.monotonic() < deadline, said
        time.sleep(0.05)
    assert "you have made 1 request" in said
    assert "ends in 24 hours" in said
    run(shell, "%qmt_leave")
