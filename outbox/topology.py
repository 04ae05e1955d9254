"""
The broker's own dead letter queues (RabbitMQ only), and the way from them into the dead letter table.

A quorum queue moves a message whose delivery has failed too often to `<queue>.dead`. Every worker
declares that queue for what it consumes, or such messages would vanish; nobody works on it. The relay's
worker empties all of them into the table, where people look.
"""

from __future__ import annotations

import functools
import logging
import threading
from typing import Any

from celery import Celery, bootsteps
from celery.worker.consumer.connection import Connection
from kombu import Exchange, Queue

from outbox import crash_points, letters
from outbox.consumer import ConsumerTask
from outbox.models import DeadLetter

PAUSE = 1.0
"""Seconds between two looks at whether to stop, and before a failed connection is tried again."""

logger = logging.getLogger(__name__)


class Undeliverable(Exception):
    """The broker gave the message up: its deliveries failed too often, or it was rejected."""


class DeadQueues(bootsteps.StartStopStep):
    """
    Declares the dead letter queues of what this worker consumes, before it consumes.

    And the exchanges of all queues: Celery binds each to those of its delayed delivery, and gives up with
    a loud complaint at the first that nobody has declared yet, as on a new broker.
    """

    requires = (Connection,)

    def start(self, c: Any) -> None:
        for queue in c.app.amqp.queues.values():
            queue.exchange(c.connection.default_channel).declare()
        for queue in dead_queues(c.app, c.app.amqp.queues.consume_from):
            queue(c.connection.default_channel).declare()


def dead_queues(app: Celery, names: Any) -> list[Queue]:
    """The dead letter queues that the queues `names` name; none where the broker knows no such thing."""
    found = []
    for name in names:
        arguments = app.amqp.queues[name].queue_arguments or {}
        if target := arguments.get("x-dead-letter-routing-key"):
            found.append(
                Queue(
                    target,
                    Exchange(""),
                    routing_key=target,
                    queue_arguments={"x-queue-type": arguments.get("x-queue-type", "classic")},
                )
            )
    return found


def bury_undeliverable(app: Celery, stopping: threading.Event) -> None:
    """Move messages from the dead letter queues into the table until told to stop; broker errors end it."""
    with app.connection_for_read(heartbeat=app.conf.broker_heartbeat) as link:
        link.ensure_connection(max_retries=1, interval_start=0)
        queues = dead_queues(app, list(app.amqp.queues))
        take = functools.partial(_take, app, stopping)
        consumer = link.Consumer(
            queues, on_message=take, prefetch_count=10, accept=["json"], on_decode_error=lambda m, e: take(m)
        )
        with consumer:
            while not stopping.is_set():
                try:
                    link.drain_events(timeout=PAUSE)
                except TimeoutError:
                    link.heartbeat_check()


def _take(app: Celery, stopping: threading.Event, message: Any) -> None:
    headers = message.headers or {}
    death = next(iter(headers.get("x-death") or [{}]))
    reason = str(death.get("reason") or headers.get("x-first-death-reason") or "unknown")
    task = app.tasks.get(headers.get("task") or "")
    if reason == "expired" and not isinstance(task, ConsumerTask):
        message.ack()  # a tick of the clock that nobody needs any more
        return
    error = Undeliverable(f"{death.get('queue', 'a queue')} gave the message up: {reason}")
    failure = letters.failure_of(message, error, source=DeadLetter.Source.BROKER, attempts=_deliveries(headers))
    kwargs = failure.payload.get("kwargs")
    note = functools.partial(letters.bury, failure, task if kwargs else None, kwargs)
    while not letters.safely(note):  # held meanwhile: newer brokers drop what is handed back too often
        if stopping.wait(PAUSE):
            return
    crash_points.reached("broker.letter_kept")
    message.ack()


def _deliveries(headers: Any) -> int:
    try:
        return int(headers.get("x-delivery-count", 0)) + 1
    except (TypeError, ValueError):
        return 1
