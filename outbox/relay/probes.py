"""
Distinguishes copies that wait in their queue from lost ones.

A probe is a task that only records its return. The database stores the time at which it was sent. Queues keep
their order: when a probe returns, everything that was sent to its queue before has left the queue. A copy that
was sent before a returned probe, and has made no progress for `GRACE` since, is lost, and its message is
redelivered. While consumers are slow or absent, no probe returns and nothing is redelivered. If a broker loses
all its messages, the next probe returns at once. No clocks are compared, and no assumptions about speed are
made.

Probes are sent to queues that have held a copy for some seconds, with growing intervals. The relay sends
additional ones between the messages of a large batch; a probe behind the whole batch would return only after
all of it has been processed.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from typing import Any

from celery import current_app
from django.db import connection, transaction
from kombu.exceptions import OperationalError as BrokerError

from outbox import crash_points, telemetry
from outbox.broker import dispatch, inspection
from outbox.models import Delivery, OutboxMessage, QueueProbe, QueueWatch

PROBE = "outbox.tasks.probe"

GRACE = dt.timedelta(seconds=40)
"""The longest time between leaving the queue and the next recorded progress. A copy waits in a worker behind
another task and then runs, each for at most 20 seconds; or its worker dies, and Redis redelivers it 34 seconds
after it was taken, ahead of all waiting messages. RabbitMQ redelivers it at once."""

UNHEARD_OF = dt.timedelta(seconds=3)
"""How long a copy may be under way before a probe follows it. Nearly all copies are done by then."""

LONGEST_GAP = dt.timedelta(seconds=10)
"""The longest interval between two probes to a queue from which none returns. If a probe is lost together with
everything else, the detection is delayed by this much."""

MOST_OUTSTANDING = 30
"""Probes that may wait in one queue before its length is queried. Then another probe is sent only if the queue
has become shorter or holds fewer messages than probes, or once every `SELDOM`."""

SELDOM = dt.timedelta(minutes=5)

LONGEST_BREAK = dt.timedelta(seconds=10)
"""The longest break between two sweeps. After a longer one, for example while the database was unavailable and
no progress was recorded, earlier probes prove nothing."""

SETTLED_WITHIN = dt.timedelta(seconds=10)
"""After this time a batch is settled or was taken over by another relay. Longer than the lease."""

PROMPT_LOSSES = 3
"""Up to this many consecutive losses a copy is sent again at once; after that the wait doubles each time."""

LONGEST_PAUSE = dt.timedelta(minutes=45)

MOST_RESUMED = 2_000
"""Deliveries that one sweep resumes. The next sweep follows a second later."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Due:
    """A queue that needs another probe, unless its length shows that nothing moves."""

    queue: str
    outstanding: int
    """Probes that have not returned."""
    was_waiting: int | None
    """The queue's length when the last probe was sent; None if it was not queried."""
    is_long_ago: bool
    """Whether the last probe was sent so long ago that another is sent anyway."""


def sweep() -> int:
    """
    Redeliver lost copies, and send probes to queues with waiting copies; return how many were lost.

    Safe to run at any time, in any number of processes, and while the broker is down.
    """
    with transaction.atomic(durable=True):
        watch = _watch()
        if watch is None:
            return 0
        lost = _resume_lost(watch)
        _forget_spent(watch)
        due = _due()
    crash_points.reached("deliveries.resumed")
    if lost:
        telemetry.emit("deliveries.resumed", deliveries=lost)
    for queue in due:
        _probe(queue)
    return lost


