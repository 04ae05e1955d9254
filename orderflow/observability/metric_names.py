"""
The metrics that processes count from signals: their names, labels and meaning, as plain data.

`counting` says which signal counts where, `metrics` serves them. What is counted from rows is not here: that is
`outbox.statistics` and what reads it. Names and units are those of Prometheus
(https://prometheus.io/docs/practices/naming/).
"""

from __future__ import annotations

import dataclasses
import enum

OTHER = "other"
"""The value of a label that is not one of the known ones: a series per value would have no bound."""

STEPS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0)
"""Upper bounds, in seconds, of what takes milliseconds to a time limit."""

WAITS = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3600.0, 14_400.0)
"""Upper bounds, in seconds, of what may wait for a provider that is down."""

ATTEMPTS = ("succeeded", "skipped", "transient", "permanent", "outage", "crash")
CALLS = ("succeeded", "transient", "permanent", "outage", "other")
NOTIFICATIONS = ("sent", "suppressed", "adopted", "transient", "permanent", "outage", "crash")


class Kind(enum.StrEnum):
    """The types of Prometheus."""

    COUNTER = "counter"
    HISTOGRAM = "histogram"
    GAUGE = "gauge"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Metric:
    """One metric of a process."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    outcomes: tuple[str, ...] = ()
    """All values of its last label, `outcome`. The first one that is counted begins all of them at 0."""
    bounds: tuple[float, ...] = ()
    """Upper bounds of a histogram, in seconds."""
    otel: str = ""
    """The name of the same measurement in OpenTelemetry's conventions for messaging; empty if it has none."""


def _counter(name: str, text: str, *labels: str, outcomes: tuple[str, ...] = (), otel: str = "") -> Metric:
    return Metric(name=name, kind=Kind.COUNTER, help=text, labels=labels, outcomes=outcomes, otel=otel)


def _histogram(name: str, text: str, *labels: str, bounds: tuple[float, ...], otel: str = "") -> Metric:
    return Metric(name=name, kind=Kind.HISTOGRAM, help=text, labels=labels, bounds=bounds, otel=otel)


TASK_ATTEMPTS = _counter(
    "orderflow_task_attempts_total",
    "Attempts of tasks that handle messages, by how they ended; one that ends with `outage` spends nothing.",
    "task",
    "outcome",
    outcomes=ATTEMPTS,
    otel="messaging.client.consumed.messages",
)
TASK_DURATION = _histogram(
    "orderflow_task_duration_seconds",
    "How long a task took that has done its work.",
    "task",
    bounds=STEPS,
    otel="messaging.process.duration",
)
QUEUE_WAIT = _histogram(
    "orderflow_queue_wait_seconds",
    "From sending a message to the broker until its task began, for first deliveries; by two clocks.",
    "task",
    bounds=WAITS,
)
CRITICAL_TIME = _histogram(
    "orderflow_message_critical_seconds",
    "From writing a message until one of its workflows had ended; by two clocks.",
    "event",
    bounds=WAITS,
)
PROVIDER_CALLS = _counter(
    "orderflow_provider_calls_total",
    "Calls of a provider by how they ended. `other` are answers such as a declined card.",
    "provider",
    "outcome",
    outcomes=CALLS,
)
PROVIDER_DURATION = _histogram(
    "orderflow_provider_call_duration_seconds",
    "How long a call of a provider took, however it ended.",
    "provider",
    bounds=STEPS,
)
RELAYED = _counter(
    "orderflow_relay_messages_total",
    "Messages and redeliveries that a broker has accepted from this relay.",
    otel="messaging.client.sent.messages",
)
RELAY_BATCH = _histogram(
    "orderflow_relay_batch_seconds",
    "From claiming a batch of messages until each of them was settled.",
    bounds=STEPS,
    otel="messaging.client.operation.duration",
)
POSTPONED = _counter(
    "orderflow_messages_postponed_total", "Messages that the relay could not start and will try again."
)
PARKED = _counter("orderflow_messages_parked_total", "Messages set aside whose event this code cannot read.")
BURIED = _counter(
    "orderflow_messages_buried_total", "Dead letters that this process has written, also again.", "consumer"
)
NOTIFICATION_ATTEMPTS = _counter(
    "orderflow_notification_attempts_total",
    "Tries to deliver a notification by how they ended; `adopted` were found at the provider.",
    "channel",
    "outcome",
    outcomes=NOTIFICATIONS,
)
SIGNALS_LOST = _counter(
    "orderflow_signals_lost_total",
    "Signals that a child process could not hand over to its main process.",
)
POOL_BUSY = Metric(
    name="orderflow_pool_busy",
    kind=Kind.GAUGE,
    help="Tasks that run in the threads or processes of this worker.",
    labels=("pool",),
)
POOL_SIZE = Metric(
    name="orderflow_pool_size",
    kind=Kind.GAUGE,
    help="Threads or processes of this worker that can run tasks.",
    labels=("pool",),
)
CHILDREN = Metric(
    name="orderflow_child_processes",
    kind=Kind.GAUGE,
    help="Child processes of this process: those of a prefork pool, or Gunicorn's workers.",
)
CHILDREN_MEMORY = Metric(
    name="orderflow_child_processes_resident_memory_bytes",
    kind=Kind.GAUGE,
    help="Resident memory of all child processes; pages that they share are counted for each.",
)
CHILDREN_CPU = Metric(
    name="orderflow_child_processes_cpu_seconds_total",
    kind=Kind.COUNTER,
    help="Processor time of all child processes, also of those that have ended.",
)

COUNTED = (
    TASK_ATTEMPTS,
    TASK_DURATION,
    QUEUE_WAIT,
    CRITICAL_TIME,
    PROVIDER_CALLS,
    PROVIDER_DURATION,
    RELAYED,
    RELAY_BATCH,
    POSTPONED,
    PARKED,
    BURIED,
    NOTIFICATION_ATTEMPTS,
    SIGNALS_LOST,
)
"""Metrics that signals count."""

MEASURED = (POOL_BUSY, POOL_SIZE, CHILDREN, CHILDREN_MEMORY, CHILDREN_CPU)
"""Metrics that are read when they are asked for."""

ALL = COUNTED + MEASURED
BY_NAME = {metric.name: metric for metric in ALL}
