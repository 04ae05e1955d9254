"""
Conditions that stop, block or mislead a standard Celery worker, and their effects here.

All of them are created at once for one worker on each broker; the tests check the results.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import uuid

import pytest
from celery import Celery
from django.db import connection

from outbox.models import Attempt, DeadLetter, Delivery, OutboxMessage, PeriodicRun
from outbox.worker import unreadable
from tests.chaos.conftest import NO_RABBITMQ, TASKS, Broker, has_run, written_message
from tests.processes import Process, eventually
from tests.slow import but_first

pytestmark = [pytest.mark.processes, pytest.mark.django_db]

HERE = f"{TASKS}."


@dataclasses.dataclass
class Scene:
    """One broker, its worker, and the message id of each trap by name."""

    broker: Broker
    worker: Process
    pool: str
    ids: dict[str, str] = dataclasses.field(default_factory=dict)

    def has(self, trap):
        """Return whether it is set here. With threads, `test_crash_loops` has tasks that end their process."""
        return self.pool == "prefork" or trap not in ENDING_PROCESSES

    def dead_letters(self, trap):
        return list(DeadLetter.objects.filter(message_id=self.ids[trap]))

    def finished(self, trap):
        return has_run(self.ids[trap])

    def open_ends(self):
        """The traps that are not finished yet."""
        lettered = [trap for trap in (*MALFORMED, *ENDED) if self.has(trap) and not self.dead_letters(trap)]
        unfinished = [trap for trap in ("fail_once", "fail_twice", *VICTIMS) if not self.finished(trap)]
        redelivered = OutboxMessage.objects.filter(pk=self.ids["retry_in_vain"], redeliveries=1).exists()
        unpruned = OutboxMessage.objects.filter(pk=self.ids["old"]).exists()
        return [
            *lettered,
            *unfinished,
            *([] if redelivered else ["retry_in_vain"]),
            *(["old"] if unpruned else []),
        ]


VICTIMS = [f"victim {number}" for number in range(20)]
MALFORMED = {
    "undecodable": "DecodeError",
    "scalar": "InvalidTaskError",
    "short list": "InvalidTaskError",
    "no id": "InvalidTaskError",
    "no task": "InvalidTaskError",
    "bad eta": "InvalidTaskError",
    "far eta": "InvalidTaskError",
    "disallowed content": "ContentDisallowed",
    "unknown encoding": "ContentDisallowed",
    "unregistered": "NotRegistered",
}
ENDED = {
    "expired": "Expired",
    "revoked": "Revoked",
    "reject": "Reject",
    "devour_memory": "MemoryError",
    "hang": "TimeLimitExceeded",
    "kill_worker": "CrashLoop",
    "leave": "CrashLoop",
    "die_before": "CrashLoop",
    "die_after": "CrashLoop",
}


KILLERS = [trap for trap, error_class in ENDED.items() if error_class == "CrashLoop"]


ENDING_PROCESSES = [trap for trap in KILLERS if trap != "leave"]


def set_traps(scene):
    send, ids = scene.broker.send, scene.ids

    def headers(trap, *, task=f"{HERE}finish", **others):
        ids[trap] = str(uuid.uuid4())
        return {"task": task, "id": f"task-{ids[trap]}", "message_id": ids[trap], **others}

    plain = [[], {}, {}]
    json_type = {"content_type": "application/json", "content_encoding": "utf-8"}
    for poison in filter(scene.has, KILLERS):
        ids[poison] = scene.broker.send_task(HERE + poison)
    send(b'{"never": ', headers=headers("undecodable"), **json_type)
    send(5, headers=headers("scalar"))
    send([1], headers=headers("short list"))
    send(plain, headers={name: value for name, value in headers("no id").items() if name != "id"})
    send(plain, headers={name: value for name, value in headers("no task").items() if name != "task"})
    send(plain, headers=headers("bad eta", eta="tomorrow"))
    send(plain, headers=headers("far eta", eta="9999-12-31T23:59:59.999999-12:00"))
    send(b"cos\nsystem\n", headers=headers("disallowed content"), content_type="application/x-python-serialize")
    send(b"{}", headers=headers("unknown encoding"), content_type="text/strange", content_encoding="utf-8")
    send([[], {"order_id": "order-7"}, {}], headers=headers("unregistered", task="orders.tasks.teleport"))
    past = (dt.datetime.now(dt.UTC) - dt.timedelta(minutes=1)).isoformat()
    ids["expired"] = scene.broker.send_task(f"{HERE}finish", headers={"expires": past})
    revoked = str(uuid.uuid4())
    with Celery("operator", broker=scene.broker.url, set_as_current=False) as operator:
        assert operator.control.revoke(revoked, reply=True, timeout=5, limit=1)
    ids["revoked"] = scene.broker.send_task(f"{HERE}finish", task_id=revoked)
    for name in ("reject", "devour_memory", "hang", "fail_once", "fail_twice"):
        ids[name] = scene.broker.send_task(HERE + name)
    ids["retry_in_vain"] = scene.broker.send_task(
        f"{HERE}retry_in_vain", message_id=written_message().pk, headers={"workflow": "tests.workflow"}
    )
    ids["old"] = written_message(published_at=dt.datetime(2020, 1, 1, tzinfo=dt.UTC)).pk
    PeriodicRun.objects.all().delete()  # the scene of the other broker has just pruned
    scene.broker.send_task("outbox.tasks.prune", queue="jobs")
    for victim in VICTIMS:
        ids[victim] = scene.broker.send_task(f"{HERE}finish")
    scene.broker.send_task("outbox.tasks.unpark", headers={"expires": past})


@pytest.fixture(scope="module")
def no_results(committed):
    """The table of task results is unreachable during all of this."""
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE django_celery_results_taskresult RENAME TO unreachable")
    yield
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE unreachable RENAME TO django_celery_results_taskresult")


@pytest.fixture(scope="module", params=but_first(["prefork", "threads"]))
def pool(request):
    return request.param


@pytest.fixture(scope="module")
def scenes(request, pool, redis_broker, amqp_broker, no_results, stack):
    """The results on each broker that responds and is selected."""
    brokers = {"redis": redis_broker}
    if any(request.config.getoption(option) for option in ("--slow", "--nightly")):
        brokers["rabbitmq"] = amqp_broker
    made = {
        kind: Scene(
            broker,
            stack.worker(
                f"traps-{pool}-{kind}",
                "orders",
                "jobs",
                pool=pool,
                concurrency=2 if pool == "prefork" else 8,
                include=TASKS,
                BROKER_URL=broker.url,
            ),
            pool,
        )
        for kind, broker in brokers.items()
        if broker
    }
    for scene in made.values():
        scene.worker.wait_until_ready()
        set_traps(scene)
    for scene in made.values():
        eventually(lambda ends=scene.open_ends: not ends(), scene.open_ends)
    yield made
    for scene in made.values():
        scene.worker.stop()


@pytest.fixture(params=but_first(["redis", "rabbitmq"]))
def scene(request, scenes):
    if request.param not in scenes:
        pytest.skip(NO_RABBITMQ)
    return scenes[request.param]


@pytest.mark.parametrize(("trap", "error_class"), MALFORMED.items())
def test_a_message_that_is_no_task_becomes_one_dead_letter(scene, trap, error_class):
    [dead_letter] = scene.dead_letters(trap)
    assert dead_letter.error_class == error_class
    assert dead_letter.source == DeadLetter.Source.WORKER
    assert dead_letter.headers["message_id"] == scene.ids[trap]


def test_a_dead_letter_keeps_what_could_be_read(scene):
    [unregistered] = scene.dead_letters("unregistered")
    [undecodable] = scene.dead_letters("undecodable")
    assert (unregistered.consumer, unregistered.key) == ("orders.tasks.teleport", "order-7")
    assert unregistered.payload == {"task": "orders.tasks.teleport", "kwargs": {"order_id": "order-7"}}
    assert undecodable.payload == {"body": '{"never": '}


@pytest.mark.parametrize(("trap", "error_class"), ENDED.items())
def test_a_task_that_ends_without_finishing_becomes_one_dead_letter(scene, trap, error_class):
    if not scene.has(trap):
        pytest.skip("it ends the process")
    [dead_letter] = scene.dead_letters(trap)
    assert dead_letter.error_class == error_class
    assert dead_letter.consumer.startswith(HERE)


def test_a_hard_time_limit_counts_as_one_attempt(scene):
    outcomes = Attempt.objects.filter(message_id=scene.ids["hang"]).values_list("outcome", "error_class")
    assert list(outcomes) == [("buried", "TimeLimitExceeded")]


@pytest.mark.parametrize("poison", KILLERS)
def test_a_message_that_kills_its_worker_is_given_up_after_three(scene, poison):
    if not scene.has(poison):
        pytest.skip("it ends the process")
    losses = Attempt.objects.filter(message_id=scene.ids[poison], outcome=Attempt.Outcome.LOST)
    assert losses.count() == 2
    assert "3 times" in scene.dead_letters(poison)[0].error


def test_a_retry_that_finds_no_broker_is_redelivered_from_the_database(scene):
    delivery = Delivery.objects.get(message_id=scene.ids["retry_in_vain"])
    assert (delivery.status, delivery.workflow) == ("waiting", "tests.workflow")
    assert scene.dead_letters("retry_in_vain") == []


def test_an_expired_tick_leaves_no_dead_letter(scene):
    assert not DeadLetter.objects.filter(consumer="outbox.tasks.unpark").exists()


def test_a_quick_retry_returns_through_the_broker(scene):
    assert scene.finished("fail_once")
    assert Attempt.objects.filter(message_id=scene.ids["fail_once"]).values_list(
        "outcome", flat=True
    ).get() == (Attempt.Outcome.RETRIED)


def test_a_second_quick_retry_returns_too(scene):
    assert scene.finished("fail_twice")
    assert Attempt.objects.filter(message_id=scene.ids["fail_twice"], outcome="retried").count() == 2


def test_a_job_whose_result_cannot_be_stored_is_done_and_harms_no_worker(scene):
    assert not OutboxMessage.objects.filter(pk=scene.ids["old"]).exists()
    eventually(lambda: scene.worker.has_logged("django_celery_results_taskresult"), "the result finds no table")
    assert_goes_on(scene)


def test_the_worker_survives_all_of_it(scene):
    assert_goes_on(scene)
    assert not scene.worker.has_logged("Frequent restarts")
    eventually(lambda: scene.broker.waiting() == 0, "an empty queue")


NO_MESSAGES = {
    "no message at all": "JSONDecodeError",
    "5": "NoMessage",
    "null": "NoMessage",
    "[1]": "NoMessage",
    "{}": "NoMessage",
    '{"properties": {"delivery_tag": "1"}}': "NoMessage",
    '{"properties": {"body_encoding": "base64"}, "body": "a"}': "NoMessage",
}


@pytest.mark.parametrize(("item", "error_class"), NO_MESSAGES.items())
def test_an_item_that_is_not_a_message_is_kept_too(scenes, item, error_class):
    scene = scenes["redis"]  # RabbitMQ contains only messages
    scene.broker.push(item)

    kept = DeadLetter.objects.filter(consumer=unreadable.CONSUMER, payload={"body": item})
    [dead_letter] = eventually(lambda: list(kept.all()), "the dead letter")
    assert dead_letter.error_class == error_class
    assert_goes_on(scene)


def assert_goes_on(scene):
    again = scene.broker.send_task(f"{HERE}finish")
    eventually(lambda: has_run(again), "the next task")
    assert scene.worker.is_alive()
