"""What ``docs/jupyterhub.md`` says of configuration is what the code takes and does."""

from __future__ import annotations

import os
import re
import sys

import pytest

from qmt_jupyter import errors
from qmt_jupyter.hub import configure, options
from qmt_jupyter.hub.person import Person
from qmt_jupyter.hub.policy import DEFAULTS, LIMITS, read_policy
from tests.docs.pages import ROOT, blocks, prose, text
from tests.docs.test_lines import arguments_of

traitlets_config = pytest.importorskip("traitlets.config")

PAGE = ROOT / "docs" / "jupyterhub.md"
TOKEN = "0123456789abcdef" * 4
EXTERNAL = {
    "JUPYTERHUB_API_TOKEN": TOKEN,
    "JUPYTERHUB_API_URL": "http://hub.internal:8081/hub/api",
    "JUPYTERHUB_SERVICE_URL": "http://0.0.0.0:10200",
}


@pytest.fixture
def c(monkeypatch):
    """A configuration object, in the environment that the page's snippets read."""
    for variable in ("QMT_API_TOKEN", "QMT_A_TOKEN", "QMT_B_TOKEN"):
        monkeypatch.setenv(variable, TOKEN)
    return traitlets_config.Config()


def snippets(heading):
    """The Python of a section that is for ``jupyterhub_config.py``."""
    found = [each for each in blocks(PAGE, "python", heading=heading) if "c.J" in each.code
             or "configure(" in each.code]  # fmt: skip
    assert found, heading
    return found


def run(block, c):
    exec(compile(block.code, block.place, "exec"), {"c": c})
    return c


def test_the_long_way_is_the_short_one(c):
    (short,), (long,) = (
        snippets("In ten minutes, on one machine"),
        snippets("What that line writes"),
    )
    written = run(long, traitlets_config.Config())
    made = run(short, c)
    # What it passes on is of the machine that the Hub runs on.
    assert set(made.JupyterHub.services[0].pop("environment")) <= set(os.environ)
    assert written == made
    assert made.JupyterHub.services[0]["command"][0] == sys.executable


@pytest.mark.parametrize(
    ("heading", "services"),
    [
        ("The GPU is on another machine", [("qmt", "http://gpu.internal:10200")]),
        ("On Kubernetes", [("qmt", "http://qmt:10200")]),
        (
            "Several GPU nodes",
            [("qmt-a", "http://gpu-a.internal:10200"), ("qmt-b", "http://gpu-b.internal:10200")],
        ),
        ("Bigger models: vLLM and Ray Serve", [("qmt", "http://127.0.0.1:10200")]),
    ],
)
def test_each_snippet_makes_services_that_notebooks_find(c, heading, services):
    for block in snippets(heading):
        run(block, c)
    made = c.JupyterHub.services
    assert [(each["name"], each["url"]) for each in made] == services
    for each in made:
        assert ("api_token" in each) != ("command" in each)
        scope = f"access:services!service={each['name']}"
        assert scope in c.Spawner.server_token_scopes
        assert any(scope in role["scopes"] for role in c.JupyterHub.load_roles)
        if "command" in each:
            options.read_options(each["command"][3:], EXTERNAL)
    urls = c.Spawner.environment["QMT_HUB_URL"].split(",")
    assert [url.rsplit("/", 2)[1] for url in urls] == [name for name, _ in services]


def test_the_services_own_commands_can_be_given():
    given = [
        words
        for block in blocks(PAGE, "bash")
        for words in arguments_of("python -m qmt_jupyter.hub", block)
    ]
    assert len(given) >= 2
    for words in given:
        options.read_options(words, EXTERNAL)


def test_the_page_exports_what_the_service_asks_for():
    (shell,) = blocks(PAGE, "bash", heading="The GPU is on another machine")
    assert set(re.findall(r"export (\w+)=", shell.code)) == set(EXTERNAL)


def test_the_policy_says_what_the_page_says_of_it():
    (file,) = blocks(PAGE, "toml")
    policy = read_policy(file.code)

    def allowed(name, *groups):
        person = Person(name, frozenset(groups))
        return policy.allows(person), policy.allowance(person)[0]

    assert allowed("eve")[0] is False
    may, student = allowed("ben", "course-a")
    assert may
    assert student.tokens_per_day == 100_000
    assert student.answer_tokens == 1000
    assert student.models == ("smollm2",)
    assert student.zone == "Europe/Berlin"
    both = allowed("zoe", "course-a", "staff")[1]
    assert both.tokens_per_day is None
    assert both.priority == 4
    assert allowed("ada", "staff")[1].concurrent == 8


def test_the_table_of_limits_has_each_with_its_default():
    rows = dict(re.findall(r"^\| `(\w+)` \|[^|]*\| ([^|]*) \|$", prose(PAGE), flags=re.M))
    assert set(rows) == set(LIMITS)
    for limit, shown in rows.items():
        assert shown == {
            "models": "all", "hours": "always", "priority": "1",
        }.get(limit, str(DEFAULTS.get(limit, "no limit")))  # fmt: skip


def test_the_errors_at_a_limit_exist_and_stand_in_troubleshooting():
    section = text(PAGE).partition("**At a limit**")[2].partition("\n## ")[0]
    named = re.findall(r"`([A-Z][a-zA-Z]+)`", section)
    assert len(named) >= 6
    for name in named:
        assert issubclass(getattr(errors, name), errors.LimitReached)
        assert name in text(ROOT / "docs" / "troubleshooting.md")


def test_configure_says_no_to_what_the_page_says_no_to(c):
    with pytest.raises(errors.OptionInvalid):
        configure(c, api_token=TOKEN, model="smollm2")
