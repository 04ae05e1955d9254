"""
The worker's own consumer and request, guarded against messages that would stop it.

A stock worker ends, wedges or drops silently when a message is malformed, unknown or revoked, when a
task runs out of memory, and when a retry finds no broker. Here each of these leaves one dead letter,
or one redelivery from the database, and the worker goes on. What is given up is acknowledged, not
rejected: a rejected message would come back by way of the broker's own dead letter queue.

Everything here runs in the worker's main process. It closes its database session after each use,
because children are forked from it, and it never raises.
"""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Callable
from typing import Any, ClassVar

from celery import signals
from celery.exceptions import InvalidTaskError, NotRegistered, Reject
from celery.utils.time import timezone
from celery.worker import state
from celery.worker.consumer import Consumer
from celery.worker.request import Request
from kombu.common import ignore_errors
from kombu.transport import virtual

from outbox import crash_points, dead_letters, inline, publisher, telemetry
from outbox.consumer import PUBLISH_WAIT, ConsumerTask
from outbox.letters import BODY_KEPT, CONSUMER, bury, check_readable, failure_of, safely
from outbox.models import DeadLetter

GUARDED_REQUEST = "outbox.worker:GuardedRequest"

LONGEST_RECONNECT_WAIT = 1.0
"""Seconds between two tries to reach the broker; Celery's own waits grow to 30."""

KEEP_AGAIN = 5.0
"""Seconds after which a letter is written again that found the database down. Its message stays
unacknowledged meanwhile, so that the broker has it if the worker goes away."""

EVENTS_SENT_WITHIN = 0.5
"""Seconds after which Flower is told of what tasks do, or as soon as there are 24 events. Celery tells it in
every turn of the worker's loop, which takes half of the main process' time."""

logger = logging.getLogger(__name__)


class Revoked(Exception):
    """Somebody revoked the task, so it never ran."""


class Expired(Exception):
    """The task was not taken before it expired."""


class GuardedConsumer(Consumer):
    """Celery's consumer; whatever a message is like, it lives on and keeps the message as a dead letter."""

    call_soon_ack: Any
    connection_errors: Any
    channel_errors: Any
    event_dispatcher: Any
    hub: Any
    pool: Any
    _flush_events: Any

    class Blueprint(Consumer.Blueprint):  # type: ignore[misc, valid-type]
        default_steps: ClassVar = [*Consumer.Blueprint.default_steps, "outbox.topology:DeadQueues"]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # What Redis holds may be no message of any kind; the worker connects anew instead of ending.
        self.connection_errors = (*self.connection_errors, json.JSONDecodeError)
        self._flush_is_planned = False

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        if isinstance(exc, json.JSONDecodeError):
            self.give_up_item(exc.doc, exc)
        super().on_connection_error_after_connected(exc)

    def connect(self) -> Any:
        link = super().connect()
        if isinstance(link.transport, virtual.Transport):  # the others hold nothing but messages
            transport: Any = link.transport
            transport._deliver = functools.partial(self._deliver_guarded, transport._deliver)
        self._let_the_pool_see_who_died()
        self._flush_is_planned = False  # timers ended with the last connection
        return link

    def on_send_event_buffered(self) -> Any:
        if self.hub and not self._flush_is_planned:
            self._flush_is_planned = True
            self.hub.call_later(EVENTS_SENT_WITHIN, self._flush_planned)

    def _flush_planned(self) -> None:
        self._flush_is_planned = False
        self._flush_events()

    def stop(self) -> None:
        links: Any = self  # it tells which errors are those of the connection
        ignore_errors(links, self._flush_events)
        super().stop()

    def _let_the_pool_see_who_died(self) -> None:
        """
        Replace children that ended while the connection was lost, before the event loop starts anew.

        Celery ends the children of running tasks when the connection is lost, and the loop that would have
        noticed has ended too. Meeting such a child, the next loop ends the worker: it watches a file that
        is closed.
        """
        pool: Any = getattr(self.pool, "_pool", None)
        if not hasattr(pool, "_pool"):  # only prefork pools have children
            return
        pool.maintain_pool()
        for child in pool._pool:
            if getattr(child, "_sentinel_poll", True) is None:
                del child._sentinel_poll  # so that it is watched by a new copy of its file

    def ensure_connected(self, conn: Any) -> Any:
        conn.ensure_connection = functools.partial(
            conn.ensure_connection,
            interval_start=0.2,
            interval_step=0.4,
            interval_max=LONGEST_RECONNECT_WAIT,
        )
        return super().ensure_connected(conn)

    def update_strategies(self) -> None:
        for task in self.app.tasks.values():
            task.Request = GUARDED_REQUEST  # a MemoryError in any task would end the worker
        super().update_strategies()

    def create_task_handler(self, *args: Any, **kwargs: Any) -> Callable[[Any], None]:
        handle = super().create_task_handler(*args, **kwargs)
        broken_links = self._broken_links()

        def handle_guarded(message: Any) -> None:
            try:
                check_readable(message)
                handle(message)
            except broken_links:
                raise
            except Exception as error:
                self.give_up(message, error)

        return handle_guarded

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        self.give_up(message, exc)

    def on_unknown_message(self, body: Any, message: Any) -> None:
        self._reject(message, InvalidTaskError("the message is in no format that Celery knows"))

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
        """Keep the message as a dead letter, then acknowledge it; while the database is down, try again."""
        failure = failure_of(message, error, worker=self.hostname)
        logger.error("Gave up a message for %s: %s", failure.consumer, failure.error)
        self._settle(message, functools.partial(bury, failure))

    def give_up_item(self, item: Any, error: Exception) -> None:
        """Keep as a dead letter what a broker's list held and is no message; the broker has it no more."""
        text = item if isinstance(item, str) else json.dumps(item)
        failure = dead_letters.Failure.of(
            error,
            source=DeadLetter.Source.WORKER,
            consumer=CONSUMER,
            payload={"body": text[:BODY_KEPT]},
            worker=self.hostname,
        )
        logger.error("Gave up an item that is no message: %s", failure.error)
        self._keep(functools.partial(bury, failure))

    def _deliver_guarded(self, deliver: Callable[[Any, str], None], item: Any, queue: str) -> None:
        """
        Deliver what a broker's list held, which may be JSON of any shape.

        kombu finds out by failing, which would end the worker or, for a KeyError, lose the item in a
        new connection. What goes wrong after kombu has made a message of it never comes up to here.
        """
        try:
            deliver(item, queue)
        except (LookupError, ValueError, TypeError, AttributeError) as error:
            self.give_up_item(item, error)

    def _keep(self, note: Callable[[], None]) -> None:
        if not safely(note):
            self.timer.call_after(KEEP_AGAIN, self._keep, (note,))

    def _settle(self, message: Any, note: Callable[[], None]) -> None:
        if safely(note):
            crash_points.reached("worker.letter_kept")
            self._acknowledge(message)
        else:
            self.timer.call_after(KEEP_AGAIN, self._settle, (message, note))

    def _acknowledge(self, message: Any) -> None:
        if not message.acknowledged:
            self.call_soon_ack(message.ack_log_error, logger, self._broken_links())

    def _broken_links(self) -> tuple[type[BaseException], ...]:
        """
        The errors that speak of the connection to the broker.

        kombu counts a few more among those of Redis, which malformed messages raise as well: a worker
        would reconnect for ever.
        """
        return tuple(
            error
            for error in (*self.connection_errors, *self.channel_errors)
            if not issubclass(error, LookupError | ValueError | TypeError | AttributeError)
        )


