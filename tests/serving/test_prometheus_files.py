"""The alert rules and the dashboard in deploy/: Prometheus takes them, and they ask for what is counted."""

import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from prometheus import SUFFIX, promtool

from wsgi_timeout.metrics import FAMILIES

DEPLOY = Path(__file__).parents[2] / "deploy"
RULES = DEPLOY / "prometheus-rules.yml"
DASHBOARD = json.loads((DEPLOY / "grafana-dashboard.json").read_text())
QUERIES = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
ALERTS = {
    rule["alert"]: rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]
}
#: What has each alert fire within 20 minutes, and what does not: a value a minute, as PromQL notes series.
FIRING = {
    "WsgiTimeoutNoWorker": {'workers{name="a"}': ("0x20", "1x20")},
    "WsgiTimeoutQueueStands": {'queue_head_age_seconds{name="a"}': ("0+60x20", "0 60 100 0 60 100 0x14")},
    "WsgiTimeoutRedisAway": {"redis_up": ("0x20", "1x20")},
    "WsgiTimeoutBudgetNearlyUsed": {
        'buffered_bytes{name="a"}': ("90x20", "70x20"),
        'buffered_bytes_max{name="a"}': ("100x20", "100x20"),
    },
    "WsgiTimeoutRedisNearlyFull": {
        "redis_memory_bytes": ("95x20", "95x20"),
        # The second one has no maxmemory.
        "redis_memory_max_bytes": ("100x20", "0x20"),
    },
    "WsgiTimeoutPlacesNearlyTaken": {
        'waiting_requests{name="a"}': ("90x20", "10x20"),
        'waiting_requests_max{name="a"}': ("100x20", "100x20"),
    },
    "WsgiTimeoutCallsLost": {'calls_total{name="a",route="*",outcome="lost"}': ("0x15 1x5", "3x20")},
    "WsgiTimeoutCallsTimeOut": {'calls_total{name="a",route="*",outcome="timeout"}': ("0+1x20", "0x15 2x5")},
    "WsgiTimeoutLeasesLost": {'lost_leases_total{name="a"}': ("0+1x20", "0x15 1x5")},
}


def named(text):
    return {SUFFIX.sub("", name) for name in re.findall(r"\bwsgi_timeout_[a-z_]+\b", text)}


@pytest.mark.parametrize("file", [RULES.name, "grafana-dashboard.json"])
def test_rules_and_panels_name_metrics_that_are_there(file):
    """The alert rules and the dashboard ask for metrics of ours only, and by labels that those have."""
    text = (DEPLOY / file).read_text()
    assert named(text) - FAMILIES.keys() == set()
    assert len(named(text)) > 5
    known = {label for family in FAMILIES.values() for label in family.labels} | {"le", "instance"}
    by = {label for group in re.findall(r"\bby ?\(([^)]*)\)", text) for label in re.findall(r"\w+", group)}
    assert by - known == set()


def test_every_metric_is_on_the_dashboard():
    """Whoever looks at the dashboard sees all that is counted."""
    shown = set().union(*(named(query) for query in QUERIES))
    assert FAMILIES.keys() - shown <= {"wsgi_timeout_redis_up"}


@pytest.mark.parametrize("query", QUERIES)
def test_a_query_asks_for_labels_of_its_metric(query):
    """A label that is matched or grouped by is one of the metric's own."""
    for metric, matched in re.findall(r"(wsgi_timeout_\w+)\{([^}]*)\}", query):
        labels = set(re.findall(r"(\w+)\s*[=!]", matched))
        assert labels <= set(FAMILIES[SUFFIX.sub("", metric)].labels)


def test_rules_are_understood():
    """Every rule has what an alert needs, and promtool takes the file."""
    for rule in ALERTS.values():
        assert rule.keys() >= {"expr", "labels", "annotations"}
        assert rule["labels"]["severity"] in {"page", "ticket"}
        assert rule["annotations"].keys() == {"summary", "description"}
    subprocess.run([promtool(), "check", "rules", RULES], check=True, timeout=30)


def test_queries_of_the_dashboard_are_understood(tmp_path):
    """Prometheus can read each query of the dashboard, with the dashboard's variable filled in."""
    rules = [
        {"record": f"panel:{number}", "expr": query.replace("$name", ".*")}
        for number, query in enumerate(QUERIES)
    ]
    path = tmp_path / "panels.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    subprocess.run([promtool(), "check", "rules", path], check=True, timeout=30)


def test_every_alert_fires_when_it_should(tmp_path):
    """Each alert is raised by what it is about, and not by what is as usual."""
    assert FIRING.keys() == ALERTS.keys()
    tests = [alert_test(alert, which) for alert in FIRING for which in (0, 1)]
    path = tmp_path / "tests.yml"
    path.write_text(yaml.safe_dump({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": tests}))
    done = subprocess.run(
        [promtool(), "test", "rules", path], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def alert_test(alert, which):
    """Return a test for promtool: the alert fires after 18 minutes (0), or does not (1)."""
    series = [
        {"series": f"wsgi_timeout_{name}", "values": values[which]} for name, values in FIRING[alert].items()
    ]
    count = f'count(ALERTS{{alertname="{alert}",alertstate="firing"}}) or vector(0)'
    expected = [{"labels": "{}", "value": 1 - which}]
    return {
        "interval": "1m",
        "input_series": series,
        "promql_expr_test": [{"expr": count, "eval_time": "18m", "exp_samples": expected}],
    }


def test_panels_of_the_dashboard_stand_beside_each_other():
    """Each panel has a title, a query and a place of its own."""
    places = [tuple(panel["gridPos"].values()) for panel in DASHBOARD["panels"]]
    assert len(places) == len(set(places))
    assert all(panel["title"] and panel["targets"] for panel in DASHBOARD["panels"])
