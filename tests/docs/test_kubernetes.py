"""The files of ``docs/kubernetes`` say what the code takes, and agree with each other.

There is no cluster here. What can be known without one is held: flags, variables, paths, ports,
scopes, labels, and that no secret stands in a file.
"""

from __future__ import annotations

import copy
import os
import re
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from qmt_jupyter.hub import admission, options
from qmt_jupyter.hub.policy import read_policy
from tests.docs.pages import ROOT, prose

yaml = pytest.importorskip("yaml")
traitlets_config = pytest.importorskip("traitlets.config")

FOLDER = ROOT / "docs" / "kubernetes"
FILES = sorted(FOLDER.glob("*.yaml"))
PATCHES = {"vllm-patch.yaml": "vllm.yaml", "ray-serve-patch.yaml": "ray-serve.yaml"}
NO_OBJECTS = {"values.yaml", *PATCHES}
API_TOKEN = "0123456789abcdef" * 4
NAME = "app.kubernetes.io/name"


def documents(name):
    return list(yaml.safe_load_all((FOLDER / name).read_text(encoding="utf-8")))


def objects(*names):
    """What ``kubectl apply`` would make of the files, all of them where none is named."""
    files = names or [file.name for file in FILES if file.name not in NO_OBJECTS]
    return [each for name in files for each in documents(name)]


def one(kind, name, *files):
    (found,) = (
        each for each in objects(*files) if (each["kind"], each["metadata"]["name"]) == (kind, name)
    )
    return found


def by_name(items):
    return {each["name"]: each for each in items}


def merged(onto, patch):
    """A strategic merge, as far as these patches need it: lists of what has a name go by name."""
    for key, value in patch.items():
        if value is None:
            onto.pop(key, None)
        elif isinstance(value, dict):
            merged(onto.setdefault(key, {}), value)
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            named = by_name(onto.setdefault(key, []))
            for each in value:
                if each["name"] in named:
                    merged(named[each["name"]], each)
                else:
                    onto[key].append(each)
        else:
            onto[key] = value
    return onto


def service_deployment(patch=None):
    deployment = copy.deepcopy(one("Deployment", "qmt", "service.yaml"))
    return deployment if patch is None else merged(deployment, documents(patch)[0])


def container_of(deployment):
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    return container


def environment_of(container):
    """The container's variables, secrets filled in as a cluster would."""
    found = {}
    for each in container["env"]:
        assert ("value" in each) != ("valueFrom" in each), each
        found[each["name"]] = each.get("value", API_TOKEN)
    return found


def secrets_of(container):
    return {
        each["name"]: each["valueFrom"]["secretKeyRef"]
        for each in container["env"]
        if "valueFrom" in each
    }


def option(arguments, flag):
    return [arguments[at + 1] for at, each in enumerate(arguments) if each == flag]


def read_options(deployment):
    container = container_of(deployment)
    return options.read_options(container["args"], environment_of(container))


variants = pytest.mark.parametrize("patch", [None, *PATCHES], ids=["engine", "vllm", "ray-serve"])


# The files ---------------------------------------------------------------------------------------


def test_the_files_are_yaml_and_each_object_says_what_it_is():
    assert len(FILES) >= 6
    made = objects()
    assert len(made) >= 10
    for each in made:
        assert {"apiVersion", "kind", "metadata"} <= set(each)
    named = [(each["kind"], each["metadata"]["name"]) for each in made]
    assert len(named) == len(set(named))
    assert [kind for kind, _ in named if kind == "Secret"] == []


def test_every_file_is_spoken_of_on_the_page():
    page = (ROOT / "docs" / "jupyterhub.md").read_text(encoding="utf-8")
    assert [file.name for file in FOLDER.iterdir() if file.name not in page] == []


def strings(value, path=""):
    if isinstance(value, dict):
        for key, each in value.items():
            yield from strings(each, f"{path}.{key}")
    elif isinstance(value, list):
        for each in value:
            yield from strings(each, path)
    elif isinstance(value, str):
        yield path, value


def test_no_secret_stands_in_a_file():
    for file in FILES:
        for path, value in strings(documents(file.name)):
            assert not re.search(r"[0-9a-f]{32}|hf_[A-Za-z0-9]{10}|sk-[A-Za-z0-9]{10}", value), path
    for deployment in (each for each in objects() if each["kind"] == "Deployment"):
        for variable in container_of(deployment)["env"]:
            if re.search("TOKEN|KEY|SECRET|PASSWORD", variable["name"]):
                assert set(variable["valueFrom"]) == {"secretKeyRef"}, variable["name"]


# The service -------------------------------------------------------------------------------------


