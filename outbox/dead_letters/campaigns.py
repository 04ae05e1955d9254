"""
The outcomes of replays: the dead letter recovers, or it is opened again.

`resolving.replay` begins a replay. The dead letter has recovered when its consumer has done the work or finds
nothing to do; it has failed again when the consumer gives up once more. A process may die between the work and
its record, so `end_finished` checks the replays that are still recorded as under way.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import math
import time
import uuid
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.auth import get_user_model
from django.db import connection, transaction
from django.db.models import Count, Exists, OuterRef, Q, Value
from django.db.models.functions import Now

from outbox import crash_points, telemetry
from outbox.dead_letters import owners
from outbox.models import DeadLetter, Delivery, OutboxMessage, Replay, ReplayCampaign

RECOVERED, FAILED, ENDED = Replay.Outcome.RECOVERED, Replay.Outcome.FAILED, Replay.Outcome.ENDED

RELAY = "outbox.relay"
"""The consumer of the relay's dead letters. Its work is done when a broker has the message."""

PATIENCE = dt.timedelta(seconds=30)
"""How long a replay runs before `end_finished` checks it."""

BATCH = 500
"""Replays that `end_finished` checks in one query."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcomes:
    """How many dead letters of a campaign were replayed, and their outcomes."""

    sent: int
    recovered: int
    failed: int
    ended: int
    under_way: int

    def __str__(self) -> str:
        parts = [
            (self.recovered, "recovered"),
            (self.failed, "failed again"),
            (self.ended, "no longer needed"),
            (self.under_way, "under way"),
        ]
        return f"{self.sent} sent: " + (", ".join(f"{n} {how}" for n, how in parts if n) or "none")


def begin(
    dead_letters: Sequence[DeadLetter],
    *,
    by: str,
    reason: str,
    user_id: int | None = None,
    campaign: ReplayCampaign | None = None,
) -> ReplayCampaign:
    """Record that these dead letters are being replayed, in the caller's transaction."""
    campaign = campaign or ReplayCampaign.objects.create(by=by, reason=reason.strip(), user_id=user_id)
    Replay.objects.bulk_create(
        [Replay(campaign=campaign, dead_letter=dead_letter) for dead_letter in dead_letters], batch_size=1000
    )
    return campaign


def end(dead_letters: Sequence[DeadLetter], outcome: Replay.Outcome) -> list[Replay]:
    """Record the outcome of the replays of these dead letters that are under way, in one transaction."""
    with transaction.atomic():
        under_way = list(
            Replay.objects.filter(dead_letter__in=dead_letters, outcome=Replay.Outcome.UNDER_WAY)
            .select_related("campaign", "dead_letter")
            .order_by("pk")
            .select_for_update(of=("self",))
        )
        if under_way:
            Replay.objects.filter(pk__in=[replay.pk for replay in under_way]).update(
                outcome=outcome, ended_at=Now()
            )
            _log(under_way, outcome)
    for replay in under_way:
        telemetry.emit(
            "replay.ended",
            campaign=replay.campaign_id,
            dead_letter=replay.dead_letter_id,
            consumer=replay.dead_letter.consumer,
            outcome=str(outcome),
        )
    return under_way


def outcomes(campaign_id: int) -> Outcomes:
    """Return the outcomes of a campaign so far."""
    return outcomes_of([campaign_id])[campaign_id]


def outcomes_of(campaign_ids: Sequence[int]) -> dict[int, Outcomes]:
    """Return the outcomes of several campaigns, by id, with one query."""
    counts: dict[int, Counter[str]] = {pk: Counter() for pk in campaign_ids}
    grouped = Replay.objects.filter(campaign__in=campaign_ids).order_by().values_list("campaign_id", "outcome")
    for pk, outcome, number in grouped.annotate(number=Count("pk")):
        counts[pk][outcome] = number
    return {pk: _outcomes(count) for pk, count in counts.items()}


def _outcomes(counts: Counter[str]) -> Outcomes:
    return Outcomes(
        sent=counts.total(),
        recovered=counts[RECOVERED],
        failed=counts[FAILED],
        ended=counts[ENDED],
        under_way=counts[Replay.Outcome.UNDER_WAY],
    )


def record_success(*, consumer: str, message_id: str, skipped: bool) -> int:
    """
    Record that a consumer has done its work for a message, if its dead letter is being replayed.

    `skipped` means that the consumer found nothing to do. Another worker may still be doing the work, so the
    app that owns it decides.
    """
    dead_letters = list(_replaying().filter(message_id=message_id, consumer=consumer))
    if skipped:
        known = owners.done(dead_letters)
        dead_letters = [dead_letter for dead_letter in dead_letters if known.get(dead_letter.pk, True)]
    return _recover(dead_letters) if dead_letters else 0


