"""
Repairs of the outbox that are safe by construction. `examination` runs each one in a transaction.

They redeliver messages, as replays and sweeps do: consumers detect what has already taken effect.
"""

from __future__ import annotations

from django.db.models.functions import Now

from outbox import redelivery
from outbox.database import clock
from outbox.models import DeadLetter, OutboxMessage
from outbox.relay.claims import LEASE
from outbox.verification.catalogue import Repair


def _deliver_buried(message_id: str) -> str:
    message = OutboxMessage.objects.select_for_update(no_key=True).get(pk=message_id)
    if (
        message.status != OutboxMessage.Status.BURIED
        or DeadLetter.objects.filter(message_id=message.pk).exists()
    ):
        return ""
    redelivery.redeliver([message.pk])
    return f"deliver {message} again"


def _deliver_replayed(dead_letter_id: str) -> str:
    dead_letter = DeadLetter.objects.get(pk=dead_letter_id)
    rows = OutboxMessage.objects.select_for_update(no_key=True)
    message = rows.filter(pk=dead_letter.message_id).first() if dead_letter.message_id else None
    if message is None or message.redeliveries or dead_letter.resolution not in SENT:
        return ""
    redelivery.redeliver([message.pk], workflow=dead_letter.workflow)
    return f"deliver {message} to {dead_letter.workflow or 'all workflows'}, as the replay should have"


def _remove_claim(message_id: str) -> str:
    """Safe, because a relay that returns with such a claim settles nothing: the claim is gone."""
    message = OutboxMessage.objects.select_for_update(no_key=True).get(pk=message_id)
    is_pending = message.status == OutboxMessage.Status.PENDING
    if message.claim is None or (is_pending and message.not_before <= clock.now() + 2 * LEASE):
        return ""
    OutboxMessage.objects.filter(pk=message.pk).update(
        claim=None, **({"not_before": Now()} if is_pending else {})
    )
    return f"remove the claim on {message}" + (", so that it is due now" if is_pending else "")


SENT = (
    DeadLetter.Resolution.REPLAYING,
    DeadLetter.Resolution.REPLAYED,
    DeadLetter.Resolution.RECOVERED,
)
"""The resolutions of a replayed dead letter."""

DELIVER_BURIED = Repair(what="deliver the message again", apply=_deliver_buried)
DELIVER_REPLAYED = Repair(what="deliver the message that should have been replayed", apply=_deliver_replayed)
REMOVE_CLAIM = Repair(what="remove the claim", apply=_remove_claim)
