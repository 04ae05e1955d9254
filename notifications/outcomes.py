"""Tells the outbox whether the work behind a dead letter is done: whether the customer has been notified."""

from __future__ import annotations

from collections.abc import Sequence

from notifications.models import Channel, Notification
from outbox.dead_letters import owners
from outbox.models import DeadLetter

CHANNELS = {f"notifications.tasks.send_{channel}": str(channel) for channel in Channel.values}
UNSENT = [Notification.Status.PENDING, Notification.Status.SENDING, Notification.Status.FAILED]


class Notifications(owners.Owner):
    """The answers of this app."""

    def done(self, dead_letters: Sequence[DeadLetter]) -> dict[int, bool]:
        ours = [
            dead_letter
            for dead_letter in dead_letters
            if dead_letter.consumer in CHANNELS and dead_letter.message_id
        ]
        unsent = set(
            Notification.objects.filter(
                message_id__in=[dead_letter.message_id for dead_letter in ours], status__in=UNSENT
            ).values_list("message_id", "channel")
        )
        return {
            dead_letter.pk: (dead_letter.message_id, CHANNELS[dead_letter.consumer]) not in unsent
            for dead_letter in ours
        }
