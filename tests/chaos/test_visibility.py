"""
How long Redis waits for an acknowledgement: the effects of a short wait, also on other workers.

One worker of the pool `patient` waits as long as configured; those of the pool `hasty` wait two seconds,
less than the tasks here take.
"""

from __future__ import annotations

import dataclasses
import time

import pytest

import celeryconfig
from orderflow.celery import app
from outbox.consumer import ConsumerTask
from outbox.models import InboxEntry
from tests.chaos import tasks
from tests.chaos.conftest import TASKS, has_run
from tests.processes import eventually

pytestmark = [pytest.mark.processes, pytest.mark.django_db]

LINGER = f"{TASKS}.linger"
HASTY = f"{TASKS},tests.chaos.impatient"
OPTIONS = celeryconfig.broker_transport_options
WAIT = 2
LONGER = WAIT + OPTIONS["unacked_mutex_expire"] + 2
"""Seconds that a task takes, so that it is redelivered while it runs, in spite of the dead worker's lock."""
MARGIN = 2
"""Seconds for a busy machine."""


def deliveries(message_id):
    return InboxEntry.objects.filter(consumer__startswith=tasks.DELIVERED, message_id=message_id).count()


@dataclasses.dataclass
class Scene:
    """When a worker died while holding a message, and the ids of the others' messages."""

    orphan: str
    killed_at: float
    patient: str
    hasty: str


@pytest.fixture(scope="module")
def scene(redis_broker, stack):
    hasty = {"ORDERFLOW_POOL": "hasty", "VISIBILITY_TIMEOUT": str(WAIT)}
    workers = [
        stack.worker("patient", "orders", include=TASKS),
        dying := stack.worker("dying", "email", include=HASTY, **hasty),
        stack.worker("living", "sms", concurrency=2, include=HASTY, **hasty),
    ]
    for worker in workers:
        worker.wait_until_ready()
    orphan = redis_broker.send_task(LINGER, queue="email")
    eventually(lambda: deliveries(orphan), "a message in the hands of a worker")
    dying.kill()
    hold_the_lock_as_a_dead_worker_does(redis_broker)
    killed_at = time.monotonic()
    assert app.control.add_consumer("email", destination=["living@test"], reply=True)
    long = {"arguments": {"seconds": LONGER}}
    return Scene(
        orphan=orphan,
        killed_at=killed_at,
        patient=redis_broker.send_task(LINGER, queue="orders", **long),
        hasty=redis_broker.send_task(LINGER, queue="sms", **long),
    )


def hold_the_lock_as_a_dead_worker_does(broker):
    with broker.link.channel() as channel:
        lock = channel.client.lock("unacked-mutex-hasty", timeout=OPTIONS["unacked_mutex_expire"])
        assert lock.acquire(blocking_timeout=1)


@pytest.mark.slow
def test_messages_of_a_dead_worker_are_restored_although_it_died_holding_the_lock(scene):
    eventually(lambda: deliveries(scene.orphan) == 2, "the second delivery")
    longest = WAIT + OPTIONS["unacked_mutex_expire"] + OPTIONS["unacked_restore_interval"]
    assert time.monotonic() - scene.killed_at < longest + MARGIN


@pytest.mark.slow
def test_a_task_longer_than_the_timeout_is_redelivered_and_takes_effect_once(scene):
    eventually(lambda: deliveries(scene.hasty) >= 2, "a second delivery while the first one runs")
    eventually(lambda: has_run(scene.hasty), "the effect")
    assert InboxEntry.objects.filter(consumer=tasks.FINISHED, message_id=scene.hasty).count() == 1


@pytest.mark.slow
def test_a_pool_with_a_shorter_timeout_leaves_the_messages_of_others_alone(scene):
    eventually(lambda: has_run(scene.patient), "the long task")
    assert deliveries(scene.patient) == 1


def test_the_visibility_timeout_is_longer_than_any_task_and_any_countdown():
    consumers = [task for task in app.tasks.values() if isinstance(task, ConsumerTask)]
    longest_try = max(task.policy.longest_wait.total_seconds() for task in consumers)
    longest_limit = max(task.time_limit or celeryconfig.TIME_LIMIT for task in consumers)

    assert longest_limit <= celeryconfig.TIME_LIMIT
    assert OPTIONS["visibility_timeout"] > celeryconfig.TIME_LIMIT + longest_try