@variants
def test_the_arguments_are_the_services_own(patch):
    container = container_of(service_deployment(patch))
    assert "command" not in container
    read = read_options(service_deployment(patch))
    assert read.hosting["port"] == 47470
    assert read.hosting["slots"] == int(option(container["args"], "--slots")[0])
    assert bool(read.hosting["upstream"]) == (patch is not None)


def test_the_containerfile_runs_the_service_and_not_as_root():
    lines = (FOLDER / "Containerfile").read_text(encoding="utf-8").splitlines()
    assert 'ENTRYPOINT ["python", "-m", "qmt_jupyter.hub"]' in lines
    (user,) = (line.split()[1] for line in lines if line.startswith("USER "))
    pod = service_deployment()["spec"]["template"]["spec"]["securityContext"]
    assert user == f"{pod['runAsUser']}:{pod['runAsGroup']}"


@variants
def test_the_variables_are_read_by_the_code(patch):
    """And are enough for the service to know its place."""
    source = "".join(
        path.read_text(encoding="utf-8") for path in (ROOT / "qmt_jupyter").rglob("*.py")
    )
    container = container_of(service_deployment(patch))
    named = set(option(container["args"], "--upstream-key"))
    for name in environment_of(container):
        assert f'"{name}"' in source or f"env:{name}" in named, name
    read = read_options(service_deployment(patch))
    assert read.name == "qmt"
    assert read.prefix == "/services/qmt/"
    assert (read.address, read.port) == ("0.0.0.0", 10200)
    assert read.api_token == API_TOKEN
    assert API_TOKEN not in repr(read)


def test_the_probes_ask_a_path_that_the_service_answers_to_anybody():
    read = read_options(service_deployment())
    container = container_of(service_deployment())
    assert any(re.fullmatch(pattern, "health") for pattern, *_ in admission.routes(None))
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        asked = container[probe]["httpGet"]
        assert asked["path"] == f"{read.prefix}health"
        assert by_name(container["ports"])[asked["port"]]["containerPort"] == read.port


