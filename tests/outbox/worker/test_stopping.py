"""How workers with threads or processes stop: what runs is finished or handed back, and nothing is lost."""

from __future__ import annotations

import os
import signal
import uuid

import pytest

from outbox.models import Attempt, DeadLetter
from tests.chaos.conftest import (  # noqa: F401 - fixtures
    NO_RABBITMQ,
    TASKS,
    amqp_broker,
    committed,
    has_run,
    redis_broker,
    short_lived,
)
from tests.chaos.tasks import BEGUN
from tests.processes import Network, eventually

pytestmark = [pytest.mark.processes, pytest.mark.django_db, pytest.mark.slow]

HANGING = "tests.outbox.worker.hanging"
INCLUDE = f"{TASKS},{HANGING}"


@pytest.fixture(params=["redis", "rabbitmq"])
def broker(request, redis_broker, amqp_broker):  # noqa: F811
    broker = redis_broker if request.param == "redis" else amqp_broker
    if broker is None:
        pytest.skip(NO_RABBITMQ)
    broker.purge()
    return broker


@pytest.fixture(params=["threads", "prefork"])
def pool(request):
    return request.param


@pytest.fixture
def start(broker, short_lived):  # noqa: F811
    def start(pool="threads", url="", concurrency=4):
        name = f"stopping-{uuid.uuid4().hex[:6]}"
        worker = short_lived.worker(
            name, "orders", pool=pool, concurrency=concurrency, include=INCLUDE, BROKER_URL=url or broker.url
        )
        worker.wait_until_ready()
        return worker

    return start


def has_ended(worker, *, within):
    eventually(lambda: not worker.is_alive(), worker.output, within=within)


def begin(broker, task, **arguments):
    sent = broker.send_task(task, arguments=arguments)
    eventually(lambda: has_run(sent, witness=BEGUN), f"{task} has begun")
    return sent


def test_a_worker_that_is_asked_to_stop_finishes_what_it_has_begun(broker, start, pool):
    worker = start(pool)
    sent = begin(broker, f"{TASKS}.linger", seconds=3.0)

    worker.ask_to_stop()

    has_ended(worker, within=15)
    assert (worker.exit_code, has_run(sent)) == (0, True)
    assert broker.waiting() == 0


@pytest.mark.parametrize("signals", [["SIGQUIT"], ["SIGINT", "SIGINT"], ["SIGTERM", "SIGQUIT"]], ids="-".join)
def test_a_worker_in_a_hurry_finishes_what_is_short_and_hands_the_rest_back(broker, start, signals):
    worker = start()
    short, long = begin(broker, f"{TASKS}.linger", seconds=1.5), begin(broker, f"{HANGING}.take_long")

    for name in signals:
        os.kill(worker.pid, signal.Signals[name])
        eventually(lambda: worker.has_logged("worker: "), "the signal is handled")

    has_ended(worker, within=10)
    assert (worker.exit_code, has_run(short), has_run(long)) == (1, True, False)
    assert broker.waiting() == 1  # nothing has to time out
    assert not DeadLetter.objects.filter(message_id=long).exists()
    assert not Attempt.objects.filter(message_id=long).exists()


def test_a_second_signal_hands_everything_back_at_once(broker, start):
    worker = start()
    long = begin(broker, f"{TASKS}.linger", seconds=1.9)

    os.kill(worker.pid, signal.SIGQUIT)
    eventually(lambda: worker.has_logged("worker: Running tasks may go on"), "the first signal is handled")
    os.kill(worker.pid, signal.SIGQUIT)

    has_ended(worker, within=10)
    assert not has_run(long)
    assert broker.waiting() == 1


def test_a_thread_that_hangs_does_not_keep_a_worker_from_stopping(broker, start):
    worker = start()
    hanging = broker.send_task(f"{HANGING}.hang_in_c")
    eventually(lambda: worker.has_logged("Soft time limit"), "it hangs")

    worker.ask_to_stop()

    has_ended(worker, within=10)
    assert worker.exit_code == 0
    assert DeadLetter.objects.get(message_id=hanging).error_class == "TimeLimitExceeded"


def test_a_worker_that_loses_its_broker_finishes_what_runs_and_goes_on(broker, start):
    network = Network(broker.url, port=6379 if broker.is_redis else 5672)
    worker = start(url=network.url, concurrency=8)
    running = [begin(broker, f"{HANGING}.take_long", seconds=4.0) for _ in range(4)]

    network.cut()
    eventually(
        lambda: worker.has_logged("cannot be acknowledged after a connection loss", times=4), "it has noticed"
    )
    network.open()

    after = [broker.send_task(f"{TASKS}.finish") for _ in range(4)]
    eventually(lambda: all(map(has_run, after)), "it goes on")
    eventually(lambda: all(map(has_run, running)), "what ran is finished")
    assert worker.is_alive()
    assert not DeadLetter.objects.filter(message_id__in=running).exists()
    network.cut()
