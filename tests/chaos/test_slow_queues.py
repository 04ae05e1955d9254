"""Slow real workers, and brokers that lose messages: waiting copies are not sent again, lost ones are."""

from __future__ import annotations

import contextlib
import itertools
import time

import pytest
from django.db import transaction
from django.db.models import Sum

from outbox import publisher
from outbox.models import Delivery, InboxEntry, OutboxMessage, QueueProbe
from tests.chaos import tasks
from tests.chaos.conftest import NO_RABBITMQ, TASKS
from tests.outbox.events import Happened
from tests.processes import eventually
from tests.slow import but_first

pytestmark = [
    pytest.mark.slow,
    pytest.mark.processes,
    pytest.mark.django_db(transaction=True),
    pytest.mark.timeout(180),
]

WORKFLOWS = "tests.chaos.slow_workflows"
MESSAGES = 150
SLOTS = 2
"""For each of two workers."""

AFTER_A_DEATH = {"VISIBILITY_TIMEOUT": "2", "HEARTBEAT": "10", "GRACE": "12"}
"""
Redis redelivers a worker's messages after the visibility timeout, the dead worker's lock and a second of
polling.
"""

PROMPT = {"GRACE": "8", "VISIBILITY_TIMEOUT": "32", "HEARTBEAT": "10"}


@pytest.fixture(params=["redis", "rabbitmq"])
def broker(request):
    if not (found := request.getfixturevalue(f"{request.param.replace('rabbitmq', 'amqp')}_broker")):
        pytest.skip(NO_RABBITMQ)
    found.purge()
    return found


@pytest.fixture
def start(broker, short_lived):
    """Start a beat and a relay that poll every second, and two slow workers; return the workers."""

    def start(pool, **settings):
        settings["BROKER_URL"] = broker.url
        relay = short_lived.relay(include=f"{WORKFLOWS},tests.chaos.watchful", **settings)
        clock = short_lived.beat(**settings)
        workers = [
            short_lived.worker(
                f"slow-{number}",
                "sms",
                pool=pool,
                concurrency=SLOTS,
                include=f"{TASKS},tests.chaos.impatient",
                **settings | {"ORDERFLOW_POOL": "slow"},
            )
            for number in range(2)
        ]
        for process in (relay, *workers):
            process.wait_until_ready()
        eventually(clock.is_alive, "a clock")
        return workers

    return start


def publish(number=MESSAGES):
    with transaction.atomic(durable=True):
        return publisher.publish_many(Happened(about=str(at)) for at in range(number))


def effects():
    return InboxEntry.objects.filter(consumer=tasks.FINISHED).count()


def times_taken():
    return InboxEntry.objects.filter(consumer__startswith=tasks.DELIVERED).count()


def copies():
    """Copies that were made because a message was considered lost."""
    return OutboxMessage.objects.aggregate(copies=Sum("redeliveries"))["copies"]


def returns():
    """When each known probe of the queue returned, in the order of sending; None if it has not yet."""
    return dict(QueueProbe.objects.filter(queue="sms").order_by("pk").values_list("pk", "returned_at"))


def finished_while(watched):
    """Wait for all effects, and sample the probes meanwhile."""
    eventually(lambda: watched.update(returns()) or effects() == MESSAGES, lambda: f"{effects()} effects")
    watched.update(returns())


@pytest.mark.parametrize("pool", but_first(["threads", "prefork"], others="nightly"))
def test_slow_workers_get_no_copies_and_probes_come_back_in_their_order(start, pool):
    start(pool, **PROMPT)
    publish()
    watched = {}
    finished_while(watched)

    came_back = [watched[pk] for pk in sorted(watched) if watched[pk]]
    assert len(came_back) >= 3
    # Two workers record it at the same time, each on a busy machine: the grace period tolerates more than that.
    apart = [(later - earlier).total_seconds() for earlier, later in itertools.pairwise(came_back)]
    assert min(apart) > -float(PROMPT["GRACE"]) / 2
    assert copies() <= MESSAGES // 100
    assert times_taken() <= MESSAGES + MESSAGES // 100
    eventually(lambda: not Delivery.objects.exists(), "all deliveries have ended")


def test_messages_of_a_dead_worker_are_redelivered_by_the_broker_and_not_copied(start):
    dying, _ = start("threads", **AFTER_A_DEATH)
    publish()
    eventually(lambda: effects() >= 20, lambda: f"{effects()} effects")
    dying.kill()
    finished_while({})

    assert copies() <= MESSAGES // 100
    assert times_taken() <= MESSAGES + 2 * SLOTS + MESSAGES // 100
    eventually(lambda: not Delivery.objects.exists(), "all deliveries have ended")


def forget(broker):
    """All waiting and unacknowledged messages, counted at once."""
    with broker.link.channel() as channel:
        if broker.is_redis:
            channel.client.delete("sms", "unacked-slow", "unacked-index-slow")
            return
        with contextlib.suppress(Exception):
            channel.queue_delete("sms")


def test_work_lost_by_a_broker_is_resumed_soon_and_takes_effect_once(start, broker):
    start("threads", **PROMPT)
    publish()
    eventually(lambda: effects() >= 20, lambda: f"{effects()} effects")
    # What a relay is sending while its broker fails is sent again, because its outcome is unknown.
    eventually(lambda: not OutboxMessage.objects.undelivered().exists(), "the broker has them all")
    forget(broker)
    forgotten_at = time.monotonic()

    outstanding = Delivery.objects.filter(generation=0)
    eventually(lambda: not outstanding.exists(), lambda: f"{outstanding.count()} of {MESSAGES} not resumed")
    assert time.monotonic() - forgotten_at < float(PROMPT["GRACE"]) + 10
    eventually(lambda: effects() == MESSAGES, lambda: f"{effects()} effects")
    eventually(lambda: not Delivery.objects.exists(), "all deliveries have ended")
    assert times_taken() <= MESSAGES + MESSAGES // 100
