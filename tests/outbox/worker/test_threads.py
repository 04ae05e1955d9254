"""The pool of threads, in workers on both brokers."""

from __future__ import annotations

import contextlib
import socket
import uuid

import psutil
import pytest
from celery import Celery

from outbox.models import Attempt, DeadLetter
from outbox.worker.retirement import RETIRED
from tests.chaos.conftest import (  # noqa: F401 - fixtures
    NO_RABBITMQ,
    TASKS,
    amqp_broker,
    committed,
    has_run,
    redis_broker,
    stack,
)
from tests.chaos.tasks import BEGUN
from tests.outbox.worker.hanging import SOFT
from tests.processes import eventually

pytestmark = [pytest.mark.processes, pytest.mark.django_db, pytest.mark.slow]

HANGING = "tests.outbox.worker.hanging"
FINISH = f"{TASKS}.finish"


@pytest.fixture(scope="module", params=["redis", "rabbitmq"])
def broker(request, redis_broker, amqp_broker):  # noqa: F811
    broker = redis_broker if request.param == "redis" else amqp_broker
    if broker is None:
        pytest.skip(NO_RABBITMQ)
    return broker


@pytest.fixture(scope="module")
def start(broker, stack):  # noqa: F811
    def start(*, concurrency=12, queue="orders", **extra):
        name = f"threads-{uuid.uuid4().hex[:6]}"
        options = {"pool": "threads", "include": f"{TASKS},{HANGING}", "BROKER_URL": broker.url, **extra}
        worker = stack.worker(name, queue, concurrency=concurrency, **options)
        worker.wait_until_ready()
        worker.node = f"{name}@test"
        return worker

    return start


@pytest.fixture(scope="module")
def worker(start):
    """A worker with twelve threads, of which three may hang."""
    return start()


@pytest.fixture
def remote(broker):
    """Remote control and inspection of the workers."""
    app = Celery("operator", broker=broker.url, set_as_current=False)
    yield app.control
    app.close()


@pytest.fixture
def stats(remote, worker):
    """What the pool of the worker says about itself."""

    def stats(of=worker):
        answers = remote.inspect(destination=[of.node], limit=1, timeout=5).stats() or {}
        return answers.get(of.node, {}).get("pool", {})

    return stats


def assert_goes_on(broker, worker):
    after = [broker.send_task(FINISH) for _ in range(20)]
    eventually(lambda: all(map(has_run, after)), "the next tasks")
    assert worker.is_alive()


def is_idle(stats):
    return lambda: stats().get("busy") == 0


def test_tasks_run_at_the_same_time_and_are_acknowledged(broker, worker, stats):
    sent = [broker.send_task(f"{TASKS}.linger", arguments={"seconds": 1.0}) for _ in range(12)]
    sent += [broker.send_task(FINISH) for _ in range(40)]

    eventually(lambda: all(map(has_run, sent)), "all of them", within=30)
    eventually(lambda: broker.waiting() == 0, "an empty queue")
    eventually(is_idle(stats), stats)
    assert stats()["implementation"] == "outbox.worker.threads:TaskPool"


@pytest.mark.parametrize("trap", ["hang_in_sleep", "hang_in_a_lock", "hang_in_python"])
def test_a_task_that_hangs_is_given_up_once_at_its_hard_limit(broker, worker, trap):
    seconds = {"arguments": {"seconds": 4.0}} if trap == "hang_in_sleep" else {}
    hanging = broker.send_task(f"{HANGING}.{trap}", **seconds)

    eventually(lambda: DeadLetter.objects.filter(message_id=hanging).count() == 1, "the dead letter")
    assert_goes_on(broker, worker)
    outcomes = Attempt.objects.filter(message_id=hanging).values_list("outcome", "error_class")
    assert list(outcomes) == [("buried", "TimeLimitExceeded")]
    assert worker.has_logged(f"Hard time limit (2s) exceeded for {HANGING}.{trap}", times=1)


def test_what_an_abandoned_task_would_do_later_is_not_done(broker, start, stats):
    own = start(queue="email")
    hanging = broker.send_task(f"{HANGING}.hang_in_sleep", queue="email", arguments={"seconds": 4.0})

    eventually(lambda: DeadLetter.objects.filter(message_id=hanging).exists(), "the dead letter")
    assert stats(own)["abandoned"] == 1
    eventually(lambda: stats(own).get("abandoned") == 0, "the thread has ended")
    assert not has_run(hanging)
    assert Attempt.objects.filter(message_id=hanging).count() == 1


def test_a_soft_limit_lets_a_task_end_in_its_own_way(broker, worker):
    stopped = broker.send_task(f"{HANGING}.stop_in_time")
    busy = broker.send_task(f"{HANGING}.hang_in_python")

    eventually(lambda: has_run(stopped), "the task has stopped in time")
    eventually(lambda: has_run(busy, witness=SOFT), "a loop is interrupted too")
    assert not DeadLetter.objects.filter(message_id=stopped).exists()
    assert_goes_on(broker, worker)


def test_time_limits_can_be_changed_while_the_worker_runs(broker, worker, remote):
    name = f"{HANGING}.take_long"
    remote.time_limit(name, soft=1, hard=2, reply=True, timeout=3)
    try:
        long = broker.send_task(name)
        eventually(lambda: DeadLetter.objects.filter(message_id=long).exists(), "the dead letter", within=10)
    finally:
        remote.time_limit(name, soft=600, hard=900, reply=True, timeout=3)
    [dead_letter] = DeadLetter.objects.filter(message_id=long)
    assert dead_letter.error_class == "SoftTimeLimitExceeded"


