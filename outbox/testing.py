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

from outbox import relay

MOST_TASKS = 10_000
"""More than any test means to run; a loop of retries ends here instead of never."""


MOVED_APPS = ("outbox", "orders", "notifications")
FIXED_TABLES = ("orders_ordertransition",)


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
    database refuses to change.
    """
    for model in apps.get_models():
        times = [field.column for field in model._meta.fields if isinstance(field, models.DateTimeField)]
        if model._meta.app_label in MOVED_APPS and model._meta.db_table not in FIXED_TABLES and times:
            moved = ", ".join(f"{column} = {column} - %(span)s" for column in times)
            _execute(f"UPDATE {model._meta.db_table} SET {moved}", span)  # noqa: S608 - our own names


def _let_waits_shrink(span: dt.timedelta) -> None:
    _execute(
        "UPDATE outbox_outboxmessage SET not_before = not_before - %(span)s WHERE status = 'pending'", span
    )
    _execute("UPDATE outbox_attempt SET next_try_at = next_try_at - %(span)s", span)
    if apps.is_installed("orders"):
        _execute(
            "UPDATE orders_order SET due_at = due_at - %(span)s, lease_until = lease_until - %(span)s", span
        )
    if apps.is_installed("notifications"):
        _execute("UPDATE notifications_notification SET lease_until = lease_until - %(span)s", span)


def _execute(statement: str, span: dt.timedelta) -> None:
    values: dict[str, Any] = {"span": span}
    with connection.cursor() as cursor:
        cursor.execute(statement, values)


def _next_message(queues: list[Any]) -> Any:
    return next((message for queue in queues if (message := queue.get())), None)
