"""Two workflows of one message wait: the one that is due sooner spends no try of the other."""

from __future__ import annotations

import datetime as dt

import pytest
from celery import shared_task
from django.db import transaction
from django.utils import timezone

from outbox import publisher, redelivery, testing
from outbox.consumer import ConsumerTask
from outbox.dead_letters import resolving
from outbox.models import Attempt, DeadLetter, Delivery
from outbox.resilience import NotNow, RetryPolicy, Transient
from tests.outbox.events import Happened

SLOW = RetryPolicy(attempts=1, redelivery_waits=[dt.timedelta(minutes=5), dt.timedelta(minutes=30)])
calls: list[str] = []


@shared_task(base=ConsumerTask, **SLOW.task_options())
def fail(*, message_id, **_):
    calls.append("fail")
    raise Transient("only this message fails")


@shared_task(base=ConsumerTask)
def wait(*, message_id, **_):
    calls.append("wait")
    raise NotNow("not now", retry_after=dt.timedelta(seconds=7))


def failing(message):
    return fail.si(message_id=str(message.id))


def waiting(message):
    return wait.si(message_id=str(message.id))


@pytest.fixture
def message_id(drain, subscribed):
    """A message with one workflow postponed by five minutes and another by seconds."""
    subscribed(failing, waiting)
    calls.clear()
    with transaction.atomic():
        message_id = publisher.publish(Happened())
    drain()
    assert sorted(calls) == ["fail", "wait"]
    return message_id


def rounds() -> int:
    return Attempt.objects.filter(outcome=Attempt.Outcome.POSTPONED).count()


def test_the_sooner_workflow_spends_no_try_of_the_later_one(message_id, drain):
    for _ in range(5):
        testing.pass_time(dt.timedelta(seconds=15))
        drain()

    assert (calls.count("fail"), calls.count("wait")) == (1, 6)
    assert rounds() == 1
    assert not DeadLetter.objects.exists()
    assert Delivery.objects.filter(status="waiting").count() == 2


def test_the_later_workflow_has_its_turn_when_its_wait_is_over(message_id, drain):
    for _ in range(2):
        testing.pass_time(dt.timedelta(minutes=3))
        drain()

    assert (calls.count("fail"), rounds()) == (2, 2)
    planned = Attempt.objects.filter(outcome="postponed").latest("pk").next_try_at
    assert planned > timezone.now() + dt.timedelta(minutes=29)


def test_a_redelivery_of_the_whole_message_does_not_advance_waiting_workflows(message_id, drain):
    redelivery.redeliver([message_id])
    drain()

    assert sorted(calls) == ["fail", "wait"]
    assert Delivery.objects.filter(status="waiting").count() == 2


def test_a_replay_does_not_wait_for_an_earlier_planned_delivery(message_id, drain):
    for minutes in (6, 31):
        testing.pass_time(dt.timedelta(minutes=minutes))
        drain()
    resolving.replay(DeadLetter.objects.all(), by="ops", reason="mended")
    before = calls.count("fail")
    drain()

    assert calls.count("fail") == before + 1
