"""The Tab key: what it offers, from memory alone, in this process and through a real kernel."""

from __future__ import annotations

import asyncio
import re
import threading
import time

import pytest
from IPython.core.completer import provisionalcompleter, rectify_completions

import qmt_jupyter as qmt
from qmt_jupyter import runtime
from qmt_jupyter.facade import Known
from qmt_jupyter.notebook import completion
from qmt_jupyter.notebook.completion import Sources, complete
from qmt_jupyter.notebook.state import STATE, State
from qmt_jupyter.providers.echo import Echo

HOST_ID, OTHER_ID = "12D3KooWaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaabcd1234", "12D3KooWbbbbbbbbwxyz5678"


class Host:
    is_running = True
    models = ("small", "big")

    def _known(self):
        return [Known(HOST_ID, "Team GPU", ("small", "big"))]

    def _ids(self):
        return ["3f9a1c0e-0000", "77aa0000-1111"]


class Mesh:
    def _known(self):
        return [Known(OTHER_ID, "Lab", ("LAB/huge model", "bad'; name"))]


class Schema:
    @classmethod
    def model_json_schema(cls):
        return {}


NAMES = {"df": 1, "data": {}, "Schema": Schema, "made": Schema(), "_private": 2}
EVERYTHING = Sources(State(started=Host(), mesh=Mesh()), NAMES)


def offered(line, sources=EVERYTHING):
    return complete(line, sources)[1]


def test_flags_are_offered_that_were_not_given_yet():
    assert offered("%%chat --mo") == ["--model"]
    assert "--temperature" in offered("%%chat ")
    assert "--model" not in offered("%%chat --model small --")
    assert "--model" not in offered("%%chat --model=small --")
    assert "--model" in offered("%qmt_host --model a.gguf --mo"), "it may be repeated"
    assert "--json" in offered("x = %qmt_usage --")
    assert offered("%qmt_models --zz") == []


@pytest.mark.parametrize(
    ("line", "fragment", "values"),
    [
        ("%%chat --model ", "", ["small", "big", "'LAB/huge model'", "'bad'\"'\"'; name'"]),
        ("%%chat --model b", "b", ["big", "'bad'\"'\"'; name'"]),
        ("%%chat --model=s", "s", ["small"]),
        ('%%chat --model "LAB', '"LAB', ['"LAB/huge model"']),
        ("%chat --host ", "", ["'Team GPU'", "Lab", "abcd1234", "wxyz5678"]),
        ("%chat --host w", "w", ["wxyz5678"]),
        ("%qmt_leave ", "", ["Lab", "wxyz5678"]),
        ("%qmt_leave L", "L", ["Lab"]),
        ("%qmt_revoke 3", "3", ["3f9a1c0e"]),
        ("%qmt_revoke ", "", ["3f9a1c0e", "77aa0000"]),
        ("%qmt_invite --allow-model b", "b", ["big"]),
        ("%%chat --save d", "d", ["df", "data"]),
        ("%%chat --save-stats m", "m", ["made"]),
        ("%%chat --context df,d", "d", ["data"]),
        ("%%chat --context df,", "", ["data", "Schema", "made"]),
        ("%qmt_host --context d", "d", []),
        ("%qmt_host --engine x", "x", ["xllamacpp"]),
        ("%qmt_host --relay ", "", ["none", "public"]),
        ("%qmt_invite --ttl ", "", ["15m", "2h", "24h", "7d", "none"]),
        ("%qmt_host --upstream-key p", "p", ["prompt"]),
    ],
)  # fmt: skip
def test_values_come_from_what_is_known(line, fragment, values):
    assert complete(line, EVERYTHING) == (fragment, values)


def test_what_was_chosen_is_read_back_as_one_word():
    from qmt_jupyter.notebook.options import options
    from qmt_jupyter.notebook.parsers import CHAT

    for value, model in zip(offered("%%chat --model "), ("small", "big", "LAB/huge model", "bad'; name"), strict=True):  # fmt: skip
        assert options(CHAT, f"--model {value} --new").model == model


def test_a_name_of_more_than_a_line_is_not_offered(tmp_path):
    class Hostile:
        def _known(self):
            return [Known(OTHER_ID, "Lab\nimport os", ("m\n!touch x", "m\u202ex", "mine"))]

    sources = Sources(State(mesh=Hostile()), {})
    assert offered("%%chat --model ", sources) == ["mine"]
    assert offered("%%chat --host ", sources) == [OTHER_ID[-8:]]


def test_names_that_two_meshes_share_are_offered_by_id_alone():
    class Twins:
        def _known(self):
            return [Known(HOST_ID, "Lab", ()), Known(OTHER_ID, "Lab", ())]

    assert offered("%%chat --host ", Sources(State(mesh=Twins()), {})) == ["abcd1234", "wxyz5678"]


def test_schemas_are_variables_that_may_be_one_and_json_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("form.json", "other.txt", "a b.json", ".hidden.json"):
        (tmp_path / name).touch()
    (tmp_path / "sub").mkdir()
    assert offered("%%chat --json ") == [
        "data",
        "Schema",
        "made",
        "'a b.json'",
        "form.json",
        "sub/",
    ]


def test_completing_makes_no_lazy_object():
    class Lazy:
        @property
        def __class__(self):
            raise AssertionError("somebody asked what it is")

    sources = Sources(State(), {"lazy": Lazy(), "schema": {}})
    assert "schema" in offered("%%chat --json ", sources)