def record_delivered(message_ids: Iterable[Any]) -> int:
    """Record that a broker accepted messages that the relay had given up."""
    dead_letters = list(_replaying().filter(message_id__in=list(message_ids), consumer=RELAY))
    return _recover(dead_letters) if dead_letters else 0


_checked_until = 0
"""The dead letter after which the next check continues; 0 at the beginning."""


def reopen(*, message_id: uuid.UUID, workflow: str) -> int:
    """
    Open dead letters again whose replay the relay could not start, in the transaction in which it gives up.

    `workflow` is the workflow to be started; empty means all workflows of the message.
    """
    dead_letters = _replaying().filter(message_id=message_id).order_by("pk")
    if workflow:
        dead_letters = dead_letters.filter(workflow__in=["", workflow])
    found = list(dead_letters.select_for_update())
    if found:
        DeadLetter.objects.filter(pk__in=[dead_letter.pk for dead_letter in found]).update(
            resolution=DeadLetter.Resolution.OPEN, resolved_at=None, resolved_by="", reason=""
        )
        end(found, FAILED)
    return len(found)


def end_finished(*, within: dt.timedelta | None = None) -> int:
    """
    End the replays of work that is done but was not recorded as done; return how many.

    Unfinished work stays under way: it waits for its turn or for the end of an outage, and is redelivered if it
    was lost. If no app knows the work, it counts as done when its delivery has ended. Works in batches and
    starts none later than `within` after the first; the next call continues.
    """
    global _checked_until
    ended, until = 0, time.monotonic() + within.total_seconds() if within else math.inf
    late = _replaying().filter(resolved_at__lt=Now() - Value(PATIENCE), pk__gt=_checked_until)
    ids = list(late.order_by("pk").values_list("pk", flat=True))
    for start in range(0, len(ids), BATCH):
        batch = ids[start : start + BATCH]
        dead_letters = _replaying().filter(pk__in=batch).defer("payload", "headers", "error", "traceback")
        ended += _end_finished(list(dead_letters.order_by("pk")))
        _checked_until = batch[-1]
        if time.monotonic() >= until:
            return ended
    _checked_until = 0
    return ended


def _end_finished(dead_letters: Sequence[DeadLetter]) -> int:
    known = owners.done(dead_letters)
    ended = _ended([dead_letter for dead_letter in dead_letters if dead_letter.pk not in known])
    done = [dead_letter for dead_letter in dead_letters if known.get(dead_letter.pk, dead_letter.pk in ended)]
    return _recover(done) if done else 0


def _ended(dead_letters: Sequence[DeadLetter]) -> set[int]:
    """
    Of dead letters that no app knows, those whose message was published and whose delivery has ended.

    The relay's own work ends with the publication. A message that the relay gave up again has not been
    replayed.
    """
    taken = OutboxMessage.objects.filter(pk=OuterRef("message_id"), status=OutboxMessage.Status.PUBLISHED)
    to_its_workflow = Q(workflow__startswith=OuterRef("workflow"))  # an empty name means all of them
    unfinished = Delivery.objects.filter(to_its_workflow, message_id=OuterRef("message_id"))
    given_up = DeadLetter.objects.open().filter(message_id=OuterRef("message_id"), consumer=RELAY)
    found = DeadLetter.objects.filter(
        Q(consumer=RELAY) | ~Exists(unfinished),
        ~Exists(given_up),
        Exists(taken),
        pk__in=[dead_letter.pk for dead_letter in dead_letters],
    )
    return set(found.values_list("pk", flat=True))


def _replaying() -> Any:
    return DeadLetter.objects.filter(resolution=DeadLetter.Resolution.REPLAYING)


def _recover(dead_letters: Sequence[DeadLetter]) -> int:
    """Close the dead letters that are still being replayed; some may have failed again since they were read."""
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute(
                """
                UPDATE outbox_deadletter SET resolution = 'recovered', resolved_at = statement_timestamp()
                WHERE id = ANY(%s) AND resolution = 'replaying' RETURNING id
                """,
                [[dead_letter.pk for dead_letter in dead_letters]],
            )
            recovered = {pk for (pk,) in cursor.fetchall()}
        end([dead_letter for dead_letter in dead_letters if dead_letter.pk in recovered], RECOVERED)
    crash_points.reached("replay.ended")
    return len(recovered)


def _log(replays: Sequence[Replay], outcome: Replay.Outcome) -> None:
    """Write an entry into the admin's history for each user who started a replay and still has an account."""
    names = {replay.campaign.user_id for replay in replays if replay.campaign.user_id}
    known = set(get_user_model().objects.filter(pk__in=names).values_list("pk", flat=True)) if names else set()
    for user_id in sorted(known):
        dead_letters = [replay.dead_letter_id for replay in replays if replay.campaign.user_id == user_id]
        LogEntry.objects.log_actions(
            user_id,
            DeadLetter.objects.filter(Q(pk__in=dead_letters)),
            CHANGE,
            change_message=f"Replay ended: {outcome.label}",
        )
