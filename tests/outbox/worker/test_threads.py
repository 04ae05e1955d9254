"""The pool of threads, in workers on both brokers."""

from __future__ import annotations

import pytest

from outbox.models import Attempt, DeadLetter
from tests.chaos.conftest import (  # noqa: F401 - fixtures
    NO_RABBITMQ,
    TASKS,
    amqp_broker,
    committed,
    has_run,
    redis_broker,
    stack,
)
from tests.processes import eventually

pytestmark = [pytest.mark.processes, pytest.mark.django_db, pytest.mark.slow]

HERE = f"{TASKS}."


@pytest.fixture(scope="module", params=["redis", "rabbitmq"])
def scene(request, redis_broker, amqp_broker, stack):  # noqa: F811
    """A broker and a worker with eight threads."""
    broker = redis_broker if request.param == "redis" else amqp_broker
    if broker is None:
        pytest.skip(NO_RABBITMQ)
    worker = stack.worker(
        f"threads-{request.param}",
        "orders",
        pool="threads",
        concurrency=8,
        include=TASKS,
        BROKER_URL=broker.url,
    )
    worker.wait_until_ready()
    return broker, worker


def test_tasks_run_at_the_same_time_and_are_acknowledged(scene):
    broker, worker = scene
    sent = [broker.send_task(f"{HERE}linger", arguments={"seconds": 1.0}) for _ in range(8)]
    sent += [broker.send_task(f"{HERE}finish") for _ in range(40)]

    eventually(lambda: all(map(has_run, sent)), "all of them", within=15)
    eventually(lambda: broker.waiting() == 0, "an empty queue")
    assert worker.is_alive()


def test_a_task_that_hangs_is_given_up_at_its_hard_limit_and_its_thread_replaced(scene):
    broker, worker = scene
    hangs = [broker.send_task(f"{HERE}hang") for _ in range(2)]

    eventually(lambda: DeadLetter.objects.filter(message_id__in=hangs).count() == 2, "two dead letters")
    outcomes = Attempt.objects.filter(message_id__in=hangs).values_list("outcome", "error_class")
    assert list(outcomes) == [("buried", "TimeLimitExceeded")] * 2
    after = [broker.send_task(f"{HERE}finish") for _ in range(20)]
    eventually(lambda: all(map(has_run, after)), "the others go on")
    assert worker.is_alive()
