"""The dashboard and the alerts ask for metrics that exist, and the page says what each means."""

from __future__ import annotations

import ast
import json
import re

import pytest
import yaml

from qmt_jupyter.host.meters import Meters
from qmt_jupyter.host.rows import HOW_ENDED
from qmt_jupyter.providers.echo import Echo
from tests.docs.pages import ROOT, blocks, spans, text
from tests.docs.promql import TARGET, QueryError, check

DASHBOARD = ROOT / "docs/grafana/qmt.json"
PAGE = ROOT / "docs/monitoring.md"


@pytest.fixture(scope="module")
def metrics():
    """What a scrape shows, as ``{name: labels}``."""
    pytest.importorskip("prometheus_client", reason="the extra hub is not installed")
    from prometheus_client.parser import text_string_to_metric_families

    from qmt_jupyter.hub.metrics import exposition

    (model,) = Echo().models
    numbers = {"slots": 1, "connections": 1, "guests": 1, "active_users": 1}
    peers = [{"url": "http://gpu-b:10200/services/qmt-b/", "answers": True}]
    report = {**Meters().report({}, [model.name]), **numbers, "peers": peers}
    families = text_string_to_metric_families(exposition(report).decode())
    found = {each.name: set(each.labels) for family in families for each in family.samples}
    assert "qmt_requests_total" in found
    return found


def panels():
    return json.loads(text(DASHBOARD))["panels"]


def with_variables(expression):
    """As Grafana fills them in."""
    return expression.replace("$__rate_interval", "5m").replace("$instance", ".*")


def test_every_expression_of_the_dashboard_asks_for_what_there_is(metrics):
    used = set()
    for panel in panels():
        assert panel["targets"], panel["title"]
        for target in panel["targets"]:
            used |= check(with_variables(target["expr"]), metrics)
            # A legend names labels that are left.
            for label in re.findall(r"{{(.*?)}}", target["legendFormat"]):
                assert (
                    f"by ({label}" in target["expr"]
                    or f", {label}" in target["expr"]
                    or label in TARGET
                )
    families = {re.sub(r"_(total|bucket|sum|count)$", "", name) for name in used}
    every = {re.sub(r"_(total|bucket|sum|count)$", "", name) for name in metrics}
    unshown = {name for name in every - families if not name.startswith("qmt_process_")}
    assert unshown == {"qmt_info"}


def test_the_dashboard_is_one_that_grafana_can_lay_out():
    board = json.loads(text(DASHBOARD))
    assert {"title", "uid", "panels", "templating", "schemaVersion"} <= set(board)
    assert "id" not in board, "Grafana gives it one"
    found = panels()
    assert len({panel["id"] for panel in found}) == len(found) > 10
    taken = set()
    for panel in found:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert all(each["datasource"] == panel["datasource"] for each in panel["targets"])
    variables = {each["name"]: each for each in board["templating"]["list"]}
    assert set(variables) == {"datasource", "instance"}
    used = set(re.findall(r"\$\{?(\w+)", text(DASHBOARD))) - {"__rate_interval", "__all"}
    assert used == set(variables)


def test_the_variable_that_picks_a_host_asks_for_what_there_is(metrics):
    (host,) = [
        e for e in json.loads(text(DASHBOARD))["templating"]["list"] if e["name"] == "instance"
    ]
    name, label = re.fullmatch(r"label_values\((\w+), (\w+)\)", host["definition"]).groups()
    assert name in metrics
    assert label in TARGET
    assert host["query"]["query"] == host["definition"]


def alerts():
    (block,) = [each for each in blocks(PAGE, "yaml") if each.code.startswith("groups:")]
    return [rule for group in yaml.safe_load(block.code)["groups"] for rule in group["rules"]]


def test_every_alert_asks_for_what_there_is(metrics):
    rules = alerts()
    assert len(rules) > 4
    for rule in rules:
        assert check(rule["expr"], {**metrics, "up": set()})
        assert rule["annotations"]["summary"].endswith((".", "?"))
        for code in re.findall(r'code="([^"]*)"', rule["expr"]):
            report = Meters().report({}, [])
            assert code in report["refused"], "so that its first time is seen to be one more"


def test_the_page_explains_every_metric_and_no_other(metrics):
    every = {re.sub(r"_(bucket|sum|count)$", "", name) for name in metrics}
    named = {span for span in spans(PAGE) if span.startswith("qmt_") and "." not in span}
    assert named <= every
    assert {name for name in every if not name.startswith("qmt_process_")} <= named
    for name, labels in metrics.items():
        plain = re.sub(r"_(bucket|sum|count)$", "", name)
        row = re.search(rf"^\| `{plain}` \|(.*?)\|", text(PAGE), flags=re.M)
        if row is not None:
            assert set(re.findall(r"\w+", row[1])) == labels - {"le"}, name
    for how in set(HOW_ENDED) - {"lost"}:
        assert f"`{how}`" in text(PAGE)


def test_the_configurations_on_the_page_can_be_read_and_agree():
    code = [each.code for each in blocks(PAGE, "python")]
    (role,) = [each for each in code if "load_roles" in each]
    assert '"scopes": ["custom:qmt:metrics"]' in role
    (service,) = [each for each in code if "configure(" in each]
    assert "metrics_token=" in service
    for each in (role, service):
        ast.parse(each)
    read = [yaml.safe_load(each.code) for each in blocks(PAGE, "yaml")]
    jobs = [job for each in read for job in each.get("scrape_configs", ())]
    assert len(jobs) == 2
    for job in jobs:
        assert set(job["authorization"]) == {"credentials_file"}, "no secret stands in it"
        paths = [job.get("metrics_path")] + [
            each["labels"]["__metrics_path__"] for each in job["static_configs"] if "labels" in each
        ]
        assert all(re.fullmatch(r"/services/[\w-]+/metrics", path) for path in paths if path)


@pytest.mark.parametrize(
    "wrong",
    [
        "qmt_nothing",
        "sum(qmt_slots",
        "sum(qmt_slots))",
        "qmt_requests_total",
        "rate(qmt_requests_total)",
        "rate(qmt_slots[5m])",
        "sum by (user) (qmt_slots)",
        'qmt_slots{model="a"}',
        'qmt_slots{instance=~"("}',
        "sum by (code) (rate(qmt_tokens_total[5m]))",
        "histogram_quantile(0.5, sum(rate(qmt_queue_seconds_bucket[5m])))",
        "histogram_quantile(50, sum by (le) (rate(qmt_queue_seconds_bucket[5m])))",
        "histogram_quantile(0.5, rate(qmt_queue_seconds_sum[5m]))",
        "sum by (instance) (qmt_guests) / sum(qmt_slots)",
        "qmt_slots and",
        "1 + 1",
        "",
    ],
)
def test_an_expression_that_makes_no_sense_is_noticed(metrics, wrong):
    with pytest.raises((QueryError, re.error)):
        check(wrong, metrics)
