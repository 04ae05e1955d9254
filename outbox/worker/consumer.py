"""
The worker's consumer, guarded against messages that would stop it. `request` contains its requests.

A stock worker exits, hangs or silently drops a message if the message is malformed, unknown or revoked, if a
task runs out of memory, or if a retry finds no broker. Here each of these results in one dead letter, or in one
redelivery from the database, and the worker continues. A message that is given up is acknowledged, not
rejected: a rejected message would return through the broker's own dead letter queue.

Everything here runs in the worker's main process. It never raises, and it closes its database connection after
each use, because children are forked from this process.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any, ClassVar

from celery import signals
from celery.exceptions import InvalidTaskError, NotRegistered
from celery.worker.consumer import Consumer
from kombu.common import ignore_errors

from outbox import crash_points
from outbox.worker import liveness, validation
from outbox.worker.unreadable import failure_of, failure_of_item, give_up, safely

GUARDED_REQUEST = "outbox.worker.request:GuardedRequest"

LONGEST_RECONNECT_WAIT = 1.0
"""Seconds between two tries to connect to the broker; Celery's own waits grow to 30."""

KEEP_AGAIN = 5.0
"""Seconds until a dead letter is written again if the database was down. Its message stays unacknowledged, so
the broker keeps it if the worker ends."""

CONTROL = ".celery.pidbox"
"""The suffix of the queues of control commands."""

EVENTS_SENT_WITHIN = 0.5
"""Seconds after which task events are sent to Flower, or as soon as there are 100 of them (see `events`).
Celery sends them in every iteration of the worker's loop, which takes half of the main process's time."""

logger = logging.getLogger(__name__)


