"""A limit interrupts the task that exceeded it, and never the next one of the same thread."""

from __future__ import annotations

import itertools
import queue
import sys
import threading
import time

import pytest
from celery.exceptions import SoftTimeLimitExceeded

from outbox.worker.task_threads import Abandoned, Job, TaskThread


class Threads:
    """One thread and its outcomes."""

    def __init__(self):
        self.outcomes = queue.SimpleQueue()
        self.thread = TaskThread(lambda *outcome: self.outcomes.put(outcome))
        self.thread.start()

    def begin(self, work, *args):
        job = Job(work, args, {}, terminate=lambda job: None)
        job.begin(self.thread)
        self.thread.give(job)
        return job

    def outcome(self):
        _, is_done, value = self.outcomes.get(timeout=10)
        return is_done, value if is_done else getattr(value.exception, "exc", value.exception)


@pytest.fixture
def threads():
    made = Threads()
    yield made
    made.thread.end()
    made.thread.join(10)
    assert not made.thread.is_alive()


@pytest.fixture
def switching_often():
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def test_a_soft_limit_interrupts_its_task(threads):
    begun = threading.Event()

    def work():
        try:
            begun.set()
            while True:
                time.sleep(0.001)
        except SoftTimeLimitExceeded:
            return "cleaned up"

    job = threads.begin(work)
    assert begun.wait(10)
    assert job.warn()
    assert threads.outcome() == (True, "cleaned up")


def test_a_task_that_has_ended_is_not_interrupted(threads):
    job = threads.begin(lambda: "done")
    assert threads.outcome() == (True, "done")
    assert not job.warn()
    threads.begin(lambda: sum(range(1000)))
    assert threads.outcome() == (True, 499_500)


def test_a_limit_that_strikes_as_the_task_ends_never_reaches_the_next_one(threads, switching_often):
    """The limit strikes at another moment each time, from within the task to after its end."""
    in_time = late = 0
    for number in itertools.count():
        if number >= 2000 and in_time and late:
            break
        asked_to_end = []

        def work(asked_to_end=asked_to_end):
            while not asked_to_end:
                pass
            return "done"

        job = threads.begin(work)
        asked_to_end.append(True)
        for _ in range(number % 30):
            pass
        job.warn()
        is_done, value = threads.outcome()
        assert value == "done" if is_done else type(value).__name__ == "WorkerLostError"
        in_time += is_done
        late += not is_done

        threads.begin(lambda: sum(range(50)))
        assert threads.outcome() == (True, 1225)


def test_an_error_of_a_task_is_reported(threads):
    def work():
        raise LookupError("none")

    threads.begin(work)
    is_done, error = threads.outcome()
    assert (is_done, type(error)) == (False, LookupError)


def test_a_task_that_exits_does_not_end_its_thread(threads):
    threads.begin(exit, 3)
    is_done, error = threads.outcome()
    assert (is_done, type(error)) == (False, SystemExit)
    threads.begin(int)
    assert threads.outcome() == (True, 0)


def test_an_abandoned_thread_ends_although_its_task_catches_errors(threads):
    begun, effects = threading.Event(), []

    def work():
        begun.set()
        while True:
            try:
                time.sleep(0.01)
                if effects:
                    effects.append("late")
            except Exception:
                pass

    threads.begin(work)
    assert begun.wait(10)
    threads.thread.abandon()
    threads.thread.join(10)
    assert not threads.thread.is_alive()
    assert threads.outcomes.empty()


def test_abandoning_is_no_error_that_tasks_catch():
    assert not issubclass(Abandoned, Exception)
