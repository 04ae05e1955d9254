"""The message table is divided under its users' hands, and old messages go with their partition."""

from __future__ import annotations

import contextlib
import datetime as dt
import itertools
import threading
import uuid

import pytest
import uuid6
from django.core.management import CommandError, call_command
from django.db import connection, transaction
from django.utils import timezone

from notifications import sweep
from orders.models import Order
from outbox import (
    dead_letters,
    listener,
    partitioning,
    partitions,
    publisher,
    relay,
    retention,
    verification,
)
from outbox.models import Attempt, DeadLetter, OutboxMessage
from outbox.partitioning import Span
from tests.factories import place
from tests.outbox.events import Happened
from tests.processes import eventually

pytestmark = pytest.mark.django_db(transaction=True)

NOW = dt.datetime.now(dt.UTC)
LONG_AGO = NOW - dt.timedelta(days=60)
QUICKLY = dt.timedelta(seconds=10)


@pytest.fixture(autouse=True)
def in_one_piece_again(transactional_db):
    yield
    OutboxMessage.objects.all().delete()
    partitioning.undo(patience=dt.timedelta(seconds=30))
    assert shape() == SHAPE


@pytest.fixture(scope="module", autouse=True)
def shape_before(django_db_setup, django_db_blocker):
    with django_db_blocker.unblock():
        SHAPE.update(shape())


SHAPE: dict[str, object] = {}


def rows(statement, *values):
    with connection.cursor() as cursor:
        cursor.execute(statement, values)
        return cursor.fetchall()


def shape():
    """What a table has besides its rows."""
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
    return partitioning.divide(span=span, now=now or timezone.now(), patience=patience)


def divided_long_ago():
    """A table that was divided sixty days ago and has had its partitions made ever since."""
    for weeks in range(10):
        divide(now=LONG_AGO + dt.timedelta(weeks=weeks), span=Span.WEEKLY)


def published(*, at, **values):
    """A message that was made, and taken by the broker, at some time."""
    message_id = uuid.UUID(int=uuid6.uuid7().int & (1 << 80) - 1 | partitions.id_at(at).int)
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
    dead_letters.bury(dead_letters.Failure(**failure, message_id=str(message_id)))


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


def test_a_table_in_use_is_divided_and_nothing_is_lost_or_delivered_twice(subscribed):
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
    partitioning.undo(patience=QUICKLY)
    divide()
    stopping.set()
    for thread in threads:
        thread.join()
    relay.drain()

    assert not failures
    assert sorted(started) == sorted(written)
    assert OutboxMessage.objects.filter(status="published").count() == len(written)
    assert max(waits) < partitions.VACUUM_YIELDS_WITHIN


def test_the_table_that_was_there_becomes_the_first_partition_without_being_read():
    message_id = publish("a")
    told = []
    connection.ensure_connection()
    connection.connection.add_notice_handler(lambda notice: told.append(notice.message_primary))
    rows("SELECT set_config('client_min_messages', 'debug1', false)")
    names = divide()
    rows("SELECT set_config('client_min_messages', 'notice', false)")

    implied = "is implied by existing constraints"
    assert any(partitioning.FIRST in text and implied in text for text in told)
    assert partition_of(message_id) == partitioning.FIRST == names[0]
    assert OutboxMessage.objects.get().pk == message_id


def test_what_the_table_had_it_has_as_partitioned_table_too():
    divide()

    now = shape()
    for kind in ("indexes", "constraints", "triggers", "columns"):
        assert [row[0] for row in now[kind]] == [row[0] for row in SHAPE[kind]]
    assert now["columns"] == SHAPE["columns"]
    assert call_command("makemigrations", check=True, dry_run=True, verbosity=0) is None


def test_writers_still_wake_a_sleeping_relay():
    divide()
    with listener._link() as link:
        link.execute("LISTEN outbox")
        listener._set_sleeping(link, True)
        publish("a")
        try:
            assert any(link.notifies(timeout=10, stop_after=1))
        finally:
            listener._set_sleeping(link, False)


@contextlib.contextmanager
def somebody_reading():
    """Inside the block a transaction of somebody else's has the table in use."""
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


def test_a_division_that_finds_the_table_in_use_gives_up_and_goes_on_later():
    publish("a")
    with somebody_reading():
        with pytest.raises(CommandError, match="Run it again") as busy:
            call_command("partition_outbox", patience=0)
        assert busy.value.returncode == 3
        assert not partitions.is_partitioned()

    call_command("partition_outbox", "--daily")
    assert partitions.is_partitioned()
    assert OutboxMessage.objects.count() == 1


