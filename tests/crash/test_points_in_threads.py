"""
A worker with threads dies at a crash point of one of its tasks, and all its other tasks with it.

The points themselves are tried one by one in `test_every_crash_point`; here others are under way at the time.
"""

from __future__ import annotations

import datetime as dt

import pytest

from notifications.models import Notification
from orders.models import Order
from outbox import testing
from outbox.models import DeadLetter, Delivery, OutboxMessage
from tests import processes
from tests.crash.conftest import DIED, assert_nothing_is_lost_or_done_twice, restore_unacknowledged
from tests.crash.stories import STORIES
from tests.factories import ProductFactory, place
from tests.processes import eventually
from tests.slow import but_first

pytestmark = [pytest.mark.slow, pytest.mark.processes, pytest.mark.timeout(180)]

ORDERS, THREADS = 8, 16
POINTS = [
    "charge.answered",
    "notification.answered",
    "step.begun",
    "step.done",
    "charge.intended",
    "fulfill.intended",
    "fulfill.answered",
    "notification.claimed",
    "delivery.finished",
]


@pytest.mark.parametrize("point", but_first(POINTS, first=2, others="nightly"))
def test_a_worker_with_threads_that_dies_at_a_point_loses_nothing_and_does_nothing_twice(
    drain, world, tmp_path, point
):
    with processes.stack(tmp_path) as stack:
        settings = {"include": "tests.crash.dying", "DIE_WITH": str(DIED), "ORDERFLOW_POOL": "default"}
        stack.relay("jobs", **settings, DIE_AT="nowhere")
        stack.beat()
        worker = stack.worker(
            "all",
            *("orders", "email", "sms", "push"),
            pool="threads",
            concurrency=THREADS,
            DIE_AT=point,
            **settings,
        )
        worker.wait_until_ready()
        product = ProductFactory()
        for _ in range(ORDERS):
            place(product)

        eventually(lambda: not worker.is_alive(), worker.output)
        assert worker.exit_code == DIED
        restore_unacknowledged()
        worker = stack.worker(
            "after",
            *("orders", "email", "sms", "push"),
            pool="threads",
            concurrency=THREADS,
            DIE_AT="nowhere",
            **settings,
        )
        worker.wait_until_ready()

        def all_is_done():
            testing.pass_time(dt.timedelta(minutes=1))
            return (
                Order.objects.filter(status="fulfilled").count() == ORDERS
                and not OutboxMessage.objects.exclude(status="published").exists()
                and not Notification.objects.exclude(status="sent").exists()
                and not Delivery.objects.exists()
            )

        eventually(all_is_done, worker.output, within=90)
    assert not DeadLetter.objects.exists()
    assert_nothing_is_lost_or_done_twice(STORIES["fulfilled"])
