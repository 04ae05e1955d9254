"""
The pool of threads that `outbox.install` gives to workers as `-P threads`, in the place of Celery's.

It does in threads what the prefork pool does in processes. All callbacks of a request (its task has begun,
succeeded, failed, or exceeded a limit) run in the worker's main loop, which alone uses the broker's
connection; a thread only runs tasks and puts their outcomes into a queue. The loop is woken once for all
outcomes in it. It also hands each job to one thread, so that it knows which thread to interrupt.

A limit cannot end a thread as it ends a process. Its task is reported and its message given back as with
prefork, and another thread takes the place of the one that hangs. That one is abandoned: the outcome of
whatever it still does is ignored. `docs/scaling.md` compares both pools.
"""

from __future__ import annotations

import collections
import contextlib
import logging
import socket
import threading
import time
from typing import Any

from billiard.einfo import ExceptionInfo
from billiard.exceptions import TimeLimitExceeded
from celery import VERSION, concurrency
from celery.concurrency.base import BasePool

from outbox.worker.task_threads import Job, TaskThread

ALIAS = "threads"
POOL = f"{__name__}:TaskPool"
STOCK_POOL = "celery.concurrency.thread:TaskPool"

REPORTS_LIMITS_TWICE = VERSION < (5, 7)
"""Before, `on_timeout` does not report a task that exceeded its hard limit to Flower; `on_failure` does."""

_aliases: dict[str, str] = concurrency.ALIASES  # type: ignore[attr-defined]

logger = logging.getLogger(__name__)


def install() -> None:
    """Let `-P threads` start this pool."""
    _aliases[ALIAS] = POOL


def is_installed() -> bool:
    """Return whether `-P threads` starts this pool."""
    return _aliases.get(ALIAS) == POOL


