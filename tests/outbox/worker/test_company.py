"""A suspect runs alone in its process; everything else waits for a moment only."""

from __future__ import annotations

import ctypes
import threading
import time

import pytest

from outbox.worker import company
from outbox.worker.company import Pool
from tests.threads import switches

end = ctypes.pythonapi.PyThreadState_SetAsyncExc


@pytest.fixture
def pool():
    return Pool()


def test_a_suspect_is_alone_however_threads_are_switched(pool):
    running, alone, overlaps = [], [], []

    def together():
        for _ in range(100):
            token = object()
            assert pool.enter(token, wait=30)
            running.append(1)
            overlaps.extend(alone)
            running.pop()
            pool.leave(token)

    def suspects():
        for _ in range(30):
            while not pool.enter_alone(token := object(), wait=30):
                pass
            alone.append("alone")
            overlaps.extend(running)
            overlaps.extend(alone[1:])
            alone.pop()
            pool.leave(token)

    switches.run(*[together] * 12, *[suspects] * 4)

    assert overlaps == []
    assert pool.enter_alone("last", wait=0), "everything has ended"


def test_the_others_have_their_turn_however_many_suspects_there_are(pool, monkeypatch):
    monkeypatch.setattr(company, "LONGEST_ALONE", 0.05)
    enough, waits, turns = threading.Event(), [], []

    def suspects():
        while not enough.is_set():
            if pool.enter_alone(token := object(), wait=1):
                turns.append(1)
                time.sleep(0.01)
                pool.leave(token)

    def others():
        while len(waits) < 200 and not enough.is_set():
            began = time.monotonic()
            token = object()
            assert pool.enter(token, wait=10)
            waits.append(time.monotonic() - began)
            time.sleep(0.002)
            pool.leave(token)
        enough.set()

    switches.run(suspects, suspects, *[others] * 4)

    assert turns
    assert max(waits) < 2, "a phase of suspects ends although there are more of them"


def test_a_suspect_that_gets_no_turn_keeps_nobody_waiting(pool):
    assert pool.enter("one")
    assert not pool.enter_alone("suspect", wait=0.01)
    assert pool.enter("two", wait=0)


def test_only_few_suspects_wait_in_their_threads(pool, monkeypatch):
    monkeypatch.setattr(company, "MOST_IN_LINE", 1)
    assert pool.enter("one")
    first = threading.Thread(target=pool.enter_alone, args=["first"], kwargs={"wait": 30})
    first.start()
    while pool.enter("two", wait=0):  # until the first one has closed the pool
        pool.leave("two")

    assert not pool.enter_alone("second", wait=30)

    pool.leave("one")
    first.join(30)
    assert pool.is_certain("first")


def test_nothing_is_certain_beside_a_thread_that_was_abandoned(pool):
    ended = threading.Event()
    hangs = threading.Thread(target=ended.wait, args=[30])
    hangs.start()
    pool.enter("hangs")
    pool.abandon("hangs", hangs)
    assert pool.enter_alone("suspect", wait=0)
    assert not pool.is_certain("suspect")

    ended.set()
    hangs.join()
    assert pool.is_certain("suspect")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_threads_may_be_ended_at_any_line(pool):
    """As the pool ends threads that it has abandoned. Nothing stays locked, and all places are given back."""

    def work(token):
        begin = pool.enter_alone if token == 0 else pool.enter
        while True:
            begin(token, wait=0)
            pool.leave(token)

    for round_ in range(30):
        threads = [threading.Thread(target=work, args=[token], daemon=True) for token in range(3)]
        for thread in threads:
            thread.start()
        time.sleep(round_ % 7 / 1000)
        for thread in threads:
            end(ctypes.c_ulong(thread.ident), ctypes.py_object(SystemExit))
        for token, thread in enumerate(threads):
            thread.join(10)
            assert not thread.is_alive(), "it waits for a lock that nobody gives back"
            pool.abandon(token, thread)

    assert pool.enter_alone("after", wait=60)  # the others may have a turn first, as long as the suspects had
    assert pool.is_certain("after")
