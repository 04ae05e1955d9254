"""
Test helpers for every app: process published messages with the real broker and without a worker.

`drain` relays due messages, takes them off the broker's queues one by one and runs them through Celery's own
tracer, so serialization, headers, chains and retries are real. It does not wait for countdowns, so retries are
quick and tests are deterministic.
"""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from celery import Celery, current_app, signals
from celery.app.trace import build_tracer
from django.apps import apps
from django.db import connection, models

from outbox import periodic, tasks
from outbox.conf import settings
from outbox.models import QueueWatch
from outbox.relay import probes, relay

MOST_TASKS = 10_000
"""More tasks than any test needs; ends endless retries."""


_fixed: set[str] = {"outbox_restore"}
"""Tables whose times never change: they are compared with those of the database, or it refuses changes."""

_waits: dict[str, tuple[str, ...]] = {}
"""Tables of apps, and their columns that say until when a row waits."""


PERIODIC = (tasks.drain, tasks.sweep, tasks.unpark)
"""Imported here, because a test knows only the tasks that were imported; workers know all."""


class NeverQuiet(AssertionError):
    """The queues never became empty: a task publishes itself again without end."""


def register(
    *, waits: Mapping[type[models.Model], Sequence[str]] | None = None, fixed: Iterable[type[models.Model]] = ()
) -> None:
    """
    Register what tests must know of an app's times.

    `waits` lists columns that say until when a row waits: `drain(redeliveries=True)` lets these times pass.
    `fixed` lists models whose rows the database refuses to change: `pass_time` leaves them alone.
    """
    _waits.update((model._meta.db_table, tuple(columns)) for model, columns in (waits or {}).items())
    _fixed.update(model._meta.db_table for model in fixed)


def drain(*, app: Celery | None = None, redeliveries: bool = False) -> list[str]:
    """
    Relay and run messages until the outbox and all queues are empty; return the names of the tasks that ran.

    With `redeliveries`, messages that wait for a later delivery are delivered as well.
    """
    app = app or current_app
    ran: list[str] = []
    with app.connection_for_read() as broker, _recording_tasks(ran):
        queues = [queue(broker.default_channel) for queue in app.amqp.queues.values()]
        while True:
            if redeliveries:
                _let_waits_shrink(dt.timedelta(days=1))
            relayed = relay.drain()
            before = len(ran)
            while message := _next_message(queues):
                run(message, app=app)
                if len(ran) > MOST_TASKS:
                    raise NeverQuiet(f"{MOST_TASKS} tasks, the last ones {ran[-5:]}")
            if not relayed.published and len(ran) == before:
                return ran


@contextlib.contextmanager
def _recording_tasks(names: list[str]) -> Iterator[None]:
    """Record the tasks that run, including those that run inline after another one."""

    def record(sender: Any, **_: Any) -> None:
        names.append(sender.name)

    signals.task_prerun.connect(record)
    try:
        yield
    finally:
        signals.task_prerun.disconnect(record)


def run(message: Any, *, app: Celery | None = None, redelivered: bool = False) -> str:
    """Run one message from the broker as a worker would, acknowledge it, and return the task's name."""
    app = app or current_app
    name, task_id = message.headers["task"], message.headers["id"]
    args, kwargs, embed = message.decode()
    task = app.tasks[name]
    request = {
        **message.headers,
        **(embed or {}),
        "args": args,
        "kwargs": kwargs,
        "properties": message.properties,
        "reply_to": message.properties.get("reply_to"),
        "correlation_id": message.properties.get("correlation_id"),
        "hostname": "test@drain",
        "is_eager": False,
        "delivery_info": {**message.delivery_info, "redelivered": redelivered},
    }
    build_tracer(name, task, app=app)(task_id, args, kwargs, request)
    message.ack()
    return str(name)


def purge(*, app: Celery | None = None) -> None:
    """Empty all queues."""
    app = app or current_app
    with app.connection_for_write() as broker:
        for queue in app.amqp.queues.values():
            bound = queue(broker.default_channel)
            bound.declare()
            bound.purge()


def pass_time(span: dt.timedelta) -> None:
    """
    Let `span` pass for everything in the database that waits for a time or depends on its age.

    Moves all times of the project's apps into the past, except in tables that the database protects. Periodic
    tasks count as done during that time: tests that need one call it themselves.
    """
    moved_apps = {"outbox", *settings.PROJECT_PACKAGES}
    for model in apps.get_models():
        times = [field.column for field in model._meta.fields if isinstance(field, models.DateTimeField)]
        if model is QueueWatch:
            times.remove("looked_at")  # as if the queues had been watched without a break
        if model._meta.app_config.name in moved_apps and model._meta.db_table not in _fixed and times:
            _move(model._meta.db_table, times, span=span)
    do_periodic_tasks()


def do_periodic_tasks() -> None:
    """Record all periodic tasks as done now, without running them."""
    _execute(
        """
        INSERT INTO outbox_periodicrun (name, first_began_at, last_began_at, last_ended_at, last_error)
        SELECT name, statement_timestamp(), statement_timestamp(), statement_timestamp(), ''
        FROM unnest(%(names)s::text[]) AS known (name)
        ON CONFLICT (name) DO UPDATE
        SET last_began_at = excluded.last_began_at, last_ended_at = excluded.last_ended_at, last_error = ''
        """,
        names=periodic.expected()["names"],
    )


def sweep_for(span: dt.timedelta, *, step: dt.timedelta = dt.timedelta(seconds=5)) -> list[str]:
    """Let `span` pass in steps, each followed by a sweep and a drain; return the tasks that ran."""
    ran: list[str] = []
    for _ in range(round(span / step)):
        pass_time(step)
        probes.sweep()
        ran += drain()
    return ran


def _let_waits_shrink(span: dt.timedelta) -> None:
    _execute(
        "UPDATE outbox_outboxmessage SET not_before = not_before - %(span)s WHERE status = 'pending'",
        span=span,
    )
    _execute(
        "UPDATE outbox_delivery SET not_before = not_before - %(span)s WHERE status = 'waiting'", span=span
    )
    _execute("UPDATE outbox_attempt SET next_try_at = next_try_at - %(span)s", span=span)
    for table, columns in _waits.items():
        _move(table, columns, span=span)


def _move(table: str, columns: Iterable[str | None], *, span: dt.timedelta) -> None:
    moved = ", ".join(f"{column} = {column} - %(span)s" for column in columns)
    _execute(f"UPDATE {table} SET {moved}", span=span)  # noqa: S608 - our own names


def _execute(statement: str, **values: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement, values)


def _next_message(queues: list[Any]) -> Any:
    return next((message for queue in _filled(queues) if (message := queue.get())), None)


def _filled(queues: list[Any]) -> list[Any]:
    """The queues that may have a message. One query to Redis for all lengths is faster than one per queue."""
    if not queues or not hasattr(queues[0].channel, "priority_steps"):  # RabbitMQ
        return queues
    channel, steps = queues[0].channel, queues[0].channel.priority_steps
    with channel.conn_or_acquire() as client, client.pipeline(transaction=False) as pipeline:
        for queue in queues:
            for step in steps:
                pipeline.llen(channel._q_for_pri(queue.name, step))
        lengths = pipeline.execute()
    return [queue for number, queue in enumerate(queues) if any(lengths[number * len(steps) :][: len(steps)])]
