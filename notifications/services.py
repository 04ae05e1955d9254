"""
Sending what customers are told: claim, call between the transactions, note what came of it.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import uuid
from collections.abc import Iterator
from typing import Any

from django.db import transaction
from django.db.models.functions import Lower, Now
from django.db.models.lookups import Exact
from django.utils import timezone

from notifications import channels, ports, rendering
from notifications.models import Channel, Notification, Preference
from orders.contracts import OrderEvent
from outbox import crash_points, registry, telemetry
from outbox.models import DeadLetter, OutboxMessage
from outbox.resilience import NotNow, Permanent, Transient

LEASE = dt.timedelta(seconds=25)
"""Longer than the hard time limit of a task: whoever still runs still holds its claim."""

ADDRESSES = {
    Channel.EMAIL: "customer_email",
    Channel.SMS: "customer_phone",
    Channel.PUSH: "customer_push_token",
}


def address_of(event: OrderEvent, channel: str) -> str:
    """Where the customer is reached through `channel`; empty if they are not."""
    return str(getattr(event, ADDRESSES[Channel(channel)])).strip()


def deliver(*, channel: str, message_id: str) -> bool:
    """
    Tell the customer through one channel what the message says; return False if there is nothing to do.

    Raises:
        NotNow: while another worker holds the notification.
        outbox.resilience.Transient: if the provider could not take it now.
        outbox.resilience.Permanent: if the provider never will.
    """
    event = _event_of(message_id)
    recipient = address_of(event, channel)
    if not recipient:
        return False
    claimed = _claim(event, channel=channel, message_id=message_id, recipient=recipient)
    if claimed is None:
        return False
    crash_points.reached("notification.claimed")
    adapter = channels.get(channel)
    with _noting_failure(claimed):
        provider_message_id = _sent_before(adapter, claimed) or adapter.send(claimed)
    crash_points.reached("notification.answered")
    return _note_sent(claimed, provider_message_id)


def mark_failed(*, channel: str, message_id: str = "", **_: Any) -> None:
    """Mark what was given up, in the transaction that buries its message. The order is not touched."""
    try:
        message = uuid.UUID(message_id)
    except ValueError:
        return
    Notification.objects.unfinished().filter(message_id=message, channel=channel).update(
        status=Notification.Status.FAILED, lease_until=None
    )


def _event_of(message_id: str) -> OrderEvent:
    row = OutboxMessage.objects.get(pk=message_id)
    event = registry.load(row.event_name, row.event_version, row.payload)
    assert isinstance(event, OrderEvent)
    return event


def _claim(event: OrderEvent, *, channel: str, message_id: str, recipient: str) -> Notification | None:
    """Take the notification for one try, after writing it down if this is the first."""
    which = {"message_id": message_id, "channel": channel, "recipient": recipient}
    written = _describe(event, channel=channel)
    if _is_wanted(event, channel=channel):
        if first := Notification.objects.write_claimed(lease=LEASE, **which, **written):
            return first
    else:
        _suppress(which, written)
    with transaction.atomic(durable=True):
        notification = Notification.objects.get(**which)
        if _given_up(notification):
            return None
        claimed = Notification.objects.claim(notification.pk, lease=LEASE)
        if claimed:
            return claimed
        notification.refresh_from_db(fields=["status", "lease_until"])
    if notification.status == Notification.Status.SENDING and notification.lease_until:
        # Saying that it is done would lose it if that worker has died.
        rest = max(notification.lease_until - timezone.now(), dt.timedelta(seconds=1))
        raise NotNow(f"another worker is sending {notification}", retry_after=rest)
    return None


def _given_up(notification: Notification) -> bool:
    """Whether it failed for good and nobody replayed it: a stray copy of its message must not try again."""
    if notification.status != Notification.Status.FAILED:
        return False
    letters = DeadLetter.objects.filter(
        message_id=notification.message_id, consumer=f"notifications.tasks.send_{notification.channel}"
    )
    last = letters.order_by("-pk").values_list("resolution", flat=True).first()
    return last in (DeadLetter.Resolution.OPEN, DeadLetter.Resolution.DISCARDED)


def _is_wanted(event: OrderEvent, *, channel: str) -> bool:
    # As the index has it; iexact would compare upper case and look at every row.
    its_customers = Exact(Lower("email"), event.customer_email.lower())
    return not Preference.objects.filter(its_customers, channel=channel, enabled=False).exists()


def _suppress(which: dict[str, str], written: dict[str, str]) -> None:
    """Write down that the customer did not want to hear it, unless it was begun when they did."""
    _, is_new = Notification.objects.get_or_create(
        **which, defaults={**written, "status": Notification.Status.SUPPRESSED}
    )
    if is_new:
        telemetry.emit("notification.suppressed", channel=which["channel"], message_id=which["message_id"])


def _describe(event: OrderEvent, *, channel: str) -> dict[str, str]:
    rendered = rendering.render(event, channel=channel)
    return {
        "order_id": event.order_id,
        "order_number": event.order_number,
        "template": rendering.TEMPLATES[type(event)],
        "subject": rendered.subject,
        "text": rendered.text,
        "html": rendered.html,
    }


def _sent_before(adapter: ports.Channel, claimed: Notification) -> str:
    """The provider's id of what an earlier try has sent without our knowing; empty if there is none."""
    if not claimed.was_open:
        return ""
    found = adapter.find(claimed)
    known = set(
        Notification.objects.filter(provider_message_id__in=found).values_list("provider_message_id", flat=True)
    )
    adopted = next((provider_id for provider_id in found if provider_id not in known), "")
    if adopted:
        telemetry.emit("notification.adopted", channel=claimed.channel, message_id=str(claimed.message_id))
    return adopted


def _note_sent(claimed: Notification, provider_message_id: str) -> bool:
    changed = Notification.objects.filter(pk=claimed.pk, version=claimed.version).update(
        status=Notification.Status.SENT,
        provider_message_id=provider_message_id,
        outcome_open=False,
        lease_until=None,
        error="",
        sent_at=Now(),
    )
    fact = "notification.sent" if changed else "step.fenced"
    telemetry.emit(fact, channel=claimed.channel, message_id=str(claimed.message_id))
    return bool(changed)


@contextlib.contextmanager
def _noting_failure(claimed: Notification) -> Iterator[None]:
    """Let go of the claim when the call fails, with what is known about whether it reached the provider."""
    try:
        yield
    except BaseException as failure:
        crash_points.reached("notification.call_failed")
        # An open outcome stays open until a look-up or a success settles it.
        unsent = isinstance(failure, Permanent | Transient) and not isinstance(failure, ports.OutcomeUnknown)
        unknown = isinstance(failure.__cause__, ports.OutcomeUnknown)  # the breaker wraps what opened it
        Notification.objects.filter(pk=claimed.pk, version=claimed.version).update(
            status=Notification.Status.PENDING if unsent and not unknown else Notification.Status.SENDING,
            outcome_open=claimed.was_open or not unsent or unknown,
            lease_until=None,
            error=f"{type(failure).__name__}: {failure}",
        )
        crash_points.reached("notification.let_go")
        raise
