"""The series of a healthy system, for promtool's unit tests, in its notation: start, step, number of steps."""

from __future__ import annotations

HOUR = 60
"""Samples in an hour: one a minute is enough for the windows of the rules, and quick to evaluate."""

TASK = 'orderflow_task_attempts_total{task="orders.tasks.charge",outcome="%s"}'
CRITICAL = 'orderflow_message_critical_seconds_bucket{event="orders.order_placed",le="%s"}'
SWEEP = 'orderflow_periodic_task_%s{task="orders.tasks.sweep"}'
VERIFY = 'orderflow_periodic_task_%s{task="outbox.tasks.verify"}'
SEEN = 'orderflow_worker_seen_age_seconds{role="%s",pool="%s"}'

ALWAYS = f"x{2 * HOUR}"


def constant(value: float) -> str:
    return f"{value:g}{ALWAYS}"


def growing(step: float, *, start: float = 0) -> str:
    return f"{start:g}+{step:g}{ALWAYS}"


HEALTHY = {
    'up{job="orderflow-processes",instance="orders"}': constant(1),
    'orderflow_up{component="database"}': constant(1),
    'orderflow_up{component="broker"}': constant(1),
    'orderflow_up{component="redis"}': constant(1),
    "orderflow_orders_stuck": constant(0),
    "orderflow_orders_due_total": growing(30),
    "orderflow_orders_late_total": constant(0),
    CRITICAL % "1": growing(29),
    CRITICAL % "60": growing(30),
    CRITICAL % "300": growing(30),
    CRITICAL % "+Inf": growing(30),
    "orderflow_outbox_oldest_due_seconds": constant(0.1),
    TASK % "succeeded": growing(30),
    TASK % "transient": growing(0.5),
    TASK % "outage": constant(0),
    'orderflow_notifications_total{channel="sms",outcome="sent"}': growing(10),
    'orderflow_notifications_total{channel="sms",outcome="failed"}': constant(0),
    'orderflow_breaker_open_seconds{breaker="sms"}': constant(0),
    'orderflow_credentials_refused{provider="sms"}': constant(0),
    'orderflow_queue_consumers{queue="sms"}': constant(1),
    SEEN % ("worker", "sms"): constant(4),
    SEEN % ("relay", "relay"): constant(4),
    SEEN % ("beat", "beat"): constant(4),
    SWEEP % "age_seconds": constant(1),
    SWEEP % "interval_seconds": constant(1),
    SWEEP % "failing": constant(0),
    "orderflow_verification_violated": constant(0),
    "orderflow_verification_age_seconds": constant(1800),
    "orderflow_database_size_bytes": constant(10e9),
    "orderflow_database_size_limit_bytes": constant(0),
}
"""Two hours of a system without dead letters."""
