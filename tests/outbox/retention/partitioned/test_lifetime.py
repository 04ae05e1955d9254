"""A partitioned table gets new partitions in time, and old messages are dropped with their partition."""

from __future__ import annotations

import datetime as dt
import itertools

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from orders.models import Order
from outbox import redelivery
from outbox.dead_letters import resolving
from outbox.models import Attempt, OutboxMessage
from outbox.relay import probes, relay
from outbox.retention import partition_table, partitions, pruning
from outbox.retention.partition_table import Span
from outbox.verification import examination
from tests.factories import place
from tests.outbox.retention.partitioned.table import (
    LONG_AGO,
    NOW,
    bury,
    divide,
    divided_long_ago,
    letter_of,
    partition_of,
    publish,
    published,
    somebody_reading,
)

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.mark.parametrize("span", Span)
def test_the_next_week_has_partitions_and_prune_makes_more(span):
    divide(span=span)
    assert partitions.partitions()[-1].ends_at >= timezone.now() + partitions.AHEAD

    later = timezone.now() + dt.timedelta(days=9)
    assert partitions.create_ahead(now=later)
    assert partitions.partitions()[-1].ends_at >= later + partitions.AHEAD
    assert {p.ends_at - p.begins_at for p in partitions.partitions()[1:]} == {span.value}


def test_a_message_without_a_partition_is_accepted():
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

    pruned = pruning.prune()

    assert pruned["partitions"] == len(old) > 1
    assert pruned["messages"] == 0
    assert not {one.name for one in old} & {one.name for one in partitions.partitions()}
    assert not OutboxMessage.objects.filter(pk__in=spent).exists()
    assert set(OutboxMessage.objects.values_list("pk", flat=True)) == {aged, young}


def test_needed_messages_of_a_dropped_partition_stay():
    divided_long_ago()
    order = place()
    held = published(at=LONG_AGO, key=str(order.pk))
    Order.objects.filter(pk=order.pk).update(message_id=held)
    lettered = published(at=LONG_AGO)
    bury(lettered)
    buried = published(at=LONG_AGO, status="buried", last_error="x", published_at=None)
    bury(buried)
    resolving.discard(letter_of(buried), by="somebody", reason="no longer wanted")
    kept = {
        held,
        lettered,
        buried,
        published(at=LONG_AGO, status="pending", published_at=None),
        published(at=LONG_AGO, status="parked", last_error="x", published_at=None),
        published(at=LONG_AGO, published_at=timezone.now()),
    }
    spent = published(at=LONG_AGO)
    assert partition_of(held) == partition_table.FIRST

    pruned = pruning.prune()

    assert pruned["partitions"] > 0
    left = set(OutboxMessage.objects.values_list("pk", flat=True))
    assert kept <= left
    assert spent not in left
    assert partition_of(held) == partitions.DEFAULT

    resolving.discard(letter_of(lettered), by="somebody", reason="no longer wanted")
    assert pruning.prune()["messages"] == 1, "row by row in the default partition"


def test_a_partition_with_too_many_needed_messages_is_pruned_row_by_row(monkeypatch):
    monkeypatch.setattr(pruning, "MOST_MOVED", 1)
    divided_long_ago()
    waiting = {published(at=LONG_AGO, status="pending", published_at=None) for _ in range(2)}
    published(at=LONG_AGO)

    pruned = pruning.prune()

    assert pruned["messages"] == 1
    assert set(OutboxMessage.objects.values_list("pk", flat=True)) == waiting
    assert partitions.partitions()[0].name == partition_table.FIRST


def test_a_message_redelivered_between_the_check_and_the_lock_stays(monkeypatch):
    monkeypatch.setattr(pruning, "MOST_MOVED", 1)
    divided_long_ago()
    many = {published(at=LONG_AGO) for _ in range(2)}
    drop = partitions.drop

    def redelivered_first(message_ids):
        def redeliver_and_drop(partition, **options):
            redelivery.redeliver(message_ids)
            drop(partition, **options)

        return redeliver_and_drop

    monkeypatch.setattr(partitions, "drop", redelivered_first(list(many)))
    pruning.prune()
    assert set(OutboxMessage.objects.values_list("pk", flat=True)) == many
    assert partitions.partitions()[0].name == partition_table.FIRST, "too many to move: nothing was dropped"

    OutboxMessage.objects.filter(pk__in=many).update(status="published", published_at=LONG_AGO)
    few = many.pop()
    monkeypatch.setattr(partitions, "drop", redelivered_first([few]))
    assert pruning.prune()["partitions"] > 0
    assert OutboxMessage.objects.get().pk == few


def test_retention_waits_for_running_transactions_and_delays_no_other(monkeypatch):
    monkeypatch.setattr(pruning, "PATIENCE", dt.timedelta(0))
    divided_long_ago()
    spent = published(at=LONG_AGO)
    with somebody_reading():
        pruned = pruning.prune()
        assert (pruned["partitions"], OutboxMessage.objects.filter(pk=spent).count()) == (0, 1)

    assert pruning.prune()["partitions"] > 0
    assert not OutboxMessage.objects.filter(pk=spent).exists()


def test_the_reasons_to_keep_a_message_complement_the_query_for_spent_ones():
    order = place()
    Order.objects.update(message_id=published(at=LONG_AGO))
    for status, published_at in itertools.product(OutboxMessage.Status.values, (None, LONG_AGO, NOW)):
        message_id = published(at=LONG_AGO, status=status, published_at=published_at)
        if status == "buried":
            bury(message_id)
    everything = partitions.Partition(name="all", begins_at=None, ends_at=NOW + dt.timedelta(days=1))

    staying = pruning._staying(everything, NOW - dt.timedelta(days=30))
    spent = set(pruning._spent_messages(NOW - dt.timedelta(days=30)).values_list("pk", flat=True))
    assert order.message_id in staying
    assert spent
    assert not staying & spent
    assert staying | spent == set(OutboxMessage.objects.values_list("pk", flat=True))


@pytest.mark.slow
def test_the_whole_system_works_on_a_partitioned_table_and_verify_passes(drain, world):
    first = place()
    divide()
    second = place()
    drain()

    assert set(Order.objects.values_list("pk", "status")) == {(first.pk, "fulfilled"), (second.pk, "fulfilled")}
    assert examination.run().failed == []
    assert (probes.sweep(), relay.unpark()) == (0, 0)
    assert redelivery.redeliver([first.message_id]) == 1
    drain()
    assert not Attempt.objects.exists()


def test_partitioning_is_not_undone_if_too_much_must_be_copied(monkeypatch):
    monkeypatch.setattr(partition_table, "MOST_COPIED", 2)
    divided_long_ago()
    for days in (1, 20, 40):
        published(at=LONG_AGO + dt.timedelta(days=days))
    with pytest.raises(CommandError, match="would have to be copied"):
        call_command("partition_outbox", "--undo")
    assert OutboxMessage.objects.count() == 3
    monkeypatch.undo()
