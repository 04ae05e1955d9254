"""
The threads of a pool and the tasks that they run, as `outbox.worker.threads` hands them over.

A thread cannot be killed. A limit raises an exception in it, which arrives as soon as the thread runs Python
code again, and so perhaps after the task has ended. What is here keeps it from reaching the next task.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import itertools
import operator
import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from billiard.einfo import ExceptionInfo
from billiard.exceptions import SoftTimeLimitExceeded, WorkerLostError
from celery import Task, signals
from django.db import connections

_numbers = itertools.count(1)

_set_exception = ctypes.pythonapi.PyThreadState_SetAsyncExc
_set_exception.argtypes = [ctypes.c_ulong, ctypes.py_object]


class Abandoned(SystemExit):
    """
    Ends a thread that its pool has abandoned, because its task exceeded its hard time limit or was terminated.

    No `except Exception` catches it, and a thread that ends with it writes no traceback.
    """


class Job:
    """
    One task in the pool. Celery's request refers to it as the result of `apply_async`.

    Only the worker's main loop changes it; the thread of the task calls `open` and `close`.
    """

    def __init__(
        self,
        target: Callable[..., Any],
        args: Sequence[Any],
        kwargs: dict[str, Any],
        *,
        task_id: str | None = None,
        soft: float | None = None,
        hard: float | None = None,
        terminate: Callable[[Job], None],
        **callbacks: Callable[..., Any] | None,
    ) -> None:
        self.call = functools.partial(target, *args, **kwargs)
        self.task_id, self.soft, self.hard = task_id, soft, hard
        self.callbacks = callbacks
        self.thread: TaskThread | None = None
        self.given, self.started = time.monotonic(), 0.0
        self.is_over = False
        """Whether the pool has reported the outcome, or ignores it."""
        self.ends_by_itself = False
        """Whether its thread may finish the task within the hard limit although it is abandoned."""
        self.was_warned = False
        """Whether the soft time limit has passed."""
        self._is_open = False
        self._gate = threading.RLock()
        self._terminate = terminate

    def begin(self, thread: TaskThread) -> None:
        """Let the thread take it."""
        self.thread, self.started = thread, time.monotonic()

    def next_limit(self) -> float | None:
        """Return when the next time limit passes, on the monotonic clock."""
        limit = self.hard if self.was_warned or not self.soft else self.soft
        if limit and self.hard:
            limit = min(limit, self.hard)
        return self.started + limit if limit else None

    def warn(self) -> bool:
        """Raise `SoftTimeLimitExceeded` in the task; return False if it has not begun, or has ended."""
        if self.thread is None or not self._is_open or not self._gate.acquire(blocking=False):
            return False
        try:
            self.was_warned = True
            return bool(_set_exception(self.thread.ident or 0, SoftTimeLimitExceeded))
        finally:
            self._gate.release()

    def open(self) -> None:
        """Let the soft time limit interrupt this thread. Before, it would interrupt its wait for a job."""
        self._is_open = True

    def close(self) -> None:
        """
        Keep the soft time limit from interrupting this thread any more. May be called again by the same thread.

        An exception that is raised here is the limit, which is raised once.
        """
        self._gate.acquire()  # and never released
        if self.was_warned:
            _set_exception(threading.get_ident(), ctypes.py_object())

    def terminate(self, signum: int | None = None) -> None:
        """End the task; Celery's request calls it after `terminate_job`."""
        self._terminate(self)

    def report(self, event: str, *args: Any, **kwargs: Any) -> None:
        """Call the callback of this name, if the request has one."""
        if callback := self.callbacks.get(event):
            callback(*args, **kwargs)


class TaskThread(threading.Thread):
    """A thread of the pool. It takes one job after the other, and ends if it is abandoned."""

    def __init__(self, deliver: Callable[[Job, bool, Any], None]) -> None:
        super().__init__(name=f"task-{next(_numbers)}", daemon=True)
        self.job: Job | None = None
        """The job that the pool has given it, until the pool has taken its outcome."""
        self.is_interrupted = False
        """Whether an exception was raised in it to end it."""
        self._deliver = deliver
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._gate = threading.RLock()

    def give(self, job: Job) -> None:
        """Let it run a job."""
        self.job = job
        self._jobs.put(job)

    def end(self) -> None:
        """Let it end when it has no more jobs."""
        self._jobs.put(None)

    def abandon(self) -> None:
        """Let it end as soon as it runs Python code again."""
        self.end()
        self.is_interrupted = True
        if self._gate.acquire(blocking=False):  # else it is just ending, and its number may belong to another
            try:
                _set_exception(self.ident or 0, Abandoned)
            finally:
                self._gate.release()

    def run(self) -> None:
        try:
            while (job := self._jobs.get()) is not None:
                self._perform(job)
                del job
        except Abandoned:
            pass
        finally:
            with contextlib.suppress(Exception):
                connections.close_all()
            self._gate.acquire()

    def _perform(self, job: Job) -> None:
        outcome: list[tuple[bool, Any]] = []
        try:
            try:
                job.open()
                # A limit can strike between any two instructions, so that a return value were lost on its way
                # into a variable. Inside of `extend` there are none.
                outcome.extend(zip((True,), map(operator.call, (job.call,)), strict=False))
            except Abandoned:
                raise
            except BaseException:
                outcome.append((False, ExceptionInfo()))
            job.close()
        except SoftTimeLimitExceeded:
            job.close()  # the limit struck after the task; it strikes once
        is_done, value = outcome[0] if outcome else (False, None)
        if not is_done and (value is None or isinstance(_error_of(value), SoftTimeLimitExceeded)):
            value = _lost()
        self._deliver(job, is_done, value)


def _error_of(info: ExceptionInfo) -> Any:
    return getattr(info.exception, "exc", info.exception)


def _lost() -> ExceptionInfo:
    """A limit that struck outside of the task: its hooks may not have run, so it is delivered again."""
    try:
        raise WorkerLostError("The soft time limit passed while the task was being taken or reported")
    except WorkerLostError:
        return ExceptionInfo()


@signals.task_postrun.connect
def close(sender: Task, task_id: str, **_: Any) -> None:
    """Let no limit interrupt what follows the task. Celery would take it for a failure to report the task."""
    thread = threading.current_thread()
    job = thread.job if isinstance(thread, TaskThread) else None
    if job and job.task_id == task_id:
        with contextlib.suppress(SoftTimeLimitExceeded):
            job.close()
