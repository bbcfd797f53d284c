"""What ``configure()`` writes into jupyterhub_config.py, beside what stands there already."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest
from traitlets.config import Config

from qmt_jupyter.errors import OptionInvalid
from qmt_jupyter.hub import configure
from qmt_jupyter.hub.options import parser

ROOT = Path(__file__).resolve().parents[2]
ACCESS = "access:services!service=qmt"
SERVER = ["users:activity!user", "access:servers!server"]


def roles(c):
    return {each["name"]: each for each in c.JupyterHub.load_roles}


def test_one_line_makes_a_service_that_the_hub_starts_for_all_users(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "what fetches the model")
    monkeypatch.setenv("CONFIGPROXY_AUTH_TOKEN", "none of the service's business")
    for variable in ("QMT_INVITE", "QMT_B_TOKEN", "QMT_METRICS_TOKEN"):
        monkeypatch.setenv(variable, "none of the service's business")
    c = Config()
    configure(c, model="smollm2")
    (service,) = c.JupyterHub.services
    assert service["name"] == "qmt" and service["url"] == "http://127.0.0.1:10200"
    assert service["command"] == [sys.executable, "-m", "qmt_jupyter.hub", "--model", "smollm2"]
    assert service["oauth_no_confirm"] is True
    assert service["oauth_client_allowed_scopes"] == ["custom:qmt:admin"]
    assert service["environment"]["HF_TOKEN"] == "what fetches the model"
    assert "none of the service's business" not in service["environment"].values()
    assert "api_token" not in service
    assert roles(c)["user"]["scopes"] == ["self", ACCESS]
    assert roles(c)["qmt-service"] == {
        "name": "qmt-service", "services": ["qmt"], "scopes": ["custom:qmt:node"],
        "description": "Tell the other services of this kind",
    }  # fmt: skip
    assert set(roles(c)) == {"user", "qmt-service"}
    assert set(c.JupyterHub.custom_scopes) == {
        "custom:qmt:admin", "custom:qmt:metrics", "custom:qmt:node",
    }  # fmt: skip
    assert c.Spawner.server_token_scopes == [*SERVER, ACCESS]
    assert c.Spawner.environment == {"QMT_HUB_URL": "http://127.0.0.1:8000/services/qmt/"}


def test_groups_admins_and_who_collects_metrics_get_roles():
    c = Config()
    configure(
        c, groups=["course-a", "staff"], admins=["zoe", "group:staff"], metrics_token="t" * 32
    )
    assert "user" not in roles(c)
    assert roles(c)["qmt-users"]["groups"] == ["course-a", "staff"]
    assert roles(c)["qmt-users"]["scopes"] == [ACCESS]
    assert roles(c)["qmt-admins"]["users"] == ["zoe"]
    assert roles(c)["qmt-admins"]["groups"] == ["staff"]
    assert roles(c)["qmt-admins"]["scopes"] == ["custom:qmt:admin", ACCESS]
    assert roles(c)["qmt-metrics"]["services"] == ["qmt-metrics"]
    assert roles(c)["qmt-metrics"]["scopes"] == ["custom:qmt:metrics"]
    assert c.JupyterHub.services[1] == {"name": "qmt-metrics", "api_token": "t" * 32}


def test_an_external_service_has_a_token_and_no_command():
    c = Config()
    configure(c, url="http://10.0.0.7:10200", api_token="s" * 32)
    (service,) = c.JupyterHub.services
    assert service["api_token"] == "s" * 32
    assert "command" not in service and "environment" not in service
    with pytest.raises(OptionInvalid, match="where it runs"):
        configure(c, name="qmt-b", api_token="s" * 32, model="smollm2")


def test_what_is_shared_becomes_flags_that_the_service_takes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VLLM_KEY", "secret")
    monkeypatch.setenv("OTHER_KEY", "other secret")
    c = Config()
    configure(
        c, model=["a.gguf", "b.gguf"], upstream="http://127.0.0.1:8001/v1", config="limits.toml",
        arguments=["--upstream-key", "env:VLLM_KEY", "--slots", "8"], environment={"X": "y"},
    )  # fmt: skip
    (service,) = c.JupyterHub.services
    given = parser().parse_args(service["command"][3:])
    assert given.model == ["a.gguf", "b.gguf"]
    assert given.upstream == ["http://127.0.0.1:8001/v1"]
    assert (given.slots, given.upstream_key) == (8, ["env:VLLM_KEY"])
    # The Hub starts it in a folder of its own choice.
    assert given.config == str(tmp_path / "limits.toml")
    assert service["environment"]["VLLM_KEY"] == "secret"
    assert service["environment"]["X"] == "y"
    assert "OTHER_KEY" not in service["environment"]
    assert "secret" not in " ".join(service["command"])


def test_several_services_stand_side_by_side():
    c = Config()
    configure(c, name="qmt")
    configure(c, name="qmt-b", url="http://127.0.0.1:10201", groups=["staff"])
    configure(c, name="qmt-c", url="http://127.0.0.1:10202")
    assert [each["name"] for each in c.JupyterHub.services] == ["qmt", "qmt-b", "qmt-c"]
    assert c.Spawner.environment["QMT_HUB_URL"] == ",".join(
        f"http://127.0.0.1:8000/services/{name}/" for name in ("qmt", "qmt-b", "qmt-c")
    )
    assert roles(c)["user"]["scopes"] == ["self", ACCESS, "access:services!service=qmt-c"]
    assert len(c.JupyterHub.load_roles) == len(roles(c))
    assert c.Spawner.server_token_scopes == [
        *SERVER, ACCESS, "access:services!service=qmt-b", "access:services!service=qmt-c",
    ]  # fmt: skip
    with pytest.raises(OptionInvalid, match="already"):
        configure(c, name="qmt-b")


def test_what_the_file_says_already_stays():
    c = Config()
    c.JupyterHub.services = [{"name": "other"}]
    c.JupyterHub.load_roles = [{"name": "user", "scopes": ["self", "list:groups"], "users": ["x"]}]
    c.JupyterHub.custom_scopes = {"custom:mine": {"description": "mine"}}
    c.Spawner.environment = {"A": "b"}
    c.Spawner.server_token_scopes = ["inherit"]
    configure(c)
    assert [each["name"] for each in c.JupyterHub.services] == ["other", "qmt"]
    assert roles(c)["user"] == {
        "name": "user",
        "scopes": ["self", "list:groups", ACCESS],
        "users": ["x"],
    }
    assert "custom:mine" in c.JupyterHub.custom_scopes
    assert c.Spawner.environment["A"] == "b"
    assert c.Spawner.server_token_scopes == ["inherit", ACCESS]


def test_what_the_file_only_adds_to_stays_too():
    c = Config()
    c.JupyterHub.services.append({"name": "other"})
    c.JupyterHub.load_roles.extend([{"name": "mine"}])
    c.Spawner.environment.update({"A": "b"})
    c.Spawner.server_token_scopes.append("tokens!user")
    configure(c)
    assert [each["name"] for each in c.JupyterHub.services] == ["other", "qmt"]
    assert "mine" in roles(c)
    assert c.Spawner.environment["A"] == "b"
    assert c.Spawner.server_token_scopes == ["tokens!user", ACCESS]


def test_a_spawner_with_settings_of_its_own_gets_them_there_too():
    c = Config()
    # What zero-to-jupyterhub does; for this spawner it hides what c.Spawner says.
    c.KubeSpawner.environment = {"B": "c"}
    c.KubeSpawner.cmd = ["x"]
    c.DockerSpawner.image = "y"
    configure(c)
    assert c.KubeSpawner.environment == {
        "B": "c", "QMT_HUB_URL": "http://127.0.0.1:8000/services/qmt/",
    }  # fmt: skip
    assert "server_token_scopes" not in c.KubeSpawner
    assert "environment" not in c.DockerSpawner


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("given", [["inherit"], []])
def test_scopes_that_are_worked_out_for_each_server_get_one_more(given, is_async):
    c = Config()
    if is_async:

        async def scopes(spawner):
            assert spawner == "the spawner"
            return given
    else:

        def scopes(spawner):
            assert spawner == "the spawner"
            return given

    c.Spawner.server_token_scopes = scopes
    configure(c)
    found = asyncio.run(c.Spawner.server_token_scopes("the spawner"))
    assert found == [*(given or SERVER), ACCESS]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, "http://127.0.0.1:8000/"),
        ({"bind_url": "http://:8000"}, "http://127.0.0.1:8000/"),
        ({"bind_url": "http://0.0.0.0:80/base"}, "http://127.0.0.1/base/"),
        ({"bind_url": "http://*:1234/"}, "http://127.0.0.1:1234/"),
        ({"bind_url": "https://[::]:443"}, "https://127.0.0.1/"),
        ({"bind_url": "http://[::1]:9/b/"}, "http://[::1]:9/b/"),
        ({"bind_url": "http://hub.example:9000"}, "http://hub.example:9000/"),
        ({"port": 9, "base_url": "/jupyter/"}, "http://127.0.0.1:9/jupyter/"),
        ({"ip": "10.0.0.1", "ssl_cert": "x.pem"}, "https://10.0.0.1:8000/"),
    ],
)
def test_notebooks_are_told_where_the_proxy_is(settings, expected):
    c = Config()
    for key, value in settings.items():
        c.JupyterHub[key] = value
    configure(c)
    assert c.Spawner.environment["QMT_HUB_URL"] == f"{expected}services/qmt/"


def test_notebooks_are_told_what_the_file_says_of_it():
    c = Config()
    c.JupyterHub.bind_url = "http://:8000"
    configure(c, hub_url="http://proxy-public/base")
    assert c.Spawner.environment["QMT_HUB_URL"] == "http://proxy-public/base/services/qmt/"


def by_domain(name, domain, kind):
    return f"{kind}-{name}.{domain}"


@pytest.mark.parametrize("hook", [None, "idna", "legacy", by_domain])
@pytest.mark.parametrize("name", ["qmt", "qmt-a100"])
def test_where_each_service_has_a_domain_notebooks_find_it_there(hook, name):
    utils = pytest.importorskip("jupyterhub.utils", reason="the extra hub is not installed")
    hooks = {"legacy": utils.subdomain_hook_legacy, by_domain: by_domain}
    domain = hooks.get(hook, utils.subdomain_hook_idna)(name, "hub.test", kind="service")
    c = Config()
    c.JupyterHub.subdomain_host = "https://hub.test:8443"
    c.JupyterHub.bind_url = "http://127.0.0.1:8000/base"
    if hook is not None:
        c.JupyterHub.subdomain_hook = hook
    configure(c, name=name)
    expected = f"https://{domain}:8443/base/services/{name}/"
    assert c.Spawner.environment == {"QMT_HUB_URL": expected}


def test_a_domain_that_is_not_known_has_to_be_given():
    c = Config()
    c.JupyterHub.subdomain_host = "https://hub.test"
    with pytest.raises(OptionInvalid, match="What domain"):
        configure(c, name="qmt.a")
    configure(c, name="qmt.a", hub_url="https://u-qmta--1234567--service.hub.test/")


@pytest.mark.parametrize(
    "arguments",
    [
        {"name": "Q M T"},
        {"name": ""},
        {"name": 3},
        {"name": "../x"},
        {"url": "127.0.0.1:10200"},
        {"url": "http://127.0.0.1:0"},
        {"url": None},
        {"hub_url": "nowhere"},
        {"hub_url": "http://a/,http://b/"},
        {"groups": "staff"},
        {"groups": []},
        {"groups": [""]},
        {"groups": ["x" * 256]},
        {"admins": "zoe"},
        {"admins": ["group:"]},
        {"admins": [3]},
        {"api_token": ""},
        {"api_token": "short"},
        {"metrics_token": "short"},
    ],
)
def test_what_makes_no_sense_is_refused_and_changes_nothing(arguments):
    c = Config()
    with pytest.raises(OptionInvalid) as refused:
        configure(c, **arguments)
    assert refused.value.next_step
    assert not any(c.values())


def test_a_token_that_is_refused_is_not_shown():
    with pytest.raises(OptionInvalid) as refused:
        configure(Config(), api_token="s3cret")
    assert "s3cret" not in str(refused.value)


def test_the_hub_s_own_process_loads_next_to_nothing_for_it():
    code = (
        "import sys\nfrom qmt_jupyter.hub import configure\nfrom qmt_jupyter.hub import configure\n"
        "assert callable(configure)\n"
        "heavy = {'iroh', 'tornado', 'jupyterhub', 'prometheus_client', 'nacl', 'sqlite3'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.strip() == "[]"
