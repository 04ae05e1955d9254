"""Reads the metrics of a process as Prometheus does."""

from __future__ import annotations

import urllib.request

from prometheus_client.parser import text_string_to_metric_families

from tests.processes import eventually


def read(port: int) -> dict[tuple[str, ...], float]:
    """Return the samples of a process by name and labels, such as ("orderflow_pool_size", "orders")."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        return parsed(answer.read().decode())


def parsed(text: str) -> dict[tuple[str, ...], float]:
    """Return samples by name and labels; the outcome and the bound of a bucket come last."""
    return {
        (sample.name, *(sample.labels[name] for name in sorted(sample.labels, key=_place))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def _place(label: str) -> tuple[bool, str]:
    return label in ("outcome", "le"), label


def is_served(port: int) -> bool:
    try:
        read(port)
    except OSError:
        return False
    return True


def when_served(port: int) -> dict[tuple[str, ...], float]:
    """Wait until a process serves its metrics; return them."""
    eventually(lambda: is_served(port), f"metrics on port {port}")
    return read(port)


def attempts(samples: dict[tuple[str, ...], float], task: str) -> dict[str, float]:
    """Return the attempts of a task by outcome, without those that are 0."""
    return {
        key[2]: value
        for key, value in samples.items()
        if key[:2] == ("orderflow_task_attempts_total", task) and value
    }
