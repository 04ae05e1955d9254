"""The metrics of rows, broker and Redis: name, type, labels with their bounds, help and source."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Literal

Kind = Literal["counter", "gauge", "histogram"]

TASK = "names of tasks that the code registers"
QUEUE = "the queues of celeryconfig.py"
CONSUMER = "names of tasks and of the relay; beyond 100 combinations `other`"
POOL = "the pools of workers that were seen in the last day"
DATABASE, BROKER, REDIS = "database", "broker", "redis"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Metric:
    """One metric. `labels` says for each label what its values are, which must be a bounded number of them."""

    name: str
    kind: Kind
    help: str
    source: str
    labels: Mapping[str, str | Sequence[str]] = dataclasses.field(default_factory=dict)
    unit: str = ""
    opentelemetry: str = ""
    """The metric of OpenTelemetry's conventions that means the same, if there is one."""


@dataclasses.dataclass(frozen=True)
class Value:
    """A value of a metric; `labels` are in the order of the metric's labels."""

    value: float
    labels: tuple[str, ...] = ()
    buckets: Sequence[tuple[str, int]] = ()
    """Of a histogram: upper bounds, and how many values are not above them. `value` is the sum."""


Readings = dict[str, list[Value]]
"""By the name of a metric. A metric without an entry is not known now, and is not exported."""


COMPONENTS = (DATABASE, BROKER, REDIS)
OUTCOMES = ("fulfilled", "rejected", "cancelled")
UNFINISHED = ("placed", "validated", "charge_unknown", "charged", "cancelling")
CHANNELS = ("email", "sms", "push")
ATTEMPT_OUTCOMES = ("retried", "postponed", "waited", "lost", "buried")
RESOLUTIONS = ("recovered", "replayed", "discarded")


def _counter(name: str, help: str, source: str, **known: object) -> Metric:  # noqa: A002
    return Metric(name=name, kind="counter", help=help, source=source, **known)  # type: ignore[arg-type]


def _gauge(name: str, help: str, source: str, **known: object) -> Metric:  # noqa: A002
    return Metric(name=name, kind="gauge", help=help, source=source, **known)  # type: ignore[arg-type]


