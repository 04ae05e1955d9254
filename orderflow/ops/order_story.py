"""An order's history over all apps, in one list: for `order_trace` and the admin's timeline."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Iterator

from django.db.models import QuerySet

from notifications import money
from notifications.models import Notification
from orders.admin import story as page
from orders.dead_letters import attention
from orders.models import Order, OrderTransition, Payment, Refund
from orders.sweep import WORKFLOWS
from outbox.command_lines import command_line, counted
from outbox.database import clock
from outbox.dead_letters import waits
from outbox.models import Attempt, DeadLetter, Delivery, OutboxMessage, Replay


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entry:
    """One event; `trouble` marks what may need attention."""

    at: dt.datetime
    kind: str
    what: str
    detail: str = ""
    reference: str = ""
    trouble: bool = False


def connect() -> None:
    """Show the history on the order's page of the admin. Called by `orderflow.admin`."""
    page.register(page.Story(entries=story, outlook=outlook, way_out=way_out))


def story(order: Order) -> list[Entry]:
    """Return everything that happened to the order, in order of time."""
    messages = list(OutboxMessage.objects.filter(key=str(order.pk)))
    moves, notifications = list(order.transitions.order_by("id")), list(_notifications_of(order))
    tries = list(Attempt.objects.filter(message_id__in=[message.pk for message in messages]).order_by("pk"))
    entries = [
        *map(_transition, moves),
        *map(_message, messages),
        *_attempts(tries, moves, notifications),
        *_payments(order),
        *_shipment(order),
        *map(_notification, notifications),
        *_dead_letters(order),
    ]
    return sorted(entries, key=lambda entry: entry.at)


def outlook(order: Order) -> str:
    """Return why nothing happens right now, or what happens next, as a sentence."""
    if dead_letter := _in_the_way(order):
        if dead_letter.resolution == DeadLetter.Resolution.DISCARDED:
            return (
                f"{dead_letter.consumer} gave up, and {dead_letter.resolved_by} discarded "
                f"dead letter {dead_letter.pk} "
                "without the order. Nothing starts it again: cancel it."
            )
        return (
            f"{dead_letter.consumer} gave up: {dead_letter.error_class}. "
            f"Dead letter {dead_letter.pk} must be replayed or discarded."
        )
    if order.is_final:
        return f"The order is {order.status}; nothing more is due."
    if why := attention.why(order):
        return why
    return _replayed(order) + _next(order)


def _replayed(order: Order) -> str:
    dead_letter = _being_replayed(order)
    return (
        f"Dead letter {dead_letter.pk} is being replayed, by {dead_letter.resolved_by}. " if dead_letter else ""
    )


def _next(order: Order) -> str:
    own = Delivery.objects.filter(message_id=order.message_id, workflow__startswith=WORKFLOWS)
    message = OutboxMessage.objects.undelivered().filter(pk=order.message_id).first()
    waiting = message or own.filter(status=Delivery.Status.WAITING).first()
    if waiting:
        attempt = Attempt.objects.filter(message_id=order.message_id).order_by("-pk").first()
        why = f"{attempt.error_class}: {attempt.error}" if attempt else waiting.last_error
        because = f" after {why}" if why else ""
        return f"Its message is delivered {_moment(waiting.not_before)}{because}."
    if order.lease_until and order.lease_until > clock.now():
        return f"A step is running, until {order.lease_until:%H:%M:%S} UTC at the latest."
    if sent := own.first():
        return f"Its next step is waiting in the queue {sent.queue}, or running."
    assert order.due_at is not None
    return f"The next step is due {_moment(order.due_at)}; then the sweep starts the rest of the chain again."


def way_out(order: Order) -> str:
    """The command with which an operator can let the order continue; empty if there is none."""
    dead_letter = _in_the_way(order)
    if dead_letter is None or dead_letter.resolution == DeadLetter.Resolution.DISCARDED:
        return ""
    return command_line("replay_failures", "--id", dead_letter.pk, reason="the cause is fixed")


def _in_the_way(order: Order) -> DeadLetter | None:
    """The open dead letter that blocks the order."""
    return attention.dead_letters_of(order).first()


def _being_replayed(order: Order) -> DeadLetter | None:
    replaying = DeadLetter.objects.filter(key=str(order.pk), resolution=DeadLetter.Resolution.REPLAYING)
    return replaying.filter(attention.STEPS).order_by("-pk").first()


def _moment(at: dt.datetime) -> str:
    seconds = (at - clock.now()).total_seconds()
    return f"at {at:%H:%M:%S} UTC, in {seconds:.0f} s" if seconds > 0 else "now"


