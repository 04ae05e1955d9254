"""The guarded consumer and request without a worker; `tests/chaos` has real ones."""

from __future__ import annotations

import json
import os
import signal
import uuid
from types import SimpleNamespace

import pytest
from billiard.exceptions import WorkerLostError
from celery.concurrency.asynpool import AsynPool
from celery.exceptions import InvalidTaskError, Reject
from django.db import OperationalError
from kombu.exceptions import OperationalError as BrokerError
from kombu.message import Message

from orderflow.celery import app
from outbox.consumer import ConsumerTask
from outbox.models import Attempt, DeadLetter
from outbox.worker import unreadable
from outbox.worker.consumer import GuardedConsumer
from outbox.worker.request import GuardedRequest
from tests.processes import eventually

MESSAGE_ID = str(uuid.uuid4())


class Channel:
    """Records what happens to a message."""

    no_ack_consumers = None

    def __init__(self):
        self.acked, self.rejected = [], []

    def basic_ack(self, tag, multiple=False):
        self.acked.append(tag)

    def basic_reject(self, tag, requeue=False):
        self.rejected.append((tag, requeue))

    def message_to_python(self, message):
        return message


class Clock:
    """A timer that the test triggers."""

    def __init__(self):
        self.entries = []

    def call_after(self, seconds, call, args=()):
        self.entries.append((call, args))

    def ring(self):
        entries, self.entries = self.entries, []
        for call, args in entries:
            call(*args)


def message_of(body, headers, *, content_type="application/json"):
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Message(
        body=raw,
        channel=Channel(),
        delivery_tag="tag",
        content_type=content_type,
        content_encoding="utf-8",
        headers=headers,
        accept={"application/json"},
    )


def good_message(options=None, **others):
    kwargs = {"message_id": MESSAGE_ID, "order_id": "order-1"}
    headers = {"task": "tests.worker.work", "id": "task-1", "workflow": "orders.workflows.fulfillment"}
    return message_of([[], kwargs, options or {}], headers | others)


@pytest.fixture
def consumer():
    """A consumer without a connection."""
    made = GuardedConsumer.__new__(GuardedConsumer)
    made.app, made.hostname, made.timer = app, "worker@test", Clock()
    made.hub = made.event_dispatcher = None
    made.connection_errors, made.channel_errors = (ConnectionError, KeyError), ()
    made.strategies, made.on_task_message, made._maximum_prefetch_restored = {}, set(), True
    return made


class Task(ConsumerTask):
    name = "tests.worker.work"

    def run(self, **kwargs):
        return True


def request_of(message, task):
    bound = task()
    bound.bind(app)
    options = {"app": app, "task": bound, "hostname": "worker@test", "on_ack": lambda *a: message.ack()}
    return GuardedRequest(
        message, on_reject=lambda logger, errors, requeue: message.reject(requeue=requeue), **options
    )


def failed(error):
    return SimpleNamespace(exception=error, traceback="a traceback")


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (5, {"task": "t", "id": "1"}),
        ([1, 2], {"task": "t", "id": "1"}),
        ([[], [], {}], {"task": "t", "id": "1"}),
        ([[], {}, "options"], {"task": "t", "id": "1"}),
        ([[], {}, {}], {"task": "t"}),
        ([[], {}, {}], {"id": "1"}),
        ([[], {}, {}], {"task": ["t"], "id": "1"}),
        ([[], {}, {}], {"task": "t", "id": "1", "timelimit": 5}),
        ([[], {}, {}], None),
        (b"\xff\xfe", {"task": "t", "id": "1"}),
    ],
)
@pytest.mark.django_db
def test_an_invalid_message_is_buried_once_and_acknowledged(consumer, body, headers):
    message = message_of(body, headers)

    consumer.create_task_handler()(message)

    assert DeadLetter.objects.count() == 1
    assert message.channel.acked == ["tag"]
    assert message.channel.rejected == []


@pytest.mark.django_db
def test_whatever_goes_wrong_with_one_message_ends_there(consumer):
    def strategy(*_):
        raise KeyError("kombu takes this for a lost connection")

    consumer.strategies["tests.worker.work"] = strategy
    consumer.create_task_handler()(good_message())

    [dead_letter] = DeadLetter.objects.all()
    assert (dead_letter.consumer, dead_letter.error_class) == ("tests.worker.work", "KeyError")
    assert (str(dead_letter.message_id), dead_letter.key, dead_letter.worker) == (
        MESSAGE_ID,
        "order-1",
        "worker@test",
    )
    assert dead_letter.workflow == "orders.workflows.fulfillment"


@pytest.mark.django_db
def test_a_lost_connection_is_left_to_celery(consumer):
    def strategy(*_):
        raise ConnectionResetError

    consumer.strategies["tests.worker.work"] = strategy

    with pytest.raises(ConnectionResetError):
        consumer.create_task_handler()(good_message())
    assert not DeadLetter.objects.exists()


@pytest.mark.django_db
def test_a_message_stays_unacknowledged_until_its_dead_letter_is_stored(consumer, monkeypatch):
    def down(*_):
        raise OperationalError("the server is starting up")

    message = good_message()
    with monkeypatch.context() as outage:
        outage.setattr(unreadable.burying, "bury", down)
        consumer.give_up(message, InvalidTaskError("bad"))
        assert message.channel.acked == []

    consumer.timer.ring()

    assert message.channel.acked == ["tag"]
    assert DeadLetter.objects.count() == 1


