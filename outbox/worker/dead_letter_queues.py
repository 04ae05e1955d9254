"""
The broker's own dead letter queues (RabbitMQ only): moves their messages into the dead letter table.

A quorum queue moves a message that was delivered too often to `<queue>.dead`. Every worker declares these
queues, because otherwise such messages would vanish. The relay's worker moves their messages into the table.
"""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Mapping
from typing import Any

from celery import Celery, bootsteps
from celery.worker.consumer.connection import Connection

from outbox import crash_points
from outbox.broker import queues
from outbox.consumer import ConsumerTask
from outbox.database import storable
from outbox.models import DeadLetter
from outbox.worker import unreadable

PAUSE = 1.0
"""Seconds between two checks whether to stop, and before a failed connection is tried again."""

logger = logging.getLogger(__name__)


class Undeliverable(Exception):
    """The broker gave up the message: its deliveries failed too often, or it was rejected."""


class Queues(bootsteps.StartStopStep):
    """
    Declares all queues, with their dead letter queues and delays, before the worker consumes.

    It replaces Celery's step for delayed delivery, which binds the queues of other workers before they are
    declared, as on a new broker, and then reports that there is no delayed delivery.
    """

    requires = (Connection,)

    def include_if(self, c: Any) -> bool:
        return bool(c.app.connection_for_write().transport.driver_type == "amqp")

    def start(self, c: Any) -> None:
        declared = [name for name in c.app.amqp.queues if self._declares(c, name)]
        try:
            queues.declare_delays(c.app, c.connection, declared)
        except c.connection.channel_errors as error:
            logger.critical(
                "Native delayed delivery will not be available: %s. Quick retries cannot be published and wait "
                "in the database instead. Let this account of the broker configure %s*.",
                error,
                queues.DELAYS,
            )

    def _declares(self, c: Any, name: str) -> bool:
        """Declare a queue if possible; a failure for another pool's queue must not stop this worker."""
        try:
            queues.declare(c.app, c.connection, [name])
        except c.connection.channel_errors as error:
            logger.error("The queue %s could not be declared: %s", name, error)
            return False
        return True


def bury_undeliverable(app: Celery, stopping: threading.Event) -> None:
    """Move messages from the dead letter queues into the table until `stopping` is set; raise broker errors."""
    with app.connection_for_read(heartbeat=app.conf.broker_heartbeat) as connection:
        connection.ensure_connection(max_retries=1, interval_start=0)
        outdated = queues.declare_dead(app, connection, list(app.amqp.queues))
        while not stopping.is_set():
            _bury(app, connection, stopping, until_idle=bool(outdated))
            outdated = [queue for queue in outdated if not queues.renew(connection, queue)]


def _bury(app: Celery, connection: Any, stopping: threading.Event, *, until_idle: bool) -> None:
    take = functools.partial(_take, app, stopping)
    consumer = connection.Consumer(
        queues.dead_queues(app, app.amqp.queues),
        on_message=take,
        prefetch_count=10,
        accept=["json"],
        on_decode_error=lambda m, e: take(m),
        auto_declare=False,
    )
    with consumer:
        while not stopping.is_set():
            try:
                connection.drain_events(timeout=PAUSE)
            except TimeoutError:
                connection.heartbeat_check()
                if until_idle:
                    return


def _take(app: Celery, stopping: threading.Event, message: Any) -> None:
    headers = message.headers or {}
    death = _death_of(headers)
    reason = str(death.get("reason") or headers.get("x-first-death-reason") or "unknown")
    task = app.tasks.get(str(headers.get("task") or ""))
    if reason == "expired" and not isinstance(task, ConsumerTask):
        message.ack()  # a tick of beat that is no longer needed
        return
    error = Undeliverable(storable.note(f"{death.get('queue', 'a queue')} gave up the message: {reason}"))
    attempts = _deliveries(app, message, death, reason)
    failure = unreadable.failure_of(message, error, source=DeadLetter.Source.BROKER, attempts=attempts)
    kwargs = failure.payload.get("kwargs")
    note = functools.partial(unreadable.give_up, failure, task if kwargs else None, kwargs)
    while not unreadable.safely(note):  # keep the message: newer brokers drop one that is requeued too often
        if stopping.wait(PAUSE):
            return
    crash_points.reached("broker.dead_letter_kept")
    message.ack()


def _death_of(headers: Mapping[str, Any]) -> Mapping[str, Any]:
    """The broker's record of how the message came here; empty if a person has sent it here."""
    deaths = headers.get("x-death")
    last = deaths[0] if isinstance(deaths, list) and deaths else None
    return last if isinstance(last, Mapping) else {}


def _deliveries(app: Celery, message: Any, death: Mapping[str, Any], reason: str) -> int:
    """
    How often a message was delivered before the broker gave it up, as far as the broker knows.

    If the message reached the limit of its queue, it is the limit plus one. Otherwise RabbitMQ 4 puts the
    number into a header; in older versions that header belongs to the dead letter queue itself.
    """
    queue = app.amqp.queues.get(str(death.get("queue") or ""))
    limit = (queue.queue_arguments or {}).get("x-delivery-limit") if queue else None
    if reason == "delivery_limit" and limit:
        return int(limit) + 1
    counted = message.headers.get("x-delivery-count")
    known = isinstance(counted, int) and queues.limits_deliveries(message.channel.connection.client)
    return max(1, counted) if known else 1
