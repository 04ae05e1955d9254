"""
The pool of threads that `outbox.install` gives to workers as `-P threads`, in the place of Celery's.

It does in threads what the prefork pool does in processes. All callbacks of a request (its task has begun,
succeeded, failed, or exceeded a limit) run in the worker's main loop, which alone uses the broker's
connection; a thread only runs tasks and puts their outcomes into a queue. The loop is woken once for all
outcomes in it. It also hands each job to one thread, so that it knows which thread to interrupt.

A limit cannot end a thread as it ends a process. Its task is reported and its message given back as with
prefork, and another thread takes its place. The thread that hangs is abandoned: what it still does is ignored.
"""

from __future__ import annotations

import collections
import logging
import threading
import time
from typing import Any

from billiard.einfo import ExceptionInfo
from billiard.exceptions import Terminated, TimeLimitExceeded
from celery import VERSION
from celery.concurrency.base import BasePool
from celery.worker import state

from outbox.worker import retirement
from outbox.worker.admission import Admission
from outbox.worker.outcomes import Outcomes, acknowledge
from outbox.worker.task_threads import Job, TaskThread

REPORTS_LIMITS_TWICE = VERSION < (5, 7)
"""Before, `on_timeout` does not report a task that exceeded its hard limit to Flower; `on_failure` does."""

ENDS_WITHIN = 1.0
"""Seconds after which a thread that was to end counts as hanging. It ends when it runs Python code again."""

SHORTEST_WAIT = 0.05
"""Seconds between two looks at the time limits: a thread may not have begun with its task, or may just end."""

TERMINATED_WITHIN = 60.0
"""The same for a task that was terminated and has no hard time limit: its call may take that long."""

