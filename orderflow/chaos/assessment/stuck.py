"""
Stuck work: it is unfinished, is in no open dead letter, and has no planned time.

Nothing will move it again, or at least nothing that is recorded.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence

from django.db.models.functions import Now

from notifications.models import Notification
from orderflow.chaos.assessment.promises import Finding
from orders.models import Order
from outbox.models import DeadLetter, Delivery, OutboxMessage

RULE = "stuck"


def find(order_ids: Sequence[str]) -> list[Finding]:
    """
    Return what is stuck of these orders: the orders themselves, their messages, deliveries and notifications.

    A planned time of a notification does not count for its order.
    """
    numbers = {
        str(pk): number for pk, number in Order.objects.filter(pk__in=order_ids).values_list("pk", "number")
    }
    keys = dict(OutboxMessage.objects.filter(key__in=numbers).values_list("pk", "key"))
    found = [
        *_orders(order_ids, waiting={keys[pk] for pk in _planned(keys, "orders.")}),
        *_messages(numbers),
        *_deliveries(keys, numbers),
        *_notifications(order_ids, waiting=_planned(keys, "notifications.")),
    ]
    return [Finding(rule=RULE, subject=subject, detail=detail) for subject, detail in found]


def _planned(messages: Iterable[uuid.UUID], workflow: str) -> set[uuid.UUID]:
    """Those of the messages for which a workflow with this prefix waits for a planned time."""
    waiting = Delivery.objects.filter(status=Delivery.Status.WAITING, not_before__gt=Now())
    ours = waiting.filter(message_id__in=messages, workflow__startswith=workflow)
    return set(ours.values_list("message_id", flat=True))


def _orders(order_ids: Sequence[str], *, waiting: set[str]) -> Iterable[tuple[str, str]]:
    given_up = set(DeadLetter.objects.open().values_list("key", flat=True))
    for order in Order.objects.unfinished().filter(pk__in=order_ids).order_by("pk"):
        if str(order.pk) not in waiting | given_up:
            yield order.number, f"the order is {order.status}, and nothing is planned"


def _messages(numbers: Mapping[str, str]) -> Iterable[tuple[str, str]]:
    ours = OutboxMessage.objects.filter(key__in=numbers).order_by("pk")
    for row in ours.filter(status=OutboxMessage.Status.PARKED):
        yield numbers[row.key], f"{row.event_name} {row.pk} is parked: {row.last_error[:200]}"
    for row in ours.filter(status=OutboxMessage.Status.PENDING, not_before__lte=Now()):
        yield numbers[row.key], f"{row.event_name} {row.pk} was due at {row.not_before}: {row.last_error[:200]}"


def _deliveries(keys: Mapping[uuid.UUID, str], numbers: Mapping[str, str]) -> Iterable[tuple[str, str]]:
    """A delivery that was given up has no row, so every row here is expected to make progress."""
    ours = Delivery.objects.filter(message_id__in=keys).order_by("message_id", "workflow")
    for row in ours.exclude(status=Delivery.Status.WAITING, not_before__gt=Now()):
        since = row.sent_at if row.status == Delivery.Status.SENT else row.not_before
        yield numbers[keys[row.message_id]], f"the delivery of {row} is {row.status} since {since}"


def _notifications(order_ids: Sequence[str], *, waiting: set[uuid.UUID]) -> Iterable[tuple[str, str]]:
    given_up = DeadLetter.objects.open().filter(consumer__startswith="notifications.")
    excused = waiting | set(given_up.values_list("message_id", flat=True))
    unsent = Notification.objects.filter(
        order_id__in=order_ids, status__in=[Notification.Status.PENDING, Notification.Status.SENDING]
    )
    for row in unsent.order_by("pk"):
        if row.message_id not in excused:
            yield row.order_number, f"the {row.channel} {row.template} is {row.status}, and nothing is planned"
