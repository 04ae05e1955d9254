"""One slow or hanging provider holds its share of a process's threads, and no more."""

from __future__ import annotations

import datetime as dt
import threading
import time

import pytest

from outbox import bulkheads, resilience
from outbox.bulkheads import Crowded
from outbox.resilience import Outage
from tests.threads import switches

THREADS = 10


@pytest.fixture(autouse=True)
def divided(settings):
    settings.OUTBOX_BREAKER_FACTORY = "outbox.resilience.always_closed"
    settings.OUTBOX_PROVIDER_SHARE = 0.6
    bulkheads.divide(THREADS)
    for provider in ("payments", "warehouse"):
        bulkheads.of(provider)
    yield
    bulkheads.divide(0)


@pytest.fixture
def call():
    """Start calls that last until the test ends or lets them end."""
    ended, threads = threading.Event(), []

    def call(provider, number):
        begun = threading.Semaphore(0)

        def one():
            with resilience.breaker(provider).guard():
                begun.release()
                ended.wait(30)

        for _ in range(number):
            threads.append(threading.Thread(target=one))
            threads[-1].start()
            assert begun.acquire(timeout=30)
        return ended

    yield call
    ended.set()
    for thread in threads:
        thread.join(30)


def guarded(provider):
    with resilience.breaker(provider).guard():
        pass


def test_a_hanging_provider_holds_its_share_and_others_are_called(call, monkeypatch):
    monkeypatch.setattr(bulkheads, "LONGEST_WAIT_IN_THREAD", 0)
    call("warehouse", 6)

    with pytest.raises(Crowded, match="warehouse"):
        guarded("warehouse")
    guarded("payments")


def test_a_call_waits_for_a_place_as_long_as_a_usual_call_takes(call):
    ended = call("warehouse", 6)
    threading.Timer(0.02, ended.set).start()

    guarded("warehouse")


def test_no_thread_waits_for_a_provider_that_is_stuck(call):
    call("warehouse", 6)
    bulkheads.of("warehouse")._usual = 0.001
    time.sleep(0.02)

    began = time.monotonic()
    for _ in range(20):
        with pytest.raises(Crowded):
            guarded("warehouse")
    assert time.monotonic() - began < 1


def test_postponed_messages_come_back_at_the_rate_of_the_provider(call, monkeypatch):
    monkeypatch.setattr(bulkheads, "LONGEST_WAIT_IN_THREAD", 0)
    call("warehouse", 6)
    bulkheads.of("warehouse")._usual = 6.0
    waits = []
    for _ in range(10):
        with pytest.raises(Crowded) as crowded:
            guarded("warehouse")
        waits.append(crowded.value.retry_after.total_seconds())

    assert waits == sorted(waits)
    assert waits[-1] == pytest.approx(10, abs=1), "six calls end in six seconds"
    assert max(waits) <= bulkheads.LONGEST_WAIT / dt.timedelta(seconds=1)


def test_a_message_that_finds_no_place_spends_no_attempt_and_is_no_failure_of_the_provider():
    assert issubclass(Crowded, resilience.NotNow)
    assert not issubclass(Crowded, Outage)


@pytest.mark.parametrize("change", ["one provider", "few threads", "no bound"])
def test_nothing_is_bound_where_there_is_nothing_to_protect(call, settings, change):
    if change == "one provider":
        bulkheads.divide(THREADS)
    elif change == "few threads":
        bulkheads.divide(1)
    else:
        settings.OUTBOX_PROVIDER_SHARE = 1

    call("warehouse", THREADS)


def test_no_more_calls_than_places_however_threads_are_switched(settings):
    most = round(settings.OUTBOX_PROVIDER_SHARE * THREADS)
    running, too_many, made = [], [], []

    def calls():
        for _ in range(50):
            try:
                with resilience.breaker("warehouse").guard():
                    running.append(1)
                    too_many.extend(running[most:])
                    running.pop()
                    made.append(1)
            except Crowded:
                pass

    switches.run(*[calls] * THREADS)

    assert not too_many
    assert made
    assert bulkheads.of("warehouse").in_flight == 0


def test_equally_slow_providers_lose_no_throughput():
    """Two calls of 10 ms each in ten threads: as many pairs a second as without bulkheads, within a quarter."""
    seconds, pairs = 0.01, 30

    def work():
        for _ in range(pairs):
            for provider in ("payments", "warehouse"):
                while True:
                    try:
                        with resilience.breaker(provider).guard():
                            time.sleep(seconds)
                        break
                    except Crowded:
                        time.sleep(seconds)

    def took():
        began = time.monotonic()
        threads = [threading.Thread(target=work) for _ in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return time.monotonic() - began

    bounded = took()
    bulkheads.divide(0)
    unbounded = took()
    assert bounded < 1.25 * unbounded + 0.2, (bounded, unbounded)
