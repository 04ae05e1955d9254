"""Leftovers of work: after any number of rounds the brokers contain what they contained after the first."""

from __future__ import annotations

import contextlib
import datetime as dt

import kombu
import pytest
from celery import Celery
from django.apps import apps
from django.conf import settings
from django.db.models import F
from django_celery_results.models import TaskResult

import celeryconfig
from notifications.models import Notification
from orders.models import Order
from outbox import testing
from outbox.broker import queues
from outbox.models import Delivery, OutboxMessage
from outbox.retention import pruning
from tests import processes, rabbitmq_hosts
from tests.chaos.conftest import AMQP_URL, NO_RABBITMQ
from tests.factories import ProductFactory, place
from tests.processes import eventually

pytestmark = [pytest.mark.processes, pytest.mark.timeout(900)]

CHANNELS = ("email", "sms", "push")
WORKERS = ["relay@test", "orders@test", "rest@test"]

KEPT = {
    "auth.": "people, and what they may",
    "contenttypes.": "made by migrations",
    "sites.": "made by migrations",
    "orders.": "orders, what became of them, and the stock: the books of the business",
    "notifications.": "what a customer was sent, for as long as the order",
    "outbox.OutboxMessage": "of orders whose dead letters are open, or that are not final",
    "outbox.RelayState": "one row",
    "outbox.QueueWatch": "one row",
    "outbox.DatabaseIdentity": "one row",
    "outbox.PeriodicRun": "one row for each task of the schedule",
    "outbox.QueueProbe": "the newest of each queue",
    "admin.LogEntry": "who did what",
}
"""Tables that keep rows after their days, by how their names begin, and why."""


@pytest.fixture(params=["redis", "rabbitmq"])
def broker(request, tmp_path):
    """The address of a separate broker for this test, or an equivalent."""
    if request.param == "redis":
        server = processes.RedisServer(tmp_path, durable=False)
        yield server.url
        server.kill()
        return
    if not rabbitmq_hosts.answers(AMQP_URL):
        pytest.skip(NO_RABBITMQ)
    empty(AMQP_URL)
    yield AMQP_URL
    empty(AMQP_URL)


def empty(url):
    with kombu.Connection(url) as link:
        for name in (*celeryconfig.QUEUES, *(f"{name}.dead" for name in celeryconfig.QUEUES)):
            with contextlib.suppress(*link.channel_errors), link.channel() as channel:
                channel.queue_purge(name)


@pytest.fixture
def shop(transactional_db, world, broker, tmp_path):
    """Everything that an order passes through, and an operator's commands."""
    with processes.stack(tmp_path) as stack:
        started = [
            stack.relay(BROKER_URL=broker),
            stack.worker("orders", "orders", concurrency=2, BROKER_URL=broker),
            stack.worker("rest", *CHANNELS, "jobs", pool="threads", concurrency=4, BROKER_URL=broker),
        ]
        stack.beat(BROKER_URL=broker)
        for worker in started:
            worker.wait_until_ready()
        with Celery("operator", broker=broker, set_as_current=False) as operator:
            yield operator


def work(shop, product, orders):
    """Place orders, inspect the workers, and wait until all work is finished."""
    placed = [place(product) for _ in range(orders)]
    inspect = shop.control.inspect(timeout=5, destination=WORKERS)
    eventually(lambda: set(inspect.ping() or ()) == set(WORKERS), "all answer: on Redis, once they listen")
    shop.control.inspect(timeout=0.001).stats()  # the requester is gone before the replies arrive
    ids = [order.pk for order in placed]
    left = Order.objects.filter(pk__in=ids).exclude(status=Order.Status.FULFILLED)
    eventually(lambda: not left.exists(), "all orders are fulfilled", within=120)
    untold = Notification.objects.exclude(status="sent")
    eventually(lambda: not untold.exists(), "all customers are told", within=120)
    eventually(lambda: not OutboxMessage.objects.undelivered().exists(), "all is published")
    eventually(
        lambda: not Delivery.objects.exists(), "all deliveries have ended, which is noted after the work"
    )


def held(shop):
    """What the broker keeps without expiry, with sizes."""
    with shop.connection_for_read() as link:
        if link.transport.driver_type == "redis":
            return in_redis(link.default_channel.client)
        return in_rabbitmq(link)


SIZES = {b"list": "llen", b"set": "scard", b"hash": "hlen", b"zset": "zcard", b"string": "strlen"}


def in_redis(client):
    lasting = [name for name in client.scan_iter() if client.ttl(name) == -1]
    return {name.decode(): getattr(client, SIZES[client.type(name)])(name) for name in lasting}


def in_rabbitmq(link):
    names = [*celeryconfig.QUEUES, *(f"{name}.dead" for name in celeryconfig.QUEUES if name != "relay")]
    names += [f"{queues.DELAYS}{level}" for level in range(28)]
    with link.channel() as channel:
        return {name: channel.queue_declare(name, passive=True).message_count for name in names}


def rows():
    return {
        model._meta.label: model._default_manager.count()
        for model in apps.get_models()
        if not model._meta.proxy and model._meta.managed
    }


@pytest.mark.parametrize(
    "rounds", [pytest.param(3, marks=pytest.mark.slow), pytest.param(60, marks=pytest.mark.nightly)]
)
def test_leftovers_do_not_grow_and_expire(shop, rounds):
    product = ProductFactory(stock=100_000)
    work(shop, product, 5)
    shop.send_task("outbox.tasks.prune", exchange="jobs", routing_key="jobs")
    eventually(lambda: rows()["django_celery_results.TaskResult"], "the result of a job")
    settled = quiet(held(shop))
    for _ in range(rounds):
        work(shop, product, 5)

    settles_without_ticks(shop, settled)
    days = dt.timedelta(days=settings.OUTBOX_RETENTION_DAYS + 1)
    testing.pass_time(days)
    TaskResult.objects.update(date_done=F("date_done") - days)
    pruning.prune()
    left = {name: count for name, count in rows().items() if count and not name.startswith(tuple(KEPT))}
    assert left == {}


def quiet(sizes):
    """Without what changes with every tick."""
    return {name: size for name, size in sizes.items() if not name.startswith(("relay", "unacked"))}


def settles_without_ticks(shop, wanted):
    eventually(lambda: quiet(held(shop)) == wanted, lambda: f"{quiet(held(shop))}, not {wanted}", within=30)
