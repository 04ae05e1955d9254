"""The message table is partitioned while it is in use."""

from __future__ import annotations

import datetime as dt
import itertools
import threading
import uuid

import pytest
from django.core.management import CommandError, call_command
from django.db import connection, transaction
from django.utils import timezone

from outbox import publisher
from outbox.models import OutboxMessage
from outbox.relay import listener, relay
from outbox.retention import partition_table, partitions
from outbox.retention.partition_table import Span
from tests.outbox.events import Happened
from tests.outbox.retention.partitioned.table import (
    NOW,
    QUICKLY,
    SHAPE,
    divide,
    in_threads,
    partition_of,
    publish,
    rows,
    shape,
    somebody_reading,
)
from tests.processes import eventually

pytestmark = pytest.mark.django_db(transaction=True)


def test_a_table_in_use_is_partitioned_and_nothing_is_lost_or_delivered_twice(subscribed):
    started: list[str] = []
    subscribed(lambda message: started.append(message.event.about))
    stopping, written, waits, drained = threading.Event(), [], [], []

    def write(name):
        for number in itertools.count():
            if stopping.is_set():
                return
            began = timezone.now()
            publish(f"{name}-{number}")
            waits.append(timezone.now() - began)
            written.append(f"{name}-{number}")

    def relay_on():
        while not stopping.is_set():
            drained.append(relay.drain().published)

    threads, failures = in_threads(lambda: write("a"), lambda: write("b"), relay_on)
    eventually(lambda: len(written) > 20 and sum(drained) > 10, "all at work")
    divide()
    before = len(written)
    eventually(lambda: len(written) > before + 20, "writing goes on")
    partition_table.undo(patience=QUICKLY)
    divide()
    stopping.set()
    for thread in threads:
        thread.join()
    relay.drain()

    assert not failures
    assert sorted(started) == sorted(written)
    assert OutboxMessage.objects.filter(status="published").count() == len(written)
    assert max(waits) < partitions.VACUUM_YIELDS_WITHIN


def test_the_existing_table_becomes_the_first_partition_without_being_read():
    message_id = publish("a")
    notices = []
    connection.ensure_connection()
    connection.connection.add_notice_handler(lambda notice: notices.append(notice.message_primary))
    rows("SELECT set_config('client_min_messages', 'debug1', false)")
    names = divide()
    rows("SELECT set_config('client_min_messages', 'notice', false)")

    implied = "is implied by existing constraints"
    assert any(partition_table.FIRST in text and implied in text for text in notices)
    assert partition_of(message_id) == partition_table.FIRST == names[0]
    assert OutboxMessage.objects.get().pk == message_id


def test_the_partitioned_table_has_the_same_indexes_triggers_and_grants():
    divide()

    now = shape()
    for kind in ("indexes", "constraints", "triggers", "columns"):
        assert [row[0] for row in now[kind]] == [row[0] for row in SHAPE[kind]]
    assert now["columns"] == SHAPE["columns"]
    assert call_command("makemigrations", check=True, dry_run=True, verbosity=0) is None


def test_writers_still_wake_a_sleeping_relay():
    divide()
    with listener._connect() as session:
        session.execute("LISTEN outbox")
        listener._set_sleeping(session, True)
        publish("a")
        try:
            assert any(session.notifies(timeout=10, stop_after=1))
        finally:
            listener._set_sleeping(session, False)


def test_partitioning_gives_up_while_the_table_is_in_use_and_continues_later():
    publish("a")
    with somebody_reading():
        with pytest.raises(CommandError, match="Run it again") as busy:
            call_command("partition_outbox", patience=0)
        assert busy.value.returncode == 3
        assert not partitions.is_partitioned()

    call_command("partition_outbox", "--daily")
    assert partitions.is_partitioned()
    assert OutboxMessage.objects.count() == 1


def test_writers_do_not_queue_behind_waiting_partitioning():
    given_up = []

    def wait_for_the_table():
        with pytest.raises(partitions.Busy) as busy:
            divide(patience=dt.timedelta(seconds=1))
        given_up.append(busy)

    with somebody_reading():
        [thread], failures = in_threads(wait_for_the_table)
        while thread.is_alive():
            with transaction.atomic():
                rows("SELECT set_config('lock_timeout', '2s', true)")  # eight times what may be needed
                publisher.publish(Happened())
    assert given_up
    assert not failures
    assert OutboxMessage.objects.count() > 1


def test_unfinished_partitioning_is_continued_or_undone_before_its_boundary():
    partition_table._bind(span=Span.DAILY, now=NOW, patience=QUICKLY)
    boundary = partitions.bound()
    assert partition_table.plan(span=Span.DAILY, now=NOW + dt.timedelta(hours=1)) == boundary

    partitions.maintain(now=boundary - partitions.WITHDRAWN_BEFORE - dt.timedelta(minutes=1))
    assert partitions.bound() == boundary
    partitions.maintain(now=boundary - partitions.WITHDRAWN_BEFORE + dt.timedelta(minutes=1))
    assert partitions.bound() is None


def test_ids_that_name_no_time_are_refused_before_anything_is_changed():
    OutboxMessage.objects.create(
        id=uuid.UUID("f" * 32), event_name="x", event_version=1, key="x", payload={}, status="published"
    )
    with pytest.raises(CommandError, match="with an id that is not a UUIDv7"):
        call_command("partition_outbox")
    assert partitions.bound() is None


def test_a_view_on_the_old_table_prevents_partitioning():
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE VIEW somebodys_view AS SELECT id FROM {partitions.TABLE}")
        try:
            with pytest.raises(CommandError, match="a view uses the table: somebodys_view"):
                call_command("partition_outbox")
        finally:
            cursor.execute("DROP VIEW somebodys_view")
    assert shape() == SHAPE


def test_a_dry_run_changes_nothing(capsys):
    call_command("partition_outbox", "--weekly", "--dry-run")
    assert "Would partition outbox_outboxmessage, weekly" in capsys.readouterr().out
    assert shape() == SHAPE
