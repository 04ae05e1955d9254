"""A relay continues where it stopped, and still finds messages that become visible before that position."""

from __future__ import annotations

import datetime as dt
import re
import threading

import pytest
from django.db import connection, transaction
from django.db.models.functions import Now

from outbox import publisher
from outbox.models import OutboxMessage
from outbox.relay import claims, relay, watermark
from outbox.relay.watermark import BEGINNING, MARGIN, Watermark
from tests.outbox.events import Happened
from tests.processes import eventually

NOON = dt.datetime(2026, 1, 1, 12, tzinfo=dt.UTC)


def publish(*about):
    with transaction.atomic():
        return publisher.publish_many(Happened(about=each) for each in about)


def due_before(span):
    """Make all messages due earlier than the last claimed one, as if their transaction had begun before."""
    OutboxMessage.objects.filter(status="pending").update(not_before=Now() - span)


@pytest.fixture
def seldom(monkeypatch):
    """The relay does not read from the beginning by itself."""
    monkeypatch.setattr(watermark, "FROM_BEGINNING_EVERY", 10**9)


@pytest.fixture
def mark(db, seldom, subscribed):
    """The watermark of a relay that has just delivered a message."""
    subscribed()
    mark = Watermark()
    publish("before")
    relay.settle(relay.claim(10, watermark=mark))
    return mark


def test_it_begins_a_little_before_the_end_of_the_last_query_and_never_moves_back(seldom):
    mark = Watermark()
    assert mark.begin() == BEGINNING
    mark.move(NOON)
    assert mark.begin() == NOON - MARGIN
    mark.move(NOON - dt.timedelta(hours=1))
    assert mark.begin() == NOON - MARGIN


def test_it_moves_to_the_last_message_of_a_full_batch_or_to_the_time_of_the_query(db, seldom):
    mark = Watermark()
    publish("a", "b")
    OutboxMessage.objects.filter(status="pending").update(not_before=Now() - dt.timedelta(hours=1))
    due = OutboxMessage.objects.values_list("not_before", flat=True)[0]

    relay.claim(2, watermark=mark)
    assert mark.begin() == due - MARGIN
    relay.claim(2, watermark=mark)
    assert mark.begin() > due + dt.timedelta(minutes=59)


def test_a_message_of_a_short_transaction_is_found_by_the_next_query(mark):
    publish("committed late")
    due_before(MARGIN / 2)

    assert [row.key for row in relay.claim(10, watermark=mark)] == ["committed late"]


def test_a_message_of_a_long_transaction_is_found_by_the_next_query_from_the_beginning(mark, monkeypatch):
    publish("committed very late")
    due_before(dt.timedelta(hours=1))

    assert relay.claim(10, watermark=mark) == []
    monkeypatch.setattr(watermark, "FROM_BEGINNING_EVERY", 0)
    assert [row.key for row in relay.claim(10, watermark=mark)] == ["committed very late"]


def test_a_message_that_is_committed_behind_the_watermark_is_delivered(
    transactional_db, subscribed, monkeypatch
):
    monkeypatch.setattr(watermark, "MARGIN", dt.timedelta())
    subscribed()
    mark, written, passed = Watermark(), threading.Event(), threading.Event()

    def write_slowly():
        with transaction.atomic():
            publisher.publish(Happened(about="slow"))
            written.set()
            passed.wait(60)
        connection.close()

    writer = threading.Thread(target=write_slowly)
    writer.start()
    assert written.wait(60)
    publish("quick")
    assert relay.drain(watermark=mark).published == 1
    passed.set()
    writer.join()

    eventually(lambda: relay.drain(watermark=mark).published, "the slow one is delivered")
    assert not OutboxMessage.objects.exclude(status="published").exists()


def test_a_relay_without_a_watermark_reads_everything(mark):
    publish("committed very late")
    due_before(dt.timedelta(hours=1))

    assert [row.key for row in relay.claim(10)] == ["committed very late"]


@pytest.mark.slow
def test_a_query_skips_no_entries_of_old_deliveries(mark):
    old = {"not_before": Now() - dt.timedelta(hours=1), "payload": {"about": "m"}}
    OutboxMessage.objects.bulk_create(
        OutboxMessage(event_name=Happened.name, event_version=2, key="m", **old) for _ in range(3_000)
    )
    assert relay.drain(watermark=Watermark()).published == 3_000
    publish("last")
    relay.settle(relay.claim(10, watermark=mark))

    assert pages_read(BEGINNING) > 5 * pages_read(mark.begin())


def pages_read(since):
    """How many pages a query without results reads."""
    values = {"limit": relay.BATCH, "claim": None, "lease": relay.LEASE, "since": since}
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_bitmapscan TO off")  # as with many messages
        cursor.execute(f"EXPLAIN (ANALYZE, BUFFERS, TIMING OFF) {claims.CLAIM}", values)
        plan = "\n".join(line for [line] in cursor.fetchall())
    return int(re.search(r"Buffers: shared hit=(\d+)", plan)[1])
