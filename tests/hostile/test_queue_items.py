"""
Whatever a queue contains, the worker survives, takes the next task, and stores what it cannot process once.

One worker on each broker, with all queues, receives everything at once; the tests check the results.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import uuid
from typing import ClassVar

import kombu
import pytest
from celery import Celery

import celeryconfig
from outbox.database.storable import LONGEST_TEXT
from outbox.models import DeadLetter
from outbox.worker.unreadable import BODY_KEPT
from tests.chaos.conftest import (  # noqa: F401 - fixtures
    NO_RABBITMQ,
    TASKS,
    Broker,
    amqp_broker,
    committed,
    has_run,
    redis_broker,
    stack,
)
from tests.hostile import commands, items
from tests.processes import Process, eventually

pytestmark = [pytest.mark.slow, pytest.mark.processes, pytest.mark.django_db, pytest.mark.timeout(400)]

QUEUES = celeryconfig.QUEUES


@dataclasses.dataclass
class Scene:
    """A broker and its worker."""

    is_thorough: ClassVar[bool] = False

    broker: Broker
    worker: Process
    name: str

    def send(self, item, *, case, queue):
        with self.broker.link.channel() as channel:
            message = channel.prepare_message(
                item.fresh_body(),
                headers=item.headers_of(case),
                content_type=item.content_type,
                content_encoding=item.content_encoding,
                properties={"delivery_mode": 2, "delivery_info": {}} if self.broker.is_redis else {},
            )
            channel.basic_publish(message, exchange="", routing_key=queue)

    def dead_letters(self, **fields):
        return DeadLetter.objects.filter(worker__startswith=f"{self.name}@", **fields)

    def goes_on(self):
        again = [self.broker.send_task(f"{TASKS}.finish", queue=queue) for queue in QUEUES]
        eventually(lambda: all(map(has_run, again)), lambda: self.worker.output()[-3000:])
        assert self.worker.is_alive()


def cases(corpus):
    """Each item in each queue with `--nightly`; otherwise each in one queue, and one or more in every queue."""
    return [
        (name, queue)
        for number, name in enumerate(corpus)
        for place, queue in enumerate(QUEUES)
        if Scene.is_thorough or number % len(QUEUES) == place
    ]


@pytest.fixture(scope="module")
def scenes(request, committed, redis_broker, amqp_broker, stack):  # noqa: F811
    Scene.is_thorough = request.config.getoption("--nightly")
    made = {}
    for kind, broker in {"redis": redis_broker, "rabbitmq": amqp_broker}.items():
        if broker:
            name = f"hostile-{kind}"
            worker = stack.worker(
                name, *QUEUES, pool="threads", concurrency=2, include=TASKS, BROKER_URL=broker.url
            )
            made[kind] = Scene(broker, worker, name)
    for scene in made.values():
        scene.worker.wait_until_ready()
        for name, queue in cases(items.MESSAGES):
            scene.send(items.MESSAGES[name], case=f"{name} in {queue}", queue=queue)
    for scene in made.values():
        scene.goes_on()
        wanted = len(cases(items.MESSAGES))
        eventually(lambda s=scene, w=wanted: s.dead_letters().count() >= w, lambda s=scene: missing(s))
    return made


def missing(scene):
    return sorted({f"{name} in {queue}" for name, queue in cases(items.MESSAGES)} - by_case(scene).keys())


def by_case(scene):
    found = {}
    for dead_letter in scene.dead_letters():
        case = (
            dead_letter.headers.get("case")
            or dead_letter.task_id.removeprefix("task-")[: -len(f"-{uuid.uuid4()}")]
        )
        found.setdefault(case, []).append(dead_letter)
    return found


@pytest.fixture(params=["redis", "rabbitmq"])
def scene(request, scenes):
    if request.param not in scenes:
        pytest.skip(NO_RABBITMQ)
    return scenes[request.param]


def test_each_message_is_kept_once_whichever_queue_it_came_by(scene):
    kept = by_case(scene)

    for name, queue in cases(items.MESSAGES):
        if items.MESSAGES[name].headers is not None:
            assert len(kept.get(f"{name} in {queue}", [])) == 1, (name, queue)
    assert scene.dead_letters().count() >= len(cases(items.MESSAGES))


def test_what_is_kept_of_it_is_bounded(scene):
    for dead_letter in scene.dead_letters():
        assert len(json.dumps(dead_letter.payload)) < 4 * BODY_KEPT, dead_letter.headers.get("case")
        assert len(json.dumps(dead_letter.headers)) < 8 * LONGEST_TEXT


def test_its_content_is_not_logged(scene):
    assert items.SECRET not in scene.worker.output()


def test_the_worker_continues_and_nothing_is_left_behind(scene):
    scene.goes_on()
    assert "answers" in ping(scene)
    for queue in QUEUES:
        eventually(lambda q=queue: scene.broker.waiting(q) == 0, f"an empty queue {queue}")
        if not scene.broker.is_redis and queue != "relay":
            assert scene.broker.waiting(f"{queue}.dead") == 0


@contextlib.contextmanager
def an_operator(scene):
    with Celery("operator", broker=scene.broker.url, set_as_current=False) as operator:
        yield operator


def ping(scene, operator=None):
    with contextlib.nullcontext(operator) if operator else an_operator(scene) as asking:
        replies = eventually(
            lambda: asking.control.ping(destination=[f"{scene.name}@test"], timeout=2), "an answer to a ping"
        )
    return "answers" if replies[0][f"{scene.name}@test"]["ok"] == "pong" else replies


def test_an_item_that_is_not_a_message_is_kept_once_whichever_list_it_is_in(scenes):
    scene = scenes["redis"]
    before = scene.dead_letters().count()
    for name, queue in cases(items.REDIS_ITEMS):
        scene.broker.push(items.REDIS_ITEMS[name], queue=queue)
    scene.goes_on()

    for queue in QUEUES:
        found = scene.dead_letters(headers={"queue": queue})
        wanted = len([place for _, place in cases(items.REDIS_ITEMS) if place == queue])
        eventually(lambda f=found, w=wanted: f.count() >= w, lambda f=found: list(f.values("payload")))
    assert scene.dead_letters().count() == before + len(cases(items.REDIS_ITEMS))
    assert items.SECRET not in scene.worker.output()


def test_an_unacknowledged_item_that_is_not_a_message_is_kept_once(scenes):
    scene = scenes["redis"]
    with scene.broker.link.channel() as channel:
        for name, item in items.UNACKNOWLEDGED.items():
            channel.client.hset(f"unacked-{scene.name}", name, item)
            channel.client.zadd(f"unacked-index-{scene.name}", {name: 1})
        after = str(uuid.uuid4())
        whole = json.loads(items.envelope())
        whole["headers"] = {"task": f"{TASKS}.finish", "id": after}
        whole["body"] = json.dumps([[], {"message_id": after, "order_id": "1"}, {}])
        whole["properties"]["body_encoding"] = None
        channel.client.hset(f"unacked-{scene.name}", "last", json.dumps([whole, "orders", "orders"]))
        channel.client.zadd(f"unacked-index-{scene.name}", {"last": 0})  # it is found after all the others
        eventually(lambda: has_run(after), "the message among them is delivered")
        eventually(lambda: channel.client.hlen(f"unacked-{scene.name}") == 0, "nothing is left there")

    bodies = [
        dead_letter.payload.get("body", "") for dead_letter in scene.dead_letters(consumer="outbox.worker")
    ]
    for name, item in items.UNACKNOWLEDGED.items():
        assert sum(body[:40] == item[:40] for body in bodies) >= 1, name


def test_an_invalid_control_command_ends_no_worker(scene):
    junk = [b"nothing", b"5", b"null", items.BRACKETS.encode(), items.DIGITS.encode(), b"{}", b'{"method": []}']
    if scene.broker.is_redis:
        with scene.broker.link.channel() as channel:
            for item in junk:
                channel.client.publish("/0.celery.pidbox", item)
    for item in junk:
        for content_type in ("application/json", "application/x-python-serialize"):
            order(scene, item, headers={"clock": "x", "expires": "y"}, content_type=content_type)
    assert "answers" in ping(scene)
    scene.goes_on()


def test_an_unknown_control_command_changes_nothing(scene):
    for name, command in commands.COMMANDS.items():
        order(scene, json.dumps(command).encode())
        assert scene.worker.is_alive(), name
    assert "answers" in ping(scene)

    before = scene.dead_letters().count()
    scene.goes_on()
    assert scene.dead_letters().count() == before
    assert scene.broker.waiting("orders") == 0


@pytest.mark.parametrize("clock", commands.CLOCKS, ids=str)
def test_a_clock_that_cannot_be_one_is_not_believed(scene, clock):
    order(scene, json.dumps(commands.command("ping")).encode(), headers={"clock": clock})

    with an_operator(scene) as operator:
        assert "answers" in ping(scene, operator)
        assert 0 < operator.control.mailbox.clock.value < 10_000  # it continues from the time of the response


def order(scene, body, *, headers=None, content_type="application/json"):
    """Send a control command to every worker of the broker."""
    with scene.broker.link.channel() as channel:
        exchange = kombu.Exchange("celery.pidbox", type="fanout", durable=False, auto_delete=True)
        kombu.Producer(channel, exchange=exchange, auto_declare=scene.broker.is_redis).publish(
            body, content_type=content_type, content_encoding="utf-8", headers=headers or {}
        )


SPOOFED = [
    {"x-death": 5},
    {"x-death": ["orders"]},
    {"x-death": [{"reason": 5, "queue": ["orders"]}]},
    {"x-first-death-reason": {"a": 1}, "x-delivery-count": 2**62},
    {"generation": "9" * 50, "workflow": "tests.workflow"},
]
"""The headers with which a broker describes why it gave a message up."""


def test_a_message_in_a_dead_letter_queue_is_kept_once(scenes):
    if "rabbitmq" not in scenes:
        pytest.skip(NO_RABBITMQ)
    scene = scenes["rabbitmq"]
    corpus = items.MESSAGES | {str(more): items.Item(items.body(), more) for more in SPOOFED}
    named = {name: item for name, item in corpus.items() if item.headers is not None}
    for name, item in named.items():
        scene.send(item, case=name, queue="orders.dead")

    kept = DeadLetter.objects.filter(source=DeadLetter.Source.BROKER)
    eventually(lambda: kept.count() >= len(named), lambda: kept.count())
    assert sorted(dead_letter.headers["case"] for dead_letter in kept) == sorted(named)
    eventually(lambda: scene.broker.waiting("orders.dead") == 0, "an empty dead letter queue")
    scene.goes_on()


def test_unreadable_properties_end_no_worker(scenes):
    if "rabbitmq" not in scenes:
        pytest.skip(NO_RABBITMQ)
    scene = scenes["rabbitmq"]
    before = scene.dead_letters().count()
    unreadable = [{"type": b"\xff\xfe"}, {"message_id": b"\xc3\x28"}, {"application_headers": {"at": 2**62}}]
    with scene.broker.link.channel() as channel:
        for number, properties in enumerate(unreadable):
            message = channel.prepare_message(items.body(kwargs={"number": number}), headers={"number": number})
            message.properties.update(properties)
            if "application_headers" in properties:
                message.properties["application_headers"] = {"at": YearMillions()}
            channel.basic_publish(message, exchange="", routing_key="orders")
    scene.goes_on()

    eventually(lambda: scene.dead_letters().count() == before + len(unreadable), "a dead letter each")


class YearMillions:
    """A time that is a number of seconds beyond any calendar."""


@pytest.fixture(autouse=True)
def _write_far_times(monkeypatch):
    from amqp import serialization

    write = serialization._write_item

    def write_item(value, out, bits):
        if isinstance(value, YearMillions):
            out(b"T" + (2**62).to_bytes(8, "big"))
        else:
            write(value, out, bits)

    monkeypatch.setattr(serialization, "_write_item", write_item)