def test_a_task_that_is_terminated_ends_and_is_kept_as_revoked(broker, worker, remote, stats):
    task_id = str(uuid.uuid4())
    long = broker.send_task(f"{HANGING}.take_long", task_id=task_id)
    eventually(lambda: has_run(long, witness=BEGUN), "it has begun")
    [active] = [
        task
        for tasks in (remote.inspect(timeout=2).active() or {}).values()
        for task in tasks
        if task["id"] == task_id
    ]
    assert active["worker_pid"]

    remote.revoke(task_id, terminate=True, reply=True, timeout=3)

    eventually(lambda: DeadLetter.objects.filter(message_id=long).exists(), "the dead letter")
    assert DeadLetter.objects.get(message_id=long).error_class == "Revoked"
    eventually(is_idle(stats), stats)
    assert_goes_on(broker, worker)


def test_a_pool_grows_and_shrinks(broker, worker, remote, stats):
    assert remote.pool_grow(3, reply=True, timeout=3)
    eventually(lambda: stats().get("max-concurrency") == 15, stats)
    assert remote.pool_shrink(3, reply=True, timeout=3)
    eventually(lambda: stats().get("max-concurrency") == 12, stats)
    assert_goes_on(broker, worker)


def test_a_worker_with_too_many_hanging_threads_is_replaced_before_they_are_used_up(broker, start):
    """It finishes what it can, and ends with an exit code after which supervisors start it again."""
    failing = start(concurrency=8, queue="sms")  # of which two may hang
    hanging = [broker.send_task(f"{HANGING}.hang_in_c", queue="sms") for _ in range(2)]
    eventually(lambda: DeadLetter.objects.filter(message_id__in=hanging).count() == 1, "the first is given up")
    finished = [broker.send_task(f"{TASKS}.linger", queue="sms", arguments={"seconds": 3.0}) for _ in range(4)]

    eventually(lambda: not failing.is_alive(), "the worker has ended", within=30)
    assert failing.exit_code == RETIRED
    assert failing.has_logged("of its threads hang")
    assert failing.has_logged("worker.retired")
    assert DeadLetter.objects.filter(message_id__in=hanging).count() == 2
    start(queue="sms")
    eventually(lambda: all(map(has_run, finished)), "the others are finished")
    assert not DeadLetter.objects.filter(message_id__in=finished).exists()


@pytest.mark.parametrize("trap", ["hold_the_lock", "leave_a_lock"])
def test_a_worker_in_which_nothing_can_run_ends(broker, start, trap):
    """A task holds the interpreter's lock, or has left a lock behind that the main loop needs."""
    still = start(concurrency=4, queue="push")
    sent = broker.send_task(f"{HANGING}.{trap}", queue="push")

    eventually(lambda: has_run(sent, witness=BEGUN), "the task has begun")
    broker.send_task("no.such.task", queue="push")  # whose arrival the main loop logs
    eventually(lambda: not still.is_alive(), "the worker has ended", within=30)
    assert still.exit_code == 1
    assert still.has_logged("Timeout (0:00:06)!")  # and a traceback of all threads


def test_a_chain_goes_on_in_the_same_thread_and_flower_gets_the_events_of_each_link(broker, worker):
    first, second = str(uuid.uuid4()), str(uuid.uuid4())
    chain = [
        {
            "task": FINISH,
            "args": [],
            "kwargs": {"message_id": second},
            "options": {"task_id": f"link-{second}"},
            "subtask_type": None,
            "immutable": True,
        }
    ]
    with Celery("flower", broker=broker.url, set_as_current=False) as app, app.connection() as link:
        events = []
        receiver = app.events.Receiver(link, handlers={"*": events.append})
        with receiver.consumer_context() as (listening, _, _):
            broker.send(
                [[], {"message_id": first, "order_id": "order-1"}, {"chain": chain}],
                headers={"task": FINISH, "id": f"task-{first}", "lang": "py", "ignore_result": True},
            )

            def kinds_of(task_id):
                return [event["type"] for event in events if event.get("uuid") == task_id]

            def heard():
                with contextlib.suppress(socket.timeout):
                    listening.drain_events(timeout=0.2)
                return "task-succeeded" in kinds_of(f"link-{second}")

            eventually(heard, lambda: [event["type"] for event in events])
    expected = {"task-received", "task-started", "task-succeeded"}
    assert set(kinds_of(f"task-{first}")) == expected
    assert set(kinds_of(f"link-{second}")) == expected
    assert has_run(first)
    assert has_run(second)
    assert not worker.has_logged(f"link-{second}] received")  # the broker has not delivered it


@pytest.mark.timeout(900)
@pytest.mark.parametrize("rounds", [4, pytest.param(60, marks=pytest.mark.nightly)])
def test_memory_stays_flat_while_tasks_run_fail_and_hang(broker, start, rounds):
    own = start(concurrency=16, queue="jobs")
    process = psutil.Process(own.pid)

    def work():
        sent = [broker.send_task(FINISH, queue="jobs") for _ in range(300)]
        hanging = [broker.send_task(f"{HANGING}.hang_in_python", queue="jobs") for _ in range(2)]
        given_up = DeadLetter.objects.filter(message_id__in=hanging)
        eventually(lambda: all(map(has_run, sent[-16:])) and given_up.count() == 2, "a round")
        return process.memory_info().rss / 2**20

    for _ in range(3):  # the first ones fill caches and start all threads
        before = work()
    used = [work() for _ in range(rounds)]

    assert used[-1] - before < 4 + 0.05 * rounds, (before, used)
    assert process.num_threads() < 16 + 8