def test_what_the_service_writes_and_reads_is_mounted():
    pod = service_deployment()["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    mounts = {each["mountPath"]: each for each in container["volumeMounts"]}
    volumes = by_name(pod["volumes"])
    home = mounts[environment_of(container)["QMT_HOME"]]
    assert not home.get("readOnly")
    claim = volumes[home["name"]]["persistentVolumeClaim"]["claimName"]
    assert one("PersistentVolumeClaim", claim)["spec"]["accessModes"] == ["ReadWriteOnce"]
    assert "emptyDir" in volumes[mounts["/tmp"]["name"]]
    config = Path(*option(container["args"], "--config"))
    policy = mounts[str(config.parent)]
    assert policy["readOnly"]
    texts = one("ConfigMap", volumes[policy["name"]]["configMap"]["name"])["data"]
    assert read_policy(texts[config.name]).groups["staff"]["priority"] == 4


def test_a_second_process_cannot_start_on_the_same_identity():
    spec = service_deployment()["spec"]
    assert spec["replicas"] == 1
    assert spec["strategy"]["type"] == "Recreate"


@pytest.mark.parametrize("name", ["qmt", "vllm"])
def test_pods_are_confined(name):
    (deployment,) = (
        each for each in objects()
        if (each["kind"], each["metadata"]["name"]) == ("Deployment", name)
    )  # fmt: skip
    pod = deployment["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    # Else a cluster would make keys readable by a group at each start.
    assert pod["securityContext"]["fsGroupChangePolicy"] == "OnRootMismatch"
    (container,) = pod["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    limits, requests = container["resources"]["limits"], container["resources"]["requests"]
    assert limits["nvidia.com/gpu"] == requests["nvidia.com/gpu"] == "1"
    assert limits["memory"] == requests["memory"]
    assert {"startupProbe", "readinessProbe", "livenessProbe"} <= set(container)
    assert not container["image"].endswith(":latest")
    assert ":" in container["image"]


# Who reaches whom --------------------------------------------------------------------------------


def chosen(selector, labels):
    return selector.items() <= labels.items()


def rules(kind, policies, labels):
    """The rules of all the policies that hold for a pod with these labels."""
    for policy in policies:
        if chosen(policy["spec"]["podSelector"]["matchLabels"], labels):
            yield from policy["spec"].get(kind, [])


def lets(rule, side, labels, protocol, port):
    peers = [each.get("podSelector", {}).get("matchLabels") for each in rule.get(side, [])]
    ports = [(each["protocol"], each["port"]) for each in rule.get("ports", [])]
    return any(peer and chosen(peer, labels) for peer in peers) and (protocol, port) in ports


HUB = {"app": "jupyterhub", "component": "hub"}
PROXY = {"app": "jupyterhub", "component": "proxy"}
NOTEBOOK = {"app": "jupyterhub", "component": "singleuser-server"}


def pod_labels(deployment):
    return deployment["spec"]["template"]["metadata"]["labels"]


def test_selectors_choose_the_pods_they_mean():
    for each in objects():
        if each["kind"] == "Deployment":
            assert chosen(each["spec"]["selector"]["matchLabels"], pod_labels(each))
    qmt, vllm = pod_labels(service_deployment()), pod_labels(one("Deployment", "vllm"))
    assert chosen(one("Service", "qmt")["spec"]["selector"], qmt)
    assert not chosen(one("Service", "qmt")["spec"]["selector"], vllm)
    assert chosen(one("Service", "vllm")["spec"]["selector"], vllm)
    # The chart's own policy of the Hub wants it.
    assert qmt["hub.jupyter.org/network-access-hub"] == "true"


def test_the_ports_agree_from_the_process_to_the_notebook():
    read = read_options(service_deployment())
    ports = by_name(container_of(service_deployment())["ports"])
    assert (ports["http"]["containerPort"], ports["http"]["protocol"]) == (read.port, "TCP")
    quic = read.hosting["port"]
    assert (ports["quic"]["containerPort"], ports["quic"]["protocol"]) == (quic, "UDP")
    (served,) = one("Service", "qmt")["spec"]["ports"]
    assert served["targetPort"] == "http"
    own = pod_labels(service_deployment())
    ingress = list(rules("ingress", objects("network-policy.yaml"), own))
    assert any(lets(rule, "from", PROXY, "TCP", read.port) for rule in ingress)
    assert any(lets(rule, "from", NOTEBOOK, "UDP", quic) for rule in ingress)
    assert any(lets(rule, "from", own, "TCP", read.port) for rule in ingress)
    egress = list(rules("egress", objects("network-policy.yaml"), own))
    hub = urlsplit(read.api_url)
    assert (hub.hostname, hub.path) == ("hub", "/hub/api")
    assert any(lets(rule, "to", HUB, "TCP", hub.port) for rule in egress)
    values = documents("values.yaml")[0]
    (notebooks,) = values["singleuser"]["networkPolicy"]["egress"]
    assert lets(notebooks, "to", own, "UDP", quic)
    (service,) = hub_config()[0].JupyterHub.services
    address = urlsplit(service["url"])
    assert (address.hostname, address.port) == ("qmt", served["port"])


def test_nobody_else_is_let_in_or_asked():
    own = pod_labels(service_deployment())
    stranger = {"app": "other"}
    policies = [each for each in objects() if each["kind"] == "NetworkPolicy"]
    assert set(one("NetworkPolicy", "qmt")["spec"]["policyTypes"]) == {"Ingress", "Egress"}
    for rule in rules("ingress", policies, own):
        assert rule["from"] and rule["ports"]
        assert not any(
            lets(rule, "from", stranger, p["protocol"], p["port"]) for p in rule["ports"]
        )
    for rule in rules("egress", policies, own):
        assert rule["to"] and rule["ports"]
    # Notebooks bring tokens to the Hub's proxy alone.
    ingress = list(rules("ingress", policies, own))
    assert not any(lets(rule, "from", NOTEBOOK, "TCP", 10200) for rule in ingress)


# The engines behind it ---------------------------------------------------------------------------


def test_vllm_is_asked_where_it_listens_by_the_name_and_key_that_it_has():
    arguments = container_of(service_deployment("vllm-patch.yaml"))["args"]
    vllm = container_of(one("Deployment", "vllm"))
    given = dict(each.split("=", 1) for each in vllm["args"] if "=" in each)
    upstream = urlsplit(*option(arguments, "--upstream"))
    (served,) = one("Service", upstream.hostname)["spec"]["ports"]
    (port,) = vllm["ports"]
    assert upstream.port == served["port"] == port["containerPort"] == int(given["--port"])
    assert served["targetPort"] == port["name"]
    assert upstream.path == "/v1"
    assert option(arguments, "--upstream-model") == [given["--served-model-name"]]
    assert option(arguments, "--slots") == [given["--max-num-seqs"]]
    (key,) = option(arguments, "--upstream-key")
    ours = secrets_of(container_of(service_deployment("vllm-patch.yaml")))
    assert ours[key.removeprefix("env:")] == secrets_of(vllm)["VLLM_API_KEY"]


def test_ray_serve_is_asked_where_kuberay_puts_it():
    arguments = container_of(service_deployment("ray-serve-patch.yaml"))["args"]
    ray = one("RayService", "ray-llm")
    upstream = urlsplit(*option(arguments, "--upstream"))
    assert upstream.hostname == f"{ray['metadata']['name']}-serve-svc"
    head = ray["spec"]["rayClusterConfig"]["headGroupSpec"]["template"]["spec"]["containers"][0]
    assert by_name(head["ports"])["serve"]["containerPort"] == upstream.port
    (application,) = yaml.safe_load(ray["spec"]["serveConfigV2"])["applications"]
    assert upstream.path == application["route_prefix"] + "v1"
    (model,) = application["args"]["llm_configs"]
    assert option(arguments, "--upstream-model") == [model["model_loading_config"]["model_id"]]
    assert int(*option(arguments, "--slots")) == model["deployment_config"]["max_ongoing_requests"]
    (gpus,) = ray["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    held = gpus["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"]
    assert int(held) == model["engine_kwargs"]["tensor_parallel_size"]


@pytest.mark.parametrize("patch", PATCHES)
def test_the_service_alone_reaches_the_engine_and_leaves_the_gpu_to_it(patch):
    deployment = service_deployment(patch)
    assert "nvidia.com/gpu" not in container_of(deployment)["resources"]["limits"]
    assert "nvidia.com/gpu" not in container_of(deployment)["resources"]["requests"]
    port = urlsplit(*option(container_of(deployment)["args"], "--upstream")).port
    own, policies = pod_labels(deployment), [
        each for each in objects(PATCHES[patch]) if each["kind"] == "NetworkPolicy"
    ]  # fmt: skip
    engine, way = policies
    target = engine["spec"]["podSelector"]["matchLabels"]
    assert any(lets(rule, "from", own, "TCP", port) for rule in engine["spec"]["ingress"])
    assert not any(lets(rule, "from", NOTEBOOK, "TCP", port) for rule in engine["spec"]["ingress"])
    assert any(lets(rule, "to", target, "TCP", port) for rule in rules("egress", [way], own))


# The Hub -----------------------------------------------------------------------------------------


def hub_config():
    """What the chart's Hub has when it has read the values, the values, and where its token is."""
    values = documents("values.yaml")[0]
    c = traitlets_config.Config()
    c.JupyterHub.services, c.JupyterHub.load_roles = [], []
    c.KubeSpawner.environment = dict(values["singleuser"]["extraEnv"])
    (reference,) = (each["valueFrom"] for each in values["hub"]["extraEnv"].values())
    (variable,) = values["hub"]["extraEnv"]
    before = os.environ.get(variable)
    os.environ[variable] = API_TOKEN
    try:
        for key, code in sorted(values["hub"]["extraConfig"].items()):
            exec(compile(code, key, "exec"), {"c": c})
    finally:
        if before is None:
            del os.environ[variable]
        else:
            os.environ[variable] = before
    return c, values, reference


def test_the_values_configure_the_hub_as_configure_does():
    from qmt_jupyter.hub import configure

    c, values, _ = hub_config()
    expected = traitlets_config.Config()
    expected.JupyterHub.services, expected.JupyterHub.load_roles = [], []
    # As the chart has it where nobody set anything; it hides what any Spawner's environment says.
    expected.KubeSpawner.environment = {}
    configure(
        expected,
        url="http://qmt:10200",
        api_token=API_TOKEN,
        hub_url="http://proxy-public/",
        admins=["ada"],
    )
    assert c.JupyterHub == expected.JupyterHub
    assert c.KubeSpawner == expected.KubeSpawner
    assert c.Spawner.server_token_scopes == expected.Spawner.server_token_scopes
    prefix = read_options(service_deployment()).prefix
    assert urlsplit(values["singleuser"]["extraEnv"]["QMT_HUB_URL"]).path == prefix


def test_hub_and_service_have_their_token_from_the_same_secret():
    *_, reference = hub_config()
    ours = secrets_of(container_of(service_deployment()))
    assert reference == {"secretKeyRef": ours["JUPYTERHUB_API_TOKEN"]}
    said = (ROOT / "docs" / "jupyterhub.md").read_text(encoding="utf-8")
    secret = ours["JUPYTERHUB_API_TOKEN"]
    assert f"create secret generic {secret['name']} --from-literal={secret['key']}=" in said


def test_the_page_says_that_no_cluster_was_there():
    assert "not run on a" in prose(ROOT / "docs" / "jupyterhub.md")


def test_a_flag_that_there_is_not_would_be_noticed():
    from qmt_jupyter.errors import OptionInvalid

    deployment = service_deployment()
    container_of(deployment)["args"] += ["--replicas", "2"]
    with pytest.raises(OptionInvalid):
        read_options(deployment)
