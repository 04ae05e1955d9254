"""Real workers on the test database and the test brokers, and producers of messages of any shape."""

from __future__ import annotations

import contextlib
import uuid

import kombu
import pytest
from django.conf import settings
from django.core.management import call_command
from django.db import connection, connections

import celeryconfig
from outbox.models import InboxEntry, OutboxMessage
from tests import processes, rabbitmq_hosts
from tests.chaos import tasks

AMQP_URL = rabbitmq_hosts.url()
NO_RABBITMQ = f"no RabbitMQ answers at {AMQP_URL} (ORDERFLOW_TEST_AMQP_URL)"
TASKS = "tests.chaos.tasks"


class Broker:
    """A broker from which workers of this test consume, and a producer for messages of any shape."""

    def __init__(self, url):
        self.url = url
        self.link = kombu.Connection(url, connect_timeout=2)

    @property
    def is_redis(self):
        return self.url.startswith("redis")

    def send(self, body, *, headers=None, queue="orders", **properties):
        options = {"serializer": "json"} if not isinstance(body, bytes) else {}
        with self.link.channel() as channel:
            kombu.Producer(channel).publish(
                body,
                exchange=queue if self.is_redis else "",
                routing_key=queue,
                headers=headers,
                declare=[kombu.Queue(queue, kombu.Exchange(queue), routing_key=queue)] if self.is_redis else [],
                **options,
                **properties,
            )

    def send_task(
        self, name, *, message_id=None, task_id=None, queue="orders", headers=None, arguments=None, **properties
    ):
        """Send a task as Celery would; return the message id in its arguments."""
        message_id = str(message_id or uuid.uuid4())
        self.send(
            [[], {"message_id": message_id, "order_id": "order-1", **(arguments or {})}, {}],
            headers={"task": name, "id": task_id or str(uuid.uuid4()), "lang": "py", **(headers or {})},
            queue=queue,
            **properties,
        )
        return message_id

    def push(self, item, *, queue="orders"):
        """Put an arbitrary item into a Redis list."""
        with self.link.channel() as channel:
            channel.client.lpush(queue, item)

    def waiting(self, queue="orders"):
        with self.link.channel() as channel:
            if self.is_redis:
                return channel.client.llen(queue)
            return channel.queue_declare(queue, passive=True).message_count

    def purge(self):
        """Empty the broker: messages of other tests would be mistaken for this one's."""
        names = [*celeryconfig.QUEUES, *(f"{name}.dead" for name in celeryconfig.QUEUES)]
        with self.link.channel() as channel:
            if self.is_redis:
                prefixes = ("unacked", "_kombu", "celery-task-meta", *celeryconfig.QUEUES)
                keys = [key for key in channel.client.scan_iter() if key.decode().startswith(prefixes)]
                if keys:
                    channel.client.delete(*keys)
                return
        for name in names:
            with contextlib.suppress(Exception), self.link.channel() as channel:
                channel.queue_purge(name)

    def close(self):
        self.link.release()


def written_message(message_id=None, **fields):
    """A message that has already been published."""
    return OutboxMessage.objects.create(
        **{
            "event_name": "tests.happened",
            "event_version": 2,
            "key": "thing-1",
            "payload": {"about": "thing-1", "deed": "fell"},
            "correlation_id": "correlation-1",
            "status": OutboxMessage.Status.PUBLISHED,
            **({"id": message_id} if message_id else {}),
            **fields,
        }
    )


def has_run(message_id, *, witness=tasks.FINISHED):
    return InboxEntry.objects.filter(consumer=witness, message_id=message_id).exists()


@pytest.fixture(scope="module")
def committed(django_db_setup, django_db_blocker):
    """The test database for all tests of a module together, emptied afterwards."""
    assert connection.settings_dict["NAME"].startswith("test_"), "mark the tests with django_db"
    with django_db_blocker.unblock():
        yield
        call_command("flush", interactive=False, verbosity=0)
        connections.close_all()


@pytest.fixture(scope="module")
def stack(committed, tmp_path_factory):
    """Start Celery processes for all tests of a module."""
    with processes.stack(tmp_path_factory.mktemp("workers")) as started:
        yield started


@pytest.fixture
def short_lived(committed, tmp_path):
    """Start Celery processes for one test."""
    with processes.stack(tmp_path) as started:
        yield started


@pytest.fixture(scope="module")
def redis_broker():
    broker = Broker(settings.BROKER_URL)
    broker.purge()
    yield broker
    broker.purge()
    broker.close()


@pytest.fixture
def redis_client(redis_broker):
    with redis_broker.link.channel() as channel:
        yield channel.client


@pytest.fixture
def spoil(redis_client):
    """Put a value of another type under a key until the test ends; the bindings that workers declared stay."""
    before = {}

    def spoil(key, kind="string"):
        before[key] = redis_client.dump(key)
        redis_client.delete(key)
        redis_client.set(key, "x") if kind == "string" else redis_client.lpush(key, "x")

    yield spoil
    for key, dumped in before.items():
        redis_client.delete(key)
        if dumped:
            redis_client.restore(key, 0, dumped)


@pytest.fixture(scope="module")
def amqp_broker():
    """RabbitMQ, or None if none responds."""
    if not rabbitmq_hosts.answers(AMQP_URL):
        yield None
        return
    broker = Broker(AMQP_URL)
    broker.purge()
    yield broker
    broker.purge()
    broker.close()
