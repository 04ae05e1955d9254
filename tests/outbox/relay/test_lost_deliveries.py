"""Probes distinguish waiting copies, which are left alone, from lost copies, which are sent again."""

from __future__ import annotations

import datetime as dt
import itertools

import pytest
from celery import current_app, shared_task
from django.db import transaction
from django.db.models.functions import Now

from outbox import publisher, testing
from outbox.broker import dispatch
from outbox.consumer import ConsumerTask
from outbox.models import Delivery, QueueProbe
from outbox.relay import deliveries, preparing, probes, relay
from tests.outbox.events import Happened
from tests.slow import but_first

SECOND = dt.timedelta(seconds=1)
taken: list[str] = []


@shared_task(base=ConsumerTask)
def take(*, message_id, **_):
    taken.append(message_id)


def taking(message):
    return take.si(message_id=str(message.id))


@pytest.fixture(autouse=True)
def consumer(drain, subscribed):
    subscribed(taking)
    taken.clear()


def publish(number=1):
    with transaction.atomic():
        return [str(message_id) for message_id in publisher.publish_many(Happened() for _ in range(number))]


def consume(most):
    """Let consumers take messages of the queue, including probes; return how many there were."""
    with current_app.connection_for_read() as broker:
        queue = current_app.amqp.queues["jobs"](broker.default_channel)
        for count in range(most):
            if not (message := queue.get()):
                return count
            testing.run(message)
    return most


def pass_seconds(seconds, *, rate=0, work=10**9):
    """In each second, consumers take up to `rate` messages, the sweep checks, and the relay sends."""
    for _ in range(seconds):
        consume(rate)
        testing.pass_time(SECOND)
        probes.sweep()
        relay.drain()


@pytest.mark.parametrize("rate", but_first([100, 10, 1]))
def test_waiting_is_not_lost_however_slow_the_consumers_are(rate):
    published = publish(1_000)
    relay.drain()
    pass_seconds(min(90, 1_000 // rate), rate=rate)

    assert set(Delivery.objects.values_list("generation", flat=True)) <= {0}
    assert len(taken) == len(set(taken))
    assert set(taken) <= set(published)


@pytest.mark.slow
@pytest.mark.parametrize("rate", [1, 10, 100])
def test_messages_lost_by_a_broker_are_resumed_within_a_minute(rate):
    published = publish(1_000)
    relay.drain()
    pass_seconds(8, rate=rate)
    testing.purge()
    outstanding = Delivery.objects.count()
    pass_seconds(60, rate=10)

    assert Delivery.objects.filter(generation=1).count() + len(taken) >= 1_000
    assert not Delivery.objects.filter(generation=0).exists()
    assert outstanding
    while consume(10_000):
        pass
    assert sorted(taken) == sorted(published)


def test_a_copy_that_arrives_after_it_was_considered_lost_does_nothing():
    [published] = publish()
    relay.drain()
    with current_app.connection_for_read() as broker:
        held_up = current_app.amqp.queues["jobs"](broker.default_channel).get()
        pass_seconds(60, rate=10)
        assert taken == [published]

        testing.run(held_up, redelivered=True)
    assert taken == [published]


def test_probes_are_sent_within_large_batches_only():
    publish(preparing.FEW)
    relay.drain()
    assert not QueueProbe.objects.exists()

    publish(100)
    relay.drain()
    assert QueueProbe.objects.count() == 100 // preparing.PROBED_EVERY + 1
    assert consume(10_000) == preparing.FEW + 100 + QueueProbe.objects.count()
    assert not QueueProbe.objects.filter(returned_at=None).exists()


def test_small_batches_have_probes_between_them_in_a_queue_that_is_slow_and_in_no_other():
    for _ in range(10):
        publish(20)
        relay.drain()
        consume(10_000)
    assert not QueueProbe.objects.exists()

    publish(1)
    relay.drain()
    testing.pass_time(2 * deliveries.SLOW_AFTER)
    for _ in range(10):
        publish(20)
        relay.drain()
    assert QueueProbe.objects.count() >= 200 // preparing.PROBED_EVERY
    with current_app.connection_for_read() as broker:
        queue = current_app.amqp.queues["jobs"](broker.default_channel)
        names = [message.headers["task"] for message in iter(queue.get, None)]
    between = [len(list(same)) for name, same in itertools.groupby(names) if name != probes.PROBE]
    assert max(between) <= preparing.PROBED_EVERY + 1  # the one that made it slow


@pytest.mark.parametrize("failure", [dispatch.BrokerDown("reset"), ValueError("no such canvas")])
def test_messages_accepted_before_a_failure_within_a_batch_are_not_sent_again(monkeypatch, failure):
    sent, send = [], dispatch.Batch.send

    def fail_at_the_third(batch):
        sent.append(batch)
        if len(sent) == 3:
            raise failure
        return send(batch)

    monkeypatch.setattr(dispatch.Batch, "send", fail_at_the_third)
    published = publish(100)
    relay.drain()
    relay.drain()

    consume(10_000)
    assert sorted(taken) == sorted(published)
    assert not Delivery.objects.exists()


def test_a_probe_within_a_batch_proves_nothing_of_what_is_sent_behind_it():
    publish(100)
    relay.drain()
    consume(preparing.PROBED_EVERY + 1)
    assert QueueProbe.objects.exclude(returned_at=None).exists()
    pass_seconds(60)

    assert not Delivery.objects.exclude(generation=0).exists()


def test_a_probe_proves_nothing_about_a_batch_recorded_before_it_and_sent_after_it():
    claimed = publish(1) and relay.claim(10)
    publish(40)
    relay.drain()
    late = deliveries.First(claimed[0].id, taking_name(), 0, "jobs")
    assert deliveries.record([late], claim=claimed[0].claim)[0]
    QueueProbe.objects.create(queue="jobs")
    relay.settle(claimed)
    QueueProbe.objects.update(returned_at=Now())
    consume(10_000)
    pass_seconds(50)

    assert Delivery.objects.get(message_id=claimed[0].id).generation == 0


def taking_name():
    return f"{taking.__module__}.{taking.__qualname__}"
