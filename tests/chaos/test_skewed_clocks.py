"""
Clocks that differ by seconds, an hour or a day, between any two roles and the database.

Each process of the skewed role has its own clock from its start; see `orderflow/chaos/clock`.
"""

from __future__ import annotations

import datetime as dt
import itertools
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
from celery import current_app
from kombu.transport import redis as stock
from kombu.transport.native_delayed_delivery import CELERY_DELAYED_DELIVERY_EXCHANGE

from orders.contracts import OrderPlaced
from orders.models import Order
from outbox import periodic
from outbox.broker import redis_transport
from outbox.models import Attempt, OutboxMessage, PeriodicRun
from outbox.verification import examination
from outbox.worker import spans
from tests.chaos.conftest import NO_RABBITMQ
from tests.factories import place
from tests.processes import ROOT, environment, eventually

pytestmark = [pytest.mark.processes, pytest.mark.django_db(transaction=True)]

AHEAD = [3, -3, 3600, -3600, 86_400, -86_400]
ROLES = ["beat", "relay", "orders", "all but the database"]
SLOW = [
    ("relay", 3, "redis"),
    ("beat", -3, "redis"),
    ("relay", 86_400, "rabbitmq"),
    ("orders", -3600, "redis"),
    ("all but the database", 86_400, "redis"),
]
OTHERS = [case for case in itertools.product(ROLES, AHEAD, ["redis", "rabbitmq"]) if case not in SLOW]
CASES = [
    *(pytest.param(*case, marks=pytest.mark.slow) for case in SLOW),
    *(pytest.param(*case, marks=pytest.mark.nightly) for case in OTHERS),
]
NET = ("outbox.tasks.drain", "orders.tasks.sweep")


def skewed(seconds):
    return {"PYTHONPATH": os.pathsep.join([str(ROOT / "orderflow" / "chaos" / "clock"), str(ROOT)])} | {
        "CLOCK_AHEAD": str(seconds)
    }


def last_end(name):
    """When a periodic task was last done, by the database; the epoch if it has not been done yet."""
    ended = PeriodicRun.objects.filter(name=name).values_list("last_ended_at", flat=True).first()
    return ended or dt.datetime.fromtimestamp(0, dt.UTC)


@pytest.mark.slow
@pytest.mark.parametrize(("role", "ahead", "kind"), CASES)
def test_a_lost_order_is_resumed_however_wrong_the_clock_of_a_role_is(
    short_lived, redis_broker, amqp_broker, world, role, ahead, kind
):
    broker = {"redis": redis_broker, "rabbitmq": amqp_broker}[kind]
    if broker is None:
        pytest.skip(NO_RABBITMQ)
    broker.purge()
    order = place()
    OutboxMessage.objects.update(status="published", published_at=order.placed_at)  # the broker lost it
    Order.objects.filter(pk=order.pk).update(due_at=order.placed_at)

    def environment_of(name):
        return {"BROKER_URL": broker.url} | (skewed(ahead) if role in (name, "all but the database") else {})

    short_lived.worker("orders", "orders", pool="threads", **environment_of("orders"))
    short_lived.relay(**environment_of("relay"))
    short_lived.beat(**environment_of("beat"))

    def is_fulfilled():
        order.refresh_from_db()
        return order.status == Order.Status.FULFILLED

    eventually(is_fulfilled, lambda: (order.status, [str(one) for one in periodic.standings()]))
    resumed = OutboxMessage.objects.get(event_name=OrderPlaced.name)
    assert (resumed.redeliveries, Attempt.objects.count()) == (1, 0)
    for name in NET:  # and they continue
        before = last_end(name)
        eventually(lambda name=name, before=before: last_end(name) > before, f"{name} again", within=20)
    assert not [str(one) for one in periodic.standings() if one.is_late]
    assert "periodic-tasks-are-done" not in examination.run().failed


@pytest.mark.slow
@pytest.mark.parametrize("ahead", [3, -3600, 86_400])
def test_check_warns_of_a_clock_that_differs_and_lets_processes_start(ahead):
    answer = subprocess.run(
        [sys.executable, "manage.py", "check", "--database", "default"],
        cwd=ROOT,
        env=environment() | skewed(ahead),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert answer.returncode == 0
    direction = "ahead of" if ahead > 0 else "behind"
    assert "orderflow.W004" in answer.stderr
    assert f"s {direction} the database's" in answer.stderr


def message(exchange="", **headers):
    return SimpleNamespace(headers=headers, delivery_info={"exchange": exchange})


@pytest.mark.parametrize("ahead", AHEAD)
def test_a_quick_retry_waits_the_right_time_whatever_the_clock_of_its_sender(ahead):
    by_sender = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=ahead + 2)
    waiting = spans.eta_of(message(wait_seconds=2.0), by_sender) - dt.datetime.now(dt.UTC)
    assert dt.timedelta(seconds=1) < waiting <= dt.timedelta(seconds=2)
    assert spans.eta_of(message(CELERY_DELAYED_DELIVERY_EXCHANGE, wait_seconds=2.0), by_sender) is None


def test_a_message_of_older_code_waits_for_its_eta():
    eta = dt.datetime.now(dt.UTC)
    assert spans.eta_of(message(), eta) == eta


def test_messages_with_an_eta_carry_the_delay(redis_broker):
    current_app.send_task("orders.tasks.charge", countdown=5, queue="orders")
    with redis_broker.link.channel() as channel:
        sent = channel.basic_get("orders")
        assert 4 < sent.headers[spans.HEADER] <= 5
    redis_broker.purge()


def test_unacknowledged_messages_are_timed_by_the_server_and_not_by_the_worker(redis_broker, monkeypatch):
    monkeypatch.setattr(redis_transport.time, "time", lambda: 12.0)
    with redis_broker.link.channel() as channel:
        seconds, _ = channel.client.time()
    assert stock.time is redis_transport.server_time
    assert abs(redis_transport.server_time() - seconds) < 5
