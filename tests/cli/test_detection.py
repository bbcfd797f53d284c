"""``qmt host`` without a word on what: it says what runs here, and shares none of it."""

from __future__ import annotations

import json
import shlex

import pytest

from qmt_jupyter import api, cli, flags, offer
from qmt_jupyter.notebook.arguments import words
from qmt_jupyter.providers import detect
from tests.providers.local_servers import LocalServer, llama_server, ollama, vllm


@pytest.fixture
def local(monkeypatch):
    """Starts servers that run on this machine; no others are looked for."""
    running = []

    def start(*servers):
        by_name = {product.name: product for product in detect.PRODUCTS}
        products = []
        for name, paths in servers:
            running.append(LocalServer(paths))
            usual = by_name[name]
            products.append(
                detect.Product(name, running[-1].port, usual.sign, usual.is_it, usual.denies)
            )
        monkeypatch.setattr(detect, "PRODUCTS", tuple(products))
        monkeypatch.setattr(detect, "DEADLINE", 20.0)
        return running

    yield start
    for server in running:
        server.close()


@pytest.fixture(autouse=True)
def nothing_is_hosted(monkeypatch):
    def host(*_, **given):
        hosted.append(given)
        raise KeyboardInterrupt

    hosted = []
    monkeypatch.setattr(api, "host", host)
    return hosted


def test_what_was_found_is_printed_with_the_lines_that_share_it(local, capsys, nothing_is_hosted):
    (server,) = local(("Ollama", ollama("llama3.2:latest", "qwen3:8b")))
    assert cli.main(["host", "--uses", "3", "--name", "Team GPU"]) == 1
    said = capsys.readouterr().out.replace('"', "'")  # which of them is the shell's affair
    url = f"http://127.0.0.1:{server.port}/v1"
    base = f"    qmt host --uses 3 --name 'Team GPU' --upstream {url} --upstream-model"
    assert f"Ollama runs here at {url}, with llama3.2:latest, qwen3:8b:" in said
    assert f"\n{base} llama3.2:latest\n{base} qwen3:8b\n{base} '*'\n" in said
    assert "\n    qmt host --uses 3 --name 'Team GPU' --model smollm2\n" in said
    assert "Nothing is shared" in said
    assert nothing_is_hosted == []


def test_the_lines_that_are_printed_are_understood(local, capsys):
    local(("Ollama", ollama("a:1", "b")), ("vLLM", vllm("Qwen/Qwen3-8B")), ("llama-server", llama_server("/m/x y.gguf", "/m/my-model.gguf")))  # fmt: skip
    cli.main(["host", "--name", "Team GPU", "--uses", "2"])
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("    qmt ")]
    assert len(lines) == 7
    for line in lines:
        read = cli.parser().parse_args(shlex.split(line)[1:])
        assert not flags.names_nothing(read)
        assert (read.name, read.uses) == ("Team GPU", 2)
    assert sum("--as my-model" in line for line in lines) == 1, "guests see no path"


def test_programs_get_one_object(local, capsys):
    (server,) = local(("vLLM", vllm(key=True)))
    assert cli.main(["host", "--json"]) == 1
    (said,) = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    url = f"http://127.0.0.1:{server.port}/v1"
    assert said == {
        "event": "found",
        "servers": [
            {
                "product": "vLLM",
                "url": url,
                "models": [],
                "needs_key": True,
                "lines": [f"qmt host --upstream {url} --upstream-key prompt --upstream-model NAME"],
            }
        ],
        "default": "qmt host --model smollm2",
    }


def test_where_nothing_is_found_the_default_model_is_hosted(local, nothing_is_hosted):
    local(("Ollama", ollama()))
    assert cli.main(["host"]) == 130
    assert nothing_is_hosted[0]["model"] is None