def _transition(move: OrderTransition) -> Entry:
    return Entry(
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


def _attempts(
    tries: list[Attempt], moves: list[OrderTransition], notifications: list[Notification]
) -> Iterator[Entry]:
    for group in waits.grouped(tries):
        if waits.is_wait(group[0]):
            yield _wait(group, _ended_at(group[-1], tries, moves, notifications))
        else:
            yield _attempt(group[0])


def _wait(checks: list[Attempt], ended_at: dt.datetime | None) -> Entry:
    """A wait needs no attention: it ends by itself, and spends no attempt."""
    last = checks[-1]
    return Entry(
        at=checks[0].failed_at,
        kind="wait",
        what=f"{last.consumer} {waits.sentence(checks, ended_at=ended_at)}",
        detail=f"{last.error_class}: {last.error}"[:300],
        reference=last.worker,
    )


def _ended_at(
    last: Attempt, tries: list[Attempt], moves: list[OrderTransition], notifications: list[Notification]
) -> dt.datetime | None:
    """When a wait ended: with another failure, the next move of the order, or the notification being sent."""
    times = [
        other.failed_at
        for other in tries
        if other.pk > last.pk and (other.message_id, other.consumer) == (last.message_id, last.consumer)
    ]
    if last.consumer.startswith("orders."):
        times += [move.at for move in moves]
    else:
        sent = [one for one in notifications if last.consumer.endswith(f"send_{one.channel}")]
        times += [one.sent_at for one in sent if one.sent_at and one.message_id == last.message_id]
    return min((at for at in times if at > last.failed_at), default=None)


def _attempt(attempt: Attempt) -> Entry:
    then = f"; next try {attempt.next_try_at:%H:%M:%S} UTC" if attempt.next_try_at else ""
    return Entry(
        at=attempt.failed_at,
        kind="attempt",
        what=f"{attempt.consumer} failed",
        detail=f"{attempt.error_class}: {attempt.error}"[:300] + f" ({attempt.get_outcome_display()}{then})",
        reference=attempt.worker,
        trouble=True,
    )


def _payments(order: Order) -> Iterator[Entry]:
    for payment in Payment.objects.filter(order=order).select_related("refund"):
        yield Entry(
            at=payment.requested_at,
            kind="payment",
            what=f"charge requested, {money.format_amount(payment.amount_minor, payment.currency)}",
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
        if refund:
            yield _refund(refund)


def _refund(refund: Refund) -> Entry:
    descriptions = {Refund.Status.SUCCEEDED: "refunded", Refund.Status.FAILED: "refund failed,"}
    amount = money.format_amount(refund.amount_minor, refund.currency)
    if refund.given_back_by:
        return Entry(
            at=refund.resolved_at or refund.requested_at,
            kind="payment",
            what=f"refunded by other means {amount}, according to {refund.given_back_by}",
            detail=refund.given_back_how,
        )
    return Entry(
        at=refund.resolved_at or refund.requested_at,
        kind="payment",
        what=f"{descriptions.get(Refund.Status(refund.status), 'refund requested,')} {amount}",
        detail=refund.error,
        reference=refund.provider_id,
        trouble=refund.status == Refund.Status.FAILED,
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


def _notifications_of(order: Order) -> QuerySet[Notification]:
    return Notification.objects.filter(order_id=order.pk).defer("text", "html")


def _notification(notification: Notification) -> Entry:
    return Entry(
        at=notification.sent_at or notification.created_at,
        kind="notification",
        what=f"{notification.channel} {notification.template}: {notification.status}",
        detail=notification.error,
        reference=notification.provider_message_id,
        trouble=notification.status == "failed",
    )


def _dead_letters(order: Order) -> Iterator[Entry]:
    dead_letters = (
        DeadLetter.objects.filter(key=str(order.pk)).prefetch_related("replays__campaign").order_by("pk")
    )
    for dead_letter in dead_letters:
        reference = f"dead letter {dead_letter.pk}"
        yield Entry(
            at=dead_letter.buried_at,
            kind="dead letter",
            what=f"{dead_letter.consumer} gave up after {counted(dead_letter.attempts, 'attempt')}",
            detail=f"{dead_letter.error_class}: {dead_letter.error}"[:300],
            reference=reference,
            trouble=dead_letter.resolution == DeadLetter.Resolution.OPEN,
        )
        for replay in sorted(dead_letter.replays.all(), key=lambda replay: replay.pk):
            yield from _replay(replay, reference)
        if dead_letter.resolved_at and dead_letter.resolution in (
            DeadLetter.Resolution.REPLAYED,
            DeadLetter.Resolution.DISCARDED,
        ):
            yield Entry(
                at=dead_letter.resolved_at,
                kind="dead letter",
                what=f"{dead_letter.resolution} by {dead_letter.resolved_by}",
                detail=dead_letter.reason,
                reference=reference,
            )


def _replay(replay: Replay, reference: str) -> Iterator[Entry]:
    campaign = replay.campaign
    yield Entry(
        at=campaign.started_at,
        kind="dead letter",
        what=f"replayed by {campaign.by}",
        detail=campaign.reason,
        reference=reference,
    )
    if replay.ended_at:
        yield Entry(
            at=replay.ended_at,
            kind="dead letter",
            what=f"the replay ended: {replay.get_outcome_display()}",
            reference=reference,
        )
