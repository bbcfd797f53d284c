"""The conversation: shown without being interpreted, exported, cleared."""

from __future__ import annotations

import json

import pytest
from markdown_it import MarkdownIt

from qmt_jupyter.errors import OptionInvalid
from qmt_jupyter.notebook import history
from qmt_jupyter.notebook.state import STATE
from tests.notebook.scripted import Scripted, run


def conversation(*texts):
    roles = ["system", "user", "assistant", "user", "assistant"]
    return [{"role": role, "content": text} for role, text in zip(roles, texts, strict=False)]


HOSTILE = "<script>x</script> ![i](http://x/y) ```\nopen"


def test_no_message_breaks_out_of_its_place():
    shown = history.bundle(history.entries(conversation("Be brief.", "Hi", HOSTILE, "Next"), []))
    assert shown["text/html"].count("<section") == 4
    assert "<script" not in shown["text/html"] + shown["text/markdown"]
    assert "<img" not in shown["text/html"]
    assert shown["text/html"].index("You</p>") < shown["text/html"].index("Model</p>")
    assert shown["text/markdown"].rstrip().endswith("#### You\n\nNext")


@pytest.mark.parametrize("open_code", ["```", "~~~"])
def test_a_message_too_long_to_parse_leaves_no_code_open_for_the_next(open_code):
    """Else the next one's fence would end it, and what that one fenced would be read as HTML."""
    long = "x\n" * 60_000 + open_code
    hostile = "```\n<img src=x onerror=alert(1)>\n```"
    text = history.as_file(history.entries(conversation("s", "q", long, hostile), []))
    rendered = MarkdownIt("commonmark", {"html": True}).render(text)
    assert "<img" not in rendered
    assert "<h4>You</h4>\n<pre><code>&lt;img" in rendered


def test_a_hosts_name_in_a_heading_is_made_harmless():
    messages = conversation("s", "q", "a")
    facts = {"model": "m\x1b<b>", "host": "abcd\n1234"}
    (entry,) = history.entries(messages, [(messages[2], facts)])[2:]
    assert entry.heading == "m <b> on abcd 1234"
    assert "<b>" not in history.bundle([entry])["text/html"]


def test_the_last_questions_come_with_their_answers_and_the_system_message():
    messages = conversation("s", "q1", "a1", "q2", "a2")
    assert [e.text for e in history.entries(messages, [], 1)] == ["s", "q2", "a2"]
    assert len(history.entries(messages, [], 2)) == 5
    assert len(history.entries(messages, [], 9)) == 5
    with pytest.raises(OptionInvalid):
        history.entries(messages, [], 0)


def test_a_very_long_conversation_shows_its_end_and_says_so():
    messages = [{"role": "user", "content": "x" * 30_000} for _ in range(9)]
    shown = history.bundle(history.entries(messages, []))
    assert shown["text/html"].count("<section") == 3
    assert "6 earlier messages not shown here" in shown["text/plain"]
    code = "```python\n" + "x=1;" * 100_000
    shown = history.bundle(history.entries([{"role": "assistant", "content": code}], []))
    assert sum(len(each) for each in shown.values()) < 1_000_000
    assert "cut here" in shown["text/html"]


def test_an_export_says_what_was_said_and_who_said_it(tmp_path):
    messages = conversation("s", "q", HOSTILE)
    facts = {"model": "m", "host": "abcd1234", "finish_reason": "stop", "usage": None}
    shown = history.entries(messages, [(messages[2], facts)])
    history.export(shown, tmp_path / "talk.json", replace=False)
    kept = json.loads((tmp_path / "talk.json").read_text(encoding="utf-8"))
    assert kept == {"messages": messages, "answers": [{"index": 2, **facts}]}
    history.export(shown, tmp_path / "talk.md", replace=False)
    text = (tmp_path / "talk.md").read_text(encoding="utf-8")
    assert "#### m on abcd1234" in text
    assert "<script" not in text


def test_a_text_that_is_no_unicode_is_exported(tmp_path):
    shown = history.entries(conversation("s", "q", "half \ud83d of a pair"), [])
    for name in ("talk.json", "talk.md"):
        history.export(shown, tmp_path / name, replace=False)
    read = json.loads((tmp_path / "talk.json").read_text(encoding="utf-8"))
    assert read["messages"][2]["content"] == "half \ud83d of a pair"
    assert "half \N{REPLACEMENT CHARACTER} of" in (tmp_path / "talk.md").read_text(encoding="utf-8")


def test_a_file_is_replaced_only_with_force(tmp_path):
    shown = history.entries(conversation("s", "q"), [])
    path = tmp_path / "talk.md"
    path.write_text("mine")
    with pytest.raises(OptionInvalid, match="--force"):
        history.export(shown, path, replace=False)
    assert path.read_text() == "mine"
    history.export(shown, path, replace=True)
    assert "#### You" in path.read_text()
    for other in (tmp_path / "talk.txt", tmp_path / "nowhere" / "talk.md", tmp_path):
        with pytest.raises(OptionInvalid):
            history.export(shown, other, replace=True)


def test_the_magic_shows_exports_saves_and_clears(shell, hosting, tmp_path):
    hosting(Scripted("Hello ", "there."))
    assert "There is no conversation yet" in run(shell, "%qmt_history")
    with pytest.raises(OptionInvalid):
        run(shell, f"%qmt_history --export {tmp_path / 'x.md'}")
    run(shell, "%%chat\nFirst?")
    run(shell, "%%chat\nSecond?")
    said = run(shell, "%qmt_history")
    assert said.index("First?") < said.index("scripted on ") < said.index("Second?")
    assert "First?" not in run(shell, "%qmt_history --last 1")

    path = tmp_path / "talk.json"
    assert "is in" in run(shell, f"%qmt_history --export {path} --save kept")
    assert shell.user_ns["kept"] == STATE.conversation
    assert shell.user_ns["kept"][0] is not STATE.conversation[0]
    answers = json.loads(path.read_text())["answers"]
    assert [each["index"] for each in answers] == [1, 3]
    assert {each["model"] for each in answers} == {"scripted"}
    assert answers[0]["host"] == STATE.host.peer_id[-8:]

    for wrong in ("--force", "--last 0 --clear", f"--export {path} --clear", "--save a-b --clear"):
        with pytest.raises(OptionInvalid):
            run(shell, f"%qmt_history {wrong}")
    assert len(STATE.conversation) == 4
    assert "4 messages are gone" in run(shell, "%qmt_history --clear")
    assert STATE.conversation == STATE.answered == []


def test_what_a_new_conversation_leaves_behind_is_forgotten(shell, hosting):
    hosting(Scripted())
    for _ in range(3):
        run(shell, "%%chat --new\nHi")
    assert len(STATE.answered) == 1