class TaskPool(BasePool):
    """A pool of threads, whose callbacks run in the worker's main loop."""

    app: Any
    limit: int
    options: dict[str, Any]
    _state: Any

    body_can_be_buffer = True
    signal_safe = False

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.limit = self.limit or 1
        self._waiting: collections.deque[Job] = collections.deque()
        self._running: dict[int, Job] = {}
        """The jobs that threads have, by the thread's number, which requests know as their `worker_pid`."""
        self._idle: list[TaskThread] = []
        self._abandoned: set[TaskThread] = set()
        self._outcomes: collections.deque[tuple[Job, bool, Any]] = collections.deque()
        self._is_woken = False
        self._woken, self._wake = socket.socketpair()
        self._woken.setblocking(False)
        self._wake.setblocking(False)
        self._hub: Any = None
        self._timer: Any = None
        self._dispatcher: threading.Thread | None = None
        self._lock = threading.RLock()  # contended only if there is no hub

    # In the main loop -----------------------------------------------------------------------------------

    def register_with_event_loop(self, loop: Any) -> None:
        """Begin to report outcomes in this loop. It is called again after the broker was lost."""
        self._hub = loop
        loop.add_reader(self._woken, self._report_all)
        self._plan()
        self._wake_up()

    def on_apply(  # type: ignore[override]
        self, target: Any, args: Any = (), kwargs: Any = None, correlation_id: str | None = None, **options: Any
    ) -> Job:
        job = Job(
            target,
            args or (),
            kwargs or {},
            task_id=correlation_id,
            soft=options.get("soft_timeout") or self.options.get("soft_timeout"),
            hard=options.get("timeout") or self.options.get("timeout"),
            terminate=self._terminate,
            accepted=options.get("accept_callback"),
            done=options.get("callback"),
            failed=options.get("error_callback"),
            limit=options.get("timeout_callback"),
        )
        with self._lock:
            self._waiting.append(job)
            self._assign()
        if self._hub is None:
            self._dispatch()
        return job

    def _assign(self) -> None:
        """Give jobs that wait to threads that do not."""
        while self._waiting and len(self._running) < self.limit:
            job = self._waiting.popleft()
            if job.is_over:
                continue
            thread = self._idle.pop() if self._idle else self._start_thread()
            job.begin(thread)
            number = thread.native_id or 0
            self._running[number] = job
            self._call(job, "accepted", number, job.started)
            if job.is_over:  # it was terminated before it began
                self._running.pop(number, None)
                self._idle.append(thread)
                continue
            thread.give(job)
            self._plan(job)

    def _start_thread(self) -> TaskThread:
        thread = TaskThread(self._deliver)
        thread.start()
        return thread

    def _deliver(self, job: Job, is_done: bool, value: Any) -> None:
        """Put an outcome into the queue. Called by the threads."""
        self._outcomes.append((job, is_done, value))
        self._wake_up()

    def _wake_up(self) -> None:
        if not self._is_woken:
            self._is_woken = True
            with contextlib.suppress(OSError):  # closed, or full, so that the loop is woken anyhow
                self._wake.send(b"\0")

    def _report_all(self) -> None:
        """Report all outcomes that are there, and let the threads go on."""
        with contextlib.suppress(OSError):
            self._woken.recv(4096)
        self._is_woken = False  # after reading, or the byte of the next outcome would be read too, and miss
        try:
            while self._outcomes:
                with self._lock:
                    self._report(*self._outcomes.popleft())
        finally:
            if self._outcomes:
                self._wake_up()
            with self._lock:
                self._assign()

    def _report(self, job: Job, is_done: bool, value: Any) -> None:
        if job.is_over:
            return
        job.is_over = True
        thread = job.thread
        if thread is not None:
            thread.job = None
            self._running.pop(thread.native_id or 0, None)
            if len(self._idle) + len(self._running) < self.limit:
                self._idle.append(thread)
            else:
                thread.end()
        self._call(job, "done" if is_done else "failed", value)

    @staticmethod
    def _call(job: Job, event: str, *args: Any, **kwargs: Any) -> None:
        """Report to the request. As in the prefork pool, an error there does not stop the worker."""
        try:
            job.report(event, *args, **kwargs)
        except Exception:
            logger.exception("A request could not take what its task came to")

    # Time limits ----------------------------------------------------------------------------------------

    def _plan(self, job: Job | None = None) -> None:
        """Look at the limits again when the next one passes; `job` is one that has just begun."""
        if self._hub is None:
            return
        jobs = self._running.values() if job is None else (job,)
        limit = min((each for each in (job.next_limit() for job in jobs) if each is not None), default=None)
        if job is not None and (limit is None or (self._timer and self._timer[0] <= limit)):
            return
        if self._timer:
            self._timer[1].cancel()
        self._timer = None
        if limit is not None:
            self._timer = limit, self._hub.call_later(max(0.0, limit - time.monotonic()), self._check_limits)

    def _check_limits(self) -> None:
        self._report_all()  # what has ended in time has not exceeded its limit if the loop was held up
        with self._lock:
            self._timer = None
            now = time.monotonic()
            for job in list(self._running.values()):
                if job.hard and now >= job.started + job.hard:
                    self._exceed(job, job.hard)
                elif job.soft and not job.was_warned and now >= job.started + job.soft and job.warn():
                    self._call(job, "limit", True, job.soft)
            self._plan()
            self._assign()

    def _exceed(self, job: Job, limit: float) -> None:
        """End a task at its hard limit, and run its hooks, which postpone or bury its message."""
        self._abandon(job)
        self._call(job, "limit", False, limit)
        if REPORTS_LIMITS_TWICE:
            try:
                raise TimeLimitExceeded(limit)
            except TimeLimitExceeded:
                self._call(job, "failed", ExceptionInfo())

    def _abandon(self, job: Job) -> None:
        """Ignore what comes of a job, and end its thread as soon as it can be ended."""
        job.is_over = True
        thread = job.thread
        if thread is None or thread.job is not job:
            return
        self._running.pop(thread.native_id or 0, None)
        self._abandoned.add(thread)
        thread.abandon()

    def _terminate(self, job: Job) -> None:
        with self._lock:
            if not job.is_over:
                self._abandon(job)

    def terminate_job(self, pid: int, signal: int | None = None) -> None:
        """Terminate the job of the thread with this number; there is no signal for a thread."""
        if job := self._running.get(pid):
            self._terminate(job)

    # Size, life and statistics --------------------------------------------------------------------------

    def grow(self, n: int = 1) -> None:
        """Let the pool have more threads, which it starts when there are tasks for them."""
        with self._lock:
            self.limit += n
            self._assign()

    def shrink(self, n: int = 1) -> None:
        """Let the pool have fewer threads. Tasks that run are finished."""
        with self._lock:
            self.limit = max(1, self.limit - n)
            while self._idle and len(self._idle) + len(self._running) > self.limit:
                self._idle.pop().end()

    @property
    def abandoned(self) -> int:
        """The number of threads that were abandoned and have not ended."""
        self._abandoned = {thread for thread in self._abandoned if thread.is_alive()}
        return len(self._abandoned)

    def on_stop(self) -> None:
        """Let running tasks finish, and report what comes of them."""
        while self._running or self._waiting:
            self._turn(1.0)
        self._end_threads()

    def on_terminate(self) -> None:
        self._end_threads()

    def _turn(self, seconds: float) -> None:
        """Wait for outcomes while the main loop does not run, and report them."""
        if self._dispatcher is not None:
            time.sleep(0.05)
            return
        if not self._outcomes:
            self._woken.settimeout(min(seconds, self._until_next_limit()))
            try:
                with contextlib.suppress(OSError):
                    self._woken.recv(1)
            finally:
                self._woken.setblocking(False)
        self._report_all()
        if self._hub is not None:
            self._hub.fire_timers()  # limits, and the heartbeats of the broker

    def _until_next_limit(self) -> float:
        return max(0.001, self._timer[0] - time.monotonic()) if self._timer else 1.0

    def _end_threads(self) -> None:
        for thread in self._idle:
            thread.end()
        self._idle.clear()

    def _dispatch(self) -> None:
        """Report outcomes in a thread, for a broker without an event loop, such as the one in memory."""
        if self._dispatcher is None:
            self._dispatcher = threading.Thread(target=self._report_for_ever, name="task-outcomes", daemon=True)
            self._dispatcher.start()

    def _report_for_ever(self) -> None:
        self._woken.setblocking(True)
        self._woken.settimeout(0.5)
        while self._state != self.TERMINATE:
            with contextlib.suppress(OSError):
                self._woken.recv(1)
            self._report_all()
            self._check_limits()

    def _get_info(self) -> dict[str, Any]:
        return super()._get_info() | {  # type: ignore[misc]
            "threads": len(self._running) + len(self._idle),
            "busy": len(self._running),
            "idle": len(self._idle),
            "waiting": len(self._waiting),
            "abandoned": self.abandoned,
            "timeouts": (self.options.get("soft_timeout") or 0, self.options.get("timeout") or 0),
        }
