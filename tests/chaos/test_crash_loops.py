"""
A message that ends the process that receives it, together with the other tasks of that process.

The process is restarted each time, as an orchestrator does.
"""

from __future__ import annotations

import itertools
import time
import uuid

import pytest

from outbox.consumer import RETURNED_OFTEN
from outbox.models import Attempt, DeadLetter, InboxEntry
from tests.chaos import tasks
from tests.chaos.conftest import NO_RABBITMQ, TASKS, has_run
from tests.processes import eventually

pytestmark = [pytest.mark.slow, pytest.mark.processes, pytest.mark.django_db, pytest.mark.timeout(300)]

IMPATIENT = {"VISIBILITY_TIMEOUT": "7", "HEARTBEAT": "10"}
THREADS, CHILDREN = 64, 4
LINGERING = 0.5

nightly = pytest.mark.nightly


@pytest.fixture
def broker(request, redis_broker, amqp_broker):
    found = {"redis": redis_broker, "rabbitmq": amqp_broker}[request.param]
    if not found:
        pytest.skip(NO_RABBITMQ)
    found.purge()
    return found


@pytest.fixture
def start(short_lived, broker):
    def start(pool="threads"):
        worker = short_lived.worker(
            "loop",
            "orders",
            pool=pool,
            concurrency=THREADS if pool == "threads" else CHILDREN,
            include=f"{TASKS},tests.chaos.impatient",
            BROKER_URL=broker.url,
            **IMPATIENT,
        )
        worker.wait_until_ready()
        return worker

    return start


@pytest.mark.parametrize(
    ("broker", "pool", "poison"),
    [
        ("redis", "threads", {"how": "a signal"}),
        ("rabbitmq", "threads", {"how": "a segmentation fault"}),
        pytest.param("redis", "threads", {"how": "an exit"}, marks=nightly),
        pytest.param("rabbitmq", "threads", {"how": "an exit"}, marks=nightly),
        ("rabbitmq", "prefork", "kill_pool"),
    ],
    indirect=["broker"],
)
def test_a_message_that_ends_its_process_is_given_up_after_four_and_no_other(broker, start, pool, poison):
    worker = start(pool)
    task, how = ("die_by", poison) if isinstance(poison, dict) else (poison, {})
    killer = broker.send_task(f"{TASKS}.{task}", arguments={"seconds": LINGERING / 2, **how})
    siblings = [linger(broker) for _ in range((THREADS if pool == "threads" else CHILDREN) - 1)]

    def all_has_ended():
        restart(worker)
        return DeadLetter.objects.filter(message_id=killer).exists() and all(map(has_run, siblings))

    eventually(all_has_ended, worker.output, within=200)
    assert deliveries(killer) == 4
    assert_only_these_are_given_up({killer}, f"{TASKS}.{task}", others=siblings)
    assert_nobody_is_blamed(siblings)


@pytest.mark.parametrize("broker", ["rabbitmq", pytest.param("redis", marks=nightly)], indirect=True)
def test_several_killers_and_kills_from_outside_blame_no_other_message_however_many_are_new(broker, start):
    worker = start()
    killers = {
        broker.send_task(f"{TASKS}.die_by", arguments={"seconds": LINGERING / 2, "how": "an exit"})
        for _ in range(3)
    }
    others = [linger(broker) for _ in range(THREADS)]
    kills, every = itertools.count(1), 30
    next_kill = time.monotonic() + every

    def killers_are_given_up():
        nonlocal next_kill
        if time.monotonic() > next_kill and next(kills) < 4:
            worker.kill()
            next_kill = time.monotonic() + every
        restart(worker)
        if len(others) < 10 * THREADS:
            others.append(linger(broker))
        return DeadLetter.objects.filter(message_id__in=killers).count() == len(killers)

    eventually(killers_are_given_up, worker.output, within=280)
    eventually(lambda: all(map(has_run, others)), worker.output, within=120)
    assert_only_these_are_given_up(killers, f"{TASKS}.die_by", others=others)
    assert_nobody_is_blamed(others)


@pytest.mark.parametrize("broker", ["rabbitmq"], indirect=True)
def test_a_copy_that_the_broker_delivered_often_is_replaced(broker, start):
    """Although its neighbours end the workers, RabbitMQ's delivery limit does not apply to it."""
    message_id = linger(broker)
    for _ in range(RETURNED_OFTEN):
        with broker.link.channel() as channel:
            eventually(lambda opened=channel: opened.basic_get("orders"), "the message")

    worker = start()

    eventually(lambda: has_run(message_id), worker.output)
    assert worker.output().count(f"is sent again after {RETURNED_OFTEN} lost workers") == 1
    assert_nobody_is_blamed([message_id])


def linger(broker):
    return broker.send_task(f"{TASKS}.linger", arguments={"seconds": LINGERING})


def restart(worker):
    if not worker.is_alive():
        worker.kill()
        worker.start()


def assert_only_these_are_given_up(message_ids, consumer, *, others):
    mine = DeadLetter.objects.filter(message_id__in=[*message_ids, *others])
    found = mine.values_list("message_id", "consumer", "error_class")
    assert {(str(uuid.UUID(str(each))), *rest) for each, *rest in found} == {
        (each, consumer, "CrashLoop") for each in message_ids
    }


def assert_nobody_is_blamed(message_ids):
    lost = Attempt.objects.filter(message_id__in=message_ids, outcome="lost")
    eventually(lambda: not lost.exists(), lambda: list(lost.values_list("message_id", "error_class")))


def deliveries(message_id):
    return InboxEntry.objects.filter(consumer__startswith=tasks.DELIVERED, message_id=message_id).count()
