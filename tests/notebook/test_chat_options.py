"""What the flags of a chat send, keep and refuse, in an IPython of this process."""

from __future__ import annotations

import pytest
from IPython.utils.capture import capture_output

import qmt_jupyter as qmt
from qmt_jupyter.errors import NotJoined, OptionInvalid
from qmt_jupyter.notebook import stats
from qmt_jupyter.notebook.state import STATE
from qmt_jupyter.notebook.structured import AnswerInvalid
from tests.notebook.scripted import Scripted, run


def stored(shell, code):
    """Run a cell that becomes part of the session's history."""
    with capture_output() as captured:
        result = shell.run_cell(code, store_history=True)
    result.raise_error()
    return captured.stdout + captured.stderr


def test_variables_and_cells_are_sent_when_asked_for_and_that_is_said(shell, hosting):
    provider = hosting(Scripted())
    stored(shell, "x = 'what x holds'; 6 * 7")
    said = stored(shell, "%%chat --context x,-1\nWhy?")
    ((_, text),) = provider.said(0)
    assert text.startswith("x:\n```\nwhat x holds\n```\n\nIn[1]:\n```\nx = 'what")
    assert text.endswith("Out[1] (int):\n```\n42\n```\n\nWhy?")
    assert "Sent with the prompt: x (12 characters), In[1] (" in said
    stored(shell, "%chat --context -2 --context x --new Why so")
    ((_, text),) = provider.said(1)
    assert text.startswith("In[1]:")
    assert text.endswith("x:\n```\nwhat x holds\n```\n\nWhy so")


def test_a_prompt_is_filled_only_when_asked(shell, hosting):
    provider = hosting(Scripted())
    shell.user_ns["name"] = "Ada"
    said = run(shell, "%%chat --fill\n{name} and {{name}}")
    assert "Filled in: name (3 characters)." in said
    run(shell, "%chat --new --fill Who is {name}?")
    run(shell, "%%chat --new\n{name} {nope}")
    assert [provider.said(n)[0][1] for n in range(3)] == [
        "Ada and {name}", "Who is Ada?", "{name} {nope}",
    ]  # fmt: skip


def test_an_invite_never_reaches_a_model(shell, hosting):
    provider = hosting(Scripted())
    shell.user_ns.update(h=STATE.host, link=STATE.host.invite.url, invites=STATE.host.invites)
    token = STATE.host.invite.url.rpartition("/")[2][:60]
    for asked in ("h", "h,link"):
        with pytest.raises(OptionInvalid, match="not sent"):
            run(shell, f"%%chat --context {asked}\nhi")
    with pytest.raises(OptionInvalid, match="not sent"):
        run(shell, "%%chat --fill\n{h.invite.url}")
    assert "invite link hidden" in run(shell, "%%chat --context link,invites\nhi")
    assert "invite link hidden" in run(shell, "%%chat --fill\n{link}")
    assert token not in str(provider.requests)
    assert len(provider.requests) == 2


@pytest.mark.parametrize(
    "line",
    [
        "--context nope", "--context x,99", "--context", "--context ''", "--fill",
        "--json nope", "--json '{'", "--json", "--json x", "--save-stats 1st", "--save a.b",
        "--json schema --context nope", "--context x --json nope", "--save x --save-stats x",
    ],
)  # fmt: skip
def test_a_wrong_option_sends_nothing_and_changes_nothing(shell, hosting, line):
    provider = hosting(Scripted())
    shell.user_ns.update(x="text", schema={"type": "object"})
    run(shell, "%%chat\nFirst?")
    before = list(STATE.conversation)
    with pytest.raises(OptionInvalid):
        run(shell, f"%%chat --new {line}\n{{nope}} and {{x}}")
    assert len(provider.requests) == 1
    assert STATE.conversation == before
    assert shell.user_ns["x"] == "text"


def test_a_json_answer_is_asked_for_checked_and_saved_as_its_value(shell, hosting):
    provider = hosting(Scripted('{"n": ', "42}"))
    shell.user_ns["schema"] = {"properties": {"n": {"type": "integer"}}, "required": ["n"]}
    run(shell, "%%chat --json schema --save value\nHow many?")
    assert shell.user_ns["value"] == {"n": 42}
    asked = provider.requests[0]["response_format"]
    assert asked["json_schema"] == {"name": "schema", "schema": shell.user_ns["schema"]}
    assert STATE.conversation[-1]["content"] == '{"n": 42}'
    assert "jsonschema" not in run(shell, "%chat --json schema How many?")


def test_an_answer_that_is_no_such_json_fails_and_its_text_is_kept(shell, hosting):
    provider = hosting(Scripted('{"n": "many"}'))
    shell.user_ns["schema"] = {"properties": {"n": {"type": "integer"}}}
    with capture_output() as captured:
        result = shell.run_cell("%%chat --json schema --save value --save-stats s\nHow many?")
    assert isinstance(result.error_in_exec, AnswerInvalid)
    assert '{"n": "many"}' in captured.stdout, "shown"
    assert "Its text is in value." in captured.stdout + captured.stderr
    assert shell.user_ns["value"] == '{"n": "many"}'
    assert shell.user_ns["s"]["finish_reason"] == "stop"
    assert STATE.conversation == []
    provider.pieces = ('{"n": 1}',)
    run(shell, "%%chat --json schema --save value\nHow many?")
    assert shell.user_ns["value"] == {"n": 1}
    assert len(provider.said(1)) == 1


def test_figures_are_shown_and_saved(shell, hosting):
    hosting(Scripted("a ", "b ", "c"))
    said = run(shell, "%%chat --stats --save-stats figures --save text\nHi")
    for part in ("scripted", "this kernel", "3 tokens", "first token after", "not limited"):
        assert part in said
    figures = shell.user_ns["figures"]
    assert (figures["prompt_tokens"], figures["completion_tokens"]) == (3, 3)
    assert figures["first_token_s"] > 0
    assert figures["queued_s"] == 0
    assert figures["host"] == STATE.host.peer_id[-8:]
    assert figures["finish_reason"] == "stop"
    assert shell.user_ns["text"] == "a b c"
    said = run(shell, "%%chat --save-stats figures\nHi")
    assert "first token after" not in said


def test_figures_say_what_is_left_of_an_invites_budget(shell, monkeypatch):
    monkeypatch.setattr(stats, "_LEFT_WITHIN", 60)
    with qmt.host(Scripted(), uses=0) as host:
        for limits, left in (
            (qmt.Limits(requests=5, tokens=1000), {"requests": 4, "tokens": 995}),
            (qmt.Limits(), {"requests": None, "tokens": None}),
        ):
            invite = host.new_invite(uses=1, limits=limits)
            monkeypatch.setenv("QMT_INVITE", invite.url)
            run(shell, "%qmt_join")
            run(shell, "%%chat --new --save-stats figures\nHi")
            assert shell.user_ns["figures"]["left"] == left
            run(shell, "%qmt_leave")


def test_no_answer_has_no_figures(shell):
    with pytest.raises(NotJoined):
        run(shell, "%%chat --stats --save-stats figures\nHi")
    assert "figures" not in shell.user_ns
