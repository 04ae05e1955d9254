"""Renders docs/metrics.md from the descriptions of all metrics. Needs neither Django nor a server."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from orderflow.metrics.descriptions import CHANNELS, CONSUMER, METRICS, POOL, TASK, Kind, Metric
from orderflow.observability import metric_names

PAGE = Path(__file__).resolve().parent.parent.parent / "docs" / "metrics.md"

INTRODUCTION = """\
# Metrics

Rendered by `python -m orderflow.metrics --write`; a test compares this page with the code.

Metrics come from two sides. **Rows and the broker** say what is true of the whole system: one exporter
reads them. Its counters are counted from rows, so no crash and no restart loses one. **Processes** count
what they do, since their own start. Names and units are those of Prometheus: base units, `_total` for
counters.

## Of rows, the broker and Redis

`manage.py metrics` serves them at `/metrics` on port 9808 (`--port`, `--address`; `--once` prints them).
The web server serves the same at `/metrics`, to staff and to a token with the scope `metrics:read`. Values
are at most 5 seconds old.

A component that does not answer within 5 seconds has `orderflow_up` 0, and what it would say is absent:
nobody knows it, and zero would be wrong. A counter is also absent while the roll-up is more than 500,000
rows behind, as after an upgrade with a long history.

A counter falls only after a restore of an older database; orders due and late also by those of the seconds
by which the clock of the database is set back. One row counts once: also if its transaction ends late, if
two roll-ups run at once, if one is killed, if the clock is set back, or if the row is deleted by retention
afterwards (decision 0044). What becomes true of an older row, such as the resolution of a dead letter of
yesterday, counts within a minute.

RabbitMQ does not say over AMQP how many messages its consumers hold. That number is exported only if
`RABBITMQ_API_URL` names the management API, a plugin of the broker. Redis has no consumers; there the
number of living workers of a queue stands for it.
"""

PROCESSES = """\

## Of processes

With `METRICS_PORT` every worker, relay, beat and web server serves what it counts since its start, for
itself and for the children of its pool (decision 0043), and what the client library knows of the process:
`process_*` (memory, processor time, files) and `python_gc_*`. Counters begin at zero when the process does.
"""

LABELS_OF_PROCESSES = {
    "task": TASK,
    "event": "events that the code registers",
    "provider": "the providers",
    "channel": CHANNELS,
    "consumer": CONSUMER.partition(";")[0],
    "pool": POOL,
}
"""Other values count under `other`; see `orderflow.observability.counting`."""

BOUNDS = """\

### Bounds of labels

Every label has a bounded number of values:

| Label | Of | Values |
|---|---|---|
"""

OPENTELEMETRY = """\

## Names of OpenTelemetry

Metrics that measure what OpenTelemetry's
[messaging conventions](https://opentelemetry.io/docs/specs/semconv/messaging/messaging-metrics/) 1.44 name.
They are exported under our name only; this is for people who know the others.

| Ours | OpenTelemetry |
|---|---|
"""


def render() -> str:
    """Return the page."""
    processes = [_of_process(metric) for metric in metric_names.ALL]
    every = [*METRICS, *processes]
    return "".join(
        [
            INTRODUCTION,
            _table(METRICS),
            PROCESSES,
            _table(processes),
            BOUNDS,
            *_bounds(every),
            OPENTELEMETRY,
            *_aliases(every),
        ]
    )


def _of_process(metric: metric_names.Metric) -> Metric:
    """The description of a metric of a process, in the terms of this page."""
    bounds = LABELS_OF_PROCESSES | {"outcome": metric.outcomes}
    units = (unit for unit in ("seconds", "bytes") if metric.name.removesuffix("_total").endswith(f"_{unit}"))
    return Metric(
        name=metric.name,
        kind=KINDS[metric.kind],
        help=metric.help,
        source="signals" if metric in metric_names.COUNTED else "the process",
        labels={label: bounds[label] for label in metric.labels},
        unit=next(units, ""),
        opentelemetry=metric.otel,
    )


KINDS: dict[metric_names.Kind, Kind] = {
    metric_names.Kind.COUNTER: "counter",
    metric_names.Kind.GAUGE: "gauge",
    metric_names.Kind.HISTOGRAM: "histogram",
}


def _table(metrics: Sequence[Metric]) -> str:
    rows = [
        f"| `{metric.name}` | {metric.kind} | {_code(metric.labels)} | {metric.unit} | {metric.help}"
        f" | {metric.source} |\n"
        for metric in metrics
    ]
    return "\n| Name | Type | Labels | Unit | What it says | Source |\n|---|---|---|---|---|---|\n" + "".join(
        rows
    )


def _bounds(metrics: Sequence[Metric]) -> Iterator[str]:
    for metric in metrics:
        for label, values in metric.labels.items():
            shown = values if isinstance(values, str) else _code(values)
            yield f"| `{label}` | `{metric.name}` | {shown} |\n"


def _aliases(metrics: Sequence[Metric]) -> Iterator[str]:
    for metric in metrics:
        if metric.opentelemetry:
            yield f"| `{metric.name}` | `{metric.opentelemetry}` |\n"


def _code(names: Sequence[str] | object) -> str:
    assert hasattr(names, "__iter__")
    return ", ".join(f"`{name}`" for name in names)
