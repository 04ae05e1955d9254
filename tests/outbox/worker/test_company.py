"""A suspect runs alone in its process; everything else waits for a moment only."""

from __future__ import annotations

import threading
import time

import pytest

from outbox.worker import company
from outbox.worker.company import Pool
from tests.threads import switches


@pytest.fixture
def pool():
    return Pool()


def test_a_suspect_is_alone_however_threads_are_switched(pool):
    running, alone, overlaps = [], [], []

    def together():
        for _ in range(100):
            assert pool.enter(wait=30)
            running.append(1)
            overlaps.extend(alone)
            running.pop()
            pool.leave()

    def suspects():
        for _ in range(30):
            while not pool.enter_alone(wait=30):
                pass
            alone.append("alone")
            overlaps.extend(running)
            overlaps.extend(alone[1:])
            alone.pop()
            pool.leave(alone=True)

    switches.run(*[together] * 12, *[suspects] * 4)

    assert overlaps == []
    assert pool.enter_alone(wait=0), "everything has ended"


def test_the_others_have_their_turn_however_many_suspects_there_are(pool, monkeypatch):
    monkeypatch.setattr(company, "LONGEST_ALONE", 0.05)
    enough, waits, turns = threading.Event(), [], []

    def suspects():
        while not enough.is_set():
            if pool.enter_alone(wait=1):
                turns.append(1)
                time.sleep(0.01)
                pool.leave(alone=True)

    def others():
        while len(waits) < 200 and not enough.is_set():
            began = time.monotonic()
            assert pool.enter(wait=10)
            waits.append(time.monotonic() - began)
            time.sleep(0.002)
            pool.leave()
        enough.set()

    switches.run(suspects, suspects, *[others] * 4)

    assert turns
    assert max(waits) < 2, "a phase of suspects ends although there are more of them"


def test_a_suspect_that_gets_no_turn_keeps_nobody_waiting(pool):
    assert pool.enter()
    assert not pool.enter_alone(wait=0.01)
    assert pool.enter(wait=0)


def test_only_few_suspects_wait_in_their_threads(pool, monkeypatch):
    monkeypatch.setattr(company, "MOST_IN_LINE", 1)
    assert pool.enter()
    first = threading.Thread(target=pool.enter_alone, kwargs={"wait": 30})
    first.start()
    while pool.enter(wait=0):  # until the first one has closed the pool
        pool.leave()

    assert not pool.enter_alone(wait=30)

    pool.leave()
    first.join(30)
    assert pool.is_certain


def test_nothing_is_certain_beside_a_thread_that_was_abandoned(pool):
    pool.enter()
    pool.abandon()
    pool.leave()
    assert pool.enter_alone(wait=0)
    assert not pool.is_certain

    pool.end_abandoned()
    assert pool.is_certain
