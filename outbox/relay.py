"""
From the outbox to Celery: claim, start the workflows, settle; postpone, park or bury what cannot start.

Claiming and settling are short transactions of their own; the broker is talked to in between, by way of
`dispatch` and for a whole batch at once, with no row locked. A claim carries a token, so a relay that was
frozen and wakes up late settles nothing that another one took over.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from celery import Celery, current_app
from django.db import connection, transaction
from django.db.models import Value
from django.db.models.functions import Now

from outbox import crash_points, dead_letters, dispatch, registry, telemetry
from outbox.contracts import Message, Payload, UnreadableEvent
from outbox.models import DeadLetter, OutboxMessage
from outbox.watermark import Watermark

CONSUMER = "outbox.relay"

BATCH = 200
"""Messages a relay claims at a time: large enough to make the two transactions cheap, small enough to
be sent well within `LEASE`."""

LEASE = dt.timedelta(seconds=8)
"""How long a claim keeps other relays away, and how long messages wait whose relay died holding them. A
batch takes well under a second; publishing gives up on a hanging broker within seconds (see
celeryconfig). One that takes longer is sent again by another relay, which is harmless."""

POSTPONEMENTS = tuple(dt.timedelta(seconds=seconds) for seconds in (1, 10, 60, 600))
"""The waits after a message's own failures to start; after the last one it is buried."""


@dataclasses.dataclass(kw_only=True)
class Drained:
    """What one drain did, in messages."""

    published: int = 0
    postponed: int = 0
    parked: int = 0
    buried: int = 0
    broker_down: bool = False

    def __add__(self, other: Drained) -> Drained:
        return Drained(
            published=self.published + other.published,
            postponed=self.postponed + other.postponed,
            parked=self.parked + other.parked,
            buried=self.buried + other.buried,
            broker_down=self.broker_down or other.broker_down,
        )


def drain(*, batch: int = BATCH, most: int | None = None, watermark: Watermark | None = None) -> Drained:
    """
    Deliver what is due, batch by batch, until nothing is left, `most` messages are done or the broker is down.

    Safe to run in any number of processes at once. A relay that drains again and again has a `watermark`.
    """
    total, watermark = Drained(), watermark or Watermark()
    while not total.broker_down:
        rows = claim(batch, watermark=watermark)
        if not rows:
            break
        crash_points.reached("relay.claimed")
        total += deliver(rows)
        if most is not None and total.published >= most:
            break
    return total


@dataclasses.dataclass(frozen=True, slots=True)
class Claimed:
    """What the relay needs of a claimed message; a whole `OutboxMessage` takes several times as long."""

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


Row: TypeAlias = Claimed | OutboxMessage

CLAIM = f"""
WITH due AS MATERIALIZED (
    SELECT id, not_before FROM {OutboxMessage._meta.db_table}
    WHERE status = 'pending' AND not_before >= %(since)s AND not_before <= statement_timestamp()
    ORDER BY not_before, id LIMIT %(limit)s FOR UPDATE SKIP LOCKED
), claimed AS (
    UPDATE {OutboxMessage._meta.db_table} AS message
    SET claim = %(claim)s, not_before = statement_timestamp() + %(lease)s
    FROM due WHERE message.id = due.id
    RETURNING due.not_before::text AS was_due, created_at::text, message.id, event_name, event_version, key,
        payload::json, correlation_id, causation_id, trace::json, redeliveries, workflows, attempts, claim
)
SELECT statement_timestamp()::text, claimed.* FROM (VALUES (TRUE)) AS look LEFT JOIN claimed ON TRUE
"""  # noqa: S608 - the table's own name
# The times come as text: Python reads ISO 8601 ten times as fast as the driver does.


def claim(limit: int, *, lease: dt.timedelta = LEASE, watermark: Watermark | None = None) -> list[Claimed]:
    """Take up to `limit` due messages that no other relay holds, for the time of `lease`."""
    watermark = watermark or Watermark()
    values: dict[str, Any] = {"limit": limit, "claim": uuid.uuid4(), "lease": lease, "since": watermark.begin()}
    with connection.cursor() as cursor:
        cursor.execute(CLAIM, values)
        rows = cursor.fetchall()
    looked_at, was_due, *_ = rows[0]
    found = rows if was_due else []  # without any there is one row all the same, to say when it was looked
    seen_until = looked_at if len(found) < limit else max(was_due for _, was_due, *_ in found)
    watermark.move(dt.datetime.fromisoformat(seen_until))
    return [Claimed(dt.datetime.fromisoformat(at), *rest) for _, _, at, *rest in found]


def deliver(rows: Sequence[Row]) -> Drained:
    """Start the workflows of claimed messages and settle each one by how that went."""
    result, ready, batch = Drained(), [], dispatch.Batch(current_app)
    for row in rows:
        try:
            for sending in build(row):
                batch.add(sending)
        except Exception as error:
            _set_aside(row, error, result)
        else:
            ready.append(row)
    try:
        batch.send()
        crash_points.reached("relay.sent")
    except dispatch.BrokerDown as down:
        _release_all(ready, down, result)
        return result
    except Exception:
        ready = _start_one_by_one(ready, result)
    result.published = settle(ready)
    return result


