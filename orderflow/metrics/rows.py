"""Gauges from the database: what is the case now. Each function costs one query."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Any

from celery import current_app
from django.conf import settings
from django.db import OperationalError, connection
from psycopg.errors import QueryCanceled

from orderflow.metrics import counters
from orderflow.metrics.descriptions import UNFINISHED, Readings, Value
from outbox import periodic, processes, schedule
from outbox.statistics import totals

STATEMENT_TIMEOUT = "3s"
"""A scrape must not keep the database busy for longer. What cannot be read in time is absent."""

STUCK_AFTER = schedule.SWEEP_INTERVAL + 15.0
"""Seconds after its time when an order counts as stuck: the sweep runs every second, and a deployment may
restart its worker."""

LARGEST_GROUPS = 20

OTHER = "other"

logger = logging.getLogger(__name__)


def read() -> Readings:
    """
    Return everything that the database knows, from one snapshot.

    If a query takes longer than `STATEMENT_TIMEOUT`, what it and later ones would say is absent: a database
    that is slow with one of them is not down.

    Raises:
        django.db.Error: if the database does not answer.
    """
    readings = Readings()
    try:
        with totals.snapshot():
            with connection.cursor() as cursor:
                cursor.execute(f"SET LOCAL statement_timeout = '{STATEMENT_TIMEOUT}'")
            for part in PARTS:
                readings |= part()
    except OperationalError as error:
        if not (readings and isinstance(error.__cause__, QueryCanceled)):
            raise
        logger.warning("metrics of the database are incomplete: a query took longer than %s", STATEMENT_TIMEOUT)
    return readings


def _one(sql: str, values: dict[str, Any] | None = None) -> tuple[Any, ...] | None:
    with connection.cursor() as cursor:
        cursor.execute(sql, values)
        row: tuple[Any, ...] | None = cursor.fetchone()
    return row


def _all(sql: str, values: dict[str, Any] | None = None) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(sql, values)
        return list(cursor.fetchall())


def _orders() -> Readings:
    rows = _all(
        """
        SELECT status, count(*), extract(epoch FROM statement_timestamp() - min(placed_at))::float8,
            count(*) FILTER (WHERE due_at < statement_timestamp() - make_interval(secs => %(stuck)s))
        FROM orders_order WHERE due_at IS NOT NULL GROUP BY status
        """,
        {"stuck": STUCK_AFTER},
    )
    numbers = dict.fromkeys(UNFINISHED, 0) | {status: number for status, number, _, _ in rows}
    oldest = max((age for _, _, age, _ in rows), default=0.0)
    return {
        "orderflow_orders_unfinished": [Value(number, (status,)) for status, number in numbers.items()],
        "orderflow_oldest_unfinished_order_seconds": [Value(max(0.0, oldest))],
        "orderflow_orders_stuck": [Value(sum(stuck for _, _, _, stuck in rows))],
    }


def _outbox() -> Readings:
    row = _one(
        """
        SELECT pending.number, pending.due, waiting.number, waiting.due,
            (SELECT count(*) FROM outbox_outboxmessage WHERE status = 'parked'),
            (SELECT count(*) FROM outbox_outboxmessage WHERE status = 'buried'),
            greatest(
                0, extract(epoch FROM statement_timestamp() - least(pending.oldest, waiting.oldest))
            )::float8,
            (SELECT count(*) FROM outbox_outboxmessage
             WHERE status = 'published' AND published_at > statement_timestamp() - interval '1 minute')
        FROM (
            SELECT count(*) AS number, count(*) FILTER (WHERE not_before <= statement_timestamp()) AS due,
                min(not_before) AS oldest
            FROM outbox_outboxmessage WHERE status = 'pending'
        ) AS pending, (
            SELECT count(*) AS number, count(*) FILTER (WHERE not_before <= statement_timestamp()) AS due,
                min(not_before) AS oldest
            FROM outbox_delivery WHERE status = 'waiting'
        ) AS waiting
        """
    )
    assert row is not None
    pending, due, waiting, waiting_due, parked, buried, oldest, last_minute = row
    due += waiting_due
    drain = 0.0 if not due else 60.0 * due / last_minute if last_minute else math.inf
    numbers = {"pending": pending + waiting, "parked": parked, "buried": buried}
    return {
        "orderflow_outbox_messages": [Value(number, (status,)) for status, number in numbers.items()],
        "orderflow_outbox_oldest_due_seconds": [Value(oldest or 0.0)],
        "orderflow_outbox_drain_seconds": [Value(drain)],
    }


def _dead_letters() -> Readings:
    groups = _all(
        """
        SELECT consumer, fingerprint, count(*) FROM outbox_deadletter WHERE resolution = 'open'
        GROUP BY 1, 2 ORDER BY 3 DESC, 1, 2
        """
    )
    shown = [Value(number, (consumer, group)) for consumer, group, number in groups[:LARGEST_GROUPS]]
    if others := sum(number for _, _, number in groups[LARGEST_GROUPS:]):
        shown.append(Value(others, (OTHER, OTHER)))
    return {"orderflow_dead_letters_open": shown}


def _verification() -> Readings:
    row = _one(
        """
        SELECT extract(epoch FROM statement_timestamp() - ran_at)::float8, findings, passed
        FROM outbox_verification ORDER BY ran_at DESC, id DESC LIMIT 1
        """
    )
    if row is None:
        return {}
    age, findings, passed = row
    failed = 0 if passed else sum(finding["verdict"] not in PASSING for finding in _json(findings))
    return {
        "orderflow_verification_age_seconds": [Value(age)],
        "orderflow_verification_violated": [Value(failed)],
    }


PASSING = ("ok", "not comparable")


def _json(value: Any) -> Any:
    """A column of JSON, which a plain cursor returns as text."""
    import json

    return json.loads(value) if isinstance(value, str) else value


def _database() -> Readings:
    row = _one(
        """
        SELECT (SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()),
            current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
                - coalesce(current_setting('reserved_connections', TRUE)::int, 0),
            pg_database_size(current_database())
        """
    )
    assert row is not None
    sessions, limit, size = row
    return {
        "orderflow_database_sessions": [Value(sessions)],
        "orderflow_database_sessions_limit": [Value(limit)],
        "orderflow_database_size_bytes": [Value(size)],
        "orderflow_database_size_limit_bytes": [Value(settings.DATABASE_SIZE_LIMIT)],
    }


def _periodic_tasks() -> Readings:
    found = periodic.standings()
    return {
        "orderflow_periodic_task_age_seconds": [
            Value(max(0.0, one.seconds_ago), (one.name,)) for one in found if one.seconds_ago is not None
        ],
        "orderflow_periodic_task_interval_seconds": [
            Value(one.every.total_seconds(), (one.name,)) for one in found
        ],
        "orderflow_periodic_task_failing": [Value(float(bool(one.error)), (one.name,)) for one in found],
    }


def _processes() -> Readings:
    found = processes.standings()
    return {
        "orderflow_worker_seen_age_seconds": [
            Value(one.oldest_seen_seconds, (one.role, one.pool))
            for one in found
            if one.oldest_seen_seconds is not None
        ],
        "orderflow_workers": [
            Value(number, (one.role, one.pool, state))
            for one in found
            for state, number in (("alive", one.alive), ("gone", one.gone))
        ],
    }


def _consumers() -> Readings:
    """The consumers of a Redis queue, which Redis does not know. RabbitMQ does: see `broker`."""
    if not settings.BROKER_URL.startswith("redis"):
        return {}
    found = processes.queues_with_consumers()
    return {
        "orderflow_queue_consumers": [Value(found.get(queue, 0), (queue,)) for queue in current_app.amqp.queues]
    }


PARTS: list[Callable[[], Readings]] = [
    _orders,
    _outbox,
    _dead_letters,
    _verification,
    _database,
    _periodic_tasks,
    _processes,
    _consumers,
    counters.read,  # last, because it may take longest
]
