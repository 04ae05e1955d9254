"""The metrics that our code exports, with their labels, and the alerts: for tests of what uses them."""

from __future__ import annotations

import functools

from orderflow.alerts import catalogue
from orderflow.metrics import descriptions
from orderflow.observability import metric_names

OF_OTHERS = {
    "process_resident_memory_bytes": set(),
    "process_cpu_seconds_total": set(),
    "python_gc_collections_total": {"generation"},
    "ALERTS": {"alertname", "alertstate", "severity"},
    "up": {"job", "instance"},
}
"""Metrics of Prometheus' client library for a process, and of Prometheus itself."""


@functools.cache
def exported() -> dict[str, set[str]]:
    """Return the labels of each series, by its name; a histogram has three series."""
    found: dict[str, set[str]] = dict(OF_OTHERS)
    for metric in (*descriptions.METRICS, *metric_names.ALL):
        known = set(metric.labels)
        if metric.kind == "histogram":
            found[f"{metric.name}_bucket"] = {*known, "le"}
            found |= {f"{metric.name}_count": known, f"{metric.name}_sum": known}
        else:
            found[metric.name] = known
    return found


@functools.cache
def alerts() -> set[str]:
    """Return the names of the alerts."""
    return {alert.name for alert in (*catalogue.SYMPTOMS, *catalogue.CAUSES)}
