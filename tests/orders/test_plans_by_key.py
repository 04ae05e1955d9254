"""Workers find the rows of an order by keys, also in sessions that planned their statements on empty tables."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest
from django.conf import settings
from django.db import connection

from notifications.models import Notification
from orders.models import IdempotencyRecord, Order, OrderLine, OrderTransition, Payment, Shipment
from outbox.models import Delivery, OutboxMessage
from tests.factories import ProductFactory, place

pytestmark = pytest.mark.usefixtures("world")

GROWING = [
    model._meta.db_table
    for model in (
        *(IdempotencyRecord, Order, OrderLine, OrderTransition, Payment, Shipment),
        *(Delivery, OutboxMessage, Notification),
    )
]

OFTEN = settings.DATABASE_PREPARE_AFTER + 10
"""PostgreSQL plans a prepared statement five times for its values, and then once for all."""


@pytest.fixture
def by_key(transactional_db):
    names = re.findall(r"-c (\w+)=off", settings.BY_KEY)
    with connection.cursor() as cursor:
        for name in names:
            cursor.execute(f"SET {name} TO off")
    yield
    connection.close()


def whole_reads():
    """How often each growing table was read as a whole."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_stat_force_next_flush()")
        cursor.execute("SELECT relname, seq_scan FROM pg_stat_user_tables WHERE relname = ANY(%s)", [GROWING])
        return dict(cursor.fetchall())


def test_no_step_reads_a_whole_table_however_early_its_session_planned_it(by_key, drain):
    product = ProductFactory(stock=100 * OFTEN)
    for _ in range(OFTEN):
        place(product)
        drain()
    before = whole_reads()

    place(product)
    drain()

    assert whole_reads() == before


def test_placing_an_order_is_not_planned_each_time(transactional_db):
    connection.close()  # the next session has prepared nothing yet
    product = ProductFactory()
    for _ in range(2 * OFTEN):
        place(product)

    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT custom_plans FROM pg_prepared_statements WHERE statement LIKE %s",
            ["%pg_try_advisory_xact_lock%"],
        )
        assert cursor.fetchall() == [(5,)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("pool", "is_by_key"), [("orders", True), ("email", True), ("jobs", False), ("", False)]
)
def test_the_sessions_of_steps_plan_for_keys_and_those_of_long_jobs_for_tables(pool, is_by_key):
    show = "import django; django.setup(); from django.db import connection as c; k = c.cursor()"
    show += "; k.execute('SHOW enable_seqscan'); print(k.fetchone()[0])"
    shown = subprocess.run(
        [sys.executable, "-c", show],
        env={**os.environ, "ORDERFLOW_POOL": pool},
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stdout.split()[-1] == ("off" if is_by_key else "on")