@pytest.mark.parametrize(
    "given",
    [
        ["--model", "echo"],
        ["--upstream", "http://127.0.0.1:9/v1"],
        ["--upstream-model", "x"],
        ["--upstream-key", "prompt"],
    ],
)
def test_who_says_what_to_share_is_not_asked(local, nothing_is_hosted, given):
    (server,) = local(("Ollama", ollama("m")))
    cli.main(["host", *given])
    assert len(nothing_is_hosted) == 1
    assert server.asked == []


def test_the_settings_can_keep_it_from_looking(local, nothing_is_hosted, monkeypatch):
    (server,) = local(("Ollama", ollama("m")))
    monkeypatch.setenv("QMT_DETECT", "off")
    cli.main(["host"])
    assert len(nothing_is_hosted) == 1
    assert server.asked == []


@pytest.mark.parametrize("is_here", [True, False])
def test_what_has_to_be_installed_for_it_is_said(monkeypatch, is_here):
    monkeypatch.setattr(offer.importlib.util, "find_spec", lambda name: is_here or None)
    here = {
        "product": "Ollama",
        "url": "http://127.0.0.1:1/v1",
        "needs_key": False,
        "models": ["a"],
    }
    text = offer.offer_text(offer.offer([here], "qmt host"))
    assert ("pip install 'qmt-jupyter[upstream]'" in text) is not is_here


HOSTILE = [
    "'; rm -rf ~; '", "$(reboot)", "`id`", "a b", "--as=x", "-x", "{model}", "x\\y", "a'b", 'a"b',
    "a;b", "a|b", "a&b", "*", "[a]", "%qmt_leave", "é", "a?",
]  # fmt: skip


def test_no_name_of_a_model_gets_into_a_line_that_a_shell_would_take_apart():
    here = {"product": "Ollama", "url": "http://127.0.0.1:1/v1", "needs_key": False}
    (server,) = offer.offer([{**here, "models": [*HOSTILE, "good:1"]}], "qmt host")["servers"]
    given = [shlex.split(line)[-1] for line in server["lines"]]
    assert given == ["good:1", "*"]
    alone = offer.offer([{**here, "models": ["a b"]}], "qmt host")["servers"][0]["lines"]
    assert alone == ["qmt host --upstream http://127.0.0.1:1/v1"]
    for line in server["lines"]:
        assert words("%qmt_host", line) == shlex.split(line)


@pytest.mark.parametrize(
    ("models", "command", "lines"),
    [
        (["/home/me/my model.gguf"], "%qmt_host", ["%qmt_host {} --as my-model"]),
        ([r"C:\models\a.gguf"], "%qmt_host", ["%qmt_host {} --as a"]),
        (["/m/a.gguf"], "qmt host --as x", ["qmt host --as x {} --upstream-model /m/a.gguf"]),
        (["org/m"], "%qmt_host", ["%qmt_host {} --upstream-model org/m"]),
        (["/"], "%qmt_host", ["%qmt_host {} --upstream-model /"]),
        (["a", "b c"], "qmt host --as x", ["qmt host --as x {} --upstream-model a",
                                           "qmt host --as x {} --upstream-model NAME"]),
    ],
)  # fmt: skip
def test_a_model_that_is_called_by_its_file_gets_a_name(models, command, lines):
    here = {"product": "x", "url": "http://127.0.0.1:1/v1", "needs_key": False, "models": models}
    (server,) = offer.offer([here], command, "--as" in command)["servers"]
    assert server["lines"] == [line.format("--upstream http://127.0.0.1:1/v1") for line in lines]


def test_a_long_list_is_shortened_and_stays_printable():
    names = [f"model-{number}" for number in range(256)] + ["x" * 200]
    here = {"product": "Ollama", "url": "http://127.0.0.1:1/v1", "needs_key": False}
    text = offer.offer_text(offer.offer([{**here, "models": names}], "%qmt_host"))
    assert "and 237 more" in text
    assert text.count("--upstream-model") == 9
    assert len(text) < 3000
    assert all(line.isprintable() for line in text.splitlines())
