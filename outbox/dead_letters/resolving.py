"""
Resolves dead letters: replays or discards them.

The admin, the commands and the workers all call these functions and have no logic of their own. See `previews`
for what a replay would do, `campaigns` for the outcomes of replays, and `owners` for the work behind a dead
letter.
"""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Iterable, Sequence

from django.contrib.admin.models import CHANGE, LogEntry
from django.db import transaction
from django.db.models.functions import Now

from outbox import crash_points, redelivery, telemetry, tracing
from outbox.database import storable
from outbox.dead_letters import campaigns, owners
from outbox.dead_letters.burying import LONGEST_NAME
from outbox.models import DeadLetter, DeadLetterQuerySet, OutboxMessage, ReplayCampaign


class ReasonMissing(Exception):
    """Dead letters cannot be replayed or discarded without a reason."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Resolved:
    """
    How many dead letters were resolved, how many of the selection stayed open, and why.

    `unfinished` describes the unfinished work of each dead letter that was not discarded. `campaign` holds the
    outcomes of a replay; None if nothing was replayed.
    """

    done: int
    unreadable: int = 0
    unfinished: tuple[owners.Unfinished, ...] = ()
    campaign: ReplayCampaign | None = None


def replay(
    dead_letters: DeadLetterQuerySet,
    *,
    by: str,
    reason: str,
    user_id: int | None = None,
    campaign: ReplayCampaign | None = None,
) -> Resolved:
    """
    Redeliver the messages of the open dead letters among `dead_letters`, with the same ids.

    The dead letters are then being replayed, and end as recovered or are opened again (see `campaigns`). No
    effect takes place twice, because every consumer finds its own work done. Dead letters without a readable
    message, or whose message no longer exists, stay open and are counted in `unreadable`. If a replay takes
    several calls, pass the `campaign` of the first one to the others.

    Raises:
        ReasonMissing: if `reason` is blank.
    """
    by, reason = storable.text(by, longest=LONGEST_NAME), _checked(reason)
    with transaction.atomic():
        rows = _lock(dead_letters)
        kept = _lock_messages(row.message_id for row in rows if row.message_id)
        ready = [row for row in rows if row.message_id in kept]
        for workflow in sorted({row.workflow for row in ready}):
            ids = [row.message_id for row in ready if row.workflow == workflow and row.message_id]
            redelivery.redeliver(ids, workflow=workflow)
            if telemetry.is_tracing():
                tracing.replay(list(OutboxMessage.objects.filter(pk__in=ids)), workflow=workflow)
        _resolve(ready, DeadLetter.Resolution.REPLAYING, by=by, reason=reason, user_id=user_id)
        if ready:
            campaign = campaigns.begin(ready, by=by, reason=reason, user_id=user_id, campaign=campaign)
    crash_points.reached("dead_letters.replayed")
    for row in ready:
        telemetry.emit("message.replayed", consumer=row.consumer, message_id=str(row.message_id), by=by)
    return Resolved(done=len(ready), unreadable=len(rows) - len(ready), campaign=campaign)


def discard(
    dead_letters: DeadLetterQuerySet,
    *,
    by: str,
    reason: str,
    user_id: int | None = None,
    cancel: bool = False,
    mark_done: bool = False,
) -> Resolved:
    """
    Close the open dead letters among `dead_letters` without delivering anything. They stay readable.

    Unfinished work that waits for a discarded dead letter would wait for ever. Such a dead letter is discarded
    only together with its work: with `cancel`, if the work can be cancelled, or with `mark_done`, if what the
    work waits for was done by other means, which `reason` describes. Otherwise it stays open and is returned
    in `unfinished`.

    Raises:
        ReasonMissing: if `reason` is blank.
    """
    by, reason = storable.text(by, longest=LONGEST_NAME), _checked(reason)
    with transaction.atomic():
        # The work is locked before its dead letters, in the same order as elsewhere.
        found = list(dead_letters.open().order_by("pk"))
        held = owners.unfinished(found, lock=True)
        rows = _lock(DeadLetter.objects.filter(pk__in=[row.pk for row in found]))
        cancelled = [row for row in rows if cancel and row.pk in held and held[row.pk].can_be_cancelled]
        marked = [row for row in rows if mark_done and row.pk in held and held[row.pk].can_be_marked_done]
        closed = [row for row in rows if row.pk not in held] + cancelled + marked
        _resolve(closed, DeadLetter.Resolution.DISCARDED, by=by, reason=reason, user_id=user_id)
        owners.cancel(cancelled, by=by)
        owners.mark_done(marked, by=by, how=reason)
    crash_points.reached("dead_letters.discarded")
    for row in closed:
        telemetry.emit("message.discarded", consumer=row.consumer, message_id=str(row.message_id), by=by)
    left = tuple(held[row.pk] for row in rows if row not in closed)
    return Resolved(done=len(closed), unfinished=left)


def close_needless(*, key: str, consumers: Sequence[str], reason: str, by: str) -> int:
    """
    Discard the dead letters of steps that are no longer needed, in the caller's transaction.

    Those that are being replayed are closed as well, because the replay has nothing left to do.
    """
    needless = list(
        DeadLetter.objects.unresolved()
        .filter(key=key, consumer__in=consumers)
        .order_by("pk")
        .select_for_update()
    )
    if needless:
        _resolve(needless, DeadLetter.Resolution.DISCARDED, by=by, reason=reason, user_id=None)
        campaigns.end(needless, campaigns.ENDED)
    for row in needless:
        telemetry.emit("message.discarded", consumer=row.consumer, message_id=str(row.message_id), by=by)
    return len(needless)


def is_ended(*, consumer: str, message_id: str) -> bool:
    """Return whether a person has ended this work: its newest dead letter is discarded."""
    newest = (
        DeadLetter.objects.filter(consumer=consumer, message_id=message_id)
        .order_by("-pk")
        .values_list("resolution", flat=True)
        .first()
    )
    return newest == DeadLetter.Resolution.DISCARDED


def _checked(reason: str) -> str:
    """The reason as storable text: undecodable bytes of a command line are lone surrogates."""
    if not reason.strip():
        raise ReasonMissing("give a reason: it is shown on the dead letter")
    return storable.text(reason.strip())


def _lock(dead_letters: DeadLetterQuerySet) -> list[DeadLetter]:
    return list(dead_letters.open().order_by("pk").select_for_update())


def _resolve(
    rows: list[DeadLetter], resolution: DeadLetter.Resolution, *, by: str, reason: str, user_id: int | None
) -> None:
    DeadLetter.objects.filter(pk__in=[row.pk for row in rows]).update(
        resolution=resolution, resolved_at=Now(), resolved_by=by, reason=reason
    )
    if user_id and rows:
        LogEntry.objects.log_actions(
            user_id,
            DeadLetter.objects.filter(pk__in=[row.pk for row in rows]),
            CHANGE,
            change_message=f"{resolution.label}: {reason}",
        )


def _lock_messages(message_ids: Iterable[uuid.UUID]) -> set[uuid.UUID]:
    """Lock the messages that exist, always in the same order, since two people may replay them at once."""
    kept = OutboxMessage.objects.filter(pk__in=list(message_ids)).order_by("pk")
    return set(kept.select_for_update(no_key=True).values_list("pk", flat=True))