def test_writers_do_not_queue_behind_a_division_that_waits():
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


def test_an_unfinished_division_is_gone_on_with_or_taken_back_before_its_boundary():
    partitioning._bind(span=Span.DAILY, now=NOW, patience=QUICKLY)
    boundary = partitions.bound()
    assert partitioning.plan(span=Span.DAILY, now=NOW + dt.timedelta(hours=1)) == boundary

    partitions.maintain(now=boundary - partitions.WITHDRAWN_BEFORE - dt.timedelta(minutes=1))
    assert partitions.bound() == boundary
    partitions.maintain(now=boundary - partitions.WITHDRAWN_BEFORE + dt.timedelta(minutes=1))
    assert partitions.bound() is None


def test_ids_that_name_no_time_are_refused_before_anything_is_changed():
    OutboxMessage.objects.create(
        id=uuid.UUID("f" * 32), event_name="x", event_version=1, key="x", payload={}, status="published"
    )
    with pytest.raises(CommandError, match="no UUIDv7"):
        call_command("partition_outbox")
    assert partitions.bound() is None


def test_a_view_that_would_go_on_showing_the_old_table_is_in_the_way():
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE VIEW somebodys_view AS SELECT id FROM {partitions.TABLE}")
        try:
            with pytest.raises(CommandError, match="a view is in the way: somebodys_view"):
                call_command("partition_outbox")
        finally:
            cursor.execute("DROP VIEW somebodys_view")
    assert shape() == SHAPE


def test_a_dry_run_changes_nothing(capsys):
    call_command("partition_outbox", "--weekly", "--dry-run")
    assert "Would divide outbox_outboxmessage, weekly" in capsys.readouterr().out
    assert shape() == SHAPE


@pytest.mark.parametrize("span", Span)
def test_the_next_week_has_partitions_and_prune_makes_more(span):
    divide(span=span)
    assert partitions.partitions()[-1].ends_at >= timezone.now() + partitions.AHEAD

    later = timezone.now() + dt.timedelta(days=9)
    assert partitions.create_ahead(now=later)
    assert partitions.partitions()[-1].ends_at >= later + partitions.AHEAD
    assert {p.ends_at - p.begins_at for p in partitions.partitions()[1:]} == {span.value}


def test_a_message_for_which_there_is_no_partition_is_taken_all_the_same():
    divide(now=LONG_AGO)
    message_id = publish("a")
    assert partition_of(message_id) == partitions.DEFAULT

    partitions.create_ahead(now=timezone.now())
    today = partitions.between(
        *(timezone.now().replace(hour=0, minute=0, second=0) + dt.timedelta(d) for d in (0, 1))
    )
    assert partitions.partitions()[-1].ends_at >= timezone.now() + partitions.AHEAD
    assert today.name not in {partition.name for partition in partitions.partitions()}


def test_retention_drops_whole_partitions_and_deletes_no_row_of_those_that_wait():
    divided_long_ago()
    cutoff = NOW - dt.timedelta(days=30)
    old = [partition for partition in partitions.partitions() if partition.ends_at < cutoff]
    spent = [published(at=partition.ends_at - dt.timedelta(hours=1)) for partition in old]
    aged, young = published(at=old[-1].ends_at), publish("a")

    pruned = retention.prune()

    assert pruned["partitions"] == len(old) > 1
    assert pruned["messages"] == 0
    assert not {one.name for one in old} & {one.name for one in partitions.partitions()}
    assert not OutboxMessage.objects.filter(pk__in=spent).exists()
    assert set(OutboxMessage.objects.values_list("pk", flat=True)) == {aged, young}


def test_what_must_stay_of_a_dropped_partition_stays():
    divided_long_ago()
    order = place()
    held = published(at=LONG_AGO, key=str(order.pk))
    Order.objects.filter(pk=order.pk).update(message_id=held)
    lettered = published(at=LONG_AGO)
    bury(lettered)
    buried = published(at=LONG_AGO, status="buried", last_error="x", published_at=None)
    bury(buried)
    dead_letters.discard(letter_of(buried), by="somebody", reason="no longer wanted")
    kept = {
        held,
        lettered,
        buried,
        published(at=LONG_AGO, status="pending", published_at=None),
        published(at=LONG_AGO, status="parked", last_error="x", published_at=None),
        published(at=LONG_AGO, published_at=timezone.now()),
    }
    spent = published(at=LONG_AGO)
    assert partition_of(held) == partitioning.FIRST

    pruned = retention.prune()

    assert pruned["partitions"] > 0
    left = set(OutboxMessage.objects.values_list("pk", flat=True))
    assert kept <= left
    assert spent not in left
    assert partition_of(held) == partitions.DEFAULT

    dead_letters.discard(letter_of(lettered), by="somebody", reason="no longer wanted")
    assert retention.prune()["messages"] == 1, "row by row in the default partition"


