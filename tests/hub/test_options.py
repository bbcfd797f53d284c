"""How the service is told what to do, and what it says where that is not enough."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from qmt_jupyter.errors import OptionInvalid
from qmt_jupyter.hub.options import parser, read_config, read_options

ROOT = Path(__file__).resolve().parents[2]
TOKEN = "0123456789abcdef-the-service's-own"
HUB = {
    "JUPYTERHUB_API_TOKEN": TOKEN,
    "JUPYTERHUB_API_URL": "http://127.0.0.1:8081/hub/api",
    "JUPYTERHUB_SERVICE_URL": "http://127.0.0.1:10200",
}


def test_a_hub_that_starts_it_need_not_say_more():
    given = read_options(
        [],
        {
            **HUB,
            "JUPYTERHUB_SERVICE_NAME": "qmt",
            "JUPYTERHUB_SERVICE_PREFIX": "/base/services/qmt/",
            "JUPYTERHUB_BASE_URL": "/base/",
            "JUPYTERHUB_CLIENT_ID": "service-qmt",
            "JUPYTERHUB_HOST": "",
            "JUPYTERHUB_OAUTH_CALLBACK_URL": "/base/services/qmt/oauth_callback",
        },
    )
    assert (given.hub_host, given.callback) == ("", "/base/services/qmt/oauth_callback")
    assert (given.name, given.prefix, given.hub_prefix) == (
        "qmt",
        "/base/services/qmt/",
        "/base/hub/",
    )
    assert (given.address, given.port) == ("127.0.0.1", 10200)
    assert given.api_url == "http://127.0.0.1:8081/hub/api"
    assert given.client_id == "service-qmt"
    assert given.hosting["model"] == ["smollm2"]
    assert given.hosting["name"] == "qmt"
    assert given.recheck <= 25


def test_an_external_one_derives_what_it_was_not_told():
    given = read_options([], {**HUB, "JUPYTERHUB_BASE_URL": "/base"})
    assert (given.name, given.prefix, given.hub_prefix) == (
        "qmt",
        "/base/services/qmt/",
        "/base/hub/",
    )
    assert given.client_id == "service-qmt"
    given = read_options([], {**HUB, "JUPYTERHUB_SERVICE_NAME": "qmt-b"})
    assert (given.name, given.prefix, given.client_id) == (
        "qmt-b", "/services/qmt-b/", "service-qmt-b",
    )  # fmt: skip


def test_flags_say_what_is_shared_and_how():
    given = read_options(
        [
            "--upstream", "http://127.0.0.1:9/v1", "--upstream-key", "env:KEY", "--name", "GPU 1",
            "--slots", "2", "--port", "4000", "--recheck", "0.5", "--config", "limits.toml",
            "--peer", "http://10.0.0.1:10200/services/qmt-b", "--peer",
            "http://10.0.0.1:10200/services/qmt-b/",
        ],
        HUB,
    )  # fmt: skip
    assert given.hosting["upstream"] == ["http://127.0.0.1:9/v1"]
    assert given.hosting["model"] is None
    assert (given.hosting["slots"], given.hosting["port"]) == (2, 4000)
    assert given.hosting["name"] == "GPU 1"
    assert given.recheck == 0.5
    assert given.config == Path("limits.toml")
    assert given.peers == ("http://10.0.0.1:10200/services/qmt-b/",)


def test_the_token_shows_nowhere():
    assert TOKEN not in repr(read_options([], HUB))
    for variable, value in [("JUPYTERHUB_API_URL", "nonsense"), ("JUPYTERHUB_SERVICE_URL", "x")]:
        with pytest.raises(OptionInvalid) as refused:
            read_options([], {**HUB, variable: value})
        assert TOKEN not in str(refused.value)
    with pytest.raises(OptionInvalid) as refused:
        read_options([], {**HUB, "JUPYTERHUB_API_TOKEN": f"{TOKEN}\n{TOKEN}"})
    assert TOKEN not in str(refused.value)


@pytest.mark.parametrize("missing", list(HUB))
def test_a_missing_variable_is_named_and_explained(missing):
    with pytest.raises(OptionInvalid) as refused:
        read_options([], {**HUB, missing: " "})
    assert refused.value.sentence == f"{missing} is not set."
    assert f"{missing}, " in refused.value.next_step


def test_all_missing_variables_are_named_at_once():
    with pytest.raises(OptionInvalid) as refused:
        read_options([], {})
    for variable in HUB:
        assert variable in refused.value.sentence


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("JUPYTERHUB_API_URL", "ftp://127.0.0.1/hub/api"),
        ("JUPYTERHUB_API_URL", "http://"),
        ("JUPYTERHUB_API_URL", "http://h:99999/"),
        ("JUPYTERHUB_API_URL", "http://h/\nX: y"),
        ("JUPYTERHUB_API_URL", "http://[::1"),
        ("JUPYTERHUB_API_URL", "http://user:secret@h/hub/api"),
        ("JUPYTERHUB_SERVICE_URL", "https://127.0.0.1:10200"),
        ("JUPYTERHUB_SERVICE_URL", "127.0.0.1:10200"),
        ("JUPYTERHUB_SERVICE_NAME", "../x"),
        ("JUPYTERHUB_SERVICE_NAME", "Q"),
        ("JUPYTERHUB_SERVICE_PREFIX", "services/qmt"),
        ("JUPYTERHUB_SERVICE_PREFIX", "//evil/"),
        ("JUPYTERHUB_BASE_URL", "/a b"),
    ],
)
def test_a_variable_that_makes_no_sense_is_refused_by_name(variable, value):
    with pytest.raises(OptionInvalid) as refused:
        read_options([], {**HUB, variable: value})
    assert variable in refused.value.sentence
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--recheck", "0"],
        ["--recheck", "60"],
        ["--recheck", "nan"],
        ["--peer", "qmt-b"],
        ["--peer", "http://h/?token=x"],
        ["--slots", "many"],
        ["--unheard-of"],
        ["--uses", "3"],
        ["extra"],
    ],
)
def test_a_flag_that_makes_no_sense_is_refused(arguments):
    with pytest.raises(OptionInvalid):
        read_options(arguments, HUB)


def test_an_address_of_the_newer_kind_is_taken():
    assert read_options([], {**HUB, "JUPYTERHUB_SERVICE_URL": "http://[::1]:1"}).address == "::1"


def test_help_names_every_flag_that_the_pages_show():
    text = parser().format_help()
    for flag in ("--model", "--upstream", "--config", "--name", "--slots", "--port", "--peer"):
        assert flag in text


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read"),
        (b"[everybody]\nconcurrent = 0x\n", "line 2"),
        (b"zone = 'UTC'\n# caf\xe9\n", "line 2: this is not text in UTF-8"),
        (b"#" * (4 * 1024 * 1024 + 1), "larger than"),
        (b"[everyone]\n", "the nearest is everybody"),
    ],
)
def test_a_config_that_cannot_be_used_is_refused_by_its_name(tmp_path, content, said):
    path = tmp_path / "limits.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(OptionInvalid) as refused:
        read_config(path)
    assert "limits.toml" in refused.value.sentence
    assert said in refused.value.sentence


def test_a_config_with_a_mark_of_windows_is_read(tmp_path):
    path = tmp_path / "limits.toml"
    path.write_bytes("\ufeff[everybody]\r\nconcurrent = 7\r\n".encode())
    assert read_config(path).everybody == {"concurrent": 7}


def start(arguments=(), before="", **environment):
    """The service's own process, which ends by itself here."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("JUPYTERHUB_")}
    code = f"{before}\nimport sys\nfrom qmt_jupyter.hub.__main__ import main\nsys.exit(main())"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=ROOT, env={**kept, **environment},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def test_a_start_that_fails_is_one_sentence_and_no_traceback(tmp_path):
    done = start()
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith("qmt_jupyter.hub: JUPYTERHUB_API_TOKEN and")
    assert len(done.stderr.splitlines()) == 1

    (tmp_path / "limits.toml").write_text("[everybody]\nconcurent = 2\n")
    done = start(["--config", str(tmp_path / "limits.toml")], **HUB)
    assert done.returncode == 1
    assert (
        "limits.toml, line 2: there is no limit concurent; the nearest is concurrent" in done.stderr
    )
    assert len(done.stderr.splitlines()) == 1 and TOKEN not in done.stderr


def test_without_the_extra_it_says_what_to_install():
    hide = (
        "import importlib.util as u\nfind = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name == 'jupyterhub' else find(name, *a)"
    )
    done = start(before=hide)
    assert done.returncode == 1
    assert "pip install 'qmt-jupyter[hub]'" in done.stderr
    assert len(done.stderr.splitlines()) == 1