class GuardedConsumer(Consumer):
    """Celery's consumer. It survives any message and stores invalid ones as dead letters."""

    call_soon_ack: Any
    connection_errors: Any
    channel_errors: Any
    event_dispatcher: Any
    hub: Any
    pool: Any
    _flush_events: Any

    class Blueprint(Consumer.Blueprint):  # type: ignore[misc, valid-type]
        default_steps: ClassVar = [
            step for step in Consumer.Blueprint.default_steps if not step.endswith(":DelayedDelivery")
        ] + ["outbox.worker.dead_letter_queues:Queues"]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._flush_is_planned = False
        self._liveness_timer: Any = None

    def connect(self) -> Any:
        connection: Any = super().connect()
        if hasattr(connection.transport, "give_up"):  # RabbitMQ's queues contain messages only
            connection.transport.give_up = self.give_up_item
        connection.close = functools.partial(_close, connection.close)
        self._replace_dead_children()
        self._flush_is_planned = False  # timers end with their connection
        return connection

    def on_send_event_buffered(self) -> Any:
        if self.hub and not self._flush_is_planned:
            self._flush_is_planned = True
            self.hub.call_later(EVENTS_SENT_WITHIN, self._flush_planned)

    def _flush_planned(self) -> None:
        self._flush_is_planned = False
        self._flush_events()

    def stop(self) -> None:
        consumer: Any = self  # it has the errors of the connection as an attribute
        ignore_errors(consumer, self._flush_events)
        super().stop()

    def _replace_dead_children(self) -> None:
        """
        Replace children that ended while the connection was lost, before the event loop starts again.

        Celery ends the children of running tasks when the connection is lost, and the loop that would have
        noticed ends too. The next loop would watch a closed file of such a child, which ends the worker.
        """
        pool: Any = getattr(self.pool, "_pool", None)
        if not hasattr(pool, "_pool"):  # only prefork pools have children
            return
        if pool.on_process_down is None:  # the first loop sets it; without it no pipe is ever freed
            pool.on_process_down = functools.partial(self._forget_child, pool)
        pool.did_start_ok = functools.partial(self._replace_the_dead, pool)
        pool.maintain_pool()
        for child in pool._pool:
            if getattr(child, "_sentinel_poll", True) is None:
                del child._sentinel_poll  # it is then watched through a new copy of its file
            pool._fileno_to_outq.setdefault(child.outqR_fd, child)
            pool._fileno_to_synq.setdefault(child.synqW_fd, child)

    @staticmethod
    def _forget_child(pool: Any, child: Any) -> None:
        """Unregister the pipes of a dead child; its replacement gets the same pipes."""
        pool._all_inqueues.discard(child.inqW_fd)
        pool._fileno_to_inq.pop(child.inqW_fd, None)
        pool._fileno_to_outq.pop(child.outqR_fd, None)
        pool._fileno_to_synq.pop(child.synqW_fd, None)

    @staticmethod
    def _replace_the_dead(pool: Any) -> bool:
        """Replaces Celery's `did_start_ok`, which ends the worker if any child has died by then."""
        pool.maintain_pool()
        return True

    def ensure_connected(self, conn: Any) -> Any:
        connect = conn.ensure_connection

        def connect_in_the_end(*args: Any, callback: Callable[[], None] | None = None, **options: Any) -> Any:
            """Try often, and show meanwhile that the loop is not stuck."""
            options |= {"interval_start": 0.2, "interval_step": 0.4, "interval_max": LONGEST_RECONNECT_WAIT}
            return connect(*args, callback=liveness.reporting(callback), **options)

        conn.ensure_connection = connect_in_the_end
        return super().ensure_connected(conn)

    def register_with_event_loop(self, hub: Any) -> None:
        """Called with each new connection. Before 5.7 Celery does not cancel the timers of the last one."""
        super().register_with_event_loop(hub)
        if self._liveness_timer:
            self._liveness_timer.cancel()
        self._liveness_timer = hub.call_repeatedly(liveness.EVERY, liveness.turned)

    def perform_pending_operations(self) -> None:
        """Called in every turn of the blocking loop, which brokers without an event loop have."""
        liveness.turned()
        super().perform_pending_operations()

    def update_strategies(self) -> None:
        for task in self.app.tasks.values():
            task.Request = GUARDED_REQUEST  # otherwise a MemoryError in any task ends the worker
        super().update_strategies()

    def create_task_handler(self, *args: Any, **kwargs: Any) -> Callable[[Any], None]:
        handle = super().create_task_handler(*args, **kwargs)
        connection_errors = self._connection_errors()

        def handle_guarded(message: Any) -> None:
            try:
                validation.check(message, self.app.tasks)
                handle(message)
            except connection_errors:
                raise
            except Exception as error:
                self.give_up(message, error)

        return handle_guarded

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        self.give_up(message, exc)

    def on_unknown_message(self, body: Any, message: Any) -> None:
        self._reject(message, InvalidTaskError("the message has no format that Celery knows"))

    def on_invalid_task(self, body: Any, message: Any, exc: Exception) -> None:
        self._reject(message, exc)

    def on_unknown_task(self, body: Any, message: Any, exc: Exception) -> None:
        task_id, name = message.headers["id"], message.headers["task"]
        unknown = NotRegistered(name)
        self.give_up(message, unknown)
        if self.event_dispatcher:
            self.event_dispatcher.send("task-failed", uuid=task_id, exception=repr(unknown))
        signals.task_unknown.send(sender=self, message=message, exc=exc, name=name, id=task_id)

    def _reject(self, message: Any, error: Exception) -> None:
        self.give_up(message, error)
        signals.task_rejected.send(sender=self, message=message, exc=error)

    def give_up(self, message: Any, error: Exception) -> None:
        """Store the message as a dead letter, then acknowledge it; while the database is down, try again."""
        failure = failure_of(message, error, worker=self.hostname)
        logger.error("Gave up a message for %s: %s", failure.consumer, failure.error_class)
        self._acknowledge_after(message, functools.partial(give_up, failure))

    def give_up_item(self, item: str, error: Exception, queue: str) -> bool:
        """Store an invalid item of Redis as a dead letter; return False while the database is down."""
        if queue.endswith(CONTROL):  # each worker has its own
            queue = CONTROL
        failure = failure_of_item(item, error, queue=queue, worker=self.hostname)
        logger.error("Gave up an item that is not a message: %s", failure.error_class)
        return safely(functools.partial(give_up, failure))

    def _acknowledge_after(self, message: Any, note: Callable[[], None]) -> None:
        if safely(note):
            crash_points.reached("worker.dead_letter_kept")
            self._acknowledge(message)
        else:
            self.timer.call_after(KEEP_AGAIN, self._acknowledge_after, (message, note))

    def _acknowledge(self, message: Any) -> None:
        if not message.acknowledged:
            soon = getattr(self, "call_soon_ack", self.call_soon)  # the former since Celery 5.7
            soon(message.ack_log_error, logger, self._connection_errors())

    def _connection_errors(self) -> tuple[type[BaseException], ...]:
        """
        The errors of a lost connection to the broker.

        kombu's list for Redis contains a few more, which malformed messages raise as well: a worker would
        reconnect for ever.
        """
        return tuple(
            error
            for error in (*self.connection_errors, *self.channel_errors)
            if not issubclass(error, LookupError | ValueError | TypeError | AttributeError)
        )


def _close(close: Callable[[], None]) -> None:
    """Close a connection, or leave what is left of a lost one: kombu's errors here would end the worker."""
    try:
        close()
    except Exception as error:
        logger.warning("The connection to the broker could not be closed in order: %r", error)
