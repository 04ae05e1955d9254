"""
The state of deliveries: one row for each workflow of a message that has not ended yet.

The relay writes a row before it sends a copy and updates it when a broker has accepted the copy. The consumer
deletes the row when the last task of the workflow has succeeded. In between, `probes` detects lost copies. Each
row waits, fails and is given up independently of the others.

Workflows are followed if they are a single task or a plain chain and consist of `ConsumerTask`s only. The end
of other workflows cannot be detected: their copies carry no generation, and a lost copy stays lost.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import uuid
from collections.abc import Callable, Sequence
from typing import Any

from celery import Celery
from celery.canvas import Signature
from celery.canvas import _chain as Chain
from django.db import connection

from outbox import crash_points
from outbox.broker import inspection
from outbox.models import Delivery, OutboxMessage, QueueProbe

OPTIONS = {"task_id", "headers", "reply_to", "queue"}
"""The options allowed for tasks of a followed workflow. Others, such as a countdown or a priority, would change
the order in the queue."""

LONGEST_GENERATION = 9
"""Maximum number of digits of a generation."""

TABLE = Delivery._meta.db_table

SLOW_AFTER = dt.timedelta(seconds=0.5)
"""A queue with a copy that has been under way for longer counts as slow and gets probes between its
messages."""


@dataclasses.dataclass(frozen=True, slots=True)
class Copy:
    """A copy of a message on its way to one workflow, as described by its headers."""

    message_id: str
    workflow: str
    generation: int

    @classmethod
    def of(cls, header: Callable[[str], Any], message_id: Any) -> Copy | None:
        """Read the headers of a task; return None if this copy is not followed or the headers are invalid."""
        generation, workflow = str(header("generation")), header("workflow")
        if not workflow or not isinstance(workflow, str):
            return None
        if not generation.isdecimal() or len(generation) > LONGEST_GENERATION:
            return None
        try:
            return cls(str(uuid.UUID(str(message_id))), workflow, int(generation))
        except ValueError:
            return None


def queue_of(app: Celery, canvas: Signature) -> str | None:
    """Return the queue of a canvas's first task; None if the canvas cannot be followed."""
    tasks = list(canvas["kwargs"]["tasks"]) if type(canvas) is Chain else [canvas]
    for task in tasks:
        if type(task) is not Signature or task["subtask_type"] or not task["options"].keys() <= OPTIONS:
            return None
        if not _ends_deliveries(app, task["task"]):
            return None
    return tasks[0]["options"].get("queue") or inspection.queue_of_task(app, tasks[0]["task"])


def _ends_deliveries(app: Celery, name: str) -> bool:
    return bool(getattr(app.tasks.get(name), "ends_deliveries", False))


@dataclasses.dataclass(frozen=True, slots=True)
class First:
    """A first delivery that is about to be sent."""

    message_id: uuid.UUID
    workflow: str
    generation: int
    queue: str
    part: int = 0
    """Of its batch."""


@dataclasses.dataclass(frozen=True, slots=True)
class Mark:
    """A probe sent to a queue behind a part of a batch. When it returns, all parts before it have left."""

    queue: str
    part: int
    probe_id: int = 0
    if_slow: bool = False
    """Whether it is sent only if something has been in the queue for `SLOW_AFTER`."""


def record(
    firsts: Sequence[First], *, marks: Sequence[Mark] = (), claim: uuid.UUID | None
) -> tuple[set[tuple[uuid.UUID, str]], list[Mark]]:
    """
    Record the deliveries and probes that are about to be sent; return the deliveries that may be sent, and the
    recorded probes.

    Skips messages that another relay has taken over, workflows whose own delivery waits for its time, and
    `if_slow` probes to queues that are not slow.
    """
    if not firsts:
        return set(), []
    ordered = sorted(firsts, key=lambda first: (first.message_id, first.workflow))
    values: dict[str, Any] = {
        "ids": [first.message_id for first in ordered],
        "workflows": [first.workflow for first in ordered],
        "generations": [first.generation for first in ordered],
        "queues": [first.queue for first in ordered],
        "parts": [first.part for first in ordered],
        "marked": [mark.queue for mark in marks],
        "behind": [mark.part - 1 for mark in marks],
        "if_slow": [mark.if_slow for mark in marks],
        "slow_after": SLOW_AFTER,
        "claim": claim,
    }
    with connection.cursor() as cursor:
        cursor.execute(RECORD, values)
        rows = cursor.fetchall()
    probes: dict[str, list[int]] = {}
    for probe_id, queue in sorted((pk, queue) for _, _, pk, queue in rows if pk is not None):
        probes.setdefault(queue, []).append(probe_id)
    written = [
        dataclasses.replace(mark, probe_id=probes[mark.queue].pop(0))
        for mark in marks
        if probes.get(mark.queue)
    ]
    return {(message_id, workflow) for message_id, workflow, pk, _ in rows if pk is None}, written