def came_back(probe_id: int) -> bool:
    """Record that a worker took a probe off its queue."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE {QueueProbe._meta.db_table} SET returned_at = statement_timestamp() "  # noqa: S608
            "WHERE id = %s AND returned_at IS NULL",
            [probe_id],
        )
        found = bool(cursor.rowcount)
    crash_points.reached("probe.came_back")
    return found


def _watch() -> QueueWatch | None:
    """The watch, locked and updated; None while another sweep holds it."""
    QueueWatch.objects.get_or_create(pk=1)
    watch = QueueWatch.objects.select_for_update(skip_locked=True).filter(pk=1).first()
    if watch:
        values: dict[str, Any] = {"longest": LONGEST_BREAK}
        with connection.cursor() as cursor:
            cursor.execute(
                f"""
                UPDATE {QueueWatch._meta.db_table}
                SET looked_at = statement_timestamp(),
                    since = CASE WHEN looked_at < statement_timestamp() - %(longest)s THEN statement_timestamp()
                            ELSE since END
                WHERE id = 1 RETURNING since
                """,  # noqa: S608 - the table's own name
                values,
            )
            watch.since = cursor.fetchone()[0]
    return watch


# Everywhere, messages are locked before their deliveries. Within a probe's own batch the order of sending is
# known; for other batches only the time at which they were settled.
RESUME = f"""
WITH passed AS MATERIALIZED (
    SELECT queue, batch, max(sent_at) AS until FROM {QueueProbe._meta.db_table}
    WHERE sent_at >= %(since)s AND returned_at <= statement_timestamp() - %(grace)s
    GROUP BY queue, batch
), lost AS MATERIALIZED (
    SELECT delivery.message_id, delivery.workflow, delivery.queue, delivery.generation, passed.until
    FROM passed
    JOIN {Delivery._meta.db_table} AS delivery
      ON delivery.queue = passed.queue AND delivery.status = 'sent' AND delivery.sent_at <= passed.until
    JOIN {OutboxMessage._meta.db_table} AS message ON message.id = delivery.message_id
    WHERE message.status = 'published'
      AND (message.published_at <= passed.until OR delivery.batch = passed.batch)
    ORDER BY delivery.message_id LIMIT %(most)s
    FOR NO KEY UPDATE OF message SKIP LOCKED
), again AS (
    UPDATE {OutboxMessage._meta.db_table} AS message SET redeliveries = redeliveries + 1
    WHERE id IN (SELECT message_id FROM lost) RETURNING id, redeliveries
)
UPDATE {Delivery._meta.db_table} AS delivery
SET generation = again.redeliveries, status = 'waiting', claim = NULL, losses = losses + 1,
    not_before = statement_timestamp() + CASE WHEN losses < %(prompt)s THEN interval '0'
        ELSE least(%(longest)s, %(grace)s * power(2, least(losses - %(prompt)s, 20))) END
FROM lost JOIN again ON again.id = lost.message_id
WHERE delivery.message_id = lost.message_id AND delivery.workflow = lost.workflow
  AND delivery.generation = lost.generation AND delivery.status = 'sent' AND delivery.sent_at <= lost.until
"""  # noqa: S608 - our own tables


def _resume_lost(watch: QueueWatch) -> int:
    values: dict[str, Any] = {
        "since": watch.since,
        "grace": GRACE,
        "most": MOST_RESUMED,
        "prompt": PROMPT_LOSSES,
        "longest": LONGEST_PAUSE,
    }
    with connection.cursor() as cursor:
        cursor.execute(RESUME, values)
        lost = cursor.rowcount
        if lost:
            cursor.execute("SELECT outbox_wake_relay()")
    return lost


def _forget_spent(watch: QueueWatch) -> None:
    """
    Delete the probes from before the watch, and those older than the newest one whose grace has passed.

    Probes within a batch are kept until it is settled, because they prove more about it than the newest one.
    """
    values: dict[str, Any] = {"since": watch.since, "grace": GRACE, "settled": SETTLED_WITHIN}
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            DELETE FROM {QueueProbe._meta.db_table} AS probe
            WHERE sent_at < %(since)s AND returned_at IS NOT NULL
               OR sent_at + CASE WHEN batch IS NULL THEN interval '0' ELSE %(settled)s END < (
                   SELECT max(sent_at) FROM {QueueProbe._meta.db_table}
                   WHERE queue = probe.queue AND returned_at <= statement_timestamp() - %(grace)s)
            """,  # noqa: S608 - the table's own name
            values,
        )


