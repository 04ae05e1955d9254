"""
`ConsumerTask`, the base class of tasks that handle messages.

It acknowledges late, binds the message's context, reports the result and retries quickly. `rounds` handles
messages whose quick tries are used up. Tasks define only their work and their retry policy.
"""

from __future__ import annotations

import contextlib
import contextvars
import datetime as dt
import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

from billiard.process import current_process
from celery.exceptions import Ignore, Reject, Retry
from django.db import Error as DatabaseError
from django.db import InterfaceError, OperationalError, connection, connections

from outbox import context, crash_points, endings, measuring, telemetry, tracing
from outbox.broker import dispatch, inspection
from outbox.database import sessions, storable
from outbox.dead_letters import campaigns, resolving
from outbox.models import Attempt
from outbox.relay import deliveries
from outbox.resilience import NotNow, RetryPolicy
from outbox.tracing import TRACE_HEADERS
from outbox.worker import company, inline, losses, spans
from outbox.worker.rounds import RoundTask

DATABASE_WAIT = RetryPolicy(first_wait=dt.timedelta(seconds=2), longest_wait=dt.timedelta(seconds=4))
"""The wait before a task that found the database down is delivered again."""

OUTAGE_SQLSTATES = ("08", "57P", "53", "58", "25006")
"""SQLSTATE classes of errors of the server, not of the statement (PostgreSQL manual, appendix A). The last one
belongs to a read-only server, as after a failover."""


DELIVERY_COUNT = "x-delivery-count"
"""RabbitMQ's header: how often it has delivered this copy before."""

RETURNED_OFTEN = 3
"""How often RabbitMQ may deliver one copy again before a new one replaces it; less than its delivery limit."""

LONGEST_CORRELATION = 64
"""Maximum length of a correlation id, in characters; see the models."""

_taken: contextvars.ContextVar[Any] = contextvars.ContextVar("taken", default=None)
"""The request of the message that this thread took last."""


