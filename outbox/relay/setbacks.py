"""What becomes of a message that the relay cannot start: it is postponed, parked or buried."""

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
"""The waits after a message's own failures to start; after the last one it is buried."""


QUEUE_WAIT = dt.timedelta(seconds=5)
"""After how long a message is sent again that no queue took. It is an outage: no attempt is spent."""

UNREADABLE_WAIT = dt.timedelta(minutes=1)
"""How long a redelivery waits whose event this code cannot read."""


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


def set_aside(row: Claimed, error: Exception, result: Drained) -> None:
    """Park, postpone or bury a message for its own failure."""
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
"""Where the next look through the parked messages goes on; None at their beginning."""


def unpark(*, within: dt.timedelta | None = None) -> int:
    """
    Make parked messages due again that this code has learned to read; return how many.

    Each is read, whatever it was parked for, as only that shows it; batch by batch and no longer than `within`.
    What there is no time for is for the next call.
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
    """The next parked messages whose event has a name that this code knows."""
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
    """Whether this code can read the event. What fails in another way is the message's own failure."""
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
    """Have a redelivery wait whose message this code cannot read any more. No attempt is spent."""
    for ours in held([row]):
        ours.update(
            claim=None,
            not_before=Now() + Value(UNREADABLE_WAIT),
            last_error=storable.described(reason),
        )
    crash_points.reached("relay.postponed")
    telemetry.emit("message.postponed", message_id=str(row.id), error=repr(reason), wait=UNREADABLE_WAIT)


def _postpone_or_bury(row: Claimed, error: Exception) -> int:
    """Count a message's own failure; return 1 when that was its last try, 0 when it waits for another."""
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
    """Note a failed try of the relay as consumers note theirs."""
    attempts.note(consumer=CONSUMER, message_id=row.id, error=error, outcome=outcome, **planned)


def _give_up(row: Claimed, changes: dict[str, Any]) -> int:
    """End the delivery that failed: the redelivery of one workflow, or all that was to be started."""
    [ours] = held([row])
    if row.redelivers:
        return int(ours.delete()[0])
    Delivery.objects.filter(message_id=row.id, generation=row.redeliveries).delete()
    return int(ours.update(status=OutboxMessage.Status.BURIED, **changes))


def wait_for_queue(row: Claimed, workflows: Sequence[str], *, is_part: bool) -> None:
    """Of a message that is under way, its other workflows wait by themselves."""
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
