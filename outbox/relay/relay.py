"""
From the outbox to Celery: claims messages, starts their workflows and settles them.

Messages that cannot be started are postponed, parked or buried. Claiming and settling are separate short
transactions. In between, `dispatch` sends a whole batch to the broker while no row is locked. A claim carries a
token, so a relay that was suspended cannot settle messages that another relay has taken over.
"""

from __future__ import annotations

import datetime as dt
import math
import time
import uuid
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from celery import Celery, current_app
from django.db import connection

from outbox import crash_points, telemetry, tracing
from outbox.broker import dispatch
from outbox.dead_letters import campaigns
from outbox.models import OutboxMessage
from outbox.relay import deliveries, preparing, probes
from outbox.relay.claims import BATCH, FIELDS, LEASE, MESSAGES, Claimed, claim, release
from outbox.relay.preparing import Ready
from outbox.relay.setbacks import POSTPONEMENTS, Drained, set_aside, unpark, wait_for_queue
from outbox.relay.watermark import Watermark

__all__ = ["BATCH", "LEASE", "POSTPONEMENTS", "Claimed", "Drained", "claim", "deliver", "drain", "release"]
__all__ += ["settle", "start", "unpark"]


def drain(
    *,
    batch: int = BATCH,
    most: int | None = None,
    within: dt.timedelta | None = None,
    watermark: Watermark | None = None,
) -> Drained:
    """
    Deliver due messages in batches, until none is left, `most` messages are done or the broker is down.

    Messages that become due during the last batch are left to the next drain. No batch starts later than
    `within` after the first. Safe to run in any number of processes at once. A relay that drains repeatedly
    passes its `watermark`.
    """
    total, watermark = Drained(), watermark or Watermark()
    until = time.monotonic() + within.total_seconds() if within else math.inf
    while not total.broker_down:
        rows = claim(batch, watermark=watermark)
        if not rows:
            break
        crash_points.reached("relay.claimed")
        total += deliver(rows)
        was_all = len(rows) < batch
        if was_all or (most is not None and total.published >= most) or time.monotonic() >= until:
            break
    return total


def deliver(rows: Sequence[Claimed]) -> Drained:
    """
    Start the workflows of claimed messages and settle each message according to the result.

    If the broker fails between two parts of a batch, it has accepted the first one: only the rest is sent
    again.
    """
    result, began = Drained(), time.perf_counter()
    if (batch := tracing.batch(rows)) is None:
        _deliver(rows, result)
    else:
        with batch.sending():
            published = _deliver(rows, result)
        batch.settled({(row.id, row.redelivers) for row in published}, broker_is_down=result.broker_down)
    telemetry.emit("relay.batch_settled", messages=len(rows), seconds=time.perf_counter() - began)
    return result


def _deliver(rows: Sequence[Claimed], result: Drained) -> list[Claimed]:
    """Deliver as `deliver` does, and return the messages that the broker has accepted."""
    prepared, marks = preparing.written_down(_built(rows, result))
    ready, batches = _batches(prepared, marks, result)
    taken, missed = 0, []
    try:
        for batch in batches:
            missed += _sent(batch)
            taken += 1
    except dispatch.BrokerDown as down:
        _release_all([one for one in ready if one.part >= taken], down, result)
        ready = [one for one in ready if one.part < taken]
    except Exception:
        rest = _start_one_by_one([one for one in ready if one.part >= taken], result)
        ready = [one for one in ready if one.part < taken] + rest
    ready = _without_queue(ready, missed, result)
    accepted = [one.row for one in ready]
    result.published = settle(accepted, queues=_queues(ready))
    return accepted


def _sent(batch: dispatch.Batch) -> list[dispatch.Headers]:
    missed = batch.send()
    crash_points.reached("relay.sent")
    return missed


def _batches(
    prepared: Sequence[Ready], marks: Sequence[deliveries.Mark], result: Drained
) -> tuple[list[Ready], list[dispatch.Batch]]:
    """The batches to send one after the other: a probe follows all messages that it can prove gone."""
    parts = max([1, *(mark.part for mark in marks), *(one.part + 1 for one in prepared)])
    ready, batches = [], [dispatch.Batch(current_app) for _ in range(parts)]
    for one in prepared:
        try:
            for sending in one.sendings:
                batches[one.part].add(sending)
        except Exception as error:
            set_aside(one.row, error, result)
        else:
            ready.append(one)
    for mark in marks:  # the last of its part: a probe has no simple shape, see `dispatch.send_all`
        batches[mark.part - 1].add(probes.sending(mark.queue, mark.probe_id))
    return ready, batches


