"""
Celery's request, guarded: a task that ends without running its hooks leaves a dead letter or a redelivery.

That happens if the child process died, the memory was used up, somebody revoked the task, or its retry found no
broker. As in `consumer`, everything runs in the worker's main process, closes its database connection after
each use, and never raises.
"""

from __future__ import annotations

import functools
import uuid
from typing import Any

import celery
from billiard.einfo import ExceptionInfo
from billiard.exceptions import TimeLimitExceeded, WorkerLostError
from celery import signals
from celery.exceptions import InvalidTaskError, Reject
from celery.utils.time import timezone
from celery.worker import state
from celery.worker.request import Request

from outbox import redelivery, telemetry
from outbox.conf import settings
from outbox.consumer import ConsumerTask
from outbox.relay import deliveries
from outbox.worker import inline, losses, spans
from outbox.worker.rounds import PUBLISH_WAIT
from outbox.worker.task_threads import Job
from outbox.worker.unreadable import failure_of, give_up, give_up_lost, record_death, safely

SINCE_5_7 = celery.VERSION >= (5, 7)
"""Whether Celery itself runs the hook of a task that exceeds its hard time limit, and treats a task that exits
as a lost child, as billiard 4.3 reports it."""


class Revoked(Exception):
    """Somebody revoked the task, so it never ran."""


class Expired(Exception):
    """The task was not taken before it expired."""