METRICS = [
    _gauge(
        "orderflow_up",
        "Whether the component answers. What it would say is absent while it does not.",
        "one query each",
        labels={"component": COMPONENTS},
    ),
    _gauge("orderflow_build_info", "Always 1.", "ORDERFLOW_RELEASE", labels={"version": "one"}),
    # Orders
    _counter("orderflow_orders_placed_total", "Orders that were placed.", "orders_ordertransition"),
    _counter(
        "orderflow_orders_total",
        "Orders that became final.",
        "orders_ordertransition",
        labels={"outcome": OUTCOMES},
    ),
    _gauge(
        "orderflow_orders_unfinished",
        "Orders with work left to do.",
        "orders_order",
        labels={"status": UNFINISHED},
    ),
    Metric(
        name="orderflow_order_duration_seconds",
        kind="histogram",
        help="From placing an order until it was final.",
        source="orders_ordertransition, orders_order",
        labels={"outcome": OUTCOMES},
        unit="seconds",
    ),
    _counter(
        "orderflow_orders_due_total",
        "Orders for which the time of the objective is over; read a sixth of that time later.",
        "orders_ordertransition, orders_order",
    ),
    _counter(
        "orderflow_orders_late_total",
        "Those of orderflow_orders_due_total that were not final within ORDER_OBJECTIVE_SECONDS.",
        "orders_ordertransition, orders_order",
    ),
    _gauge(
        "orderflow_orders_stuck",
        "Unfinished orders whose next step is overdue although the sweep should have resumed them.",
        "orders_order.due_at",
    ),
    _gauge(
        "orderflow_oldest_unfinished_order_seconds",
        "Since when the oldest unfinished order was placed; 0 if there is none.",
        "orders_order",
        unit="seconds",
    ),
    # Messages
    _gauge(
        "orderflow_outbox_messages",
        "Messages, and redeliveries to one workflow, that the relay still has to deliver (pending), that this"
        " code cannot read (parked), or that the relay gave up (buried).",
        "outbox_outboxmessage, outbox_delivery",
        labels={"status": ("pending", "parked", "buried")},
    ),
    _gauge(
        "orderflow_outbox_oldest_due_seconds",
        "For how long the oldest message, or redelivery to one workflow, has been due; 0 if none is.",
        "outbox_outboxmessage, outbox_delivery",
        unit="seconds",
    ),
    _counter(
        "orderflow_outbox_published_total",
        "Messages that a broker has accepted. A redelivery of the whole message counts again.",
        "outbox_outboxmessage.published_at",
        opentelemetry="messaging.client.sent.messages",
    ),
    _gauge(
        "orderflow_outbox_drain_seconds",
        "Due messages, divided by the rate of publications in the last minute; +Inf if there were none.",
        "outbox_outboxmessage",
        unit="seconds",
    ),
    _counter(
        "orderflow_message_copies_total",
        "Copies beyond the first: asked for by a failed try (redelivery), or because a worker was lost (lost)."
        " What a sweep resumes leaves no row: see the signals of the sweeps.",
        "outbox_attempt",
        labels={"kind": ("redelivery", "lost")},
    ),
    _counter(
        "orderflow_attempts_total",
        "Failed tries of consumers and of the relay, by what followed.",
        "outbox_attempt",
        labels={"consumer": CONSUMER, "outcome": ATTEMPT_OUTCOMES},
    ),
    # Dead letters
    _gauge(
        "orderflow_dead_letters_open",
        "Dead letters that wait for a person: the 20 largest groups, all others under `other`.",
        "outbox_deadletter",
        labels={"consumer": "of the 20 groups", "fingerprint": "20, and `other`"},
    ),
    _counter(
        "orderflow_dead_letters_total",
        "Dead letters that were buried.",
        "outbox_deadletter",
        labels={"consumer": CONSUMER},
    ),
    _counter(
        "orderflow_dead_letters_resolved_total",
        "Dead letters that recovered or were discarded.",
        "outbox_deadletter",
        labels={"resolution": RESOLUTIONS},
    ),
    # Notifications
    _counter(
        "orderflow_notifications_total",
        "Notifications that were sent, suppressed or given up. One that was given up may be sent later, and"
        " then counts under both.",
        "notifications_notification, outbox_attempt",
        labels={"channel": CHANNELS, "outcome": ("sent", "suppressed", "failed")},
    ),
    # Queues
    _gauge(
        "orderflow_queue_messages",
        "Messages in a queue, and messages that workers have taken and not acknowledged.",
        "Redis: LLEN and the hashes of unacknowledged messages. RabbitMQ: a passive declaration; unacknowledged"
        " only with RABBITMQ_API_URL",
        labels={"queue": QUEUE, "state": ("ready", "unacknowledged")},
    ),
    _gauge(
        "orderflow_queue_consumers",
        "Consumers of a queue.",
        "RabbitMQ: a passive declaration. Redis: heartbeats of workers, in the database",
        labels={"queue": QUEUE},
    ),
    # Providers
    _gauge(
        "orderflow_breaker_open",
        "Whether calls of the provider are suspended or being probed.",
        "Redis",
        labels={"breaker": "the providers"},
    ),
    _gauge(
        "orderflow_breaker_open_seconds",
        "Since when the breaker has been open; 0 if it is closed.",
        "Redis",
        labels={"breaker": "the providers"},
        unit="seconds",
    ),
    _gauge(
        "orderflow_credentials_refused",
        "Whether the provider refuses our credentials or another setting.",
        "Redis",
        labels={"provider": "the providers"},
    ),
    # Processes
    _gauge(
        "orderflow_periodic_task_age_seconds",
        "Since when a periodic task was last done; absent if it never was.",
        "outbox_periodicrun",
        labels={"task": TASK},
        unit="seconds",
    ),
    _gauge(
        "orderflow_periodic_task_interval_seconds",
        "How often a periodic task is to be done.",
        "the code",
        labels={"task": TASK},
        unit="seconds",
    ),
    _gauge(
        "orderflow_periodic_task_failing",
        "Whether the last run of a periodic task failed.",
        "outbox_periodicrun",
        labels={"task": TASK},
    ),
    _gauge(
        "orderflow_worker_seen_age_seconds",
        "Since when the least recently seen process of a pool was seen, among those that are alive or gone.",
        "outbox_heartbeat",
        labels={"role": ("worker", "relay", "beat"), "pool": POOL},
        unit="seconds",
    ),
    _gauge(
        "orderflow_workers",
        "Processes of a pool. One that is gone did not end in order, and none took its place.",
        "outbox_heartbeat",
        labels={"role": ("worker", "relay", "beat"), "pool": POOL, "state": ("alive", "gone")},
    ),
    # Verification and database
    _gauge(
        "orderflow_verification_violated",
        "Invariants that did not pass in the last verification.",
        "outbox_verification",
    ),
    _gauge(
        "orderflow_verification_age_seconds",
        "Since when the last verification was run; absent if none was.",
        "outbox_verification",
        unit="seconds",
    ),
    _gauge("orderflow_database_sessions", "Sessions on the database.", "pg_stat_activity"),
    _gauge(
        "orderflow_database_sessions_limit",
        "Sessions that the server allows to ordinary roles.",
        "max_connections, without those reserved",
    ),
    _gauge("orderflow_database_size_bytes", "The size of the database.", "pg_database_size", unit="bytes"),
    _gauge(
        "orderflow_database_size_limit_bytes",
        "The size that the database may reach; 0: no limit is set.",
        "DATABASE_SIZE_LIMIT",
        unit="bytes",
    ),
]

BY_NAME = {metric.name: metric for metric in METRICS}