class ConsumerTask(RoundTask):
    """
    The base class of every task that handles a message.

    Its keyword arguments are ids only, including `message_id`. It returns False if it found its work done,
    which is reported as `step.skipped` and otherwise treated as success.
    """

    abstract = True
    acks_late = True
    reject_on_worker_lost = True
    ignore_result = True
    resultrepr_maxsize = 16 * 1024  # it also describes the tasks that followed inline
    Request = "outbox.worker.request:GuardedRequest"

    ends_deliveries: ClassVar[bool] = True
    """Whether a delivery that ends with this task can be followed (see `deliveries`)."""
    runs_inline: ClassVar[bool] = True
    """Whether it may run in the process that has finished the previous task of the chain (see `inline`)."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        _taken.set(self.request_stack.top)
        began = time.monotonic()
        result = inline.follow(self, self._take_or_wait(*args, **kwargs), began=began)
        request: Any = self.request
        request.sends_next = request.chain[-1]["task"] if request.chain else None
        tracing.stamp_next(request.chain)
        sessions.give_back()  # what Celery does now, such as sending the next task, may take long
        return result

    def _take_or_wait(self, *args: Any, **kwargs: Any) -> Any:
        """Handle the message; if the database is down at any point, deliver the message again later."""
        with context.bind(self._context(kwargs)) as work, tracing.processing(self, kwargs, work) as span:
            watch = losses.watch(self._watch(kwargs))
            try:
                try:
                    watch.begin()
                    done = self._take(watch, *args, **kwargs)
                    if span:
                        span.set({"outbox.outcome": "skipped" if done is False else "succeeded"})
                    return done
                except (Ignore, Reject):
                    watch.survived()
                    raise
            except losses.NotAlone as aside:
                raise self._sent_again(aside) from aside
            except DatabaseError as error:
                if not is_server_error(error):
                    raise
                sessions.end()
                telemetry.emit("step.database_down", consumer=self.name, error=str(error))
                raise self._sent_again(error) from error
            finally:
                watch.end()

    def _take(self, watch: losses.Watch, *args: Any, **kwargs: Any) -> Any:
        copy = self._copy(kwargs)
        self._end_if_stale(copy)
        with losses.at_work(watch.suspect), endings.of(self._ends_with(copy)) as ending:
            before = self._header("came_back")
            if before or self._came_back():
                watch.suspect(before=before, wait=company.PATIENCE)
                self._start_anew_if_returned_often()
            started = time.perf_counter()
            self._report_begun(kwargs)
            crash_points.reached("step.begun")
            try:
                done = self._run_or_skip(*args, **kwargs)
                crash_points.reached("step.done")
                self._end_delivery(copy, ending)
            except losses.NotAlone:
                raise
            except NotNow as wait:
                self._wait_out(kwargs, wait)
                raise Ignore from wait
            watch.survived(done=done is not False)
            telemetry.emit(
                "step.skipped" if done is False else "step.finished",
                consumer=self.name,
                message_id=kwargs.get("message_id", ""),
                seconds=time.perf_counter() - started,
                retries=self.request.retries,
            )
            return done

    def _run_or_skip(self, *args: Any, **kwargs: Any) -> Any:
        """Run the task, unless a person has ended its work. A first delivery cannot be ended or a replay."""
        if not any(int(self._header(name) or 0) for name in ("generation", "redeliveries")):
            return self.run(*args, **kwargs)
        message_id = kwargs.get("message_id", "")
        if resolving.is_ended(consumer=self.name, message_id=message_id):
            return False
        done = self.run(*args, **kwargs)
        crash_points.reached("step.redone")
        campaigns.record_success(consumer=self.name, message_id=message_id, skipped=done is False)
        return done

    def retry(self, *args: Any, **options: Any) -> Any:
        """Retry as Celery does, with the waits of the policy or the wait that the provider requested."""
        if options.get("countdown") is not None:
            options["countdown"] = self.policy.quick_wait(
                self.request.retries,
                requested=getattr(options.get("exc"), "retry_after", None),
                whole_seconds=inspection.delays_whole_seconds(self.app),
            )
        return super().retry(*args, headers=self._headers_again(), **{"queue": self._queue()} | options)

    def _queue(self) -> str | None:
        """
        The queue that delivered the message, and gets it again; None if it is not a queue of this app.

        With a countdown on RabbitMQ, Celery would use the task's route or the default queue.
        """
        name = str((self.request.delivery_info or {}).get("routing_key") or "").rpartition(".")[2]
        return name if name in self.app.amqp.queues else None

    def _headers_again(self) -> dict[str, Any]:
        """The headers for sending the message again; a suspected message stays suspected."""
        request: Any = self.request
        # Not the received headers: RabbitMQ drops a message whose `x-death` looks like a cycle.
        headers = dict(request.as_execution_options()["headers"] or {})
        headers.pop(DELIVERY_COUNT, None)
        tracing.stamp(headers)
        if (watch := losses.watched(self.name, request.kwargs or {})) and watch.is_suspected:
            headers["came_back"] = watch.came_back
        return headers

    def _sent_again(self, reason: Exception) -> Exception:
        """
        Send the message again with a countdown; return the exception that ends this delivery.

        Celery's own `retry` is not suitable: it counts the try, and it stores the given limit on the task,
        which all messages of the process share.
        """
        wait = DATABASE_WAIT.quick_wait(0, whole_seconds=inspection.delays_whole_seconds(self.app))
        request: Any = self.request
        if request.called_directly:
            return reason
        again = self.signature_from_request(
            request,
            queue=self._queue(),
            countdown=wait,
            retries=request.retries,
            headers=self._headers_again(),
        )
        try:
            dispatch.send_again(again)
        except Exception as error:
            return Reject(error, requeue=False)  # as Celery's retry does; see `GuardedRequest`
        return Retry(exc=reason, when=wait, sig=again)  # type: ignore[arg-type]  # a float is a number

    def on_retry(self, exc: Exception, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        """Record a quick try that failed; the next one has been sent."""
        crash_points.reached("step.retry_sent")
        self._safely(self._touch, kwargs, _countdown(einfo))
        if not isinstance(exc, DatabaseError | losses.NotAlone):
            self._safely(self._note, kwargs, exc, Attempt.Outcome.RETRIED)
            self._safely(self._report_failure, kwargs, exc)
        crash_points.reached("step.retry_noted")
        self._safely(self._withdraw, kwargs)

    def on_success(self, retval: Any, task_id: str, args: Any, kwargs: Any) -> None:
        """Update the delivery: Celery has sent the next task of the chain and not acknowledged this one yet."""
        crash_points.reached("step.next_sent")
        if following := getattr(self.request, "sends_next", None):
            self._safely(self._touch, kwargs, dt.timedelta(), inspection.queue_of_task(self.app, following))

    def on_failure(self, exc: Exception, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        """Postpone or bury the message. Runs where its task ran; in the main loop after a hard time limit."""
        with self._request_of(task_id), tracing.settling(self, kwargs):
            self._safely(self._end_or_wait, exc, task_id, kwargs)
            self._safely(self._withdraw, kwargs)
        if _is_main_loop() and not connection.in_atomic_block:
            connections.close_all()  # children that are forked later must not inherit the connection

    def _watch(self, kwargs: dict[str, Any]) -> losses.Watch:
        return losses.Watch(
            self.name,
            str(kwargs.get("message_id", "")),
            delivery=self._header("delivery_nonce"),
            worker=self.request.hostname or "",
        )

    def _withdraw(self, kwargs: dict[str, Any]) -> None:
        """Withdraw the recorded loss: the worker survived. A child killed at its time limit does not count."""
        if watch := losses.watched(self.name, kwargs):
            watch.survived()
        elif delivery := self._header("delivery_nonce"):
            losses.withdraw(self.name, kwargs["message_id"], delivery=delivery)

    @contextlib.contextmanager
    def _request_of(self, task_id: str) -> Iterator[None]:
        """
        Make the headers of a message available to the hooks, although Celery has dropped its request.

        Celery drops it when the queue of the next task could not be declared.
        """
        taken = _taken.get()
        if self.request.id or taken is None or taken.id != task_id:
            yield
            return
        self.request_stack.push(taken)
        try:
            yield
        finally:
            self.request_stack.pop()

    def _end_or_wait(self, exc: Exception, task_id: str, kwargs: dict[str, Any]) -> None:
        """
        End the round. If the database is down, deliver the message again; that delivery ends the round.

        A message whose end cannot be recorded normally is buried with what can be read of it.
        """
        try:
            self._end_of_round(exc, task_id, kwargs)
        except Exception as error:
            if not isinstance(error, DatabaseError) or not is_server_error(error):
                self._bury_unreadable(exc, task_id, kwargs)
                raise
            if isinstance(end := self._sent_again(error), Reject):
                raise end from error

    def _end_if_stale(self, copy: deliveries.Copy | None) -> None:
        """
        Ignore a copy whose delivery has ended or continues with a newer copy.

        Only redelivered copies and copies of a later generation are checked; the steps of other copies find
        their work done. The same statement records that the copy was taken.
        """
        if copy and (copy.generation or self._came_back()) and not deliveries.touch(copy):
            self._report_stale(copy)
            raise Ignore

    def _came_back(self) -> bool:
        return bool((self.request.delivery_info or {}).get("redelivered"))

    def _start_anew_if_returned_often(self) -> None:
        """
        Send the message again before the broker gives it up: its neighbours may have ended those workers.

        `losses` counts the deaths that this message has caused. The broker's count of them is for messages that
        end their worker before they come to this point.

        Raises:
            NotAlone: if the broker has delivered this copy often.
        """
        count = self._header(DELIVERY_COUNT)
        if self._came_back() and count.isdecimal() and int(count) >= RETURNED_OFTEN:
            raise losses.NotAlone(f"{self.name} is sent again after {count} lost workers")

    def _ends_with(self, copy: deliveries.Copy | None) -> deliveries.Copy | None:
        """Return the copy whose delivery the task may end; after a redelivery its success is recorded first."""
        return None if self.request.chain or (copy and copy.generation) else copy

    def _end_delivery(self, copy: deliveries.Copy | None, ending: endings.Ending) -> None:
        """Record that the workflow has ended, if this was its last task and has not recorded it itself."""
        if copy and not self.request.chain:
            if not ending.is_recorded:
                deliveries.finish(copy)
            crash_points.reached("delivery.finished")
            telemetry.emit(
                "delivery.finished",
                workflow=copy.workflow,
                message_id=copy.message_id,
                seconds=measuring.since_written(copy.message_id),
            )

    def _report_begun(self, kwargs: dict[str, Any]) -> None:
        """Report how long the message was in its queue, if its sender stated when it sent it."""
        request: Any = self.request
        if request.retries or self._came_back():
            return  # it has waited for something else
        waited = measuring.in_queue(request, planned=self._header(spans.HEADER))
        if waited is not None:
            telemetry.emit(
                "step.begun", consumer=self.name, message_id=kwargs.get("message_id", ""), queue_seconds=waited
            )

    def _touch(self, kwargs: dict[str, Any], ahead: dt.timedelta, queue: str | None = None) -> None:
        """Record that the message was sent again: probes sent to its queue before prove nothing about it."""
        if copy := self._copy(kwargs):
            deliveries.touch(copy, queue=queue, ahead=ahead)

    def _context(self, kwargs: dict[str, Any]) -> context.Context:
        return context.Context(
            correlation_id=storable.text(self._header("x_correlation_id"), longest=LONGEST_CORRELATION)
            or context.current().correlation_id,
            causation_id=str(kwargs.get("message_id", "")),
            actor="worker",
            task=self.name,
            trace={name: value for name in TRACE_HEADERS if (value := self._header(name))},
        )

    def _safely(self, note: Callable[..., Any], *args: Any) -> None:
        """
        Run a hook that must not raise.

        Celery would call it again and report the worker as broken. A failure here loses nothing: the work stays
        overdue, and the sweep resumes it.
        """
        try:
            note(*args)
        except Exception:
            logging.getLogger(__name__).exception("%s could not record its failure", self.name)


def _is_main_loop() -> bool:
    """Whether this is the thread of the worker's main loop, not one of its pool, and not a child."""
    return current_process().name == "MainProcess" and threading.current_thread() is threading.main_thread()


def is_server_error(error: Exception) -> bool:
    """Return whether a database error means that the server is unavailable, not that the statement is wrong."""
    sqlstate = getattr(error.__cause__, "sqlstate", None)
    if sqlstate is None:
        return isinstance(error, OperationalError | InterfaceError)
    return str(sqlstate).startswith(OUTAGE_SQLSTATES)


def _countdown(einfo: Any) -> dt.timedelta:
    """How long a retry waits before it enters its queue, read from Celery's exception information."""
    when = getattr(getattr(einfo, "exception", None), "when", None)
    return dt.timedelta(seconds=when) if isinstance(when, int | float) else dt.timedelta()
