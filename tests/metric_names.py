"""The metrics that our code exports, with their labels, and the alerts: for tests of what uses them."""

from __future__ import annotations

import functools

from orderflow.alerts import catalogue

NAMES = """
orderflow_up{component}
orderflow_orders_placed_total
orderflow_orders_total{outcome}
orderflow_orders_unfinished{status}
orderflow_order_duration_seconds{outcome} histogram
orderflow_orders_due_total
orderflow_orders_late_total
orderflow_orders_stuck
orderflow_oldest_unfinished_order_seconds
orderflow_outbox_messages{status}
orderflow_outbox_oldest_due_seconds
orderflow_outbox_published_total
orderflow_outbox_drain_seconds
orderflow_message_copies_total{kind}
orderflow_dead_letters_open{consumer,fingerprint}
orderflow_dead_letters_total{consumer}
orderflow_dead_letters_resolved_total{resolution}
orderflow_notifications_total{channel,outcome}
orderflow_attempts_total{consumer,outcome}
orderflow_queue_messages{queue,state}
orderflow_queue_consumers{queue}
orderflow_breaker_open{breaker}
orderflow_breaker_open_seconds{breaker}
orderflow_credentials_refused{provider}
orderflow_periodic_task_age_seconds{task}
orderflow_periodic_task_interval_seconds{task}
orderflow_periodic_task_failing{task}
orderflow_worker_seen_age_seconds{role,pool}
orderflow_workers{role,pool,state}
orderflow_verification_violated
orderflow_verification_age_seconds
orderflow_database_sessions
orderflow_database_sessions_limit
orderflow_database_size_bytes
orderflow_database_size_limit_bytes
orderflow_build_info{version}
orderflow_task_attempts_total{task,outcome}
orderflow_task_duration_seconds{task} histogram
orderflow_queue_wait_seconds{task} histogram
orderflow_message_critical_seconds{event} histogram
orderflow_provider_calls_total{provider,outcome}
orderflow_provider_call_duration_seconds{provider} histogram
orderflow_relay_messages_total
orderflow_relay_batch_seconds histogram
orderflow_messages_postponed_total
orderflow_messages_parked_total
orderflow_messages_buried_total{consumer}
orderflow_notification_attempts_total{channel,outcome}
orderflow_pool_busy{pool}
orderflow_pool_size{pool}
orderflow_signals_lost_total
process_resident_memory_bytes
process_cpu_seconds_total
"""


@functools.cache
def exported() -> dict[str, set[str]]:
    """Return the labels of each series, by its name; a histogram has three series."""
    found: dict[str, set[str]] = {}
    for line in NAMES.split("\n"):
        name, _, labels = line.removesuffix(" histogram").partition("{")
        known = set(filter(None, labels.rstrip("}").split(",")))
        if line.endswith(" histogram"):
            found[f"{name}_bucket"] = {*known, "le"}
            found |= {f"{name}_count": known, f"{name}_sum": known}
        elif name:
            found[name] = known
    return found


@functools.cache
def alerts() -> set[str]:
    """Return the names of the alerts."""
    return {alert.name for alert in (*catalogue.SYMPTOMS, *catalogue.CAUSES)}
