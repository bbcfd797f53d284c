"""The main job between two real kernels, and what is left when they end."""

from __future__ import annotations

import contextlib
import os
import time

import filelock
import pytest

from tests.conftest import MODELS
from tests.notebook.conftest import errors
from tests.providers.mock_upstream import MockUpstream


@pytest.fixture(scope="session")
def smollm2():
    """The real small model, fetched once."""
    from qmt_jupyter.providers.model_files import locate_model

    return locate_model("smollm2", MODELS)


def answers(published):
    """The displays and updates of an answer: their ids and their data."""
    kinds = ("display_data", "update_display_data")
    shown = [m["content"] for m in published if m["msg_type"] in kinds]
    return [(c["transient"].get("display_id"), c["data"], c["metadata"]) for c in shown]


def running_on(host):
    """How many requests run on the host kernel now."""
    said = host.text("print(sum(g['running'] for i in h.usage()['invites'] for g in i['guests']))")
    return int(said)


def share(host, link, flags="--model echo"):
    host.text(f"%qmt_host {flags} --uses 4 --save h --link-file {link}")


def test_two_kernels_do_the_whole_job_with_a_real_model(kernel, smollm2, tmp_path):
    host, guest = kernel("host"), kernel("guest")
    link = tmp_path / "link"
    said = host.text(f"%qmt_host --model smollm2 --uses 1 --name Team --link-file {link}")
    assert "Reachable at " in said
    assert "read the prompts" in said

    said = guest.text(f"%qmt_join --file {link}")
    assert "Joined Team" in said
    assert "smollm2" in said
    assert "smollm2" in guest.text("%qmt_models")
    assert "direct" in guest.text("%qmt_status")

    published = guest.run(
        "%%chat --save answer --max-tokens 80 --seed 1\nTell a story about the sea."
    )
    assert not errors(published)
    shown = answers(published)
    assert len({display_id for display_id, _, _ in shown}) == 1, "one output, that grows"
    texts = [data["text/plain"] for _, data, _ in shown]
    assert len(set(texts)) >= 3, "it streams"
    assert {"text/plain", "text/markdown", "text/html"} <= set(shown[-1][1])
    kept = shown[-1][2]["qmt"]
    assert kept["model"] == "smollm2"
    assert kept["usage"]["completion_tokens"] > 10
    assert kept["finish_reason"] in ("stop", "length")

    guest.text("from qmt_jupyter.notebook.state import STATE")
    said = guest.text("print([m['role'] for m in STATE.conversation])")
    assert said.strip() == "['user', 'assistant']"
    assert not errors(guest.run("%%chat --max-tokens 5\nGo on."))
    assert guest.text("print(len(STATE.conversation))").strip() == "4"
    assert not errors(guest.run("%%chat --new --max-tokens 5\nSomething else."))
    assert guest.text("print(len(STATE.conversation))").strip() == "2"
    assert guest.text("print(answer)").strip() in texts[-1]

    token = link.read_text().strip().rpartition("/")[2].partition("?")[0]
    for each in (host, guest):
        assert token not in repr(each.published), "the token is in no output and no widget state"
        assert token[:40] not in repr(each.published)
    assert guest.text("%qmt_leave").startswith("Left 1 mesh")


def test_an_interrupt_ends_the_answer_on_both_sides(kernel, tmp_path):
    host, guest = kernel("host"), kernel("guest")
    link = tmp_path / "link"
    host.text(
        "import qmt_jupyter as qmt\n"
        "from qmt_jupyter.providers.echo import Echo\n"
        "from qmt_jupyter.notebook.state import STATE\n"
        "h = STATE.started = qmt.host(Echo(delay=0.05, repeat=True), uses=1)\n"
        f"open({str(link)!r}, 'w').write(h.invite.url)"
    )
    guest.text(f"%qmt_join --file {link}")
    cell = guest.start("%%chat --save never --max-tokens 5000\nfor ever")
    failed = []
    interrupted = None
    for message in guest.messages(cell):
        if message["msg_type"] == "update_display_data" and interrupted is None:
            interrupted = time.monotonic()
            guest.manager.interrupt_kernel()
        if message["msg_type"] == "error":
            failed.append((message["content"], time.monotonic() - interrupted))
    content, seconds = failed[0]
    assert content["ename"] == "Interrupted"
    assert seconds < 5, "generous: the machine may be busy"
    deadline = time.monotonic() + 5
    while running_on(host) and time.monotonic() < deadline:
        pass
    assert running_on(host) == 0
    assert host.text("print(h._service.providers[0].cancelled)").strip() == "1"
    said = guest.text("from qmt_jupyter.notebook.state import STATE; print(STATE.conversation)")
    assert "for ever" in said, "the text so far is part of the conversation"


