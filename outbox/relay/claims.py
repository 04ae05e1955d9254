"""
Claims due messages for a limited time, in a short transaction.

A claim carries a token, so a relay that was suspended cannot settle messages that another relay has taken over.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import operator
import uuid
from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any

from django.db import connection
from django.db.models import Q
from django.db.models.functions import Now

from outbox import crash_points
from outbox.contracts import Payload
from outbox.models import Delivery, OutboxMessage
from outbox.relay.watermark import Watermark

BATCH = 200
"""Messages that a relay claims at a time: enough to make the two transactions cheap, and few enough to be sent
well within `LEASE`."""

LEASE = dt.timedelta(seconds=8)
"""How long a claim keeps other relays away; messages of a relay that died wait this long. A batch takes well
under a second, and publishing gives up on a hanging broker within seconds (see celeryconfig). If it takes
longer, another relay sends the messages again, which is harmless."""


@dataclasses.dataclass(frozen=True, slots=True)
class Claimed:
    """
    The columns of a claimed message that the relay needs. Reading a whole `OutboxMessage` takes much longer.

    For a redelivery, `redelivers` names the workflow to start; `attempts` and `claim` belong to the delivery.
    """

    created_at: dt.datetime
    id: uuid.UUID
    event_name: str
    event_version: int
    key: str
    payload: Payload
    correlation_id: str
    causation_id: str
    trace: Mapping[str, str]
    redeliveries: int
    workflows: Sequence[str]
    attempts: int
    claim: uuid.UUID | None
    redelivers: str = ""


FIELDS = dataclasses.fields(Claimed)


MESSAGES, DELIVERIES = OutboxMessage._meta.db_table, Delivery._meta.db_table


# A message with an old claim may have been sent, so the copies sent now get a newer generation. Messages of
# redeliveries are looked up one by one, because a join would read the whole table every time.
CLAIM = f"""
WITH due AS MATERIALIZED (
    SELECT id, not_before FROM {MESSAGES}
    WHERE status = 'pending' AND not_before >= %(since)s AND not_before <= statement_timestamp()
    ORDER BY not_before, id LIMIT %(limit)s FOR UPDATE SKIP LOCKED
), claimed AS (
    UPDATE {MESSAGES} AS message
    SET claim = %(claim)s, not_before = statement_timestamp() + %(lease)s,
        redeliveries = redeliveries + (claim IS NOT NULL)::int
    FROM due WHERE message.id = due.id
    RETURNING due.not_before::text AS was_due, created_at::text, message.id, event_name, event_version, key,
        payload::json, correlation_id, causation_id, trace::json, redeliveries, workflows, attempts, claim,
        '' AS redelivers
), waiting AS MATERIALIZED (
    SELECT message_id, workflow, not_before FROM {DELIVERIES}
    WHERE status = 'waiting' AND not_before >= %(since)s AND not_before <= statement_timestamp()
    ORDER BY not_before, message_id LIMIT %(limit)s FOR UPDATE SKIP LOCKED
), again AS (
    UPDATE {DELIVERIES} AS delivery
    SET claim = %(claim)s, not_before = statement_timestamp() + %(lease)s
    FROM waiting WHERE delivery.message_id = waiting.message_id AND delivery.workflow = waiting.workflow
    RETURNING waiting.not_before::text AS was_due, delivery.message_id, delivery.generation, attempts, claim,
        delivery.workflow
), found AS (
    SELECT * FROM claimed
    UNION ALL
    SELECT was_due, created_at::text, id, event_name, event_version, key, payload::json, correlation_id,
        causation_id, trace::json, again.generation, '{{}}', again.attempts, again.claim, again.workflow
    FROM again CROSS JOIN LATERAL (SELECT * FROM {MESSAGES} WHERE id = again.message_id OFFSET 0) AS message
)
SELECT statement_timestamp()::text, found.* FROM (VALUES (TRUE)) AS query LEFT JOIN found ON TRUE
"""  # noqa: S608 - our own tables
# Times are returned as text, because Python parses ISO 8601 ten times as fast as the driver does.


def claim(limit: int, *, lease: dt.timedelta = LEASE, watermark: Watermark | None = None) -> list[Claimed]:
    """
    Claim up to `limit` due messages, and as many due redeliveries, for the duration of `lease`.

    Rows that another relay holds are skipped.
    """
    watermark = watermark or Watermark()
    values: dict[str, Any] = {"limit": limit, "claim": uuid.uuid4(), "lease": lease, "since": watermark.begin()}
    with connection.cursor() as cursor:
        cursor.execute(CLAIM, values)
        rows = cursor.fetchall()
    queried_at, was_due, *_ = rows[0]
    found = rows if was_due else []  # without due messages, one row still returns the time of the query
    claimed = [(due, Claimed(dt.datetime.fromisoformat(at), *rest)) for _, due, at, *rest in found]
    watermark.move(dt.datetime.fromisoformat(_seen_until(claimed, queried_at, limit)))
    return [row for _, row in claimed]


def _seen_until(claimed: Sequence[tuple[str, Claimed]], queried_at: str, limit: int) -> str:
    """The time up to which everything due was found: that of the last row, if a limit was reached."""
    seen = queried_at
    for redelivers in (False, True):
        due = [was_due for was_due, row in claimed if bool(row.redelivers) == redelivers]
        seen = min(seen, max(due)) if len(due) >= limit else seen
    return seen


def release(rows: Sequence[Claimed]) -> None:
    """Release claimed messages without spending an attempt; they are due at once."""
    for rows_held in held(rows):
        rows_held.update(claim=None, not_before=Now())
    crash_points.reached("relay.released")


def held(rows: Sequence[Claimed]) -> list[Any]:
    """Return querysets of the messages and of the redeliveries whose claim still belongs to this relay."""
    claim = rows[0].claim
    found: list[Any] = []
    if firsts := [row.id for row in rows if not row.redelivers]:
        found.append(OutboxMessage.objects.filter(pk__in=firsts, claim=claim))
    if again := [(row.id, row.redelivers) for row in rows if row.redelivers]:
        which = reduce(operator.or_, (Q(message_id=pk, workflow=name) for pk, name in again))
        found.append(Delivery.objects.filter(which, claim=claim))
    return found