# The parts of a batch are sent in order and differ in their times by microseconds.
RECORD = f"""
WITH written AS (
    INSERT INTO {TABLE} AS delivery (message_id, workflow, generation, status, queue, sent_at, batch)
    SELECT sending.message_id, sending.workflow, sending.generation, 'sent', sending.queue,
        statement_timestamp() + sending.part * interval '1 microsecond', %(claim)s
    FROM unnest(%(ids)s::uuid[], %(workflows)s::text[], %(generations)s::int[], %(queues)s::text[],
        %(parts)s::int[]) AS sending (message_id, workflow, generation, queue, part)
    JOIN {OutboxMessage._meta.db_table} AS message
      ON message.id = sending.message_id AND message.claim IS NOT DISTINCT FROM %(claim)s
    ON CONFLICT (message_id, workflow) DO UPDATE
    SET generation = EXCLUDED.generation, queue = EXCLUDED.queue, sent_at = EXCLUDED.sent_at,
        batch = EXCLUDED.batch
    WHERE delivery.status = 'sent' AND delivery.generation <= EXCLUDED.generation
    RETURNING message_id, workflow
), probes AS (
    INSERT INTO {QueueProbe._meta.db_table} (queue, sent_at, batch)
    SELECT queue, statement_timestamp() + part * interval '1 microsecond', %(claim)s
    FROM unnest(%(marked)s::text[], %(behind)s::int[], %(if_slow)s::bool[])
        WITH ORDINALITY AS mark (queue, part, if_slow, position)
    WHERE NOT if_slow OR EXISTS (
        SELECT FROM {TABLE} AS delivery
        WHERE delivery.queue = mark.queue AND status = 'sent'
          AND delivery.sent_at < statement_timestamp() - %(slow_after)s)
    ORDER BY position
    RETURNING id, queue
)
SELECT message_id, workflow, NULL::bigint, NULL FROM written
UNION ALL SELECT NULL, NULL, id, queue FROM probes
"""  # noqa: S608 - our own tables


def settle(sent: Sequence[tuple[uuid.UUID, str, str]], *, claim: uuid.UUID | None) -> int:
    """
    Record that a broker has accepted redeliveries, each with its queue; return how many.

    Skips deliveries that have ended meanwhile or that another relay has claimed.
    """
    if not sent:
        return 0
    ids, workflows, queues = zip(*sent, strict=True)
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            UPDATE {TABLE} AS delivery
            SET status = 'sent', claim = NULL, sent_at = statement_timestamp(), queue = sent.queue,
                attempts = 0, last_error = ''
            FROM unnest(%s::uuid[], %s::text[], %s::text[]) AS sent (message_id, workflow, queue)
            WHERE delivery.message_id = sent.message_id AND delivery.workflow = sent.workflow AND claim = %s
            """,  # noqa: S608 - the table's own name
            [list(ids), list(workflows), list(queues), claim],
        )
        settled = cursor.rowcount
    crash_points.reached("relay.settled")
    return settled


def drop(gone: Sequence[tuple[uuid.UUID, str]], *, claim: uuid.UUID | None) -> None:
    """Delete redeliveries whose workflow has nothing to do or cannot be followed."""
    if not gone:
        return
    ids, workflows = zip(*gone, strict=True)
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            DELETE FROM {TABLE} AS delivery USING unnest(%s::uuid[], %s::text[]) AS gone (message_id, workflow)
            WHERE delivery.message_id = gone.message_id AND delivery.workflow = gone.workflow AND claim = %s
            """,  # noqa: S608 - the table's own name
            [list(ids), list(workflows), claim],
        )
    crash_points.reached("relay.settled")


def finish(copy: Copy) -> bool:
    """
    Record that the workflow of this copy has succeeded; return False if the copy was stale.

    The deletion is committed with `synchronous_commit = off`. If PostgreSQL crashes and loses it, the message
    is delivered once more, and every step skips.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            DELETE FROM {TABLE} WHERE message_id = %s AND workflow = %s AND generation = %s
              AND set_config('synchronous_commit', 'off', TRUE) = 'off'
            """,  # noqa: S608 - the table's own name
            [copy.message_id, copy.workflow, copy.generation],
        )
        return bool(cursor.rowcount)


def touch(copy: Copy, *, queue: str | None = None, ahead: dt.timedelta = dt.timedelta()) -> bool:
    """
    Record progress of a copy: it was taken, or its next task was sent to `queue`. Return False if it is stale.

    `ahead` is how long the broker may hold the next task back before it enters the queue.
    """
    values: dict[str, Any] = {"ahead": ahead, "queue": queue, **dataclasses.asdict(copy)}
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            UPDATE {TABLE}
            SET sent_at = greatest(sent_at, statement_timestamp() + %(ahead)s),
                queue = coalesce(%(queue)s, queue)
            WHERE message_id = %(message_id)s AND workflow = %(workflow)s AND generation = %(generation)s
            """,  # noqa: S608 - the table's own name
            values,
        )
        found = bool(cursor.rowcount)
    crash_points.reached("delivery.touched")
    return found


def end(copy: Copy) -> bool:
    """Delete a delivery that is given up, in the caller's transaction; return False if the copy was stale."""
    ended, _ = Delivery.objects.filter(
        message_id=copy.message_id, workflow=copy.workflow, generation=copy.generation
    ).delete()
    return bool(ended)
