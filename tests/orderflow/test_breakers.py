"""One breaker per provider, shared by all processes, and an outage that spends no attempts."""

from __future__ import annotations

import dataclasses
import datetime as dt
import multiprocessing
import time
import uuid

import pytest
from django.conf import settings

from orderflow.shared_state import breakers
from outbox.resilience import Outage, Permanent, Transient

pytestmark = pytest.mark.skipif(
    not settings.REDIS_URL,
    reason="processes share breakers by REDIS_URL: name a server there, or use run.py test",
)

fork = multiprocessing.get_context("fork")


def fail(breaker, error=Transient):
    try:
        with breaker.guard():
            raise error("no")
    except (Transient, Permanent) as raised:
        return type(raised)
    return None


def eventually(condition, tries=400):
    for _ in range(tries):
        if condition():
            return True
        time.sleep(0.05)
    return False


@pytest.fixture
def name():
    return f"test-{uuid.uuid4()}"


def test_the_failure_that_opens_it_and_all_later_calls_are_an_outage(name):
    breaker = breakers.SharedBreaker(name)

    assert [fail(breaker) for _ in range(4)] == [Transient, Transient, Outage, Outage]
    assert breaker.state() == "open"


def test_business_refusals_do_not_open_it(name):
    breaker = breakers.SharedBreaker(name)

    assert [fail(breaker, Permanent) for _ in range(10)] == [Permanent] * 10
    assert breaker.state() == "closed"


@pytest.mark.slow
def test_failures_in_one_process_open_it_for_the_others(name):
    mine = breakers.SharedBreaker(name)
    with mine.guard():
        pass

    def trip():
        theirs, onlooker = breakers.shared_breaker(name), breakers.SharedBreaker(name)
        for _ in range(3):
            fail(theirs)
        # A thread of this process writes the state, so wait for it before the process ends.
        assert eventually(lambda: fail(onlooker, Permanent) is Outage)

    process = fork.Process(target=trip)
    process.start()
    process.join(20)
    assert process.exitcode == 0

    assert eventually(lambda: fail(mine) is Outage)


@pytest.mark.slow
def test_a_forked_child_gets_a_breaker_of_its_own():
    parent = breakers.shared_breaker("test-fork")

    def child(answers):
        answers.put(breakers.shared_breaker("test-fork") is parent)

    answers = fork.Queue()
    process = fork.Process(target=child, args=(answers,))
    process.start()
    assert answers.get(timeout=10) is False
    process.join(10)


def test_it_works_locally_while_redis_is_down(name):
    breaker = breakers.SharedBreaker(name, url="redis://127.0.0.1:9/0")
    with breaker.guard():
        pass

    assert [fail(breaker) for _ in range(5)][-1] is Outage


def shared(name, **changes):
    """A separate process's breaker with short times until it probes."""
    return breakers.SharedBreaker(name, config=dataclasses.replace(breakers.CONFIG, **changes))


def test_a_failed_probe_does_not_reset_since_when_it_is_open(name):
    breaker = shared(name, wait_duration_in_open=0.3)
    for _ in range(3):
        fail(breaker)
    assert eventually(lambda: breaker.circuit().state == "open")
    opened_at = breaker._storage.read(name).opened_at

    def failed_a_round():
        fail(breaker)
        return breaker._storage.read(name).opened_at > opened_at

    assert eventually(failed_a_round)
    since = float(breaker._storage._client.hget(f"breaker:{name}", "open_since"))
    assert since == opened_at
    assert breaker.circuit().open_seconds >= 0.3


def test_it_is_closed_again_when_probes_succeeded(name):
    breaker = shared(name, wait_duration_in_open=0.3)
    for _ in range(3):
        fail(breaker)
    assert eventually(lambda: breaker.circuit().state == "open")

    assert eventually(lambda: fail(breaker, Permanent) is Permanent and breaker.circuit().state == "closed")
    for _ in range(3):
        fail(breaker)
    assert eventually(lambda: breaker.circuit().state == "open")
    assert breaker.circuit().open_seconds < 5


@pytest.mark.slow
def test_probes_whose_workers_died_do_not_keep_it_half_open_for_ever(name, monkeypatch):
    monkeypatch.setattr(breakers, "PROBE_ENDS_WITHIN", dt.timedelta(seconds=0.5))
    breaker = shared(name, wait_duration_in_open=0.3)
    for _ in range(3):
        fail(breaker)
    storage = breaker._storage
    assert eventually(lambda: storage.circuit(name, wait=0).state == "half-open")
    for _ in range(breakers.CONFIG.permitted_calls_in_half_open):
        assert storage.lease_probe(name=name, ttl=300).granted

    assert fail(breaker, Permanent) is Outage
    assert eventually(lambda: fail(breaker, Permanent) is Permanent)
    assert eventually(lambda: fail(breaker, Permanent) is Permanent and breaker.circuit().state == "closed")


def test_slow_probes_are_waited_for(name):
    storage = breakers.SharedBreaker(name)._storage
    storage.trip_open(name=name, ttl=300)
    storage.begin_half_open_if_elapsed(name=name, wait_duration=0, permitted=1, ttl=300)
    assert storage.lease_probe(name=name, ttl=300).granted

    for _ in range(20):
        assert not storage.lease_probe(name=name, ttl=300).granted
    assert storage.circuit(name, wait=0).state == "half-open"
