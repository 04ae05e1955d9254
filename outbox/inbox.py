"""Taking a message into effect once, for consumers that have no state of their own to look at."""

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
    """A copy of a message came so late that whether it was taken before may have been forgotten."""


def once(consumer: str, message_id: uuid.UUID | str) -> bool:
    """
    Whether this is the first time that `consumer` takes this message into effect.

    Call it in the transaction that holds the effect: both are kept or neither. A second call waits for
    the first one's transaction, so two workers cannot both be told yes.

    Raises:
        NotInTransaction: if no transaction is open.
        Forgotten: if the message has outlived its retention, and with it the memory of duplicates. Its
            letter tells a person, who can find out.
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
        raise Forgotten(f"{consumer} may have taken {message_id} before; it is older than the retention")
    return first is not None


def _may_be_forgotten(message_id: uuid.UUID, *, now: dt.datetime) -> bool:
    """Entries are pruned after their message, messages no earlier than their retention ends."""
    if message_id.version != UUIDV7:
        return False
    if now - uuid7.moment_of(message_id) < dt.timedelta(days=settings.RETENTION_DAYS) - clock.LONGEST_SKEW:
        return False
    return not OutboxMessage.objects.filter(pk=message_id).exists()
