"""A real Prometheus and Alertmanager with our rules: what fires, what is inhibited, and who is told."""

from __future__ import annotations

import http.server
import re
import shutil
import threading

import pytest

from orderflow.alerts.matrix.watch import Watch
from orderflow.stack import ports
from orderflow.stack.checkout.folders import StackFolders
from orderflow.stack.commands import alerts
from orderflow.stack.ports import LOOPBACK
from orderflow.stack.servers import monitoring
from orderflow.stack.servers.monitoring import Monitoring
from orderflow.stack.supervision.supervisor import Supervisor
from tests.alerts.series import HEALTHY, SEEN
from tests.processes import eventually

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not all(any(map(shutil.which, names)) for names in (monitoring.PROMETHEUS, monitoring.ALERTMANAGER)),
        reason="Prometheus or Alertmanager is not installed (Debian: prometheus, prometheus-alertmanager)",
    ),
]

FACTOR = 0.05
"""A minute is three seconds."""


class Exporter:
    """Serves series as a process would."""

    def __init__(self):
        self.series = {
            name: float(re.match(r"[\d.]+(e\+\d+)?", values)[0])
            for name, values in HEALTHY.items()
            if not name.startswith("up{")
        }
        self.series |= {name: value * FACTOR for name, value in self.series.items() if "_age_" in name}
        exporter = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                text = "".join(f"{name} {value}\n" for name, value in exporter.series.items())
                self.send_response(200)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer((LOOPBACK, ports.choose()), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def exporter():
    exporter = Exporter()
    yield exporter
    exporter.stop()


@pytest.fixture
def watch(tmp_path, exporter):
    folders = StackFolders(root=StackFolders().root, kept_in=tmp_path)
    folders.prepare()
    folders.targets.mkdir()
    (folders.targets / "all.json").write_text(f'[{{"targets": ["{LOOPBACK}:{exporter.server.server_port}"]}}]')
    port, alertmanager, receiver = (ports.choose() for _ in range(3))
    observers = Monitoring(
        folders=folders, programs=monitoring.programs(), port=port, alertmanager_port=alertmanager
    )
    alerts._write_configuration(observers, receiver, FACTOR)
    watch = Watch(prometheus=f"http://{LOOPBACK}:{port}", receiver_port=receiver)
    with Supervisor(observers.specs()) as supervisor:
        supervisor.start_rest()
        watch.start()
        try:
            eventually(lambda: watch.query("orderflow:dead_letters_open:sum"), "the rules are evaluated")
            assert not firing(watch), "nothing fires in a healthy system"
            yield watch
        finally:
            watch.stop()


def firing(watch):
    return {fired.name for fired in list(watch.since)}


def told(watch, *, is_resolved=False):
    return {one.fired.name for one in list(watch.told) if one.is_resolved == is_resolved}


def test_a_relay_that_is_gone_sends_one_message_although_its_consequences_fire_as_well(watch, exporter):
    relay, due = SEEN % ("relay", "relay"), "orderflow_outbox_oldest_due_seconds"
    exporter.series[relay] = 1_000
    eventually(lambda: "RelayGone" in told(watch), lambda: f"told: {watch.told}")
    exporter.series[due] = 1_000
    eventually(lambda: "OutboxStalled" in firing(watch), "its consequence fires")

    exporter.series |= {relay: 1, due: 0}
    eventually(lambda: "RelayGone" in told(watch, is_resolved=True), "its end is told")
    eventually(lambda: not firing(watch), lambda: f"all clear: {watch.since}")
    assert told(watch) == {"RelayGone"}
    [message, *_] = watch.told
    assert message.annotations["runbook_url"].endswith("/docs/runbooks/RelayGone.md")
    assert dict(message.fired.labels) == {"role": "relay"}


def test_the_loss_of_all_metrics_is_told(watch, exporter):
    exporter.series.clear()
    eventually(lambda: "MetricsAbsent" in told(watch), lambda: f"told: {watch.told}")
    assert firing(watch) == {"MetricsAbsent"}