def test_a_failing_cell_says_one_sentence_and_stops_run_all(kernel):
    guest = kernel("guest")
    failed = errors(guest.run("%qmt_join qmt://mesh/join/AwGJ"))[0]
    assert failed["ename"] == "InviteMalformed"
    assert len(failed["traceback"]) == 1
    assert "Copy the whole line" in failed["traceback"][0]
    failed = errors(guest.run("%%chat\nhello"))[0]
    assert failed["ename"] == "NotJoined"


def test_asking_for_the_link_where_nobody_can_answer_is_one_sentence(kernel):
    failed = errors(kernel("guest").run("%qmt_join"))[0]
    assert failed["ename"] == "OptionInvalid"
    assert len(failed["traceback"]) == 1


def test_a_link_in_the_cell_is_warned_of(kernel, tmp_path):
    host, guest = kernel("host"), kernel("guest")
    link = tmp_path / "link"
    share(host, link)
    assert "now stands in this notebook" in guest.text(f"%qmt_join {link.read_text().strip()}")


def test_one_kernel_may_host_and_join_and_uses_its_own_model(kernel, tmp_path):
    both = kernel("both")
    link = tmp_path / "link"
    share(both, link)
    both.text(f"%qmt_join --file {link}")
    both.run("%%chat\none two")
    usage = both.text(
        "u = h.usage(); print(u['own']['requests'], u['invites'][0]['guests'][0]['requests'])"
    )
    assert usage.split() == ["1", "0"]


def test_a_notebook_with_two_hosts_goes_on_when_one_is_killed(kernel, tmp_path):
    hosts = {name: kernel(name) for name in ("lab", "class")}
    guest = kernel("guest")
    for name, host in hosts.items():
        share(host, tmp_path / f"{name}.link", f"--model echo --name {name}")
        assert f"Joined {name}" in guest.text(f"%qmt_join --file {tmp_path / name}.link")
    listed = guest.text("%qmt_models").splitlines()
    assert listed[0].split() == ["model", "context", "mesh", "host", "load", "round", "trip"]
    assert len([line for line in listed if "0 of 4" in line]) == 2
    for name, host in hosts.items():
        asked = guest.run(f"%%chat --host {name}\nhello")
        assert answers(asked)[-1][2]["qmt"]["host"] == host.text("print(h.peer_id[-8:])").strip()
    survivor = hosts["class"].text("print(h.peer_id[-8:])").strip()
    hosts["lab"].manager.shutdown_kernel(now=True)
    for _ in range(3):
        published = guest.run("%%chat\nstill there")
        assert not errors(published)
        assert answers(published)[-1][2]["qmt"]["host"] == survivor
    assert guest.text("%qmt_leave lab").strip() == "Left 1 mesh."
    assert "class" in guest.text("%qmt_status")


def test_reloading_twenty_times_changes_nothing(kernel, tmp_path):
    host = kernel("host")
    share(host, tmp_path / "link")
    before = host.text("import threading; print(threading.active_count())")
    host.text("for _ in range(20): get_ipython().run_line_magic('reload_ext', 'qmt_jupyter')")
    assert host.text("print(threading.active_count())") == before
    assert "Hosting echo" in host.text("%qmt_status")


def test_the_same_host_cell_again_disturbs_no_guest(kernel, tmp_path):
    host, guest = kernel("host"), kernel("guest")
    link = tmp_path / "link"
    share(host, link)
    guest.text(f"%qmt_join --file {link}")
    share(host, link)
    assert not errors(guest.run("%%chat\nstill there"))
    failed = errors(host.run("%qmt_host --model echo --uses 9"))[0]
    assert "already" in failed["evalue"]