class GuardedRequest(Request):
    """Celery's request; a task that ends without its hooks leaves a dead letter or a redelivery."""

    delivery_info: Any
    eventer: Any
    hostname: str
    kwargs: Any
    root_id: str | None
    task: Any
    time_limits: tuple[float | None, float | None]
    _already_cancelled: bool
    _apply_result: Any
    _already_revoked: bool
    _context: Any
    _eta: Any
    _message: Any
    _request_dict: dict[str, Any]

    def __init__(self, message: Any, **options: Any) -> None:
        super().__init__(message, **options)
        self._request_dict["delivery_nonce"] = uuid.uuid4().hex  # identifies the records of the child process
        hard, soft = self.time_limits
        # Celery reads a task's limits when the worker starts, so that the command `time_limit` changes nothing.
        self.time_limits = hard or self.task.time_limit, soft or self.task.soft_time_limit
        if self._eta is not None:
            try:
                timezone.to_system(self._eta).utctimetuple()
                self._eta = spans.eta_of(message, self._eta)
            except (OverflowError, ValueError) as error:
                raise InvalidTaskError(f"the ETA {self._eta} is out of range: {error}") from error

    def on_timeout(self, soft: bool, timeout: float) -> None:
        """Make the headers available to the task's hooks, which run here after a hard time limit."""
        self.task.request_stack.push(self._context)
        try:
            if not (soft or SINCE_5_7 or state.should_terminate) and isinstance(self.task, ConsumerTask):
                self.task.on_failure(TimeLimitExceeded(timeout), self.id, self.args, self.kwargs, None)
            super().on_timeout(soft, timeout)
        finally:
            self.task.request_stack.pop()
            if not soft:
                losses.abandon(self._request_dict["delivery_nonce"])

    def terminate(self, pool: Any, signal: Any = None) -> None:
        super().terminate(pool, signal)
        losses.abandon(self._request_dict["delivery_nonce"])

    def cancel(self, pool: Any, signal: Any = None, **options: Any) -> None:  # type: ignore[override]
        job = self._apply_result() if self._apply_result is not None else None  # it is a weak reference
        if isinstance(job, Job):
            # The connection is lost, and dozens of threads at once would be interrupted between any two lines,
            # perhaps where one has just taken a session of the database. They are fenced; let them finish.
            job.ends_by_itself = True
        super().cancel(pool, signal, **options)  # Celery 5.5 has no options
        losses.abandon(self._request_dict["delivery_nonce"])

    def send_event(self, type: str, **fields: Any) -> None:  # noqa: A002 - Celery's name
        """Send an event to Flower; after a success, also the events of the links that followed inline."""
        links: list[inline.Ended] = []
        if type == "task-succeeded":
            fields["result"], seconds, links = inline.read(fields["result"])
            fields["runtime"] = fields["runtime"] if seconds is None else seconds
        super().send_event(type, **fields)
        for link in links:
            inline.send_events(self.eventer, link, root_id=self.root_id)

    def _announce_cancelled(self, **_: Any) -> None:
        """Cancel without recording a retry: losing the broker is not a failure of the message."""
        state.task_ready(self)
        self.send_event("task-cancelled")
        self._already_cancelled = True

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> None:
        error: Any = getattr(exc_info.exception, "exc", exc_info.exception)
        if isinstance(error, MemoryError):
            self._end_failed(error)  # Celery would end the worker; the task's hook ran in the child
        elif isinstance(self.task, ConsumerTask) and isinstance(error, Reject) and not error.requeue:  # type: ignore[attr-defined]
            if not safely(functools.partial(self._record_rejected, error)):
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
        elif isinstance(error, WorkerLostError | SystemExit) and self._is_given_up(error):
            self._end_failed(error)
        else:
            if isinstance(error, SystemExit) and not SINCE_5_7:
                if self._already_cancelled or self._already_revoked:
                    return  # by a signal of this worker: the broker delivers the message again
                exc_info = _lost(error)
            super().on_failure(exc_info, send_failed_event=send_failed_event, return_ok=return_ok)

    def _is_given_up(self, error: BaseException) -> bool:
        """Record that a child died of this message; return whether the message was buried for that."""
        if not isinstance(self.task, ConsumerTask) or self._was_ended_by_us():
            return False
        if self._may_have_followed():
            self._report_lost_chain(error)
            return False
        loops: list[losses.CrashLoop] = []
        safely(functools.partial(self._record_lost, error, loops))
        return bool(loops) and safely(functools.partial(self._bury_lost, loops[0]))

    def _was_ended_by_us(self) -> bool:
        is_stopping = {state.should_stop, state.should_terminate} - {None, False}  # 0 is an exit code
        return self._already_cancelled or self._already_revoked or bool(is_stopping)

    def _may_have_followed(self) -> bool:
        """Whether the child may have died of a later link of the chain; its lease will show that."""
        _, _, embed = self._message.payload
        return (
            bool(embed and embed.get("chain"))
            and inline.is_undisturbed({**self._request_dict, "delivery_info": self.delivery_info})
            and settings.CHAIN_INLINE_SECONDS > 0
        )

    def _report_lost_chain(self, error: BaseException) -> None:
        """Report an attempt that has no row: which link it was, and whether it is to blame, shows later."""
        telemetry.emit(
            "step.failed",
            consumer=self.task.name,
            message_id=str(self.kwargs.get("message_id", "")),
            kind="crash",
            error_class=type(error).__name__,
        )

    def _record_lost(self, error: BaseException, loops: list[losses.CrashLoop]) -> None:
        try:
            record_death(
                self.task.name,
                str(self.kwargs["message_id"]),
                delivery=self._request_dict["delivery_nonce"],
                worker=self.hostname,
                error=str(error) or type(error).__name__,
            )
        except losses.CrashLoop as loop:
            loops.append(loop)

    def _bury_lost(self, loop: losses.CrashLoop) -> None:
        give_up_lost(
            self._message,
            self.task,
            loop,
            delivery=self._request_dict["delivery_nonce"],
            worker=self.hostname,
        )

    def _end_failed(self, error: BaseException) -> None:
        state.task_ready(self)
        if self.task.acks_late:
            self.acknowledge()
        self.send_event("task-failed", exception=repr(error), traceback="")

    def _record_rejected(self, rejected: Any) -> None:
        """Redeliver or bury a task whose retry could not be published: such a task ends as a `Reject`."""
        message_id = self.kwargs.get("message_id")
        if message_id and isinstance(rejected.reason, Exception):
            workflow, copy = str(self._request_dict.get("workflow") or ""), self._copy()
            if copy:
                found = redelivery.postpone(copy, wait=PUBLISH_WAIT)
            else:
                found = bool(redelivery.redeliver([message_id], workflow=workflow, wait=PUBLISH_WAIT))
            telemetry.emit("step.postponed", consumer=self.task.name, message_id=message_id, found=found)
            if found or copy:  # one that is stale has nothing to wait for
                return
        give_up(failure_of(self._message, rejected, worker=self.hostname), self.task, self.kwargs)

    def _copy(self) -> deliveries.Copy | None:
        return deliveries.Copy.of(self._request_dict.get, self.kwargs.get("message_id"))

    def _announce_revoked(self, reason: str, terminated: bool, signum: Any, expired: bool) -> None:
        if isinstance(self.task, ConsumerTask) and not self._already_revoked:
            error = Expired(f"expired at {self.expires}") if expired else Revoked(f"{reason}, by an operator")
            failure = failure_of(self._message, error, worker=self.hostname)
            safely(functools.partial(give_up, failure, self.task, self.kwargs))
        super()._announce_revoked(reason, terminated, signum, expired)  # type: ignore[misc]


def _lost(leaving: SystemExit) -> ExceptionInfo:
    """What billiard reports of a lost child, for a child whose task has exited."""
    try:
        raise WorkerLostError(f"Worker exited prematurely: {leaving!r}")
    except WorkerLostError:
        return ExceptionInfo()
