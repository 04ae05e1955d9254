"""Postpones, parks or buries messages that the relay cannot start."""

from __future__ import annotations

import dataclasses
import datetime as dt
import math
import time
import uuid
from collections.abc import Sequence
from typing import Any

from django.db import transaction
from django.db.models import Value
from django.db.models.functions import Now

from outbox import attempts, crash_points, redelivery, registry, telemetry
from outbox.contracts import Payload, UnreadableEvent
from outbox.database import storable
from outbox.dead_letters import burying, campaigns
from outbox.models import Attempt, DeadLetter, Delivery, OutboxMessage
from outbox.relay.claims import BATCH, Claimed, held
from outbox.resilience import spread

CONSUMER = "outbox.relay"


POSTPONEMENTS = tuple(dt.timedelta(seconds=seconds) for seconds in (1, 10, 60, 600))
"""The waits after failed starts of a message. After the last one it is buried."""


QUEUE_WAIT = dt.timedelta(seconds=5)
"""The wait before a message is sent again that no queue accepted. This counts as an outage: no attempt is
spent."""

UNREADABLE_WAIT = dt.timedelta(minutes=1)
"""The wait of a redelivery whose event this code cannot read."""


@dataclasses.dataclass(kw_only=True)
class Drained:
    """The results of one drain, in numbers of messages."""

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


def set_aside(row: Claimed, error: Exception, result: Drained) -> None:
    """Park, postpone or bury a message because of its own failure."""
    if not _is_readable(row.event_name, row.event_version, row.payload):
        if row.redelivers:
            _wait_to_be_readable(row, error)
            result.postponed += 1
        else:
            result.parked += _park(row, error)
        return
    buried = _postpone_or_bury(row, error)
    result.buried += buried
    result.postponed += not buried


_unparked_until: uuid.UUID | None = None
"""The parked message after which the next call continues; None at the beginning."""


def unpark(*, within: dt.timedelta | None = None) -> int:
    """
    Release parked messages that this code can read; return how many.

    Tries to read each message, whatever it was parked for. Works in batches and no longer than `within`; the
    next call continues.
    """
    global _unparked_until
    released, until = 0, time.monotonic() + within.total_seconds() if within else math.inf
    while True:
        rows = _parked(after=_unparked_until)
        released += _release_parked([pk for pk, *event in rows if _is_readable(*event)])
        _unparked_until = rows[-1][0] if len(rows) == BATCH else None
        if _unparked_until is None or time.monotonic() >= until:
            return released


def _parked(*, after: uuid.UUID | None) -> list[tuple[Any, ...]]:
    """The next parked messages whose event name this code knows."""
    parked = OutboxMessage.objects.filter(status="parked", event_name__in=registry.known_events())
    if after:
        parked = parked.filter(pk__gt=after)
    return list(parked.order_by("pk").values_list("pk", "event_name", "event_version", "payload")[:BATCH])


def _release_parked(ids: Sequence[uuid.UUID]) -> int:
    if not ids:
        return 0
    parked = OutboxMessage.objects.filter(pk__in=ids, status=OutboxMessage.Status.PARKED)
    released = parked.update(status=OutboxMessage.Status.PENDING, not_before=Now())
    crash_points.reached("relay.unparked")
    return released


def _is_readable(name: str, version: int, payload: Payload) -> bool:
    """Whether this code knows and can read the event. Any other error is the message's own failure."""
    try:
        registry.load(name, version, payload)
    except (registry.UnknownEvent, UnreadableEvent):
        return False
    except Exception:
        return True
    return True


def _park(row: Claimed, reason: Exception) -> int:
    [ours] = held([row])
    parked = ours.update(status=OutboxMessage.Status.PARKED, claim=None, last_error=storable.described(reason))
    crash_points.reached("relay.parked")
    telemetry.emit("message.parked", message_id=str(row.id), event_name=row.event_name, reason=str(reason))
    return parked


def _wait_to_be_readable(row: Claimed, reason: Exception) -> None:
    """Postpone a redelivery whose message this code cannot read. No attempt is spent."""
    for ours in held([row]):
        ours.update(
            claim=None,
            not_before=Now() + Value(UNREADABLE_WAIT),
            last_error=storable.described(reason),
        )
    crash_points.reached("relay.postponed")
    telemetry.emit("message.postponed", message_id=str(row.id), error=repr(reason), wait=UNREADABLE_WAIT)


def _postpone_or_bury(row: Claimed, error: Exception) -> int:
    """Count a failure of the message's own; return 1 if it was the last try, 0 if another one follows."""
    spent = row.attempts + 1
    gives_up = row.attempts >= len(POSTPONEMENTS)
    changes: dict[str, Any] = {
        "claim": None,
        "attempts": spent,
        "last_error": storable.described(error),
    }
    if not gives_up:
        wait = spread(POSTPONEMENTS[row.attempts])
        [ours] = held([row])
        with transaction.atomic():
            if ours.update(not_before=Now() + Value(wait), **changes):
                _note(row, error, Attempt.Outcome.POSTPONED, next_try_at=Now() + Value(wait))
        crash_points.reached("relay.postponed")
        telemetry.emit("message.postponed", message_id=str(row.id), error=repr(error), wait=wait)
        return 0
    with transaction.atomic():
        if _give_up(row, changes):
            _note(row, error, Attempt.Outcome.BURIED)
            burying.bury(
                burying.Failure.of(
                    error,
                    source=DeadLetter.Source.RELAY,
                    consumer=CONSUMER,
                    message_id=str(row.id),
                    workflow=row.redelivers,
                    key=row.key,
                    payload=row.payload,
                    attempts=spent,
                )
            )
            campaigns.reopen(message_id=row.id, workflow=row.redelivers)
    crash_points.reached("relay.buried")
    return 1


def _note(row: Claimed, error: Exception, outcome: Attempt.Outcome, **planned: Any) -> None:
    """Record a failed try of the relay."""
    attempts.record(consumer=CONSUMER, message_id=row.id, error=error, outcome=outcome, **planned)


def _give_up(row: Claimed, changes: dict[str, Any]) -> int:
    """End the delivery that failed: the redelivery of one workflow, or the whole message."""
    [ours] = held([row])
    if row.redelivers:
        return int(ours.delete()[0])
    Delivery.objects.filter(message_id=row.id, generation=row.redeliveries).delete()
    return int(ours.update(status=OutboxMessage.Status.BURIED, **changes))


def wait_for_queue(row: Claimed, workflows: Sequence[str], *, is_part: bool) -> None:
    """Postpone a message that no queue accepted; if other workflows were sent, only `workflows` wait."""
    error = f"NotDelivered: no queue accepts the work of {', '.join(workflows)}"
    changes: dict[str, Any] = {"claim": None, "not_before": Now() + Value(QUEUE_WAIT), "last_error": error}
    if is_part:
        for workflow in workflows:
            redelivery.redeliver([row.id], workflow=workflow, wait=QUEUE_WAIT)
            crash_points.reached("relay.undelivered")
    else:
        [ours] = held([row])
        ours.update(**changes, **({} if row.redelivers else {"workflows": list(workflows)}))
        crash_points.reached("relay.undelivered")
    telemetry.emit("message.undelivered", message_id=str(row.id), error=error, wait=QUEUE_WAIT)