def build(row: Row) -> list[dispatch.Sending]:
    """
    What has to be sent to start all of a message's workflows.

    Raises:
        Exception: whatever a handler raises; that is the message's own failure.
    """
    message = Message.of(row, registry.load(row.event_name, row.event_version, row.payload))
    workflows = registry.workflows_for(message.event, only=row.workflows)
    return [
        dispatch.Sending(canvas, message.headers(workflow=name))
        for name, handler in workflows.items()
        if (canvas := handler(message)) is not None
    ]


def start(row: Row, *, app: Celery | None = None) -> None:
    """
    Start all of one message's workflows.

    Raises:
        outbox.dispatch.BrokerDown: if the broker did not take one of them.
        Exception: whatever a handler raises; that is the message's own failure.
    """
    dispatch.send_all(build(row), app=app or current_app)


def _start_one_by_one(rows: Sequence[Row], result: Drained) -> list[Row]:
    """Find out which message of a batch cannot be sent; return those that were."""
    started: list[Row] = []
    for position, row in enumerate(rows):
        try:
            start(row)
            crash_points.reached("relay.sent")
        except dispatch.BrokerDown as down:
            _release_all(rows[position:], down, result)
            break
        except Exception as error:
            _set_aside(row, error, result)
        else:
            started.append(row)
    return started


def _release_all(rows: Sequence[Row], down: dispatch.BrokerDown, result: Drained) -> None:
    crash_points.reached("relay.broker_down")
    release(rows)
    result.broker_down = True
    telemetry.emit("relay.broker_down", error=str(down), waiting=len(rows))


def _set_aside(row: Row, error: Exception, result: Drained) -> None:
    """Park, postpone or bury a message for its own failure."""
    if isinstance(error, registry.UnknownEvent | UnreadableEvent):
        result.parked += _park(row, error)
        return
    buried = _postpone_or_bury(row, error)
    result.buried += buried
    result.postponed += not buried


def settle(rows: Sequence[Row]) -> int:
    """Note that a broker took the messages now, unless somebody else holds them; return how many."""
    if not rows:
        return 0
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            UPDATE {OutboxMessage._meta.db_table}
            SET status = 'published', claim = NULL, last_error = '', workflows = '{{}}',
                published_at = statement_timestamp()
            WHERE id = ANY(%s) AND claim = %s
            """,  # noqa: S608 - the table's own name
            [[row.id for row in rows], rows[0].claim],
        )
        settled = cursor.rowcount
    crash_points.reached("relay.settled")
    telemetry.emit("relay.published", messages=settled)
    return settled


def release(rows: Sequence[Row]) -> None:
    """Give claimed messages back untouched: no attempt is spent, they are due at once."""
    _held(rows).update(claim=None, not_before=Now())
    crash_points.reached("relay.released")


def unpark() -> int:
    """Make parked messages due again whose event this code has learned to read; return how many."""
    known = registry.known_events()
    parked = OutboxMessage.objects.filter(status=OutboxMessage.Status.PARKED)
    released = 0
    for name, version in parked.values_list("event_name", "event_version").distinct():
        if version <= known.get(name, 0):
            released += parked.filter(
                event_name=name, event_version=version, last_error__startswith=registry.UnknownEvent.__name__
            ).update(status=OutboxMessage.Status.PENDING, not_before=Now())
            crash_points.reached("relay.unparked")
    return released


def _park(row: Row, reason: Exception) -> int:
    parked = _held([row]).update(
        status=OutboxMessage.Status.PARKED, claim=None, last_error=f"{type(reason).__name__}: {reason}"
    )
    crash_points.reached("relay.parked")
    telemetry.emit("message.parked", message_id=str(row.id), event_name=row.event_name, reason=str(reason))
    return parked


def _postpone_or_bury(row: Row, error: Exception) -> int:
    """Count a message's own failure; return 1 when that was its last try, 0 when it waits for another."""
    spent = row.attempts + 1
    gives_up = row.attempts >= len(POSTPONEMENTS)
    changes: dict[str, Any] = {
        "claim": None,
        "attempts": spent,
        "last_error": f"{type(error).__name__}: {error}"[: dead_letters.LONGEST_TEXT],
    }
    if not gives_up:
        wait = POSTPONEMENTS[row.attempts]
        _held([row]).update(not_before=Now() + Value(wait), **changes)
        crash_points.reached("relay.postponed")
        telemetry.emit("message.postponed", message_id=str(row.id), error=repr(error), wait=wait)
        return 0
    with transaction.atomic():
        if _held([row]).update(status=OutboxMessage.Status.BURIED, **changes):
            dead_letters.bury(
                dead_letters.Failure.of(
                    error,
                    source=DeadLetter.Source.RELAY,
                    consumer=CONSUMER,
                    message_id=str(row.id),
                    key=row.key,
                    payload=row.payload,
                    attempts=spent,
                )
            )
    crash_points.reached("relay.buried")
    return 1


def _held(rows: Sequence[Row]) -> Any:
    """The rows as far as their claim is still ours."""
    return OutboxMessage.objects.filter(pk__in=[row.id for row in rows], claim=rows[0].claim)