logger = logging.getLogger(__name__)


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
        self._abandoned: dict[TaskThread, float] = {}
        """Threads that were to end, and when they count as hanging."""
        self._admission = Admission(self._report_all)
        self._outcomes = Outcomes()
        self._hub: Any = None
        self._timer: Any = None
        self._dispatcher: threading.Thread | None = None
        self._lock = threading.RLock()  # contended only if there is no hub
        self._turned_at: float | None = None
        """When the main loop last turned; None while it connects or stops."""
        self._handed_back_at: float | None = None
        """When the tasks that still run are handed back, if the worker stops; None: when they have ended."""
        memory = self.options.get("max_memory_per_child")
        self._retirement = retirement.Retirement(threads=self.limit, memory=memory, drain=self._drain)

    def on_start(self) -> None:
        if self.options.get("timeout"):
            retirement.watch_for_standstill(lambda: self._turned_at)
        if self.options.get("maxtasksperchild"):
            logger.info("worker_max_tasks_per_child does not apply to threads")

    # In the main loop -----------------------------------------------------------------------------------

    def register_with_event_loop(self, loop: Any) -> None:
        """Begin to report outcomes in this loop. It is called again after the broker was lost."""
        self._hub, self._turned_at = loop, time.monotonic()
        self._admission.bind(loop)
        loop.add_reader(self._outcomes, self._report_all)
        self._plan()
        loop.call_repeatedly(retirement.LOOKED_AT_EVERY, self._look)
        self._outcomes.wake()

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

    def _assign(self, *, stops: bool = False) -> None:
        """Give jobs that wait to threads that do not."""
        while self._waiting and len(self._running) < self.limit and (self.active or stops):
            if not self._admission.admits(self._waiting[0].given):
                return
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
        self._outcomes.put((job, is_done, value))

    def _report_all(self) -> None:
        """Report all outcomes that are there, and let the threads go on."""
        try:
            for outcome in self._outcomes.take():
                with self._lock:
                    self._report(*outcome)
        finally:
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
            self._timer = (
                limit,
                self._hub.call_later(max(SHORTEST_WAIT, limit - time.monotonic()), self._check_limits),
            )

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
        limit = job.started + (job.hard or TERMINATED_WITHIN)
        self._abandoned[thread] = max(limit, time.monotonic() + ENDS_WITHIN)
        if job.ends_by_itself:
            thread.end()
        else:
            thread.abandon()

    def _terminate(self, job: Job) -> None:
        with self._lock:
            if job.is_over:
                return
            self._abandon(job)
            if job.thread is None:  # nobody has told its request
                try:
                    raise Terminated(None)
                except Terminated:
                    self._call(job, "failed", ExceptionInfo())

    def terminate_job(self, pid: int, signal: int | None = None) -> None:
        """Terminate the job of the thread with this number; there is no signal for a thread."""
        if job := self._running.get(pid):
            self._terminate(job)
            with self._lock:
                self._assign()

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

    def abandoned(self) -> int:
        """Return the number of threads that were abandoned and have not ended."""
        self._abandoned = {thread: at for thread, at in self._abandoned.items() if thread.is_alive()}
        return len(self._abandoned)

    def _look(self) -> None:
        """Let the worker end if it should be replaced."""
        if not self.active:
            return
        self._turned_at = time.monotonic()
        hanging = 0
        if self._abandoned and self.abandoned():
            now = time.monotonic()
            for thread in [thread for thread, at in self._abandoned.items() if at <= now]:
                if thread.is_interrupted:
                    hanging += 1
                else:  # it was to end by itself
                    thread.abandon()
                    self._abandoned[thread] = now + ENDS_WITHIN
        self._retirement.look(hanging)

    # The end --------------------------------------------------------------------------------------------

    def flush(self) -> None:
        """
        Forget what has not begun: the broker was lost or the worker stops, and delivers it again.

        What only waited for a session begins: Redis would take half a minute to deliver it again.
        """
        self._turned_at = None
        self._admission.release()
        with self._lock:
            self._assign(stops=True)
            for job in self._waiting:
                job.is_over = True
            self._waiting.clear()

    def hurry(self, seconds: float) -> bool:
        """
        Let running tasks go on only for so long once the worker stops; if it has been called, no longer.

        Return whether they may go on. It may be called by a signal handler.
        """
        is_first = self._handed_back_at is None
        self._handed_back_at = time.monotonic() + (seconds if is_first else 0)
        self._outcomes.wake()
        return is_first and seconds > 0

    def _drain(self, seconds: float) -> None:
        """Let running tasks go on to their hard limit, and those without one for so long."""
        now = time.monotonic()
        ends = [job.started + job.hard if job.hard else now + seconds for job in self._running.values()]
        self._handed_back_at = max(ends, default=now) + ENDS_WITHIN

    def on_stop(self) -> None:
        """Let running tasks end and report their outcomes, or hand them back when their time is up."""
        if self._handed_back_at is None:
            self._admission.release()
            with self._lock:
                self._assign(stops=True)  # or the broker would deliver again what only waited for a session
        self.flush()
        while self._running and not self._is_time_up():
            self._turn()
        self._hand_back()
        self._end_threads()

    def on_terminate(self) -> None:
        """Hand back what runs."""
        self.flush()
        self._report_all()
        self._hand_back()
        self._end_threads()

    def _is_time_up(self) -> bool:
        return self._handed_back_at is not None and time.monotonic() >= self._handed_back_at

    def _hand_back(self) -> None:
        """Leave the messages of running tasks to the broker, and let their threads end."""
        running = set(map(id, self._running.values()))
        for request in tuple(state.active_requests):
            job = request._apply_result and request._apply_result()
            if id(job) in running:
                logger.warning("%s was running for too long and is handed back", request)
                try:
                    request.cancel(self)
                except Exception:
                    logger.exception("Could not hand %s back", request)
        for job in list(self._running.values()):
            self._abandon(job)
        for thread in self._abandoned:
            thread.abandon()
        end = time.monotonic() + ENDS_WITHIN  # a short call returns; its claim is then released
        while running and self.abandoned() and time.monotonic() < end:
            time.sleep(0.01)

    def _turn(self) -> None:
        """Wait for outcomes while the main loop does not run, and report them."""
        if self._dispatcher is not None:
            time.sleep(0.05)
            return
        self._outcomes.wait(0.2)
        self._report_all()
        if self._hub is not None:
            self._hub.fire_timers()  # limits, and the heartbeats of the broker
            acknowledge(self._hub)

    def _end_threads(self) -> None:
        for thread in self._idle:
            thread.end()

    def have_ended(self, *, within: float) -> bool:
        """Return whether all threads end within so many seconds after the pool has stopped."""
        end = time.monotonic() + within
        for thread in (*self._idle, *self._abandoned):
            thread.join(max(0.0, end - time.monotonic()))
        return not self._running and not any(thread.is_alive() for thread in (*self._idle, *self._abandoned))

    def _dispatch(self) -> None:
        """Report outcomes in a thread, for a broker without an event loop, such as the one in memory."""
        if self._dispatcher is None:
            self._dispatcher = threading.Thread(target=self._report_for_ever, name="task-outcomes", daemon=True)
            self._dispatcher.start()

    def _report_for_ever(self) -> None:
        while self._state != self.TERMINATE:
            self._outcomes.wait(0.5)
            self._check_limits()

    def _get_info(self) -> dict[str, Any]:
        return super()._get_info() | {  # type: ignore[misc]
            "threads": len(self._running) + len(self._idle),
            "busy": len(self._running),
            "idle": len(self._idle),
            "waiting": len(self._waiting),
            "abandoned": self.abandoned(),
            "timeouts": (self.options.get("soft_timeout") or 0, self.options.get("timeout") or 0),
        }
