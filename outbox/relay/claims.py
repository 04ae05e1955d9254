"""
Claiming: what is due is taken for a while, in a short transaction of its own.

A claim carries a token, so a relay that was frozen and wakes up late settles nothing that another one took
over.
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
"""Messages a relay claims at a time: large enough to make the two transactions cheap, small enough to
be sent well within `LEASE`."""

LEASE = dt.timedelta(seconds=8)
"""How long a claim keeps other relays away, and how long messages wait whose relay died holding them. A
batch takes well under a second; publishing gives up on a hanging broker within seconds (see
celeryconfig). One that takes longer is sent again by another relay, which is harmless."""


@dataclasses.dataclass(frozen=True, slots=True)
class Claimed:
    """
    What the relay needs of a claimed message; a whole `OutboxMessage` takes several times as long.

    Of a redelivery, `redelivers` names the one workflow to start, and `attempts` and `claim` are its own.
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


# A message under an old claim was perhaps sent: what is sent now counts as newer. Messages of redeliveries are
# looked up one by one: a plan that joins would read the whole table at every look.
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
SELECT statement_timestamp()::text, found.* FROM (VALUES (TRUE)) AS look LEFT JOIN found ON TRUE
"""  # noqa: S608 - our own tables
# The times come as text: Python reads ISO 8601 ten times as fast as the driver does.


def claim(limit: int, *, lease: dt.timedelta = LEASE, watermark: Watermark | None = None) -> list[Claimed]:
    """
    Take up to `limit` due messages, and as many due redeliveries, for the time of `lease`.

    Left to others is what another relay holds.
    """
    watermark = watermark or Watermark()
    values: dict[str, Any] = {"limit": limit, "claim": uuid.uuid4(), "lease": lease, "since": watermark.begin()}
    with connection.cursor() as cursor:
        cursor.execute(CLAIM, values)
        rows = cursor.fetchall()
    looked_at, was_due, *_ = rows[0]
    found = rows if was_due else []  # without any there is one row all the same, to say when it was looked
    claimed = [(due, Claimed(dt.datetime.fromisoformat(at), *rest)) for _, due, at, *rest in found]
    watermark.move(dt.datetime.fromisoformat(_seen_until(claimed, looked_at, limit)))
    return [row for _, row in claimed]


def _seen_until(claimed: Sequence[tuple[str, Claimed]], looked_at: str, limit: int) -> str:
    """Until when all that was due was found: to the last one, where messages or redeliveries fill the limit."""
    seen = looked_at
    for redelivers in (False, True):
        due = [was_due for was_due, row in claimed if bool(row.redelivers) == redelivers]
        seen = min(seen, max(due)) if len(due) >= limit else seen
    return seen


def release(rows: Sequence[Claimed]) -> None:
    """Give claimed messages back untouched: no attempt is spent, they are due at once."""
    for rows_held in held(rows):
        rows_held.update(claim=None, not_before=Now())
    crash_points.reached("relay.released")


def held(rows: Sequence[Claimed]) -> list[Any]:
    """The messages, and the redeliveries, as far as their claim is still ours."""
    claim = rows[0].claim
    found: list[Any] = []
    if firsts := [row.id for row in rows if not row.redelivers]:
        found.append(OutboxMessage.objects.filter(pk__in=firsts, claim=claim))
    if again := [(row.id, row.redelivers) for row in rows if row.redelivers]:
        which = reduce(operator.or_, (Q(message_id=pk, workflow=name) for pk, name in again))
        found.append(Delivery.objects.filter(which, claim=claim))
    return found
