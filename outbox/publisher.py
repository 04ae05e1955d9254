"""
Writing events into the outbox: in the caller's transaction, or not at all.

Nothing here talks to a broker. The relay does, after the commit.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Iterable, Sequence
from typing import Any

from django.db import connection, transaction
from django.db.models import Exists, OuterRef, Q

from outbox import context
from outbox.contracts import Event
from outbox.models import DeadLetter, OutboxMessage
from outbox.rows import Table


class NotInTransaction(Exception):
    """
    An event was published outside a transaction, so nothing would tie it to the change that makes it true.

    Put the change and the call into one `with transaction.atomic(durable=True):` block. Never catch this.
    """


def publish(event: Event, *, not_before: dt.datetime | None = None) -> uuid.UUID:
    """
    Publish one event with the current transaction and return its message id.

    Raises:
        NotInTransaction: if no transaction is open.
    """
    return publish_many([event], not_before=not_before)[0]


def publish_many(events: Iterable[Event], *, not_before: dt.datetime | None = None) -> list[uuid.UUID]:
    """
    Publish events with the current transaction, all in one INSERT, and return their message ids.

    Raises:
        NotInTransaction: if no transaction is open.
    """
    rows = messages(events, not_before=not_before)
    table = Table(OutboxMessage, frozenset({"not_before"} if not_before else ()))
    with connection.cursor() as cursor:
        cursor.execute(table.insert("messages"), {"messages": table.as_json(rows)})
    return [row.id for row in rows]


def messages(events: Iterable[Event], *, not_before: dt.datetime | None = None) -> list[OutboxMessage]:
    """
    The rows of events, unsaved, for a caller who writes them with rows of its own in one statement.

    They are published when the current transaction commits with them in it.

    Raises:
        NotInTransaction: if no transaction is open.
    """
    if not connection.in_atomic_block:
        raise NotInTransaction("publish inside `with transaction.atomic(durable=True):`, beside the change")
    work = context.current()
    schedule = {"not_before": not_before} if not_before else {}
    return [
        OutboxMessage(
            event_name=event.name,
            event_version=event.version,
            key=event.key,
            payload=event.payload(),
            correlation_id=work.correlation_id,
            causation_id=work.causation_id,
            trace=dict(work.trace),
            **schedule,
        )
        for event in events
    ]


def redeliver(
    message_ids: Sequence[uuid.UUID], *, workflow: str = "", wait: dt.timedelta = dt.timedelta()
) -> int:
    """
    Let the relay deliver messages again, the same ids, after `wait`; return how many were found.

    `workflow` names the one workflow to start, or those that start with it; empty means all. A message that
    waits for its delivery anyway keeps the earlier of the two times, and starts both workflows; a consumer
    whose own wait is not over then spends no try, and waits on.
    Clearing the claim tells a relay that is just settling the message that there is more to do.
    """
    values: dict[str, Any] = {"wait": wait, "workflow": workflow, "ids": list(message_ids)}
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(
            """
            UPDATE outbox_outboxmessage
            SET status = 'pending',
                claim = NULL,
                redeliveries = redeliveries + 1,
                attempts = 0,
                not_before = CASE WHEN status = 'pending' AND claim IS NULL
                             THEN least(not_before, statement_timestamp() + %(wait)s)
                             ELSE statement_timestamp() + %(wait)s END,
                workflows = CASE
                    WHEN %(workflow)s = '' OR (status = 'pending' AND workflows = '{}') THEN '{}'
                    WHEN status = 'pending' AND %(workflow)s = ANY(workflows) THEN workflows
                    WHEN status = 'pending' THEN array_append(workflows, %(workflow)s)
                    ELSE ARRAY[%(workflow)s]::varchar[] END
            WHERE id = ANY(%(ids)s)
            """,
            values,
        )
        found = cursor.rowcount
        if found and not wait:
            cursor.execute("SELECT outbox_wake_relay()")
    return found


def resume(message_ids: Sequence[uuid.UUID], *, workflow: str) -> int:
    """
    Redeliver those of the messages that were delivered before and that nobody is dealing with.

    Left alone are messages that wait for a delivery anyway, and those of which a workflow whose name
    starts with `workflow` lies in an open dead letter.
    """
    delivered = (
        OutboxMessage.objects.filter(pk__in=message_ids, status=OutboxMessage.Status.PUBLISHED)
        .exclude(
            Exists(
                DeadLetter.objects.unresolved().filter(
                    Q(workflow__startswith=workflow) | Q(workflow=""), message_id=OuterRef("pk")
                )
            )
        )
        .values_list("pk", flat=True)
    )
    return redeliver(list(delivered), workflow=workflow)
