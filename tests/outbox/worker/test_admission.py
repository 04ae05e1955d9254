"""A task in threads begins when a database session is free for it."""

from __future__ import annotations

import threading
import time

import pytest
from kombu.asynchronous import Hub

from outbox.worker import admission
from outbox.worker.admission import LONGEST_WAIT, Admission
from outbox.worker.threads import TaskPool
from tests.outbox.worker.test_session_pool import MOST, in_use, perform, started, task, use
from tests.processes import eventually

__all__ = ["perform", "started", "task"]

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def hub():
    made = Hub()
    yield made
    made.close()


@pytest.fixture
def bound(hub):
    made = Admission(lambda: None)
    made.bind(hub)
    return made


@pytest.fixture
def all_in_use(perform):
    """Tasks that hold all sessions until this is set."""
    go = threading.Event()

    def hold() -> None:
        use()
        go.wait(30)

    held = [perform(hold) for _ in range(MOST)]
    eventually(lambda: in_use() == MOST, "all sessions are in use")
    yield go
    go.set()
    for each in held:
        each.result(timeout=10)


def test_a_task_waits_while_all_sessions_are_in_use(bound, all_in_use):
    assert not bound.admits(time.monotonic())

    all_in_use.set()
    eventually(lambda: bound.admits(time.monotonic()), "it begins")


def test_a_task_that_has_waited_for_long_begins(bound, all_in_use):
    assert bound.admits(time.monotonic() - LONGEST_WAIT)


def test_tasks_that_have_just_begun_count_as_having_a_session(started, bound, monkeypatch):
    monkeypatch.setattr(admission, "BEGINS_WITHIN", 60.0)
    assert [bound.admits(time.monotonic()) for _ in range(MOST + 2)] == [True] * MOST + [False] * 2


def test_without_shared_sessions_nothing_waits(bound):
    assert all(bound.admits(time.monotonic()) for _ in range(50))


def test_waiting_tasks_are_looked_at_again(hub, all_in_use):
    looked = []
    waiting = Admission(lambda: looked.append(waiting.admits(time.monotonic())))
    waiting.bind(hub)
    assert not waiting.admits(time.monotonic())

    eventually(lambda: hub.fire_timers() is not None and looked, "a look")
    assert looked[0] is False
    all_in_use.set()
    eventually(lambda: hub.fire_timers() is not None and looked[-1], "it begins")


def test_a_pool_that_stops_finishes_tasks_that_only_waited_for_a_session(hub, all_in_use):
    pool, done = TaskPool(8), []
    pool.start()
    pool.register_with_event_loop(hub)
    for number in range(3):
        pool.apply_async(abs, [-number], callback=done.append)
    assert (pool.info["busy"], pool.info["waiting"]) == (0, 3)

    pool.close()
    pool.stop()
    assert sorted(done) == [0, 1, 2]
    assert pool.have_ended(within=10)


def test_what_only_waited_for_a_session_begins_when_the_broker_is_lost(hub, all_in_use):
    """Otherwise Redis would deliver it again after half a minute."""
    pool, done = TaskPool(8), []
    pool.start()
    pool.register_with_event_loop(hub)
    for number in range(9):
        pool.apply_async(abs, [-number], callback=done.append)
    assert (pool.info["busy"], pool.info["waiting"]) == (0, 9)

    pool.flush()
    assert pool.info["waiting"] == 0
    pool.close()
    pool.stop()
    assert sorted(done) == list(range(8)), "as many as there are threads; the last one is delivered again"
    assert pool.have_ended(within=10)