def test_a_partition_of_which_too_much_must_stay_is_pruned_row_by_row(monkeypatch):
    monkeypatch.setattr(retention, "MOST_MOVED", 1)
    divided_long_ago()
    waiting = {published(at=LONG_AGO, status="pending", published_at=None) for _ in range(2)}
    published(at=LONG_AGO)

    pruned = retention.prune()

    assert pruned["messages"] == 1
    assert set(OutboxMessage.objects.values_list("pk", flat=True)) == waiting
    assert partitions.partitions()[0].name == partitioning.FIRST


def test_what_is_redelivered_between_the_look_and_the_lock_stays(monkeypatch):
    monkeypatch.setattr(retention, "MOST_MOVED", 1)
    divided_long_ago()
    many = {published(at=LONG_AGO) for _ in range(2)}
    drop = partitions.drop

    def redelivered_first(message_ids):
        def redeliver_and_drop(partition, **options):
            publisher.redeliver(message_ids)
            drop(partition, **options)

        return redeliver_and_drop

    monkeypatch.setattr(partitions, "drop", redelivered_first(list(many)))
    retention.prune()
    assert set(OutboxMessage.objects.values_list("pk", flat=True)) == many
    assert partitions.partitions()[0].name == partitioning.FIRST, "too many to move: nothing was dropped"

    OutboxMessage.objects.filter(pk__in=many).update(status="published", published_at=LONG_AGO)
    few = many.pop()
    monkeypatch.setattr(partitions, "drop", redelivered_first([few]))
    assert retention.prune()["partitions"] > 0
    assert OutboxMessage.objects.get().pk == few


def test_retention_waits_for_those_at_work_and_holds_up_nobody(monkeypatch):
    monkeypatch.setattr(retention, "PATIENCE", dt.timedelta(0))
    divided_long_ago()
    spent = published(at=LONG_AGO)
    with somebody_reading():
        pruned = retention.prune()
        assert (pruned["partitions"], OutboxMessage.objects.filter(pk=spent).count()) == (0, 1)

    assert retention.prune()["partitions"] > 0
    assert not OutboxMessage.objects.filter(pk=spent).exists()


def test_the_reasons_to_keep_a_message_are_what_the_spent_ones_lack():
    order = place()
    Order.objects.update(message_id=published(at=LONG_AGO))
    for status, published_at in itertools.product(OutboxMessage.Status.values, (None, LONG_AGO, NOW)):
        message_id = published(at=LONG_AGO, status=status, published_at=published_at)
        if status == "buried":
            bury(message_id)
    everything = partitions.Partition(name="all", begins_at=None, ends_at=NOW + dt.timedelta(days=1))

    staying = retention._staying(everything, NOW - dt.timedelta(days=30))
    spent = set(retention._spent_messages(NOW - dt.timedelta(days=30)).values_list("pk", flat=True))
    assert order.message_id in staying
    assert spent
    assert not staying & spent
    assert staying | spent == set(OutboxMessage.objects.values_list("pk", flat=True))


def test_the_whole_system_works_on_a_divided_table_and_verify_finds_nothing(drain, world):
    first = place()
    divide()
    second = place()
    drain()

    assert set(Order.objects.values_list("pk", "status")) == {(first.pk, "fulfilled"), (second.pk, "fulfilled")}
    assert verification.run().failed == []
    assert (sweep.resume_lost(), relay.unpark()) == (0, 0)
    assert publisher.redeliver([first.message_id]) == 1
    drain()
    assert not Attempt.objects.exists()


def test_a_table_with_too_much_to_copy_is_not_put_together(monkeypatch):
    monkeypatch.setattr(partitioning, "MOST_COPIED", 2)
    divided_long_ago()
    for days in (1, 20, 40):
        published(at=LONG_AGO + dt.timedelta(days=days))
    with pytest.raises(CommandError, match="would have to be copied"):
        call_command("partition_outbox", "--undo")
    assert OutboxMessage.objects.count() == 3
    monkeypatch.undo()
