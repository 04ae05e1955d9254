"""Taking up orders that a worker, a broker or a chain has lost."""

from __future__ import annotations

import datetime as dt
from typing import Any

from django.db import connection, transaction

from orders.models import Order
from orders.transitions import STEP_DEADLINE
from outbox import crash_points, publisher, telemetry

LONGEST_PAUSE = dt.timedelta(minutes=5)
"""The patience with an order doubles each time it is taken up, to this at the most."""

WORKFLOWS = "orders.workflows."
"""What is started again: the workflows of this app, not those that only listen."""


def resume_overdue(*, grace: dt.timedelta = dt.timedelta(), limit: int = 500) -> int:
    """
    Deliver the messages of late orders again, so that the rest of their chain starts; return how many.

    Orders are late when a worker, a broker or a chain lost them. `grace` is what a long queue explains.
    Left alone are orders whose message waits for its delivery anyway or lies in an open dead letter.
    """
    values: dict[str, Any] = {
        "grace": grace,
        "limit": limit,
        "longest": LONGEST_PAUSE,
        "deadline": STEP_DEADLINE,
    }
    with transaction.atomic(durable=True), connection.cursor() as cursor:
        cursor.execute(
            f"""
            WITH late AS MATERIALIZED (
                SELECT id FROM {Order._meta.db_table}
                WHERE due_at < statement_timestamp() - %(grace)s
                ORDER BY due_at LIMIT %(limit)s FOR NO KEY UPDATE SKIP LOCKED
            )
            UPDATE {Order._meta.db_table} AS o
            SET resumptions = resumptions + 1,
                due_at = statement_timestamp()
                       + least(%(longest)s, %(deadline)s * power(2, least(resumptions, 20)))
            FROM late WHERE o.id = late.id
            RETURNING o.message_id
            """,  # noqa: S608 - the table's own name
            values,
        )
        late = [message_id for (message_id,) in cursor.fetchall()]
        resumed = publisher.resume(late, workflow=WORKFLOWS) if late else 0
    crash_points.reached("orders.resumed")
    if resumed:
        telemetry.emit("orders.resumed", orders=resumed)
    return resumed