def test_a_kernel_that_ends_frees_the_identity(kernel, tmp_path):
    host = kernel("host")
    share(host, tmp_path / "link")
    pid = host.manager.provisioner.pid
    host.manager.shutdown_kernel(now=False)
    with filelock.FileLock(str(host.home / "host" / "lock"), timeout=5):
        pass
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 0)
        pytest.fail("the kernel's process is still there")
    assert not (host.home / "host" / "reach.json").exists()


def test_help_is_worth_reading(kernel):
    guest = kernel("guest")
    replies = guest.client.execute("%%chat?", reply=True, timeout=30)
    assert "--max-tokens" in replies["content"]["payload"][0]["data"]["text/plain"]
    assert "--uses" in guest.text("%qmt_host --help")


def test_a_notebook_that_shares_an_upstream_holds_nothing_of_its_key(kernel, tmp_path, monkeypatch):
    key = "sk-Qw3rTy7uIoP9aSdFgHjK"
    monkeypatch.setenv("MY_KEY", key)
    mock = MockUpstream(key)
    try:
        host = kernel("host")
        share(
            host,
            tmp_path / "link",
            f"--upstream {mock.url} --upstream-model * --upstream-key env:MY_KEY",
        )
        shown = []
        for model in ("plain", "echo-400", "fails-midway", "forbidden", "breaks"):
            shown += host.run(f"%%chat --model {model} --save answer\nhello")
        shown += host.run(f"%qmt_host --upstream {mock.url} --upstream-key {key[:4]}wrong")
        shown += host.run("h, h._service.providers, vars(h._service.providers[0])")
        shown += host.run("%xmode Verbose\n%chat --model echo-400 hello")
        published = repr(host.published)
    finally:
        mock.close()
    assert "one two three" in published
    assert "[key]" in published
    assert len(errors(shown)) == 6
    assert [part for part in range(len(key) - 6) if key[part : part + 7] in published] == []


def test_a_real_model_answers_in_json_about_what_the_notebook_holds(kernel, smollm2, tmp_path):
    both = kernel("both")
    both.text("%qmt_host --model smollm2 --slots 1 --threads 1 --context 512 --uses 1")
    both.text(
        "schema = {'type': 'object', 'properties': {'city': {'type': 'string', 'maxLength': 9}, "
        "'big': {'type': 'boolean'}}, 'required': ['city', 'big'], 'additionalProperties': False}\n"
        "note = 'Paris is a big city.'"
    )
    asked = "--temperature 0 --seed 1 --json schema --save place"
    published = both.run(
        f"%%chat --context note --stats --save-stats took {asked} --max-tokens 40\nWhich city?"
    )
    assert not errors(published)
    printed = "".join(m["content"]["text"] for m in published if m["msg_type"] == "stream")
    assert "Sent with the prompt: note (20 characters)." in printed
    answer, table = [data for _, data, _ in answers(published)][-2:]
    assert answer["text/markdown"].startswith("```\n{\n"), "one indented block"
    assert "tokens/s" in table["text/html"]
    kinds = both.text("print(sorted(place), type(place['city']), type(place['big']))")
    assert kinds.strip() == "['big', 'city'] <class 'str'> <class 'bool'>"
    assert both.text("print(took['finish_reason'], took['completion_tokens'] > 3)") == "stop True\n"

    failed = errors(both.run(f"%%chat --new {asked} --max-tokens 3\nWhich city?"))[0]
    assert failed["ename"] == "AnswerInvalid"
    assert "cut off before its JSON ended" in failed["evalue"]
    assert both.text("print(type(place))").strip() == "<class 'str'>"

    shown = both.run("%qmt_history")
    history = next(m["content"]["data"] for m in shown if m["msg_type"] == "display_data")
    assert history["text/html"].count("<section") == 2, "what failed is no part of it"
    assert "Paris is a big city." in history["text/html"]
    assert "smollm2 on " in history["text/plain"]