def _built(rows: Sequence[Claimed], result: Drained) -> list[Ready]:
    """Call the handlers; set messages aside whose handlers fail."""
    built = []
    for row in rows:
        try:
            built.append(preparing.build(row))
        except Exception as error:
            set_aside(row, error, result)
    return built


def start(message: OutboxMessage, *, app: Celery | None = None) -> None:
    """
    Send duplicates of everything that a message's latest delivery has started, for tests and drills.

    Raises:
        outbox.broker.dispatch.BrokerDown: if the broker did not accept one of them.
        outbox.broker.dispatch.NotDelivered: if there is no queue for one of them.
    """
    app = app or current_app
    values: dict[str, Any] = {field.name: getattr(message, field.name, "") for field in FIELDS}
    one = preparing.build(Claimed(**values))
    followed = {name for name, canvas in one.canvases.items() if deliveries.queue_of(app, canvas)}
    sendings = [preparing.sending(one, name, followed=name in followed) for name in one.canvases]
    dispatch.send_all(sendings, app=app)


def _start_one_by_one(prepared: Sequence[Ready], result: Drained) -> list[Ready]:
    """Send the messages of a batch one by one; return those that were sent."""
    started: list[Ready] = []
    for position, one in enumerate(prepared):
        try:
            dispatch.send_all(one.sendings, app=current_app)
            crash_points.reached("relay.sent")
        except dispatch.BrokerDown as down:
            _release_all(prepared[position:], down, result)
            break
        except dispatch.NotDelivered as without:
            started += _without_queue([one], without.missed, result)
        except Exception as error:
            set_aside(one.row, error, result)
        else:
            started.append(one)
    return started


def _without_queue(
    prepared: Sequence[Ready], missed: Sequence[dispatch.Headers], result: Drained
) -> list[Ready]:
    """Make messages wait that no queue accepts; return those sent at least in part. Ignores probes."""
    without = {(str(headers["message_id"]), str(headers["workflow"])) for headers in missed if headers}
    under_way = []
    for one in prepared:
        names = [sending.headers["workflow"] for sending in one.sendings]
        missing = [str(name) for name in names if (str(one.row.id), name) in without]
        if missing:
            result.postponed += 1
            wait_for_queue(one.row, missing, is_part=len(missing) < len(names))
        if len(missing) < len(names) or not names:
            under_way.append(one)
    return under_way


def _release_all(prepared: Sequence[Ready], down: dispatch.BrokerDown, result: Drained) -> None:
    crash_points.reached("relay.broker_down")
    release([one.row for one in prepared])
    result.broker_down = True
    telemetry.emit("relay.broker_down", error=str(down), waiting=len(prepared))


def settle(
    rows: Sequence[Claimed], *, queues: Mapping[tuple[uuid.UUID, str], str] = MappingProxyType({})
) -> int:
    """
    Record that a broker has accepted the messages, unless another relay holds them; return how many.

    `queues` maps redeliveries to their queues. A redelivery that is missing is not followed any further.
    """
    if not rows:
        return 0
    claim, firsts = rows[0].claim, [row.id for row in rows if not row.redelivers]
    settled = _settle_messages(firsts, claim) if firsts else 0
    again = [(row.id, row.redelivers) for row in rows if row.redelivers]
    settled += deliveries.settle([(*which, queues[which]) for which in again if which in queues], claim=claim)
    deliveries.drop([which for which in again if which not in queues], claim=claim)
    if redelivered := [row.id for row in rows if row.redeliveries]:
        campaigns.record_delivered(redelivered)
    telemetry.emit("relay.published", messages=settled)
    return settled


def _queues(prepared: Sequence[Ready]) -> dict[tuple[uuid.UUID, str], str]:
    return {(one.row.id, one.row.redelivers): one.queue for one in prepared if one.queue}


def _settle_messages(ids: Sequence[uuid.UUID], claim: uuid.UUID | None) -> int:
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            UPDATE {MESSAGES}
            SET status = 'published', claim = NULL, last_error = '', workflows = '{{}}',
                published_at = statement_timestamp()
            WHERE id = ANY(%s) AND claim = %s
            """,  # noqa: S608 - the table's own name
            [list(ids), claim],
        )
        settled = cursor.rowcount
    crash_points.reached("relay.settled")
    return settled
