"""
Deletes old messages, attempts, inbox entries, verifications, heartbeats and results.

Never deleted are dead letters, the messages and attempts of open ones, messages with an outstanding delivery,
messages that an app holds (`registry.hold`), for example those of unfinished work, and records of repairs.

If the message table is partitioned (see `partitions`), old messages are dropped with their partition, and those
that must stay move into the default partition. Otherwise rows are deleted in batches.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Iterator
from typing import Any

from celery import current_app
from celery.utils.time import maybe_timedelta
from django.apps import apps
from django.db.models import Exists, OuterRef, Q, QuerySet

from outbox import crash_points, registry, telemetry
from outbox.conf import settings
from outbox.database import clock, uuid7
from outbox.models import (
    Attempt,
    DeadLetter,
    Delivery,
    EnqueuedTask,
    Heartbeat,
    InboxEntry,
    OutboxMessage,
    Verification,
)
from outbox.retention import partitions
from outbox.retention.partitions import Partition
from outbox.verification import restores

BATCH = 1000
"""Rows deleted in one transaction, which keeps transactions short."""

MOST_MOVED = 1000
"""Messages that may be moved out of a partition before it is dropped, while writers wait. If more must stay,
the other messages of the partition are deleted row by row."""

PATIENCE = dt.timedelta(seconds=2)
"""How long to wait for the lock to drop a partition; the next prune tries again. The task has 15 seconds in
total."""

HEARTBEATS_KEPT = dt.timedelta(days=1)
"""How long a process is remembered that is no longer seen. Until then it counts as gone, unless another one has
taken its place."""


def prune(*, batch: int = BATCH) -> dict[str, int]:
    """Delete old published messages, attempts and inbox entries in batches; return the counts by table."""
    now = clock.now()
    before = now - dt.timedelta(days=settings.RETENTION_DAYS)
    _maintain(now)
    dropped, waiting = _drop_partitions(before)
    pruned = {
        "partitions": dropped,
        "messages": _delete(_spent_messages(before).filter(partitions.without(waiting)), batch),
        "tasks": _delete(_spent_tasks(before), batch),
        "attempts": _delete(_spent_attempts(before), batch),
        "inbox entries": _delete(InboxEntry.objects.filter(taken_at__lt=before) & _forgettable_inbox(), batch),
        "verifications": _delete(_spent_verifications(before), batch),
        "heartbeats": _delete(Heartbeat.objects.filter(seen_at__lt=now - HEARTBEATS_KEPT), batch),
        **{name: _delete(rows, batch) for name, rows in registry.expired(now).items()},
        "results": sum(_delete(results, batch) for results in _old_results(now)),
    }
    telemetry.emit("retention.pruned", **{name.replace(" ", "_"): count for name, count in pruned.items()})
    return pruned


class _TooManyStay(Exception):
    """More messages of a partition must stay than may be moved."""


def _maintain(now: dt.datetime) -> None:
    try:
        partitions.maintain(now=now, patience=PATIENCE)
    except partitions.Busy as busy:
        telemetry.emit("retention.postponed", error=str(busy))


def _drop_partitions(before: dt.datetime) -> tuple[int, list[Partition]]:
    """Drop old partitions; return their number, and the partitions whose rows wait to be dropped together."""
    dropped, waiting = 0, []
    for partition in partitions.partitions():
        try:
            if partition.ends_at >= before:
                waiting.append(partition)
            else:
                _drop(partition, before)
                dropped += 1
        except _TooManyStay:
            continue  # its rows are deleted one by one
        except partitions.Busy as busy:
            telemetry.emit("retention.postponed", error=str(busy), partition=partition.name)
            waiting.append(partition)
    return dropped, waiting


def _drop(partition: Partition, before: dt.datetime) -> None:
    def stay() -> set[uuid.UUID]:
        return _staying(partition, before)

    stay()  # a first check without blocking anyone; it is repeated under the lock
    partitions.drop(partition, stay=stay, patience=PATIENCE)
    telemetry.emit("retention.partition_dropped", partition=partition.name)
    crash_points.reached("retention.batch_deleted")


def _staying(partition: Partition, before: dt.datetime) -> set[uuid.UUID]:
    """
    The messages of a partition that must stay.

    Raises:
        _TooManyStay: if they are more than `MOST_MOVED`.
    """
    messages, found = OutboxMessage.objects.filter(partition.rows), set[uuid.UUID]()
    for kind in _needed(before):
        found |= set(messages.filter(kind).values_list("pk", flat=True)[: MOST_MOVED + 1])
        if len(found) > MOST_MOVED:
            raise _TooManyStay
    return found


def _needed(before: dt.datetime) -> Iterator[Q]:
    """
    All conditions under which a message is kept. An index supports each of them.

    Together they are the complement of `_spent_messages`. Buried messages are found through their dead letters.
    """
    yield Q(status=OutboxMessage.Status.PENDING)
    yield Q(status=OutboxMessage.Status.PARKED)
    yield Q(status=OutboxMessage.Status.BURIED, pk__in=DeadLetter.objects.values("message_id"))
    yield Q(status=OutboxMessage.Status.PUBLISHED, published_at__gte=before)
    yield Q(status=OutboxMessage.Status.PUBLISHED, published_at=None)
    yield Q(pk__in=DeadLetter.objects.unresolved().values("message_id"))
    yield Q(pk__in=Delivery.objects.values("message_id"))
    for query in registry.holds():
        yield Q(pk__in=query)


def _spent_messages(before: dt.datetime) -> QuerySet[OutboxMessage]:
    spent = OutboxMessage.objects.filter(
        ~Exists(DeadLetter.objects.unresolved().filter(message_id=OuterRef("pk"))),
        ~Exists(Delivery.objects.filter(message_id=OuterRef("pk"))),
        status=OutboxMessage.Status.PUBLISHED,
        published_at__lt=before,
    )
    held = Q()
    for query in registry.holds():
        held |= Q(pk__in=query)
    return spent.exclude(held) if held else spent


def _spent_tasks(before: dt.datetime) -> QuerySet[EnqueuedTask]:
    """A task goes after its message, which stays as long as the task has not ended or its failure is open."""
    return EnqueuedTask.objects.filter(
        ~Exists(OutboxMessage.objects.filter(pk=OuterRef("pk"))), pk__lt=uuid7.first_at(before)
    )


def _spent_attempts(before: dt.datetime) -> QuerySet[Attempt]:
    return Attempt.objects.filter(
        ~Exists(DeadLetter.objects.unresolved().filter(message_id=OuterRef("message_id"))),
        ~Exists(OutboxMessage.objects.filter(pk=OuterRef("message_id"))),
        failed_at__lt=before,
    )


def _spent_verifications(before: dt.datetime) -> QuerySet[Verification]:
    """Old verifications, except one that has confirmed the newest restore, which would look open again."""
    spent = Verification.objects.filter(ran_at__lt=before)
    if restore := restores.newest():
        spent = spent.exclude(pk__in=restores.comparisons(restore).order_by("pk").values("pk")[:1])
    return spent


def _old_results(now: dt.datetime) -> Iterator[QuerySet[Any]]:
    """
    The results of operators' long jobs that are older than Celery's `result_expires`.

    Celery has a task for this, but beat adds it only to a schedule on disk.
    """
    expires = maybe_timedelta(current_app.conf.result_expires)
    if expires is None or not apps.is_installed("django_celery_results"):
        return
    for name in ("TaskResult", "GroupResult"):
        yield apps.get_model("django_celery_results", name).objects.filter(date_done__lt=now - expires)


def _forgettable_inbox() -> QuerySet[InboxEntry]:
    """Inbox entries whose message is gone: a message that can be replayed keeps its entries."""
    return InboxEntry.objects.filter(~Exists(OutboxMessage.objects.filter(pk=OuterRef("message_id"))))


def _delete(rows: QuerySet[Any], batch: int) -> int:
    total = 0
    while ids := list(rows.order_by("pk").values_list("pk", flat=True)[:batch]):
        total += rows.model.objects.filter(pk__in=ids).delete()[0]
        crash_points.reached("retention.batch_deleted")
    return total
