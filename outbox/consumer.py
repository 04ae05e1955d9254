"""
`ConsumerTask`: how a task takes a message.

It acknowledges late, binds the message's context, reports what happened, tries again in two stages
and buries what it gives up. Tasks say only what to do and which policy applies.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import logging
import time
import traceback as tracebacks
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

from billiard.process import current_process
from celery import Task
from celery.exceptions import Ignore, SoftTimeLimitExceeded, TimeLimitExceeded
from django.db import Error as DatabaseError
from django.db import InterfaceError, OperationalError, connection, connections, transaction
from django.utils import timezone
from kombu.exceptions import OperationalError as BrokerError

from outbox import context, crash_points, dead_letters, inline, publisher, telemetry
from outbox.models import Attempt, DeadLetter
from outbox.resilience import NotNow, Outage, RetryPolicy, Transient

TRACE_HEADERS = ("traceparent", "tracestate", "sentry-trace", "baggage")

DATABASE_WAIT = 2
"""Seconds after which a task is tried again that found the database down."""

PUBLISH_WAIT = dt.timedelta(seconds=5)
"""After how long a message is redelivered whose step is done but whose next step found no broker."""

MOST_LOSSES = 3
"""Deliveries that may lose their worker before the message counts as the cause. The limit of
quorum queues is above it, for messages whose workers do not get as far as counting."""

LOSSES_COUNT_FOR = dt.timedelta(hours=1)
"""Older losses were other incidents: deployments, a machine that went away."""

EARLY = dt.timedelta(seconds=1)
"""How much sooner than planned a try may begin; the clocks of workers and of the database differ a little."""

OUTAGE_SQLSTATES = ("08", "57P", "53", "58")
"""SQLSTATE classes that speak of the server, not of the statement (PostgreSQL manual, appendix A)."""


class CrashLoop(Exception):
    """Every worker that took this message died with it."""


class ConsumerTask(Task):
    """
    The base of every task that takes a message.

    Its keyword arguments hold ids only, among them `message_id`. It returns False when it found its
    work done, which is reported as `step.skipped` and otherwise treated as success.
    """

    abstract = True
    acks_late = True
    reject_on_worker_lost = True
    ignore_result = True
    resultrepr_maxsize = 16 * 1024  # what followed inline is told in it
    Request = "outbox.worker:GuardedRequest"

    policy: ClassVar[RetryPolicy] = RetryPolicy()
    on_buried: ClassVar[Callable[..., None] | None] = None
    """Called with the task's keyword arguments in the transaction that buries its message."""
    runs_inline: ClassVar[bool] = True
    """Whether it may run in the process that has finished the link before it in a chain (see `inline`)."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        began = time.monotonic()
        return inline.follow(self, self._take(*args, **kwargs), began=began)

    def _take(self, *args: Any, **kwargs: Any) -> Any:
        with context.bind(self._context(kwargs)), self._counting_losses(kwargs):
            started = time.perf_counter()
            crash_points.reached("step.begun")
            try:
                if planned := self._planned_wait(kwargs):
                    self._wait_for_turn(kwargs, planned)
                    raise Ignore
                done = self.run(*args, **kwargs)
            except NotNow as wait:
                self._wait_out(kwargs, wait)
                raise Ignore from wait
            except (OperationalError, InterfaceError) as error:
                if not speaks_of_the_server(error):
                    raise
                telemetry.emit("step.database_down", consumer=self.name, error=str(error))
                raise super().retry(exc=error, countdown=DATABASE_WAIT, max_retries=10**9) from error
            crash_points.reached("step.done")
            telemetry.emit(
                "step.skipped" if done is False else "step.finished",
                consumer=self.name,
                message_id=kwargs.get("message_id", ""),
                seconds=time.perf_counter() - started,
                retries=self.request.retries,
            )
            return done

    def retry(self, *args: Any, **options: Any) -> Any:
        """Celery's retry, with the policy's floor under its jitter, or the provider's own wish."""
        wished = getattr(options.get("exc"), "retry_after", None)
        if options.get("countdown") is not None:
            options["countdown"] = self.policy.quick_wait(self.request.retries)
            if wished:
                # Never longer than the policy's longest: on Redis a task that waits in a worker is
                # delivered again once the visibility timeout passes (see celeryconfig).
                wished = min(wished, self.policy.longest_wait)
                options["countdown"] = max(options["countdown"], round(wished.total_seconds()))
        return super().retry(*args, **options)

    def on_retry(self, exc: Exception, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        """Note a quick try that failed; the next one is on its way."""
        crash_points.reached("step.retry_sent")
        if not isinstance(exc, DatabaseError):
            self._safely(self._note, kwargs, exc, Attempt.Outcome.RETRIED)
        crash_points.reached("step.retry_noted")

    def on_success(self, retval: Any, task_id: str, args: Any, kwargs: Any) -> None:
        """Celery has sent the next link of the chain; the message is not acknowledged yet."""
        crash_points.reached("step.next_sent")

    def on_failure(self, exc: Exception, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        """Postpone or bury. Runs in the child, and in the worker's main process for a hard time limit."""
        self._safely(self._end_of_round, exc, task_id, kwargs)
        if current_process().name == "MainProcess" and not connection.in_atomic_block:
            connections.close_all()  # children forked later must not inherit the session

    def _end_of_round(self, exc: Exception, task_id: str, kwargs: dict[str, Any]) -> None:
        if isinstance(exc, BrokerError):
            # The step is done; Celery calls it failed because its next link found no broker.
            self._postpone(kwargs, exc, Attempt.Outcome.WAITED, PUBLISH_WAIT)
            return
        if isinstance(exc, Transient | SoftTimeLimitExceeded | TimeLimitExceeded | DatabaseError):
            wait = self.policy.redelivery_wait(self._rounds(kwargs))
            if wait is not None:
                self._postpone(kwargs, exc, Attempt.Outcome.POSTPONED, max(wait, _wished(exc)))
                return
        self._bury(kwargs, exc, task_id)

    def _wait_out(self, kwargs: dict[str, Any], wait: NotNow) -> None:
        telemetry.emit("step.waits", consumer=self.name, reason=str(wait), outage=isinstance(wait, Outage))
        self._postpone(kwargs, wait, Attempt.Outcome.WAITED, wait.retry_after or PUBLISH_WAIT)

    def _planned_wait(self, kwargs: dict[str, Any]) -> dt.timedelta | None:
        """
        How long the wait after this consumer's last failed round still takes; None when it is over.

        A message has one time of delivery. When two of its workflows wait, both start at the sooner one.
        """
        if not self._header("redeliveries"):
            return None
        postponed = self._tries(kwargs).filter(outcome=Attempt.Outcome.POSTPONED)
        planned = postponed.order_by("-pk").values_list("next_try_at", flat=True).first()
        wait = planned - timezone.now() if planned else dt.timedelta()
        return wait if wait > EARLY else None

    def _wait_for_turn(self, kwargs: dict[str, Any], wait: dt.timedelta) -> None:
        telemetry.emit(
            "step.waits", consumer=self.name, reason="its next try is planned for later", outage=False
        )
        publisher.redeliver([kwargs["message_id"]], workflow=self._header("workflow"), wait=wait)
        crash_points.reached("step.postponed")

    def _postpone(
        self, kwargs: dict[str, Any], exc: Exception, outcome: Attempt.Outcome, wait: dt.timedelta
    ) -> None:
        with transaction.atomic():
            self._note(kwargs, exc, outcome, next_try_at=timezone.now() + wait)
            found = publisher.redeliver([kwargs["message_id"]], workflow=self._header("workflow"), wait=wait)
        crash_points.reached("step.postponed")
        telemetry.emit("step.postponed", consumer=self.name, message_id=kwargs["message_id"], found=found)

    def _bury(self, kwargs: dict[str, Any], exc: Exception, task_id: str) -> None:
        with transaction.atomic():
            self._note(kwargs, exc, Attempt.Outcome.BURIED)
            dead_letters.bury(
                dead_letters.Failure.of(
                    exc,
                    source=DeadLetter.Source.TASK,
                    consumer=self.name,
                    message_id=str(kwargs.get("message_id", "")),
                    workflow=self._header("workflow"),
                    task_id=task_id,
                    payload={"task": self.name, "kwargs": kwargs},
                    headers={"x_correlation_id": self._header("x_correlation_id")},
                    attempts=self._attempts(kwargs),
                    worker=self.request.hostname or "",
                )
            )
            if self.on_buried:
                type(self).on_buried(**kwargs)  # type: ignore[misc]
        crash_points.reached("step.buried")

    def _note(
        self,
        kwargs: dict[str, Any],
        exc: Exception,
        outcome: Attempt.Outcome,
        next_try_at: dt.datetime | None = None,
    ) -> Attempt:
        return Attempt.objects.create(
            consumer=self.name,
            message_id=kwargs["message_id"],
            outcome=outcome,
            next_try_at=next_try_at,
            worker=self.request.hostname or "",
            error_class=type(exc).__name__,
            error=str(exc)[: dead_letters.LONGEST_TEXT],
            traceback="".join(tracebacks.format_exception(exc))[-dead_letters.LONGEST_TEXT :],
        )

    @contextlib.contextmanager
    def _counting_losses(self, kwargs: dict[str, Any]) -> Iterator[None]:
        """
        Give a message up whose workers keep dying.

        A delivery that comes back is noted as lost in advance; a worker that survives it takes the
        note back. So what comes back for other reasons, such as a broker that restarts, counts nothing.
        """
        if not (self.request.delivery_info or {}).get("redelivered"):
            yield
            return
        lost = self._tries(kwargs).filter(
            outcome=Attempt.Outcome.LOST, failed_at__gt=timezone.now() - LOSSES_COUNT_FOR
        )
        if lost.count() + 1 >= MOST_LOSSES:
            loop = CrashLoop(
                f"{self.name} was delivered {MOST_LOSSES} times, and each time its worker was lost"
            )
            self._bury(kwargs, loop, self.request.id or "")
            raise Ignore
        note = self._note(kwargs, CrashLoop("the worker of this delivery was lost"), Attempt.Outcome.LOST)
        crash_points.reached("step.loss_noted")
        try:
            yield
        except Exception:  # a worker that is told to exit is lost all the same
            self._safely(note.delete)
            crash_points.reached("step.loss_withdrawn")
            raise
        self._safely(note.delete)
        crash_points.reached("step.loss_withdrawn")

    def _tries(self, kwargs: dict[str, Any]) -> Any:
        """The failed tries of this message here, since the last time its dead letter was resolved."""
        tries = Attempt.objects.filter(consumer=self.name, message_id=kwargs["message_id"])
        resolved = (
            DeadLetter.objects.filter(consumer=self.name, message_id=kwargs["message_id"])
            .exclude(resolution=DeadLetter.Resolution.OPEN)
            .order_by("-resolved_at")
            .values_list("resolved_at", flat=True)
            .first()
        )
        return tries.filter(failed_at__gt=resolved) if resolved else tries

    def _rounds(self, kwargs: dict[str, Any]) -> int:
        return self._tries(kwargs).filter(outcome=Attempt.Outcome.POSTPONED).count()

    def _attempts(self, kwargs: dict[str, Any]) -> int:
        return self._tries(kwargs).exclude(outcome=Attempt.Outcome.WAITED).count()

    def _context(self, kwargs: dict[str, Any]) -> context.Context:
        return context.Context(
            correlation_id=self._header("x_correlation_id") or context.current().correlation_id,
            causation_id=str(kwargs.get("message_id", "")),
            actor="worker",
            task=self.name,
            trace={name: value for name in TRACE_HEADERS if (value := self._header(name))},
        )

    def _header(self, name: str) -> str:
        headers = self.request.headers or {}
        return str(headers.get(name) or getattr(self.request, name, None) or "")

    def _safely(self, note: Callable[..., Any], *args: Any) -> None:
        """
        Run a hook that must not raise.

        Celery would call it again and report the worker broken. What is not written here is not lost:
        the work stays overdue, and the sweep takes it up.
        """
        try:
            note(*args)
        except Exception:
            logging.getLogger(__name__).exception("%s could not note its failure", self.name)


def speaks_of_the_server(error: Exception) -> bool:
    """Whether a database error tells of a server that is down, not of a statement that went wrong."""
    sqlstate = getattr(error.__cause__, "sqlstate", None)
    return sqlstate is None or sqlstate.startswith(OUTAGE_SQLSTATES)


def _wished(exc: Exception) -> dt.timedelta:
    return getattr(exc, "retry_after", None) or dt.timedelta()
