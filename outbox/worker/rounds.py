"""
Postpones or buries a message whose round of tries has ended without success.

`consumer` makes the quick tries within a round.
"""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Callable
from typing import Any, ClassVar

from amqp.exceptions import AMQPError
from celery import Task
from celery.exceptions import QueueNotFound, SoftTimeLimitExceeded, TimeLimitExceeded
from django.db import Error as DatabaseError
from django.db import InterfaceError, OperationalError, transaction
from django.db.models import Value
from django.db.models.expressions import CombinedExpression
from django.db.models.functions import Now
from kombu.exceptions import OperationalError as BrokerError

from outbox import attempts, crash_points, redelivery, telemetry
from outbox.database import storable
from outbox.dead_letters import burying
from outbox.models import Attempt, DeadLetter
from outbox.relay import deliveries
from outbox.resilience import NotNow, Outage, Permanent, RetryPolicy, Transient, spread
from outbox.worker import losses

PUBLISH_WAIT = dt.timedelta(seconds=5)
"""The wait before a message is redelivered whose next step could not be sent to the broker."""


class NothingToRedeliver(Permanent):
    """The outbox does not have the message, so it cannot be redelivered. It is buried instead."""


class RoundTask(Task):
    """The base of `consumer.ConsumerTask`: ends a round and records the result."""

    abstract = True

    policy: ClassVar[RetryPolicy] = RetryPolicy()
    redelivered_for: ClassVar[tuple[type[BaseException], ...]] = (
        Transient,
        SoftTimeLimitExceeded,
        TimeLimitExceeded,
        DatabaseError,
    )
    """The errors after which a message is delivered again later. `Permanent` ones never are."""
    on_buried: ClassVar[Callable[..., None] | None] = None
    """Called with the task's keyword arguments in the transaction that buries its message."""

    def _end_of_round(self, exc: Exception, task_id: str, kwargs: dict[str, Any]) -> None:
        try:
            self._postpone_or_bury(exc, task_id, kwargs)
        except NothingToRedeliver:
            self._bury(kwargs, exc, task_id)

    def _postpone_or_bury(self, exc: Exception, task_id: str, kwargs: dict[str, Any]) -> None:
        if isinstance(exc, BrokerError | AMQPError | QueueNotFound):
            # The step is done; Celery reports a failure because the next step could not be sent.
            self._postpone(kwargs, exc, Attempt.Outcome.WAITED, PUBLISH_WAIT)
            return
        if isinstance(exc, self.redelivered_for) and not isinstance(exc, Permanent):
            wait = self.policy.redelivery_wait(self._rounds(kwargs))
            if wait is not None:
                self._postpone(kwargs, exc, Attempt.Outcome.POSTPONED, max(wait, _requested_wait(exc)))
                return
        self._bury(kwargs, exc, task_id)

    def _wait_out(self, kwargs: dict[str, Any], wait: NotNow) -> None:
        telemetry.emit("step.waits", consumer=self.name, reason=str(wait), outage=isinstance(wait, Outage))
        self._postpone(kwargs, wait, Attempt.Outcome.WAITED, wait.retry_after or PUBLISH_WAIT)

    def _postpone(
        self, kwargs: dict[str, Any], exc: Exception, outcome: Attempt.Outcome, wait: dt.timedelta
    ) -> None:
        copy = self._copy(kwargs)
        if not isinstance(exc, NotNow) or isinstance(exc, Outage):  # others wait for a time of their own
            wait = spread(wait)
        with transaction.atomic():
            if copy is None:
                found = redelivery.redeliver(
                    [kwargs["message_id"]], workflow=self._header("workflow"), wait=wait
                )
                if not found:
                    raise NothingToRedeliver(kwargs["message_id"]) from exc
            elif not (found := redelivery.postpone(copy, wait=wait)):
                self._report_stale(copy)
                return
            self._note(kwargs, exc, outcome, next_try_at=Now() + Value(wait))
        crash_points.reached("step.postponed")
        telemetry.emit("step.postponed", consumer=self.name, message_id=kwargs["message_id"], found=found)
        if outcome == Attempt.Outcome.POSTPONED:
            self._report_failure(kwargs, exc)

    def _bury(self, kwargs: dict[str, Any], exc: Exception, task_id: str) -> None:
        copy = self._copy(kwargs)
        with transaction.atomic():
            if copy and not deliveries.end(copy):
                self._report_stale(copy)
                return
            self._note(kwargs, exc, Attempt.Outcome.BURIED)
            burying.bury(
                burying.Failure.of(
                    exc,
                    source=DeadLetter.Source.TASK,
                    consumer=self.name,
                    message_id=storable.text(kwargs.get("message_id")),
                    workflow=self._header("workflow"),
                    task_id=task_id,
                    payload={"task": self.name, "kwargs": kwargs},
                    headers={"x_correlation_id": self._header("x_correlation_id")},
                    attempts=self._attempts(kwargs),
                    worker=self.request.hostname or "",
                )
            )
            self.record_buried(kwargs)
        crash_points.reached("step.buried")
        self._report_failure(kwargs, exc)

    def _bury_unreadable(self, exc: Exception, task_id: str, kwargs: dict[str, Any]) -> None:
        """Bury a message whose data, such as its id, may be invalid."""
        burying.bury(
            burying.Failure.of(
                exc,
                source=DeadLetter.Source.TASK,
                consumer=self.name,
                message_id=storable.text(kwargs.get("message_id")),
                task_id=task_id,
                payload={"task": self.name, "kwargs": kwargs},
                worker=self.request.hostname or "",
                body=task_id,
            )
        )
        crash_points.reached("step.buried")

    def record_buried(self, kwargs: dict[str, Any]) -> None:
        """
        Call `on_buried`, in the transaction that buries the message.

        Its failure must not undo the dead letter: the message may be buried because of invalid arguments, such
        as an id that is not one.
        """
        if not self.on_buried:
            return
        try:
            with transaction.atomic():
                type(self).on_buried(**kwargs)  # type: ignore[misc]
        except (OperationalError, InterfaceError):
            raise
        except Exception:
            logging.getLogger(__name__).exception("%s could not record that its message is buried", self.name)

    def _note(
        self,
        kwargs: dict[str, Any],
        exc: Exception,
        outcome: Attempt.Outcome,
        next_try_at: CombinedExpression | None = None,
    ) -> Attempt:
        return attempts.record(
            consumer=self.name,
            message_id=kwargs["message_id"],
            error=exc,
            outcome=outcome,
            next_try_at=next_try_at,
            worker=self.request.hostname or "",
        )

    def _copy(self, kwargs: dict[str, Any]) -> deliveries.Copy | None:
        return deliveries.Copy.of(self._header, kwargs.get("message_id"))

    def _report_stale(self, copy: deliveries.Copy) -> None:
        telemetry.emit("step.stale", consumer=self.name, message_id=copy.message_id, generation=copy.generation)

    def _report_failure(self, kwargs: dict[str, Any], exc: Exception) -> None:
        """Report an attempt that has failed; its row is committed."""
        telemetry.emit(
            "step.failed",
            consumer=self.name,
            message_id=kwargs.get("message_id", ""),
            kind=self._kind_of(exc),
            error_class=type(exc).__name__,
        )

    def _kind_of(self, exc: Exception) -> str:
        """The class of an attempt's error: `crash`, `transient` or `permanent`. Outages are no attempts."""
        if isinstance(exc, losses.CrashLoop):
            return "crash"
        is_transient = isinstance(exc, self.redelivered_for) and not isinstance(exc, Permanent)
        return "transient" if is_transient else "permanent"

    def _tries(self, kwargs: dict[str, Any]) -> Any:
        return attempts.since_resolved(self.name, kwargs["message_id"])

    def _rounds(self, kwargs: dict[str, Any]) -> int:
        return self._tries(kwargs).filter(outcome=Attempt.Outcome.POSTPONED).count()

    def _attempts(self, kwargs: dict[str, Any]) -> int:
        return self._tries(kwargs).exclude(outcome=Attempt.Outcome.WAITED).count()

    def _header(self, name: str) -> str:
        request: Any = self.request
        value = request.headers.get(name) if request.headers else None
        if value is None or value == "":
            value = getattr(request, name, None)
        return "" if value is None or value == "" else storable.text(value)


def _requested_wait(exc: Exception) -> dt.timedelta:
    return getattr(exc, "retry_after", None) or dt.timedelta()