DUE = f"""
SELECT queue.name, outstanding.probes, newest.waiting, newest.sent_at < statement_timestamp() - %(seldom)s
FROM unnest(%(queues)s::text[]) AS queue (name)
LEFT JOIN LATERAL (
    SELECT sent_at, returned_at, waiting FROM {QueueProbe._meta.db_table}
    WHERE queue = queue.name AND batch IS NULL ORDER BY sent_at DESC, id DESC LIMIT 1
) AS newest ON TRUE
CROSS JOIN LATERAL (
    SELECT count(*) AS probes FROM {QueueProbe._meta.db_table}
    WHERE queue = queue.name AND batch IS NULL AND returned_at IS NULL
      AND sent_at > coalesce((
          SELECT max(sent_at) FROM {QueueProbe._meta.db_table}
          WHERE queue = queue.name AND batch IS NULL AND returned_at IS NOT NULL), '-infinity')
) AS outstanding
WHERE (newest.sent_at IS NULL OR newest.sent_at < statement_timestamp()
       - least(%(gap)s, %(unheard)s * power(2, least(outstanding.probes - 1, 8))))
  AND EXISTS (
      SELECT FROM {Delivery._meta.db_table} AS delivery
      WHERE delivery.queue = queue.name AND status = 'sent'
        AND delivery.sent_at < statement_timestamp() - %(unheard)s
        AND (newest.returned_at IS NULL OR delivery.sent_at > newest.sent_at)
  )
"""  # noqa: S608 - our own tables


def _due() -> list[Due]:
    """The queues with waiting copies that are newer than the last returned probe."""
    values: dict[str, Any] = {
        "queues": sorted(current_app.amqp.queues),
        "gap": LONGEST_GAP,
        "unheard": UNHEARD_OF,
        "seldom": SELDOM,
    }
    with connection.cursor() as cursor:
        cursor.execute(DUE, values)
        return [
            Due(queue=queue, outstanding=probes, was_waiting=waiting, is_long_ago=bool(long_ago))
            for queue, probes, waiting, long_ago in cursor.fetchall()
        ]


def _probe(due: Due) -> None:
    """Send a probe to a queue, unless many probes wait there and nothing moves."""
    try:
        waiting = inspection.waiting(due.queue) if due.outstanding >= MOST_OUTSTANDING else None
        if waiting is None or _may_have_moved(due, waiting):
            _send(due.queue, waiting)
    except (dispatch.BrokerDown, dispatch.NotDelivered, BrokerError, OSError) as down:
        telemetry.emit("probe.not_sent", queue=due.queue, error=repr(down))


def _may_have_moved(due: Due, waiting: int) -> bool:
    return due.is_long_ago or due.was_waiting is None or waiting < due.was_waiting or waiting < due.outstanding


def _send(queue: str, waiting: int | None) -> None:
    """
    Record a probe and send it.

    Raises:
        outbox.broker.dispatch.BrokerDown: if the broker did not accept it.
        outbox.broker.dispatch.NotDelivered: if the queue is missing.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {QueueProbe._meta.db_table} (queue, waiting) VALUES (%s, %s) RETURNING id",  # noqa: S608
            [queue, waiting],
        )
        probe_id = cursor.fetchone()[0]
    crash_points.reached("probe.written_down")
    try:
        dispatch.send_all([sending(queue, probe_id)], app=current_app)
    except (dispatch.BrokerDown, dispatch.NotDelivered):
        QueueProbe.objects.filter(pk=probe_id).delete()
        raise
    crash_points.reached("probe.sent")


def sending(queue: str, probe_id: int) -> dispatch.Sending:
    """Return the sending of a probe to a queue."""
    canvas = current_app.signature(PROBE, kwargs={"probe_id": probe_id}, immutable=True, queue=queue)
    return dispatch.Sending(canvas, {})