def test_files_are_offered_where_a_path_is_wanted(tmp_path):
    (tmp_path / "link.txt").touch()
    (tmp_path / "m.gguf").touch()
    (tmp_path / ".dot").touch()
    (tmp_path / "Folder").mkdir()
    base = f"{tmp_path}/"
    for line in ("%qmt_join --file ", "%qmt_host --link-file ", "%qmt_history --export "):
        assert offered(f"{line}{base}") == [f"{base}Folder/", f"{base}link.txt", f"{base}m.gguf"]
    assert offered(f"%qmt_host --model {base}") == [f"{base}Folder/", f"{base}m.gguf"]
    assert offered(f"%qmt_join --file {base}.") == [f"{base}.dot"]
    assert offered("%qmt_join --file /no/such/folder/") == []
    assert offered("%qmt_join --file \0/") == []


@pytest.mark.parametrize(
    "line",
    [
        "%chat why --mo",
        "%chat -- --mo",
        "%timeit --mo",
        "chat --mo",
        "df.mo",
        "",
        "%%chat",
        "# %%chat --mo",
    ],
)
def test_a_prompt_and_other_lines_are_left_alone(line):
    assert complete(line, EVERYTHING) == ("", [])


def test_nothing_is_known_without_a_host_or_a_mesh():
    for line in ("%%chat --model ", "%%chat --host ", "%qmt_invite --allow-model "):
        assert offered(line, Sources(State(), {})) == []


# In IPython --------------------------------------------------------------------------------------


def tab(shell, line):
    """What stands in place of the last word of the line."""
    with provisionalcompleter():
        found = list(rectify_completions(line, shell.Completer.completions(line, len(line))))
    begin = re.search(r"[^\s,=]*$", line).start()
    return sorted((line[: each.start] + each.text)[begin:] for each in found)


def test_ipython_offers_ours_alone_and_only_while_it_is_loaded(shell, hosting):
    hosting(Echo())
    shell.user_ns["models"] = shell.user_ns["mo"] = 1
    for _ in range(3):
        shell.extension_manager.reload_extension("qmt_jupyter")
    assert tab(shell, "%%chat --mo") == ["--model"]
    assert tab(shell, "%%chat --model ") == ["echo"]
    assert tab(shell, "%%chat --save mod") == ["models"]
    assert tab(shell, "%%chat --context models,m") == ["mo"]
    assert tab(shell, "%qmt_revoke ") == [STATE.host.invite.invite_id[:8]]
    assert "--model" not in tab(shell, "%timeit --mo")
    shell.extension_manager.unload_extension("qmt_jupyter")
    assert "--model" not in tab(shell, "%%chat --mo")
    completer = shell.Completer
    left = [*completer.custom_matchers, *completer.magic_arg_matchers]
    assert "qmt_matches" not in [getattr(each, "__name__", "") for each in left]


def test_what_ipython_itself_put_there_is_no_variable_of_the_user(shell):
    assert "get_ipython" not in tab(shell, "%%chat --save ")


def test_guests_and_invites_are_offered_until_they_are_revoked(shell, hosting):
    hosting(Echo())
    second = STATE.host.new_invite()
    mesh = qmt.join(second.url)
    (guest,) = [g for i in STATE.host.usage()["invites"] for g in i["guests"]]
    known = [STATE.host.invite.invite_id[:8], guest["membership"][:8]]
    assert set(known) < set(tab(shell, "%qmt_revoke "))
    STATE.host.revoke(guest["membership"])
    assert guest["membership"][:8] not in tab(shell, "%qmt_revoke ")
    STATE.host.revoke(second.invite_id)
    assert second.invite_id[:8] not in tab(shell, "%qmt_revoke ")
    mesh.leave()


def test_a_background_loop_that_is_stuck_holds_nothing_up(shell, hosting):
    hosting(Echo())
    STATE.mesh = qmt.join(STATE.host.invite.url)
    release = threading.Event()

    async def stick():
        assert asyncio.get_running_loop()
        release.wait(100)

    stuck = runtime.submit(stick)
    try:
        for line in (
            "%%chat --model ",
            "%%chat --host ",
            "%qmt_revoke ",
            "%qmt_leave ",
            "%%chat --",
        ):
            assert tab(shell, line)
        assert not stuck.done(), "it was stuck all the while"
    finally:
        release.set()
    stuck.result(timeout=30)


def test_a_front_end_completes_in_a_real_kernel(kernel, tmp_path):
    host = kernel("host")
    host.text(f"%qmt_host --model echo --name Lab --save h --link-file {tmp_path / 'link'}")

    def completions(code, cursor=None):
        message = host.client.complete(code, cursor)
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            reply = host.client.get_shell_msg(timeout=30)
            if reply["parent_header"].get("msg_id") == message:
                content = reply["content"]
                before = code[: content["cursor_start"]]
                return [before + each for each in content["matches"]]
        raise TimeoutError(code)

    assert completions("%%chat --mo") == ["%%chat --model"]
    code = "%%chat --model e\nWhy?\n"
    assert completions(code, len("%%chat --model e")) == ["%%chat --model echo"]
    assert completions("%%chat --host L") == ["%%chat --host Lab"]
    assert completions("x = 1\n%qmt_invite --uses 2 --requests-p") == [
        "x = 1\n%qmt_invite --uses 2 --requests-per-minute"
    ]
    assert completions("%%chat --context h") == ["%%chat --context h"]
    (revoked,) = completions("%qmt_revoke ")
    assert f"Revoked invite {revoked.split()[-1]}" in host.text(revoked)


def test_the_older_way_replaces_the_token_alone():
    from_token = completion._from_token
    assert from_token("df,da", "da", ["df,data"]) == ["data"]
    assert from_token("--mo", "--mo", ["--model"]) == ["--model"]
    assert from_token('"LAB', "LAB", ['"LAB/x"']) == ['LAB/x"']
    assert from_token("b", "b", ["'big one'"]) == ["'big one'"]
    assert from_token("ab", "xyz", ["abc"]) == []
