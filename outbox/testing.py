"""
For every app's tests: work off what is published, with the real broker and no worker process.

`drain` relays what is due, takes the messages off the broker's queues one by one and runs them through
Celery's own tracer, so that serialization, headers, chains and retries are the real ones. Countdowns
are not waited for, which makes retries quick and tests deterministic.
"""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Iterator
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
"""More than any test means to run; a loop of retries ends here instead of never."""


FIXED_TABLES = ("orders_ordertransition", "outbox_restore")
"""The database refuses to change the one, and the other is compared with it."""


PERIODIC = (tasks.drain, tasks.sweep, tasks.unpark)
"""Of the outbox: workers know all tasks, a test only what it has imported."""


class NeverQuiet(AssertionError):
    """Work kept coming: something publishes itself again without end."""


def drain(*, app: Celery | None = None, redeliveries: bool = False) -> list[str]:
    """
    Relay and run until the outbox and all queues are empty; return the names of the tasks that ran.

    With `redeliveries`, messages that wait for a later delivery are delivered too, as if their time had come.
    """
    app = app or current_app
    ran: list[str] = []
    with app.connection_for_read() as link, _noting_tasks(ran):
        queues = [queue(link.default_channel) for queue in app.amqp.queues.values()]
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
def _noting_tasks(names: list[str]) -> Iterator[None]:
    """Note the tasks that run, also those that follow another one in its process."""

    def note(sender: Any, **_: Any) -> None:
        names.append(sender.name)

    signals.task_prerun.connect(note)
    try:
        yield
    finally:
        signals.task_prerun.disconnect(note)


def run(message: Any, *, app: Celery | None = None, redelivered: bool = False) -> str:
    """Run one message of the broker as a worker would, and acknowledge it; return the task's name."""
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
    with app.connection_for_write() as link:
        for queue in app.amqp.queues.values():
            bound = queue(link.default_channel)
            bound.declare()
            bound.purge()


def pass_time(span: dt.timedelta) -> None:
    """
    Let `span` pass for everything in the database that waits for a time, or is judged by its age.

    All times of the project's apps move into the past together, but for those of the past that the
    database refuses to change. Periodic tasks count as done all the while: tests that let time pass call
    what they do themselves.
    """
    moved_apps = {"outbox", *settings.PROJECT_PACKAGES}
    for model in apps.get_models():
        times = [field.column for field in model._meta.fields if isinstance(field, models.DateTimeField)]
        if model is QueueWatch:
            times.remove("looked_at")  # as if the queues had been watched all the time
        if model._meta.app_config.name in moved_apps and model._meta.db_table not in FIXED_TABLES and times:
            moved = ", ".join(f"{column} = {column} - %(span)s" for column in times)
            _execute(f"UPDATE {model._meta.db_table} SET {moved}", span=span)  # noqa: S608 - our own names
    do_periodic_tasks()


def do_periodic_tasks() -> None:
    """Note all periodic tasks as done just now, without doing them."""
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
    """Let `span` pass in steps, with the outbox's sweep and a drain after each; return the tasks that ran."""
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
    if apps.is_installed("orders"):
        _execute(
            "UPDATE orders_order SET due_at = due_at - %(span)s, lease_until = lease_until - %(span)s",
            span=span,
        )
    if apps.is_installed("notifications"):
        _execute("UPDATE notifications_notification SET lease_until = lease_until - %(span)s", span=span)


def _execute(statement: str, **values: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement, values)


def _next_message(queues: list[Any]) -> Any:
    return next((message for queue in _filled(queues) if (message := queue.get())), None)


def _filled(queues: list[Any]) -> list[Any]:
    """The queues that may have a message: Redis tells all lengths at once, far quicker than queue by queue."""
    if not queues or not hasattr(queues[0].channel, "priority_steps"):  # RabbitMQ
        return queues
    channel, steps = queues[0].channel, queues[0].channel.priority_steps
    with channel.conn_or_acquire() as client, client.pipeline(transaction=False) as asked:
        for queue in queues:
            for step in steps:
                asked.llen(channel._q_for_pri(queue.name, step))
        lengths = asked.execute()
    return [queue for number, queue in enumerate(queues) if any(lengths[number * len(steps) :][: len(steps)])]
