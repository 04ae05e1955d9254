"""
How replays end: as recovered, or with the same dead letter open again.

A replay is begun by `resolving.replay`. It has recovered when the consumer that gave up has done its work,
or finds that there is none; it has failed again when that consumer gives up once more. A process may die
between the work and the note of it, so `end_finished` looks at what is still said to be under way.
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
"""The consumer that dead letters of the relay name; its work is done when a broker has the message."""

PATIENCE = dt.timedelta(seconds=30)
"""How long a replay is left to its workers before `end_finished` looks at it."""

BATCH = 500
"""Replays that `end_finished` looks at in one query."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcomes:
    """How many dead letters of a campaign were sent, and how that ended."""

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
    """Keep that these dead letters are being replayed, in the caller's transaction."""
    campaign = campaign or ReplayCampaign.objects.create(by=by, reason=reason.strip(), user_id=user_id)
    Replay.objects.bulk_create(
        [Replay(campaign=campaign, dead_letter=dead_letter) for dead_letter in dead_letters], batch_size=1000
    )
    return campaign


def end(dead_letters: Sequence[DeadLetter], outcome: Replay.Outcome) -> list[Replay]:
    """Note how the replays of these dead letters ended, as far as they are under way, in one transaction."""
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
    """How the replays of a campaign ended so far."""
    return outcomes_of([campaign_id])[campaign_id]


def outcomes_of(campaign_ids: Sequence[int]) -> dict[int, Outcomes]:
    """The same of several campaigns, in one query."""
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


def note_success(*, consumer: str, message_id: str, skipped: bool) -> int:
    """
    Note that a consumer has done its work for a message, whose dead letter may be being replayed.

    A consumer that `skipped` has found nothing to do. That may be because somebody else is at it, so the
    app that owns the work is asked.
    """
    dead_letters = list(_replaying().filter(message_id=message_id, consumer=consumer))
    if skipped:
        known = owners.done(dead_letters)
        dead_letters = [dead_letter for dead_letter in dead_letters if known.get(dead_letter.pk, True)]
    return _recover(dead_letters) if dead_letters else 0


def note_delivered(message_ids: Iterable[Any]) -> int:
    """Note that a broker took messages that the relay had given up."""
    dead_letters = list(_replaying().filter(message_id__in=list(message_ids), consumer=RELAY))
    return _recover(dead_letters) if dead_letters else 0


_checked_until = 0
"""The dead letter after which the next look goes on; 0 at their beginning."""


def reopen(*, message_id: uuid.UUID, workflow: str) -> int:
    """
    Open the dead letters again whose replay the relay could not start, in the transaction in which it gives up.

    `workflow` is the one that was to be started; empty means all of the message's.
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
    End the replays of work that is done although nobody noted it; return how many.

    Work that is not done stays under way: it waits for its turn or for an outage to end, and is
    redelivered when it was lost. Where no app can say, the work is done when its delivery has ended.
    Looks at batch after batch, and begins none later than `within` after the first: the next call goes on.
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
    Of dead letters that no app answers for, those whose message a broker has and whose delivery has ended.

    The relay's own work has ended with the first of the two. What the relay gave up has not been replayed.
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
    """Close those that are still being replayed; each may have failed again since it was read."""
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
    """Write into the admin's history, under the name of whoever replayed and still has an account."""
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