class GuardedRequest(Request):
    """Celery's request; what ends without the task's own hooks leaves a dead letter or a redelivery."""

    eventer: Any
    kwargs: Any
    root_id: str | None
    task: Any
    _already_revoked: bool
    _context: Any
    _eta: Any
    _message: Any
    _request_dict: dict[str, Any]

    def __init__(self, message: Any, **options: Any) -> None:
        super().__init__(message, **options)
        if self._eta is not None:
            try:
                timezone.to_system(self._eta).utctimetuple()
            except (OverflowError, ValueError) as error:
                raise InvalidTaskError(f"the ETA {self._eta} is out of range: {error}") from error

    def on_timeout(self, soft: bool, timeout: float) -> None:
        """Let the hooks of the task, which run here for a hard limit, see its headers."""
        self.task.request_stack.push(self._context)
        try:
            super().on_timeout(soft, timeout)
        finally:
            self.task.request_stack.pop()

    def send_event(self, type: str, **fields: Any) -> None:  # noqa: A002 - Celery's name
        """Tell Flower of the task; when it ends well, of those, too, that followed it in its process."""
        links: list[inline.Ended] = []
        if type == "task-succeeded":
            fields["result"], seconds, links = inline.read(fields["result"])
            fields["runtime"] = fields["runtime"] if seconds is None else seconds
        super().send_event(type, **fields)
        for link in links:
            inline.tell(self.eventer, link, root_id=self.root_id)

    def cancel(self, pool: Any, signal: Any = None, emit_retry: bool = True) -> None:
        """Cancel without noting a retry: the broker was lost, which is not a failure of the message."""
        super().cancel(pool, signal=signal, emit_retry=False)

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> None:
        error: Any = getattr(exc_info.exception, "exc", exc_info.exception)
        if isinstance(error, MemoryError):
            self._end_failed(error)  # Celery would end the worker; the task's hook has run in the child
        elif isinstance(self.task, ConsumerTask) and isinstance(error, Reject) and not error.requeue:  # type: ignore[attr-defined]
            if not safely(functools.partial(self._note_rejected, error)):
                state.task_ready(self)
                self.reject(
                    requeue=True
                )  # neither broker nor database took it: run it again, which is harmless
                return
            self._end_failed(error)
            signals.task_failure.send(
                sender=self.task,
                task_id=self.id,
                exception=error,
                args=self.args,
                kwargs=self.kwargs,
                traceback=exc_info.traceback,
                einfo=exc_info,
            )
        else:
            super().on_failure(exc_info, send_failed_event=send_failed_event, return_ok=return_ok)

    def _end_failed(self, error: BaseException) -> None:
        state.task_ready(self)
        if self.task.acks_late:
            self.acknowledge()
        self.send_event("task-failed", exception=repr(error), traceback="")

    def _note_rejected(self, rejected: Any) -> None:
        """A retry that could not be published ends as a `Reject`, and as nothing else."""
        message_id = self.kwargs.get("message_id")
        if message_id and isinstance(rejected.reason, Exception):
            workflow = str(self._request_dict.get("workflow") or "")
            found = publisher.redeliver([message_id], workflow=workflow, wait=PUBLISH_WAIT)
            telemetry.emit("step.postponed", consumer=self.task.name, message_id=message_id, found=found)
            if found:
                return
        bury(failure_of(self._message, rejected, worker=self.hostname), self.task, self.kwargs)

    def _announce_revoked(self, reason: str, terminated: bool, signum: Any, expired: bool) -> None:
        if isinstance(self.task, ConsumerTask) and not self._already_revoked:
            error = Expired(f"expired at {self.expires}") if expired else Revoked(f"{reason}, by an operator")
            failure = failure_of(self._message, error, worker=self.hostname)
            safely(functools.partial(bury, failure, self.task, self.kwargs))
        super()._announce_revoked(reason, terminated, signum, expired)  # type: ignore[misc]
