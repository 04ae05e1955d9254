"""The dashboards of Grafana, as far as Prometheus is not needed; see also `test_dashboards_live`."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from urllib.parse import urlsplit

import pytest

from deploy.grafana.__main__ import DASHBOARDS, texts
from deploy.grafana.panels import ANNOTATIONS, COLUMNS, NUMBER, RUNBOOKS, WEB, Kind
from orderflow.alerts import catalogue
from tests import metric_names, promql
from tests.processes import ROOT

GRAFANA = ROOT / "deploy" / "grafana"
PANELS = [(name, panel) for name, dashboard in DASHBOARDS.items() for panel in dashboard.panels()]
WITH_QUERIES = [pytest.param(panel, id=f"{name}: {panel.title}") for name, panel in PANELS if panel.queries]
VARIABLES = {"datasource", "web", "runbooks", "__rate_interval", "__interval", "__range", "__all"}
GROUPED = {"le", "job", "instance"}
"""Labels that every metric can have, beside its own."""


@pytest.fixture(params=DASHBOARDS)
def dashboard(request):
    return json.loads((GRAFANA / "dashboards" / f"{request.param}.json").read_text())


def test_the_json_is_what_the_description_says():
    for path, text in texts().items():
        assert path.read_text() == text, f"run: python -m deploy.grafana ({path.name})"
    assert set((GRAFANA / "dashboards").iterdir()) == set(texts())


def test_addresses_of_the_dashboards_do_not_change():
    assert {name: each.uid for name, each in DASHBOARDS.items()} == {
        "orders": "orderflow-orders",
        "messages": "orderflow-messages",
        "workers-and-providers": "orderflow-workers",
    }


def test_panels_have_numbers_of_their_own_and_do_not_overlap(dashboard):
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken = set()
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= COLUMNS, panel["title"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells


def test_every_query_uses_the_datasource_that_is_chosen_and_variables_that_exist(dashboard):
    names = {variable["name"] for variable in dashboard["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(dashboard)))
    assert used <= names | VARIABLES
    assert names <= used, "a variable that nothing uses"
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            assert target["datasource"] == panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}


@pytest.mark.parametrize("panel", WITH_QUERIES)
def test_a_panel_explains_itself_and_leads_on(panel):
    assert panel.description.endswith("."), "a sentence that says what the values mean"
    assert panel.links(), "a runbook, or a page of the admin"
    assert all(query.legend for query in panel.queries) or len(panel.queries) == 1
    fractions = [query for query in panel.queries if re.search(r"_seconds\b|_bytes\b", query.expression)]
    assert not fractions or panel.unit != NUMBER, "seconds and bytes have units"


def test_the_messages_go_from_left_to_right_as_in_the_readme():
    rows = dict(DASHBOARDS["messages"].rows)
    headings = [panel.description for panel in rows["The one way"] if panel.kind is Kind.TEXT]
    found = [
        next(word for word in ("Outbox", "Relay", "Queues", "Dead letters") if word in text)
        for text in headings
    ]
    assert found == ["Outbox", "Relay", "Queues", "Dead letters"]
    for panels in rows.values():
        assert all(panel.width * 4 == COLUMNS for panel in panels)


# Metrics -----------------------------------------------------------------------------------------


def expressions():
    for name, panel in PANELS:
        for query in panel.queries:
            yield f"{name}: {panel.title}", query.expression
    for name, dashboard in DASHBOARDS.items():
        for variable in dashboard.variables:
            yield f"{name}: ${variable.label}", f"{variable.metric}{{{variable.label}!=''}}"
    for note in ANNOTATIONS:
        yield note.title, note.query.expression


@pytest.mark.parametrize(("where", "expression"), list(expressions()))
def test_every_metric_and_label_is_one_that_our_code_exports(where, expression):
    known = metric_names.exported()
    named = promql.metrics(expression)
    assert named, where
    assert named <= known.keys(), where
    assert promql.labels(expression) <= GROUPED.union(*(known[name] for name in named)), where


def test_a_metric_or_label_that_nobody_exports_would_be_found():
    expression = 'sum by (queue) (rate(orderflow_order_total{outcome=~"$x"}[5m])) / 60 or vector(0)'
    assert promql.metrics(expression) == {"orderflow_order_total"}
    assert promql.labels(expression) == {"queue", "outcome"}
    nested = "histogram_quantile(0.95, sum by (le) (rate(a_bucket[1h:5m] offset 1d))) > bool 1e3 and on (x) b"
    assert promql.metrics(nested) == {"a_bucket", "b"}
    assert promql.labels(nested) == {"le", "x"}


def test_every_query_is_valid(tmp_path):
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed here (Debian: apt-get install prometheus)")
    rules = [
        {"record": f"panel:{number}", "expr": re.sub(r"\$__\w+", "5m", expression)}
        for number, (_, expression) in enumerate(expressions())
    ]
    file = tmp_path / "rules.yml"
    file.write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}))
    done = subprocess.run([promtool, "check", "rules", file], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


# Links -------------------------------------------------------------------------------------------


def test_links_begin_with_addresses_that_a_container_replaces(dashboard):
    constants = {v["name"]: v["query"] for v in dashboard["templating"]["list"] if v["type"] == "constant"}
    assert constants == {"web": WEB, "runbooks": RUNBOOKS}
    for panel in dashboard["panels"]:
        for link in panel.get("links", ()):
            assert link["url"].startswith(("${web:raw}/admin/", "${runbooks:raw}/")), link
            assert link["targetBlank"], link


@pytest.mark.django_db
def test_every_link_to_the_admin_leads_to_a_page(admin_client):
    paths = {panel.admin for _, panel in PANELS if panel.admin}
    assert paths
    for path in paths:
        answer = admin_client.get(f"/admin/{path}")
        assert answer.status_code == 200, path
        assert answer.wsgi_request.GET.urlencode() == urlsplit(path).query, path


def test_the_admin_takes_no_filter_that_it_does_not_know(admin_client, db):
    assert admin_client.get("/admin/orders/order/?nonsense=1").status_code == 302


@pytest.mark.parametrize("alert", sorted({alert for _, panel in PANELS for alert in panel.alerts}))
def test_every_runbook_of_a_link_exists_and_belongs_to_an_alert(alert):
    assert alert in metric_names.alerts()
    assert (ROOT / "docs" / "runbooks" / f"{alert}.md").exists()


def test_every_alert_leads_to_a_dashboard_with_a_panel_that_shows_it():
    shown = {each.uid: {a for panel in each.panels() for a in panel.alerts} for each in DASHBOARDS.values()}
    for alert in (*catalogue.SYMPTOMS, *catalogue.CAUSES):
        assert alert.name in shown[f"orderflow-{alert.dashboard}"], alert.name


# The container -----------------------------------------------------------------------------------


def start(tmp_path, web, runbooks):
    return subprocess.run(
        [GRAFANA / "start", "argument"],
        env={
            "PATH": "/usr/bin:/bin",
            "DASHBOARDS": str(GRAFANA / "dashboards"),
            "TARGET": str(tmp_path / "dashboards"),
            "RUN": "/bin/echo",
            "ORDERFLOW_WEB_URL": web,
            "RUNBOOKS_URL": runbooks,
        },
        capture_output=True,
        text=True,
    )


def test_the_container_writes_its_own_addresses_into_the_dashboards(tmp_path):
    done = start(tmp_path, "https://orders.example.com/", "https://wiki.example.com/runbooks")
    assert (done.returncode, done.stdout) == (0, "argument\n"), done.stderr
    for name in DASHBOARDS:
        written = json.loads((tmp_path / "dashboards" / f"{name}.json").read_text())
        constants = {v["name"]: v for v in written["templating"]["list"] if v["type"] == "constant"}
        assert constants["web"]["query"] == constants["web"]["current"]["value"] == "https://orders.example.com"
        assert constants["runbooks"]["query"] == "https://wiki.example.com/runbooks"
        assert WEB not in json.dumps(written)
        assert RUNBOOKS not in json.dumps(written)


@pytest.mark.parametrize(
    "address", ["", "orders.example.com", "javascript:alert(1)", 'https://x"|e id', "https://x\ny"]
)
def test_the_container_does_not_start_with_something_that_is_no_address(tmp_path, address):
    done = start(tmp_path, address, "https://wiki.example.com")
    assert done.returncode == 1
    assert "ORDERFLOW_WEB_URL" in done.stderr
