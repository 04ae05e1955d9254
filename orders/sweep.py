"""Resuming late orders whose workflow ended without finishing them."""

from __future__ import annotations

import datetime as dt
from typing import Any

from django.db import connection, transaction

from orders.models import Order
from orders.transitions import STEP_DEADLINE
from outbox import crash_points, redelivery, telemetry
from outbox.models import Delivery

LONGEST_PAUSE = dt.timedelta(minutes=5)
"""The interval for an order doubles each time it is resumed, up to this maximum."""

PAUSE = dt.timedelta(minutes=1)
"""The interval for checking a late order whose workflow is outstanding. A step that starts makes the next check
earlier."""

WORKFLOWS = "orders.workflows."
"""The workflows that are started again: those of this app, not those that only observe."""


def resume_overdue(*, limit: int = 500) -> int:
    """
    Deliver the messages of late orders again, so that the rest of their chain starts; return how many.

    This complements the outbox's own sweep, which finds messages that a broker or a worker has lost: an order
    may be late although its workflow has ended, if a step found the order leased by a worker that then died.
    Orders are skipped while their own workflow is outstanding or waits, however long, or is in an open dead
    letter. Other workflows of the message do not count.
    """
    values: dict[str, Any] = {
        "limit": limit,
        "longest": LONGEST_PAUSE,
        "deadline": STEP_DEADLINE,
        "pause": PAUSE,
        "workflows": WORKFLOWS,
    }
    with transaction.atomic(durable=True), connection.cursor() as cursor:
        cursor.execute(
            f"""
            WITH late AS MATERIALIZED (
                SELECT id FROM {Order._meta.db_table}
                WHERE due_at < statement_timestamp()
                ORDER BY due_at LIMIT %(limit)s FOR NO KEY UPDATE SKIP LOCKED
            ), judged AS MATERIALIZED (
                SELECT id, EXISTS (
                    SELECT FROM {Delivery._meta.db_table} AS delivery
                    WHERE delivery.message_id = o.message_id AND starts_with(delivery.workflow, %(workflows)s)
                ) AS is_outstanding
                FROM late JOIN {Order._meta.db_table} AS o USING (id)
            )
            UPDATE {Order._meta.db_table} AS o
            SET resumptions = resumptions + (NOT is_outstanding)::int,
                due_at = statement_timestamp() + CASE WHEN is_outstanding THEN %(pause)s
                         ELSE least(%(longest)s, %(deadline)s * power(2, least(resumptions, 20))) END
            FROM judged WHERE o.id = judged.id
            RETURNING o.message_id, is_outstanding
            """,  # noqa: S608 - the tables' own names
            values,
        )
        late = [message_id for message_id, is_outstanding in cursor.fetchall() if not is_outstanding]
        resumed = redelivery.resume(late, workflow=WORKFLOWS) if late else 0
    crash_points.reached("orders.resumed")
    if resumed:
        telemetry.emit("orders.resumed", orders=resumed)
    return resumed
