"""Taking a message into effect once, for consumers that have no state of their own to look at."""

from __future__ import annotations

import uuid

from django.db import connection

from outbox.models import InboxEntry
from outbox.publisher import NotInTransaction


def once(consumer: str, message_id: uuid.UUID | str) -> bool:
    """
    Whether this is the first time that `consumer` takes this message into effect.

    Call it in the transaction that holds the effect: both are kept or neither. A second call waits for
    the first one's transaction, so two workers cannot both be told yes.

    Raises:
        NotInTransaction: if no transaction is open.
    """
    if not connection.in_atomic_block:
        raise NotInTransaction("call inbox.once inside the transaction that holds the effect")
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {InboxEntry._meta.db_table} (consumer, message_id) VALUES (%s, %s) "  # noqa: S608
            "ON CONFLICT (consumer, message_id) DO NOTHING",
            [consumer, str(message_id)],
        )
        return cursor.rowcount == 1
