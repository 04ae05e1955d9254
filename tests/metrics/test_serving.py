"""A process serves its metrics on its port, or says why it does not and goes on."""

from __future__ import annotations

import socket
import urllib.error

import pytest

from orderflow.observability import metric_names, metrics
from orderflow.stack import ports
from tests.metrics import scraping
from tests.processes import eventually


@pytest.fixture
def served():
    started = []

    def served(port, **options):
        server = metrics.Server(own := metrics.Metrics(**options), address="127.0.0.1", port=port)
        server.start()
        started.append(server)
        return own

    yield served
    for server in started:
        server.stop()


def test_all_metrics_of_a_process_are_served_with_those_of_the_client_library(served):
    port = ports.choose()
    own = served(port, pool="orders", usage=lambda: (3, 8))
    own.lose(2)

    samples = scraping.read(port)
    assert samples["orderflow_pool_busy", "orders"] == 3
    assert samples["orderflow_pool_size", "orders"] == 8
    assert samples["orderflow_signals_lost_total",] == 2
    names = {key[0] for key in samples}
    assert {"process_resident_memory_bytes", "process_cpu_seconds_total", "process_open_fds"} <= names
    assert "python_gc_collections_total" in names
    assert {metric.name for metric in metric_names.MEASURED} <= names
    assert not any(name.endswith("_created") for name in names)


def test_a_port_in_use_is_a_line_in_the_log_and_is_served_once_it_is_free(served, caplog, monkeypatch):
    monkeypatch.setattr(metrics, "TRY_AGAIN", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        served(port)
        [record] = [each for each in caplog.records if each.name == metrics.__name__]
        assert record.levelname == "ERROR"
        assert f"port {port} cannot be used" in record.getMessage()

    eventually(lambda: scraping.is_served(port), "the free port")


def test_an_address_that_is_not_ours_is_a_line_in_the_log(caplog):
    server = metrics.Server(metrics.Metrics(), address="192.0.2.1", port=ports.choose())
    server.start()
    server.stop()

    assert "192.0.2.1" in caplog.text


def test_nothing_but_metrics_is_served(served):
    port = ports.choose()
    served(port)

    with pytest.raises(urllib.error.HTTPError):
        scraping.urllib.request.urlopen(
            scraping.urllib.request.Request(f"http://127.0.0.1:{port}/metrics", method="DELETE"), timeout=5
        )