@pytest.mark.django_db
def test_an_invalid_item_is_not_recorded_while_the_database_is_down(consumer, monkeypatch):
    def down(*_):
        raise OperationalError("the server is starting up")

    with monkeypatch.context() as outage:
        outage.setattr(unreadable.burying, "bury", down)
        assert not consumer.give_up_item("5", ValueError("no message"), "orders")
        assert not DeadLetter.objects.exists()

    assert consumer.give_up_item("5", ValueError("no message"), "orders")
    dead_letter = DeadLetter.objects.get()
    assert (dead_letter.payload, dead_letter.headers) == ({"body": "5"}, {"queue": "orders"})


@pytest.mark.django_db
def test_a_dead_letter_keeps_undecodable_bytes_and_values_that_are_not_json(consumer):
    consumer.give_up(message_of(b"\xff\xfe", {"task": "t", "id": "1", "odd": {1, 2}}), ValueError("bytes"))
    consumer.give_up(message_of([[], {"n": float("nan")}, {}], {"task": "t", "id": "1"}), ValueError("nan"))

    bodies = sorted(dead_letter.payload["body"] for dead_letter in DeadLetter.objects.all())
    assert bodies == ['[[], {"n": NaN}, {}]', "base64://4="]


@pytest.mark.django_db
def test_an_unknown_task_is_reported_to_those_who_watch_it(consumer):
    consumer.create_task_handler()(good_message(task="orders.tasks.teleport"))

    [dead_letter] = DeadLetter.objects.all()
    assert (dead_letter.consumer, dead_letter.error_class) == ("orders.tasks.teleport", "NotRegistered")


def test_an_eta_outside_the_calendar_is_refused():
    with pytest.raises(InvalidTaskError):
        request_of(good_message(eta="9999-12-31T23:59:59.999999-12:00"), Task)


def test_a_task_out_of_memory_does_not_end_its_worker():
    message = good_message()

    request_of(message, Task).on_failure(failed(MemoryError("all")), return_ok=True)

    assert message.channel.acked == ["tag"]


@pytest.mark.django_db
def test_a_rejection_is_buried_and_reported_to_the_task():
    buried = []

    class Telling(Task):
        on_buried = staticmethod(lambda **kwargs: buried.append(kwargs))

    message = good_message()
    request_of(message, Telling).on_failure(failed(Reject("no", requeue=False)), return_ok=True)

    assert DeadLetter.objects.get().error_class == "Reject"
    assert buried == [{"message_id": MESSAGE_ID, "order_id": "order-1"}]
    assert message.channel.acked == ["tag"]


@pytest.mark.django_db
def test_a_retry_that_found_no_broker_and_no_message_is_buried():
    request_of(good_message(), Task).on_failure(failed(Reject(BrokerError("down"))), return_ok=True)

    assert DeadLetter.objects.get().error_class == "Reject"


@pytest.mark.django_db
def test_a_rejection_that_cannot_be_recorded_is_run_again(monkeypatch):
    def down(*_):
        raise OperationalError("the server is starting up")

    monkeypatch.setattr(unreadable.burying, "bury", down)
    message = good_message()

    request_of(message, Task).on_failure(failed(Reject("no", requeue=False)), return_ok=True)

    assert message.channel.rejected == [("tag", True)]


CHAIN = {"chain": [{"task": "tests.worker.work"}]}


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("options", "headers", "losses"),
    [
        ({}, {"generation": 0}, 1),
        (CHAIN, {"generation": 0}, 0),  # a later link may have run in its process
        (CHAIN, {"generation": 1}, 1),
        (CHAIN, {"redeliveries": 1}, 1),
        (CHAIN, {"generation": 0, "came_back": "1"}, 1),
    ],
)
def test_the_death_of_a_child_is_recorded_unless_it_may_have_continued_the_chain(options, headers, losses):
    dead = WorkerLostError("signal 9 (SIGKILL)")
    request_of(good_message(options, **headers), Task).on_failure(failed(dead), return_ok=True)

    assert Attempt.objects.filter(consumer=Task.name, outcome=Attempt.Outcome.LOST).count() == losses


def test_a_cancelled_request_records_no_retry(monkeypatch):
    noted = []
    monkeypatch.setattr(Task, "on_retry", lambda *a: noted.append(a))
    request = request_of(good_message(), Task)
    request.time_start = 1.0

    request.cancel(SimpleNamespace(terminate_job=lambda *a: None))

    assert noted == []


@pytest.fixture
def children():
    """The pool of a prefork worker, with two children."""
    pool = AsynPool(2, threads=False)
    yield pool
    pool.terminate()
    pool.join()


def kill(pool):
    for child in pool._pool:
        os.kill(child.pid, signal.SIGKILL)
    eventually(lambda: not any(child._is_alive() for child in pool._pool), "the children are gone")


def test_children_that_die_between_the_first_connection_and_the_first_loop_are_replaced(children):
    """Celery would end the worker because of them."""
    starting = SimpleNamespace(
        pool=SimpleNamespace(_pool=children),
        _forget_child=GuardedConsumer._forget_child,
        _replace_the_dead=GuardedConsumer._replace_the_dead,
    )
    GuardedConsumer._replace_dead_children(starting)
    kill(children)

    assert children.did_start_ok()
    assert [child._is_alive() for child in children._pool] == [True, True]
