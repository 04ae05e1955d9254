"""
What is deleted, when, and what never is.

Never: open dead letters, the messages and attempts they speak of, messages of which a delivery is
outstanding, and whatever an app holds (`registry.hold`), for example the messages of orders that are not
final. Resolved dead letters and records of repairs stay too.

Where the message table is divided (see `partitions`), old messages go with their partition, and what must
stay of it moves into the default one. Rows are deleted one by one elsewhere.
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
from outbox.models import Attempt, DeadLetter, Delivery, EnqueuedTask, InboxEntry, OutboxMessage, Verification
from outbox.retention import partitions
from outbox.retention.partitions import Partition
from outbox.verification import restores

BATCH = 1000
"""Rows deleted in one transaction: short enough to hold up nobody."""

MOST_MOVED = 1000
"""Messages that may move out of a partition to be dropped: nobody can write meanwhile. Of a partition of which
more must stay, the others are deleted row by row."""

PATIENCE = dt.timedelta(seconds=2)
"""How long to wait for a moment in which a partition can be dropped; the next prune tries again. The task has
15 seconds for everything."""


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
        **{name: _delete(rows, batch) for name, rows in registry.expired(now).items()},
        "results": sum(_delete(results, batch) for results in _old_results(now)),
    }
    telemetry.emit("retention.pruned", **{name.replace(" ", "_"): count for name, count in pruned.items()})
    return pruned


class _TooManyStay(Exception):
    """More of a partition must stay than may move."""


def _maintain(now: dt.datetime) -> None:
    try:
        partitions.maintain(now=now, patience=PATIENCE)
    except partitions.Busy as busy:
        telemetry.emit("retention.postponed", error=str(busy))


def _drop_partitions(before: dt.datetime) -> tuple[int, list[Partition]]:
    """Drop what is old as a whole; return how many, and those whose rows wait for that day."""
    dropped, waiting = 0, []
    for partition in partitions.partitions():
        try:
            if partition.ends_at >= before:
                waiting.append(partition)
            else:
                _drop(partition, before)
                dropped += 1
        except _TooManyStay:
            continue  # its rows go one by one
        except partitions.Busy as busy:
            telemetry.emit("retention.postponed", error=str(busy), partition=partition.name)
            waiting.append(partition)
    return dropped, waiting


def _drop(partition: Partition, before: dt.datetime) -> None:
    def stay() -> set[uuid.UUID]:
        return _staying(partition, before)

    stay()  # a look that keeps nobody waiting; the one that counts is taken under the lock
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
    All reasons to keep a message, each of which an index answers.

    Together they are what `_spent_messages` leaves. Buried messages are found by their letters, without
    which none is buried.
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
    """All but one that has settled the newest restore, which would look open again without it."""
    spent = Verification.objects.filter(ran_at__lt=before)
    if restore := restores.newest():
        spent = spent.exclude(pk__in=restores.comparisons(restore).order_by("pk").values("pk")[:1])
    return spent


def _old_results(now: dt.datetime) -> Iterator[QuerySet[Any]]:
    """
    What the operators' long jobs returned, after Celery's `result_expires`.

    Celery has a task for it, which beat adds to a schedule that it keeps on disk, and not to ours.
    """
    expires = maybe_timedelta(current_app.conf.result_expires)
    if expires is None or not apps.is_installed("django_celery_results"):
        return
    for name in ("TaskResult", "GroupResult"):
        yield apps.get_model("django_celery_results", name).objects.filter(date_done__lt=now - expires)


def _forgettable_inbox() -> QuerySet[InboxEntry]:
    """Duplicate memory outlives replay memory: an entry goes only after its message has gone."""
    return InboxEntry.objects.filter(~Exists(OutboxMessage.objects.filter(pk=OuterRef("message_id"))))


def _delete(rows: QuerySet[Any], batch: int) -> int:
    total = 0
    while ids := list(rows.order_by("pk").values_list("pk", flat=True)[:batch]):
        total += rows.model.objects.filter(pk__in=ids).delete()[0]
        crash_points.reached("retention.batch_deleted")
    return total
