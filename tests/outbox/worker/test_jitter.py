"""Waits are random, so messages that failed together do not come back together; no wait is too short."""

from __future__ import annotations

import datetime as dt

import pytest
from celery import Celery, shared_task
from django.db import transaction

from outbox import publisher, resilience
from outbox.broker import inspection
from outbox.consumer import ConsumerTask
from outbox.models import Attempt, Delivery
from outbox.resilience import NotNow, Outage, RetryPolicy, Transient, spread
from tests.outbox.database.test_database_waits import deliver, processes, queue, send  # noqa: F401 - fixtures
from tests.outbox.events import Happened

SECOND = dt.timedelta(seconds=1)
DRAWS = range(300)
POLICIES = [
    RetryPolicy(),
    RetryPolicy(first_wait=2 * SECOND),
    RetryPolicy(first_wait=dt.timedelta(seconds=0.2), longest_wait=3 * SECOND),
    RetryPolicy(first_wait=8 * SECOND, longest_wait=8 * SECOND),
]


@pytest.mark.parametrize("policy", POLICIES, ids=str)
@pytest.mark.parametrize("retries", [0, 1, 2, 7, 5_000, 10**9])
def test_a_quick_wait_is_at_least_the_base_delay_and_at_most_the_longest(policy, retries):
    waits = [policy.quick_wait(retries) for _ in DRAWS]
    assert min(waits) >= policy.first_wait.total_seconds()
    assert max(waits) <= policy.longest_wait.total_seconds()


@pytest.mark.parametrize("retries", range(4))
def test_quick_waits_differ_by_less_than_a_second(retries):
    waits = {RetryPolicy().quick_wait(retries) for _ in DRAWS}
    assert len(waits) > len(DRAWS) / 2
    assert any(wait % 1 for wait in waits)


@pytest.mark.parametrize("policy", POLICIES, ids=str)
@pytest.mark.parametrize("retries", range(4))
def test_whole_seconds_are_at_least_one_and_spread_over_three(policy, retries):
    waits = {policy.quick_wait(retries, whole_seconds=True) for _ in DRAWS}
    assert all(isinstance(wait, int) for wait in waits)
    assert min(waits) >= max(1, policy.first_wait.total_seconds())
    assert len(waits) >= 3


def test_the_waits_double():
    policy = RetryPolicy(longest_wait=100 * SECOND)
    for retries in range(4):
        waits = [policy.quick_wait(retries) for _ in DRAWS]
        assert 2**retries <= min(waits) <= max(waits) <= 2 ** (retries + 1)


def test_a_wait_requested_by_the_provider_is_respected_up_to_the_longest():
    assert min(RetryPolicy().quick_wait(0, requested=5 * SECOND) for _ in DRAWS) >= 5
    assert {RetryPolicy().quick_wait(0, requested=600 * SECOND) for _ in DRAWS} == {8}


@pytest.mark.parametrize(("wait", "most"), [(60, 12), (300, 30), (7200, 30)])
def test_a_redelivery_is_never_early_and_spread_over_a_fifth_or_half_a_minute(wait, most):
    waits = [spread(wait * SECOND) for _ in DRAWS]
    assert wait * SECOND <= min(waits) <= max(waits) <= (wait + most) * SECOND
    assert max(waits) - min(waits) > most / 2 * SECOND


@pytest.mark.parametrize(
    ("url", "whole"),
    [("redis://h/0", False), ("rediss://h/0", False), ("amqp://h//", True), ("amqps://h//", True)],
)
def test_only_rabbitmq_delays_by_whole_seconds(url, whole):
    app = Celery(broker=url, set_as_current=False)
    assert inspection.delays_whole_seconds(app) is whole


ONCE = RetryPolicy(attempts=1, redelivery_waits=[60 * SECOND])
failures: list[Exception] = []


@shared_task(base=ConsumerTask, **ONCE.task_options())
def fail(*, message_id, **_):
    raise failures[-1]


def failing(message):
    return fail.si(message_id=str(message.id))


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("failure", "wait"),
    [
        (Transient("it alone failed"), 66),
        (Outage("all wait for it", retry_after=100 * SECOND), 110),
        (NotNow("it waits for a time of its own", retry_after=100 * SECOND), 100),
    ],
    ids=["a failure", "an outage", "a time of its own"],
)
def test_redeliveries_are_spread_unless_they_wait_for_a_requested_time(
    drain, subscribed, monkeypatch, failure, wait
):
    monkeypatch.setattr(resilience.random, "random", lambda: 0.5)
    failures.append(failure)
    subscribed(failing)
    with transaction.atomic():
        publisher.publish(Happened())
    drain()

    attempt, delivery = Attempt.objects.get(), Delivery.objects.get()
    assert attempt.next_try_at - attempt.failed_at == pytest.approx(wait * SECOND, abs=SECOND)
    assert delivery.not_before - attempt.failed_at == pytest.approx(wait * SECOND, abs=SECOND)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("fault", "requested"), [("transient", None), ("asks for time", 5 * SECOND)], ids=["its own", "requested"]
)
def test_a_quick_try_waits_as_long_as_its_policy_says(processes, queue, monkeypatch, fault, requested):  # noqa: F811
    calls = []

    def quick_wait(policy, retries, **options):
        calls.append((retries, options))
        return 7.75

    monkeypatch.setattr(RetryPolicy, "quick_wait", quick_wait)
    begun = dt.datetime.now(dt.UTC)
    send(processes[0])
    deliver(queue, processes[0], fault)

    wait = dt.datetime.fromisoformat(queue.get().headers["eta"]) - begun
    assert calls == [(0, {"requested": requested, "whole_seconds": False})]
    assert 7.75 * SECOND <= wait < 60 * SECOND
