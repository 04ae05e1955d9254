"""
Redelivery: the relay delivers the same message again.

Nothing is published here; new messages are published by `publisher`.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Sequence
from typing import Any

from django.db import connection, transaction
from django.db.models import Exists, OuterRef, Q

from outbox import registry
from outbox.models import DeadLetter, Delivery, OutboxMessage
from outbox.relay.deliveries import Copy


def redeliver(
    message_ids: Sequence[uuid.UUID | str], *, workflow: str = "", wait: dt.timedelta = dt.timedelta()
) -> int:
    """
    Have the relay deliver messages again, with the same ids, after `wait`; return how many were found.

    `workflow` is the name of the workflow to start, or a prefix of several names. Each workflow has its own
    delivery: the new time replaces its old one, and other workflows are not affected. Empty means all workflows
    except those that wait for a time of their own. Copies that are under way become stale.
    """
    values: dict[str, Any] = {"wait": wait, "ids": list(message_ids), "workflow": workflow}
    if workflow:
        subscribed = registry.workflows_starting_with(workflow)
        values["events"] = [event for event, _ in subscribed]
        values["workflows"] = [name for _, name in subscribed]
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(DELIVER_AGAIN if workflow else DELIVER_ALL_AGAIN, values)
        found = cursor.fetchone()[0]
        if found and not wait:
            cursor.execute("SELECT outbox_wake_relay()")
    return int(found)


DELIVER_ALL_AGAIN = f"""
WITH again AS (
    UPDATE {OutboxMessage._meta.db_table}
    SET status = 'pending',
        claim = NULL,
        redeliveries = redeliveries + 1,
        attempts = 0,
        workflows = '{{}}',
        not_before = CASE WHEN status = 'pending' AND claim IS NULL
                     THEN least(not_before, statement_timestamp() + %(wait)s)
                     ELSE statement_timestamp() + %(wait)s END
    WHERE id = ANY(%(ids)s)
    RETURNING id
)
SELECT count(*) FROM again
"""  # noqa: S608 - our own tables


# If the event has no such workflow in this code, the name is stored unchanged: newer or older code may know it.
DELIVER_AGAIN = f"""
WITH again AS (
    UPDATE {OutboxMessage._meta.db_table} SET redeliveries = redeliveries + 1
    WHERE id = ANY(%(ids)s) RETURNING id, event_name, redeliveries
), requested AS (
    INSERT INTO {Delivery._meta.db_table} AS delivery (message_id, workflow, generation, status, not_before)
    SELECT id, coalesce(subscribed.workflow, %(workflow)s), redeliveries, 'waiting',
        statement_timestamp() + %(wait)s
    FROM again LEFT JOIN unnest(%(events)s::text[], %(workflows)s::text[]) AS subscribed (event_name, workflow)
      USING (event_name)
    ORDER BY 1, 2
    ON CONFLICT (message_id, workflow) DO UPDATE
    SET generation = EXCLUDED.generation, status = 'waiting', not_before = EXCLUDED.not_before, claim = NULL,
        losses = 0, attempts = 0, last_error = ''
)
SELECT count(*) FROM again
"""  # noqa: S608 - our own tables


def postpone(copy: Copy, *, wait: dt.timedelta) -> bool:
    """
    Have the relay deliver the message of a copy to its workflow again, after `wait`.

    Returns False, and changes nothing, if the copy is stale: another one is under way, or the workflow has
    ended.
    """
    values: dict[str, Any] = {
        "id": copy.message_id,
        "workflow": copy.workflow,
        "generation": copy.generation,
        "wait": wait,
    }
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(POSTPONE, values)
        found = bool(cursor.rowcount)
        if found and not wait:
            cursor.execute("SELECT outbox_wake_relay()")
    return found


# Everywhere, messages are locked before their deliveries.
POSTPONE = f"""
WITH message AS MATERIALIZED (
    SELECT id, redeliveries FROM {OutboxMessage._meta.db_table} WHERE id = %(id)s FOR NO KEY UPDATE
), moved AS (
    UPDATE {Delivery._meta.db_table} AS delivery
    SET generation = message.redeliveries + 1, status = 'waiting', claim = NULL, losses = 0,
        not_before = statement_timestamp() + %(wait)s
    FROM message
    WHERE delivery.message_id = message.id AND workflow = %(workflow)s AND generation = %(generation)s
    RETURNING delivery.message_id
)
UPDATE {OutboxMessage._meta.db_table} AS message SET redeliveries = redeliveries + 1
FROM moved WHERE message.id = moved.message_id
"""  # noqa: S608 - our own tables


def resume(message_ids: Sequence[uuid.UUID], *, workflow: str) -> int:
    """
    Redeliver those messages that were delivered before and of which no delivery is under way.

    Skips messages that wait for their first delivery, and messages with a workflow whose name starts with
    `workflow` that is outstanding, waits, or has an open or a discarded dead letter. A person has ended the
    work of a discarded one.
    """
    outstanding = Delivery.objects.filter(workflow__startswith=workflow, message_id=OuterRef("pk"))
    given_up = DeadLetter.objects.filter(
        Q(workflow__startswith=workflow) | Q(workflow=""),
        message_id=OuterRef("pk"),
        resolution__in=[DeadLetter.Resolution.OPEN, DeadLetter.Resolution.DISCARDED],
    )
    delivered = (
        OutboxMessage.objects.filter(pk__in=message_ids, status=OutboxMessage.Status.PUBLISHED)
        .exclude(Exists(outstanding))
        .exclude(Exists(given_up))
        .values_list("pk", flat=True)
    )
    return redeliver(list(delivered), workflow=workflow)
