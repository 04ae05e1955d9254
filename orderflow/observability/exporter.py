"""
Metrics of rows, broker and Redis in Prometheus' format: as a response, and as a server of its own.

The only part that knows the client library; `orderflow.metrics` reads the values.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.gc_collector import GCCollector
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from orderflow.metrics import components
from orderflow.metrics.descriptions import METRICS, Readings, Value
from orderflow.metrics.descriptions import Metric as Description

CONTENT_TYPE = CONTENT_TYPE_LATEST

FAMILIES: dict[str, type[CounterMetricFamily | GaugeMetricFamily]] = {
    "counter": CounterMetricFamily,
    "gauge": GaugeMetricFamily,
}


class RowsCollector(Collector):
    """Reads the components at each scrape."""

    def __init__(self, read: components.Components) -> None:
        self._read = read

    def describe(self) -> list[Metric]:
        """Return nothing: the registry must not read the components when it begins to use this."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Return a family for each metric that is known now."""
        return families(self._read.read())


def families(readings: Readings) -> Iterator[Metric]:
    """Return the readings as families of metrics, in the order of their descriptions."""
    for description in METRICS:
        if description.name in readings:
            yield _family(description, readings[description.name])


def text(readings: Readings) -> bytes:
    """Return the readings as the body of a response to Prometheus."""
    registry = CollectorRegistry()
    registry.register(_Fixed(readings))
    return generate_latest(registry)


class _Fixed(Collector):
    def __init__(self, readings: Readings) -> None:
        self._readings = readings

    def collect(self) -> Iterator[Metric]:
        return families(self._readings)


def serve(*, address: str, port: int) -> tuple[Any, threading.Thread]:
    """
    Serve the metrics, and this process's own, in a thread; return the server and its thread.

    Raises:
        OSError: if the port cannot be opened.
    """
    registry = CollectorRegistry()
    for collector in (ProcessCollector, PlatformCollector, GCCollector):
        collector(registry=registry)
    registry.register(RowsCollector(components.all_components()))
    return start_http_server(port, addr=address, registry=registry)


def _family(description: Description, values: list[Value]) -> Metric:
    labels = list(description.labels)
    if description.kind == "histogram":
        histogram = HistogramMetricFamily(description.name, description.help, labels=labels)
        for value in values:
            histogram.add_metric(list(value.labels), buckets=list(value.buckets), sum_value=value.value)
        return histogram
    family = FAMILIES[description.kind](description.name, description.help, labels=labels)
    for value in values:
        family.add_metric(list(value.labels), value.value)
    return family
