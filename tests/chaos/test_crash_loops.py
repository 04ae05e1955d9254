"""
A message that ends the process that receives it, together with the other tasks of that process.

The process is restarted each time, as an orchestrator does.
"""

from __future__ import annotations

import pytest

from outbox.models import Attempt, DeadLetter, InboxEntry
from tests.chaos import tasks
from tests.chaos.conftest import NO_RABBITMQ, TASKS, has_run
from tests.processes import eventually

pytestmark = [pytest.mark.slow, pytest.mark.processes, pytest.mark.django_db, pytest.mark.timeout(180)]

IMPATIENT = {"VISIBILITY_TIMEOUT": "7", "HEARTBEAT": "10"}
SIBLINGS = 3


@pytest.mark.parametrize(
    ("kind", "pool", "poison"),
    [
        ("redis", "threads", "end_process"),
        pytest.param("rabbitmq", "threads", "end_process", marks=pytest.mark.nightly),
        ("rabbitmq", "prefork", "kill_pool"),
    ],
)
def test_a_message_that_ends_its_process_is_given_up_after_three_and_no_other(
    request, redis_broker, amqp_broker, short_lived, kind, pool, poison
):
    broker = {"redis": redis_broker, "rabbitmq": amqp_broker}[kind]
    if not broker:
        pytest.skip(NO_RABBITMQ)
    worker = short_lived.worker(
        "loop",
        "orders",
        pool=pool,
        concurrency=1 + SIBLINGS,
        include=f"{TASKS},tests.chaos.impatient",
        BROKER_URL=broker.url,
        **IMPATIENT,
    )
    worker.wait_until_ready()
    killer = broker.send_task(f"{TASKS}.{poison}", arguments={"seconds": 0.6})
    lingering = {"seconds": 1.5}
    siblings = [broker.send_task(f"{TASKS}.linger", arguments=lingering) for _ in range(SIBLINGS)]

    def all_has_ended():
        if not worker.is_alive():
            worker.kill()
            worker.start()
        return DeadLetter.objects.filter(message_id=killer).exists() and all(map(has_run, siblings))

    eventually(all_has_ended, worker.output, within=120)
    assert deliveries(killer) == 3
    [dead_letter] = DeadLetter.objects.filter(message_id__in=[killer, *siblings])
    assert (dead_letter.consumer, dead_letter.error_class) == (f"{TASKS}.{poison}", "CrashLoop")
    eventually(lambda: not Attempt.objects.filter(message_id__in=siblings, outcome="lost").exists(), "no blame")


def deliveries(message_id):
    return InboxEntry.objects.filter(consumer__startswith=tasks.DELIVERED, message_id=message_id).count()
