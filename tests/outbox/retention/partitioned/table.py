"""The message table, partitioned or not: its definition, its rows, and concurrent transactions."""

from __future__ import annotations

import contextlib
import datetime as dt
import threading
import uuid

import uuid6
from django.db import connection, transaction
from django.utils import timezone

from outbox import publisher
from outbox.database import uuid7
from outbox.dead_letters import burying
from outbox.models import DeadLetter, OutboxMessage
from outbox.retention import partition_table, partitions
from outbox.retention.partition_table import Span
from tests.outbox.events import Happened

NOW = dt.datetime.now(dt.UTC)
LONG_AGO = NOW - dt.timedelta(days=60)
QUICKLY = dt.timedelta(seconds=10)

SHAPE: dict[str, object] = {}
"""The definition of the table before the tests of a file; set by their fixture."""


def rows(statement, *values):
    with connection.cursor() as cursor:
        cursor.execute(statement, values)
        return cursor.fetchall()


def shape():
    """The definition of a table."""
    table = partitions.TABLE
    return {
        "kind": rows("SELECT relkind FROM pg_class WHERE oid = %s::regclass", table),
        "indexes": rows("SELECT indexname, indexdef FROM pg_indexes WHERE tablename = %s ORDER BY 1", table),
        "constraints": rows(
            "SELECT conname, contype, pg_get_constraintdef(oid) FROM pg_constraint "
            "WHERE conrelid = %s::regclass ORDER BY 1",
            table,
        ),
        "triggers": rows(
            "SELECT tgname, pg_get_triggerdef(oid) FROM pg_trigger WHERE tgrelid = %s::regclass", table
        ),
        "columns": rows(
            "SELECT column_name, data_type, column_default, is_nullable FROM information_schema.columns "
            "WHERE table_name = %s ORDER BY ordinal_position",
            table,
        ),
        "tables": rows(
            "SELECT relname FROM pg_class WHERE relkind IN ('r', 'p') AND relname LIKE %s", f"{table}%"
        ),
    }


def divide(*, now=None, span=Span.DAILY, patience=QUICKLY):
    return partition_table.divide(span=span, now=now or timezone.now(), patience=patience)


def divided_long_ago():
    """A table that was partitioned sixty days ago, with all partitions since then."""
    for weeks in range(10):
        divide(now=LONG_AGO + dt.timedelta(weeks=weeks), span=Span.WEEKLY)


def published(*, at, **values):
    """A message that was created and accepted by the broker at the given times."""
    message_id = uuid.UUID(int=uuid6.uuid7().int & (1 << 80) - 1 | uuid7.first_at(at).int)
    fields = {
        "event_name": Happened.name,
        "event_version": 2,
        "key": "thing-1",
        "payload": Happened().payload(),
    }
    fields |= {"status": "published", "published_at": at, "created_at": at}
    OutboxMessage.objects.create(id=message_id, **fields | values)
    return message_id


def bury(message_id):
    failure = {"source": "task", "consumer": "tests.x", "error_class": "X", "error": "x"}
    burying.bury(burying.Failure(**failure, message_id=str(message_id)))


def letter_of(message_id):
    return DeadLetter.objects.filter(message_id=message_id)


def partition_of(message_id):
    return rows(f"SELECT tableoid::regclass::text FROM {partitions.TABLE} WHERE id = %s", message_id)[0][0]


def publish(about):
    with transaction.atomic():
        return publisher.publish(Happened(about=about))


def in_threads(*works):
    failures = []

    def guarded(work):
        try:
            work()
        except Exception as error:
            failures.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=guarded, args=[work]) for work in works]
    for thread in threads:
        thread.start()
    return threads, failures


@contextlib.contextmanager
def somebody_reading():
    """Inside the block, another transaction uses the table."""
    holding, done = threading.Event(), threading.Event()

    def hold():
        with transaction.atomic():
            rows(f"SELECT FROM {partitions.TABLE} LIMIT 1")
            holding.set()
            done.wait(60)

    [thread], _ = in_threads(hold)
    assert holding.wait(60)
    try:
        yield
    finally:
        done.set()
        thread.join()
