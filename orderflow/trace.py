"""An order's whole story, over all apps, in one list: for `order_trace` and the admin's timeline."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Iterator
from typing import Any

from django.utils import timezone

from notifications import money
from notifications.models import Notification
from orders.models import Order, Payment, Refund
from outbox.models import Attempt, DeadLetter, OutboxMessage


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entry:
    """One thing that happened; `trouble` marks what somebody may have to look at."""

    at: dt.datetime
    kind: str
    what: str
    detail: str = ""
    reference: str = ""
    trouble: bool = False


def story(order: Order) -> list[Entry]:
    """All that happened to the order, in the order of time."""
    messages = list(OutboxMessage.objects.filter(key=str(order.pk)))
    ids = [message.pk for message in messages]
    entries = [
        *_transitions(order),
        *map(_message, messages),
        *_attempts(ids),
        *_payments(order),
        *_shipment(order),
        *_notifications(order),
        *_dead_letters(order),
    ]
    return sorted(entries, key=lambda entry: entry.at)


def outlook(order: Order) -> str:
    """Why nothing is happening right now, or what happens next, in a sentence."""
    if order.is_final:
        return f"The order is {order.status}; nothing more is due."
    letter = DeadLetter.objects.unresolved().filter(key=str(order.pk)).order_by("-pk").first()
    if letter and (letter.consumer.startswith("orders.") or letter.consumer == "outbox.relay"):
        return (
            f"{letter.consumer} gave up: {letter.error_class}. Dead letter {letter.pk} waits for somebody "
            # Quoted and empty, so that a reason must be typed: an empty one is refused.
            f'to replay or discard it: python3 run.py replay_failures --id {letter.pk} --reason ""'
        )
    waiting = OutboxMessage.objects.undelivered().filter(pk=order.message_id).first()
    if waiting:
        attempt = Attempt.objects.filter(message_id=waiting.pk).order_by("-pk").first()
        because = f" after {attempt.error_class}: {attempt.error}" if attempt else ""
        return f"Its message is delivered {_moment(waiting.not_before)}{because}."
    if order.lease_until and order.lease_until > timezone.now():
        return f"A step is at work, until {order.lease_until:%H:%M:%S} UTC at the latest."
    assert order.due_at is not None
    return f"The next step is due {_moment(order.due_at)}; then the sweep starts the rest of the chain again."


def _moment(at: dt.datetime) -> str:
    seconds = (at - timezone.now()).total_seconds()
    return f"at {at:%H:%M:%S} UTC, in {seconds:.0f} s" if seconds > 0 else "now"


def _transitions(order: Order) -> Iterator[Entry]:
    for move in order.transitions.order_by("id"):
        yield Entry(
            at=move.at,
            kind="order",
            what=f"{move.from_status} → {move.to_status}" if move.from_status else move.to_status,
            detail=move.note,
            reference=" ".join(filter(None, (move.task, move.actor))),
        )


def _message(message: OutboxMessage) -> Entry:
    again = f", redelivered {message.redeliveries} ×" if message.redeliveries else ""
    because = f", because of {message.causation_id}" if message.causation_id else ""
    return Entry(
        at=message.created_at,
        kind="message",
        what=message.event_name,
        detail=f"{message.status}{again}{because}" + (f": {message.last_error}" if message.last_error else ""),
        reference=str(message.pk),
        trouble=message.status in (OutboxMessage.Status.PARKED, OutboxMessage.Status.BURIED),
    )


def _attempts(message_ids: list[Any]) -> Iterator[Entry]:
    for attempt in Attempt.objects.filter(message_id__in=message_ids):
        then = f"; next try {attempt.next_try_at:%H:%M:%S} UTC" if attempt.next_try_at else ""
        yield Entry(
            at=attempt.failed_at,
            kind="attempt",
            what=f"{attempt.consumer} failed",
            detail=f"{attempt.error_class}: {attempt.error}"[:300]
            + f" ({attempt.get_outcome_display()}{then})",
            reference=attempt.worker,
            trouble=True,
        )


def _payments(order: Order) -> Iterator[Entry]:
    for payment in Payment.objects.filter(order=order).select_related("refund"):
        yield Entry(
            at=payment.requested_at,
            kind="payment",
            what=f"charge asked for, {money.format_amount(payment.amount_minor, payment.currency)}",
            detail=f"key {payment.idempotency_key}",
        )
        if payment.resolved_at:
            yield Entry(
                at=payment.resolved_at,
                kind="payment",
                what=f"charge {payment.status}",
                detail=payment.error or payment.decline_code,
                reference=payment.provider_id,
            )
        refund: Refund | None = getattr(payment, "refund", None)
        if refund and refund.resolved_at:
            yield Entry(
                at=refund.resolved_at,
                kind="payment",
                what=f"refunded {money.format_amount(refund.amount_minor, refund.currency)}",
                reference=refund.provider_id,
            )


def _shipment(order: Order) -> Iterator[Entry]:
    shipment = getattr(order, "shipment", None)
    if shipment:
        yield Entry(
            at=shipment.resolved_at or shipment.requested_at,
            kind="shipment",
            what=f"shipment {shipment.status}",
            detail=" ".join(filter(None, (shipment.carrier, shipment.tracking_number, shipment.error))),
            reference=shipment.provider_id,
        )


def _notifications(order: Order) -> Iterator[Entry]:
    for notification in Notification.objects.filter(order_id=order.pk):
        yield Entry(
            at=notification.sent_at or notification.created_at,
            kind="notification",
            what=f"{notification.channel} {notification.template}: {notification.status}",
            detail=notification.error,
            reference=notification.provider_message_id,
            trouble=notification.status == "failed",
        )


def _dead_letters(order: Order) -> Iterator[Entry]:
    for letter in DeadLetter.objects.filter(key=str(order.pk)):
        yield Entry(
            at=letter.buried_at,
            kind="dead letter",
            what=f"{letter.consumer} gave up after {letter.attempts} attempts",
            detail=f"{letter.error_class}: {letter.error}"[:300],
            reference=f"dead letter {letter.pk}",
            trouble=letter.resolution == DeadLetter.Resolution.OPEN,
        )
        if letter.resolved_at:
            yield Entry(
                at=letter.resolved_at,
                kind="dead letter",
                what=f"{letter.resolution} by {letter.resolved_by}",
                detail=letter.reason,
                reference=f"dead letter {letter.pk}",
            )
