"""The pool of threads without an event loop, as with the broker in memory, and its size."""

from __future__ import annotations

import queue
import threading
import time

import pytest
from billiard.exceptions import Terminated
from kombu.asynchronous import Hub

from outbox.worker import threads
from outbox.worker.threads import TaskPool
from tests.processes import eventually


@pytest.fixture
def pool():
    made = TaskPool(2)
    made.start()
    yield made
    made.close()
    made.stop()
    assert made.have_ended(within=10)


@pytest.fixture
def reported():
    return queue.SimpleQueue()


def begin(pool, reported, work, **options):
    def report(kind):
        return lambda *args: reported.put((kind, *args))

    return pool.apply_async(
        work,
        accept_callback=report("accepted"),
        callback=report("done"),
        error_callback=report("failed"),
        timeout_callback=report("limit"),
        **options,
    )


def test_outcomes_are_reported_in_order_by_one_thread(pool, reported):
    callers = set()

    def note(value):
        callers.add(threading.get_ident())
        reported.put(value)

    for number in range(20):
        pool.apply_async(abs, [-number], callback=note)
    assert sorted(reported.get(timeout=10) for _ in range(20)) == list(range(20))
    assert len(callers) == 1


def test_limits_hold_without_an_event_loop(pool, reported):
    pid = []
    begin(pool, reported, time.sleep, args=[0.8], timeout=0.1)
    kind, *pid = reported.get(timeout=10)
    assert (kind, pid[0] > 0) == ("accepted", True)
    assert reported.get(timeout=10) == ("limit", False, 0.1)
    assert pool.info["abandoned"] == 1
    eventually(lambda: pool.info["abandoned"] == 0, "the thread has ended")
    assert reported.empty()  # the late result is ignored


def test_more_jobs_than_threads_wait_and_can_be_terminated_before_they_begin(pool, reported):
    go = threading.Event()
    for _ in range(2):
        begin(pool, reported, go.wait, args=[10])
    waiting = begin(pool, reported, int)
    assert (pool.info["busy"], pool.info["waiting"]) == (2, 1)

    waiting.terminate()
    go.set()

    kinds = [reported.get(timeout=10) for _ in range(5)]
    assert sorted(kind for kind, *_ in kinds) == ["accepted", "accepted", "done", "done", "failed"]
    [failure] = [value for kind, value, *_ in kinds if kind == "failed"]
    assert isinstance(getattr(failure.exception, "exc", failure.exception), Terminated)


def test_a_task_whose_broker_was_lost_is_not_interrupted_and_its_outcome_ignored(pool, reported):
    """Many are lost at once, and one of them may hold a lock, or a session of the database, at that line."""
    go, finished = threading.Event(), threading.Event()

    def work():
        go.wait(10)
        finished.set()

    job = begin(pool, reported, work)
    assert reported.get(timeout=10)[0] == "accepted"
    job.ends_by_itself = True
    job.terminate()
    go.set()

    assert finished.wait(10)
    eventually(lambda: pool.info["abandoned"] == 0, "the thread has ended")
    assert reported.empty()


def test_a_pool_that_grows_begins_what_waits_and_one_that_shrinks_ends_idle_threads(pool, reported):
    go = threading.Event()
    for _ in range(4):
        begin(pool, reported, go.wait, args=[10])
    assert pool.info["waiting"] == 2
    pool.grow(2)
    assert (pool.info["busy"], pool.info["waiting"], pool.num_processes) == (4, 0, 4)

    go.set()
    eventually(lambda: pool.info["idle"] == 4, "all are done")
    pool.shrink(3)
    assert (pool.info["threads"], pool.num_processes) == (1, 1)


def test_what_has_not_begun_is_forgotten_when_the_broker_is_lost(pool, reported):
    go = threading.Event()
    for _ in range(3):
        begin(pool, reported, go.wait, args=[10])
    pool.flush()
    go.set()
    eventually(lambda: pool.info["busy"] == 0, "the others are done")
    assert [reported.get(timeout=10)[0] for _ in range(4)].count("done") == 2
    assert reported.empty()


def test_a_task_that_ended_in_time_has_not_exceeded_its_limit_although_the_loop_was_held_up(reported):
    pool, hub = TaskPool(2), Hub()
    pool.start()
    pool.register_with_event_loop(hub)
    begin(pool, reported, int, timeout=0.05)
    ended = time.monotonic() + 0.1
    eventually(lambda: len(pool._outcomes) and time.monotonic() > ended, "the limit has passed unnoticed")

    while len(pool._outcomes):
        hub.run_once()

    assert [reported.get(timeout=10)[0] for _ in range(2)] == ["accepted", "done"]
    assert reported.empty()
    pool.close()
    pool.stop()
    hub.close()


def test_limits_of_many_jobs_take_one_timer(reported):
    pool, hub = TaskPool(8), Hub()
    pool.start()
    pool.register_with_event_loop(hub)
    before = len(hub.timer.queue)
    go = threading.Event()
    for _ in range(8):
        begin(pool, reported, go.wait, args=[10], soft_timeout=30, timeout=60)
    assert len(hub.timer.queue) == before + 1

    go.set()
    pool.close()
    pool.stop()
    assert [reported.get(timeout=10)[0] for _ in range(16)].count("done") == 8
    hub.close()


def test_a_thread_that_may_finish_its_task_is_interrupted_at_its_hard_limit(pool, reported, monkeypatch):
    monkeypatch.setattr(threads, "ENDS_WITHIN", 0.1)

    def work():
        while True:
            time.sleep(0.01)

    job = begin(pool, reported, work, timeout=0.3)
    job.ends_by_itself = True
    job.terminate()
    pool._look()
    assert pool.info["abandoned"] == 1
    assert not job.thread.is_interrupted

    def has_ended():
        pool._look()
        return not job.thread.is_alive()

    eventually(has_ended, "the thread has ended")
    assert job.thread.is_interrupted
