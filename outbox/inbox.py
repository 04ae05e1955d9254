"""Deduplication for consumers that have no state of their own to check."""

from __future__ import annotations

import datetime as dt
import uuid

from django.db import connection

from outbox.conf import settings
from outbox.database import clock, uuid7
from outbox.models import InboxEntry, OutboxMessage
from outbox.publisher import NotInTransaction
from outbox.resilience import Permanent

UUIDV7 = 7


class Forgotten(Permanent):
    """A copy of a message arrived after the record of an earlier copy may have been pruned."""


def once(consumer: str, message_id: uuid.UUID | str) -> bool:
    """
    Return whether `consumer` handles this message for the first time.

    Call it in the transaction that holds the effect, so that both are committed or neither. A second call waits
    for the transaction of the first one, so the result is True for one worker only.

    Raises:
        NotInTransaction: if no transaction is open.
        Forgotten: if the message is older than the retention, so that duplicates are no longer known. The
            dead letter asks a person to find out.
    """
    if not connection.in_atomic_block:
        raise NotInTransaction("call inbox.once inside the transaction that holds the effect")
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {InboxEntry._meta.db_table} (consumer, message_id) VALUES (%s, %s) "  # noqa: S608
            "ON CONFLICT (consumer, message_id) DO NOTHING RETURNING statement_timestamp()",
            [consumer, str(message_id)],
        )
        first = cursor.fetchone()
    if first and _may_be_forgotten(uuid.UUID(str(message_id)), now=first[0]):
        raise Forgotten(f"{consumer} may have handled {message_id} before; it is older than the retention")
    return first is not None


def _may_be_forgotten(message_id: uuid.UUID, *, now: dt.datetime) -> bool:
    """Whether an entry may have been pruned: messages are pruned after their retention, entries after them."""
    if message_id.version != UUIDV7:
        return False
    if now - uuid7.moment_of(message_id) < dt.timedelta(days=settings.RETENTION_DAYS) - clock.LONGEST_SKEW:
        return False
    return not OutboxMessage.objects.filter(pk=message_id).exists()
