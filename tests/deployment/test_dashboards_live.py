"""Every query of every dashboard returns data from a real Prometheus that scrapes real processes."""

from __future__ import annotations

import datetime as dt
import io
import math
import re
import subprocess
import sys
import time

import pytest
from django.core.management import call_command
from django.utils import timezone

from deploy.grafana.__main__ import DASHBOARDS
from deploy.grafana.panels import Kind
from orderflow.stack import scraping
from orders.models import Order
from outbox import testing
from outbox.models import DeadLetter
from tests import factories, processes, prometheus
from tests.processes import ROOT, environment, eventually
from tests.slow import but_first

pytestmark = [pytest.mark.slow, pytest.mark.processes, pytest.mark.timeout(240)]

NOW = (Kind.STAT, Kind.BARS)
"""Panels of these kinds show one value, the others a plot."""


def shortened(expression: str) -> str:
    """Return what Grafana would send with all values of all variables; windows fit a young Prometheus."""
    expression = re.sub(r"\[[^\]]+:[^\]]+\]", "[1m:1s]", expression)
    expression = re.sub(r"\$__rate_interval|\$__range", "30s", expression)
    return re.sub(r"\$\w+", ".*", expression)


def has_data(server: prometheus.Prometheus, expression: str, kind: Kind) -> bool:
    """Return whether a query has a value that is a number: now, or at any time of the plot."""
    if kind in NOW:
        return any(map(math.isfinite, server.values(expression)))
    now = time.time()
    found = server.get("query_range", query=expression, start=now - 90, end=now, step=1)["result"]
    return any(math.isfinite(float(value)) for series in found for _, value in series["values"])


def without_data(server: prometheus.Prometheus) -> list[str]:
    """Return the queries that return nothing, with their panels."""
    queries = [
        (f"{name}: {panel.title}", shortened(query.expression), panel.kind)
        for name, dashboard in DASHBOARDS.items()
        for panel in dashboard.panels()
        for query in panel.queries
    ]
    variables = [
        (f"{name}: ${variable.label}", f'{variable.metric}{{{variable.label}!=""}}', Kind.STAT)
        for name, dashboard in DASHBOARDS.items()
        for variable in dashboard.variables
    ]
    return [
        f"{where}: {query}" for where, query, kind in queries + variables if not has_data(server, query, kind)
    ]


@pytest.fixture
def targets(tmp_path):
    folder = tmp_path / "targets"
    scraping.begin(folder)
    return folder


@pytest.fixture(params=but_first(["threads", "prefork"], others="nightly"))
def working(request, transactional_db, world, tmp_path, targets):
    """A relay, its clock, workers with threads or with processes, and the exporter: all serve metrics."""

    def serving(name, job=scraping.PROCESSES):
        return {"METRICS_PORT": str(scraping.announce(targets, name, job=job)), "HEARTBEAT_SECONDS": "1"}

    prometheus.program()
    testing.purge()
    with processes.stack(tmp_path) as stack:
        started = [
            stack.relay(**serving("relay")),
            stack.worker("orders", "orders", pool=request.param, concurrency=4, **serving("orders")),
            stack.worker(
                "email", "email", "sms", "push", pool=request.param, concurrency=4, **serving("email")
            ),
            stack.worker("jobs", "jobs", pool="prefork", concurrency=1, **serving("jobs")),
        ]
        stack.beat(**serving("beat"))
        exporter = subprocess.Popen(
            [sys.executable, "manage.py", "metrics"],
            cwd=ROOT,
            env=environment() | serving("metrics", scraping.EXPORTER),
            stdout=subprocess.DEVNULL,
        )
        try:
            for process in started:
                process.wait_until_ready()
            yield stack
        finally:
            exporter.kill()
            exporter.wait(10)
    testing.purge()


@pytest.fixture
def observed(working, targets, tmp_path):
    """Prometheus, which scrapes all of them every second."""
    configuration = tmp_path / "prometheus.yml"
    configuration.write_text(prometheus.scraping(files=[str(targets / "*.json")]))
    with prometheus.running(tmp_path, configuration) as server:
        yield server


def test_every_panel_of_every_dashboard_shows_data(observed, world, settings):
    settings.SANDBOX_URL = world.mailbox.url
    eventually(lambda: {target["health"] for target in observed.targets()} == {"up"}, observed.targets)
    assert len(observed.targets()) == 6

    factories.place(placed_at=timezone.now() - dt.timedelta(minutes=5))  # its 60 seconds are over
    call_command("demo", orders=12, timeout=60, stdout=io.StringIO())
    call_command(
        "discard_failures",
        "--consumer",
        "notifications.tasks.send_email",
        reason="no such mailbox",
        stdout=io.StringIO(),
    )
    call_command("verify", stdout=io.StringIO())

    assert not Order.objects.unfinished().exists()
    assert DeadLetter.objects.open().exists()
    missing: list[str] = []
    eventually(
        lambda: not (missing.clear() or missing.extend(without_data(observed)) or missing),
        lambda: "\n".join(missing),
        within=45,
    )
