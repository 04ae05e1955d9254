"""The profile `observe` of the containers: what it asks, and what it may reach."""

from __future__ import annotations

import re
import shutil
import subprocess
from urllib.parse import urlsplit

import pytest
import yaml

from tests.deployment.compose import BASE, OTHERS, together
from tests.deployment.test_containers import OBSERVERS, ours
from tests.processes import ROOT

SANDBOX, PRODUCTION, RABBITMQ = OTHERS
ASKS_NOTHING = {"migrate", "flower"}
"""A step that ends, and a page of another project: neither has metrics of ours."""

EXPORTER = "metrics"
LISTENS_AT = {"prometheus": 9090, "alertmanager": 9093, "grafana": 3000, "jaeger": 16686}


def configured(path):
    return yaml.safe_load((ROOT / path).read_text())


@pytest.fixture
def prometheus():
    return configured("deploy/compose/observe/prometheus.yml")


@pytest.fixture(params=[PRODUCTION, SANDBOX])
def compose(request):
    return together(BASE, request.param)


def test_observers_start_only_with_their_profile(compose):
    with_profile = {
        name: service["profiles"] for name, service in compose["services"].items() if "profiles" in service
    }
    assert with_profile == {name: ["observe"] for name in OBSERVERS}
    for name, service in compose["services"].items():
        if name not in OBSERVERS:
            assert not OBSERVERS & service.get("depends_on", {}).keys(), name


def test_observers_reach_no_server_and_only_this_machine_reaches_them(compose):
    for name in OBSERVERS:
        service = compose["services"][name]
        assert service["networks"] == ["observe", "edge"], name
        assert service["ports"] == [f"127.0.0.1:{LISTENS_AT[name]}:{LISTENS_AT[name]}"], name
        assert service["mem_limit"], name
        for volume in service.get("volumes", []):
            is_own = volume.split(":")[0] == name
            assert is_own or volume.endswith(":ro"), (name, volume)


def test_prometheus_asks_every_process_of_ours(compose, prometheus):
    asked = {
        name
        for job in prometheus["scrape_configs"]
        for discovery in job["dns_sd_configs"]
        for name in discovery["names"]
    }
    assert asked == ours(compose).keys() - ASKS_NOTHING
    exporter, processes = (job["dns_sd_configs"][0] for job in prometheus["scrape_configs"])
    assert exporter["names"] == [EXPORTER]
    command = compose["services"][EXPORTER]["command"]
    assert command[command.index("--port") + 1] == str(exporter["port"])
    for name in processes["names"]:
        environment = compose["services"][name]["environment"]
        assert environment["METRICS_PORT"] == f"${{METRICS_PORT:-{processes['port']}}}", name
        assert environment["METRICS_ADDRESS"] == "0.0.0.0", name
    for name in asked:
        assert "observe" in compose["services"][name]["networks"], name


def test_grafanas_password_is_a_secret_and_nobody_can_sign_up(compose):
    environment = compose["services"]["grafana"]["environment"]
    assert environment["GF_SECURITY_ADMIN_PASSWORD__FILE"] == "/run/secrets/grafana_password"
    assert "GF_SECURITY_ADMIN_PASSWORD" not in environment
    assert environment["GF_USERS_ALLOW_SIGN_UP"] == environment["GF_AUTH_ANONYMOUS_ENABLED"] == "false"
    assert "keep grafana_password" in (ROOT / "deploy/compose/make-secrets").read_text()


def test_the_links_of_alerts_begin_as_in_the_shipped_configuration(compose, prometheus):
    shipped = configured("deploy/prometheus/prometheus.yml")
    assert prometheus["global"]["external_labels"].keys() == shipped["global"]["external_labels"].keys()
    assert prometheus["alerting"]["alert_relabel_configs"] == shipped["alerting"]["alert_relabel_configs"]
    assert prometheus["global"]["scrape_interval"] == shipped["global"]["scrape_interval"]
    default = shipped["global"]["external_labels"]["runbooks"]
    for name in ("prometheus", "grafana"):
        assert compose["services"][name]["environment"]["RUNBOOKS_URL"] == f"${{RUNBOOKS_URL:-{default}}}"


def test_grafana_links_to_the_admin_of_the_same_installation():
    for name, expected in (
        (PRODUCTION, "${ORDERFLOW_WEB_URL:-http://localhost:8000}"),
        (SANDBOX, "http://localhost:8000"),
    ):
        services = together(BASE, name)["services"]
        assert services["grafana"]["environment"]["ORDERFLOW_WEB_URL"] == expected
        of_web = services["web"]["environment"]["ORDERFLOW_WEB_URL"]
        assert of_web == (expected if name == SANDBOX else None), "from .env"


def test_every_address_of_the_observers_is_one_of_them(compose, prometheus):
    sources = configured("deploy/grafana/provisioning/datasources/orderflow.yml")["datasources"]
    addresses = [urlsplit(source["url"]).netloc for source in sources]
    for manager in prometheus["alerting"]["alertmanagers"]:
        addresses += manager["static_configs"][0]["targets"]
    assert set(addresses) == {f"{name}:{LISTENS_AT[name]}" for name in ("prometheus", "alertmanager", "jaeger")}
    assert {source["type"] for source in sources} == {"prometheus", "alertmanager", "jaeger"}
    interval = next(source["jsonData"]["timeInterval"] for source in sources if source["type"] == "prometheus")
    assert interval == prometheus["global"]["scrape_interval"]


def test_grafana_reads_the_dashboards_that_it_is_given(compose):
    service = compose["services"]["grafana"]
    [provider] = configured("deploy/grafana/provisioning/dashboards/orderflow.yml")["providers"]
    home = service["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home == f"{provider['options']['path']}/orders.json"
    script = (ROOT / "deploy/grafana/start").read_text()
    for name, value in re.findall(r"\$\{(DASHBOARDS|TARGET):-([^}]+)\}", script):
        expected = "./deploy/grafana/dashboards:" + value + ":ro" if name == "DASHBOARDS" else value
        assert expected in service["volumes"] or value == provider["options"]["path"], name
    assert (ROOT / "deploy/grafana/start").stat().st_mode & 0o111 == 0o111


def test_prometheus_accepts_the_configuration(tmp_path, prometheus):
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed here (Debian: apt-get install prometheus)")
    shutil.copy(ROOT / "deploy/compose/observe/prometheus.yml", tmp_path)
    for name in prometheus["rule_files"]:
        shutil.copy(ROOT / "deploy/prometheus" / name, tmp_path)
    done = subprocess.run(
        [promtool, "check", "config", tmp_path / "prometheus.yml"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
