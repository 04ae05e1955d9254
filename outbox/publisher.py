"""
Writes events into the outbox, in the caller's transaction.

Nothing here uses a broker. The relay does, after the commit.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Iterable

from django.db import connection

from outbox import context, telemetry, tracing
from outbox.contracts import Event
from outbox.database.statements import Table
from outbox.models import OutboxMessage

NOW, LATER = Table(OutboxMessage), Table(OutboxMessage, frozenset({"not_before"}))
INSERT = NOW.insert("messages")


class NotInTransaction(Exception):
    """
    An event was published outside a transaction, so it would not be tied to the change that makes it true.

    Put the change and the call into one `with transaction.atomic(durable=True):` block. Do not catch this
    error.
    """


def publish(event: Event, *, not_before: dt.datetime | None = None) -> uuid.UUID:
    """
    Publish one event in the current transaction and return its message id.

    Raises:
        NotInTransaction: if no transaction is open.
    """
    return publish_many([event], not_before=not_before)[0]


def publish_many(events: Iterable[Event], *, not_before: dt.datetime | None = None) -> list[uuid.UUID]:
    """
    Publish events in the current transaction, with one INSERT, and return their message ids.

    Raises:
        NotInTransaction: if no transaction is open.
    """
    rows = messages(events, not_before=not_before)
    table = LATER if not_before else NOW
    with connection.cursor() as cursor:
        cursor.execute(table.insert("messages"), {"messages": table.as_json(rows)})
    return [row.id for row in rows]


def statement(events: Iterable[Event]) -> tuple[str, dict[str, str]]:
    """
    Return the INSERT that publishes events and its values, for a caller that adds it to its own statement.

    Raises:
        NotInTransaction: if no transaction is open.
    """
    return INSERT, {"messages": NOW.as_json(messages(events))}


def messages(events: Iterable[Event], *, not_before: dt.datetime | None = None) -> list[OutboxMessage]:
    """
    Return unsaved rows of events, for a caller that inserts them together with its own rows.

    The events are published if the caller inserts the rows and the current transaction commits.

    Raises:
        NotInTransaction: if no transaction is open.
    """
    if not connection.in_atomic_block:
        raise NotInTransaction("publish inside `with transaction.atomic(durable=True):`, next to the change")
    work = context.current()
    schedule = {"not_before": not_before} if not_before else {}
    rows = [
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
    if telemetry.is_tracing():
        for row in rows:
            tracing.create(row)
    return rows
