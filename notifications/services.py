"""Sends notifications: claims one, calls the provider between transactions, and records the result."""

from __future__ import annotations

import contextlib
import datetime as dt
import uuid
from collections.abc import Iterator
from typing import Any

from django.conf import settings
from django.db import connection, transaction
from django.db.models import F, Value
from django.db.models.functions import Now

from notifications import channels, ports, rendering
from notifications.models import Channel, Notification, Preference
from orders.contracts import OrderEvent
from outbox import crash_points, endings, registry, telemetry
from outbox.database import storable
from outbox.models import DeadLetter, OutboxMessage, Restore
from outbox.resilience import NotNow, Permanent, Transient
from outbox.worker import losses

LEASE = dt.timedelta(seconds=25)
"""Longer than the hard time limit of a task, so a running task always holds its claim."""

ENTERED_WITHIN = dt.timedelta(days=1)
"""How long after a restore an order's messages may repeat notifications from the lost time."""

ADDRESSES = {
    Channel.EMAIL: "customer_email",
    Channel.SMS: "customer_phone",
    Channel.PUSH: "customer_push_token",
}


class HeldAfterRestore(Permanent):
    """A notification may have been sent in the time that a restore has lost; a person decides."""


def address_of(event: OrderEvent, channel: str) -> str:
    """Return the customer's address for `channel`; empty if there is none."""
    return str(getattr(event, ADDRESSES[Channel(channel)])).strip()


def deliver(*, channel: str, message_id: str) -> bool:
    """
    Notify the customer of a message through one channel; return False if there is nothing to do.

    Raises:
        NotNow: while another worker holds the notification.
        outbox.resilience.Transient: if the provider cannot accept it now.
        outbox.resilience.Permanent: if the provider will never accept it.
    """
    event, is_wanted, sent_since = _read(message_id, channel=channel)
    recipient = address_of(event, channel)
    if not recipient:
        return False
    claimed = _claim(event, is_wanted, channel=channel, message_id=message_id, recipient=recipient)
    if claimed is None:
        return False
    crash_points.reached("notification.claimed")
    adapter = channels.get(channel)
    with _recording_failure(claimed):
        provider_message_id = _sent_before(adapter, claimed, since=sent_since)
        if not provider_message_id:
            if sent_since:
                _hold_back(claimed)
            provider_message_id = adapter.send(claimed)
    crash_points.reached("notification.answered")
    return _record_sent(claimed, provider_message_id)


def mark_failed(*, channel: str, message_id: str = "", **_: Any) -> None:
    """Mark a notification as failed, in the transaction that buries its message. The order does not change."""
    try:
        message = uuid.UUID(message_id)
    except ValueError:
        return
    Notification.objects.unfinished().filter(message_id=message, channel=channel).update(
        status=Notification.Status.FAILED, lease_until=None
    )


def _read(message_id: str, *, channel: str) -> tuple[OrderEvent, bool, dt.datetime | None]:
    """
    Return the event, whether its customer wants notifications through this channel, and `sent_since`.

    `sent_since` is set for an order from before a restore: since then, the notification may have been sent
    without a record in the database, because later messages of the order may have had other ids.

    Raises:
        OutboxMessage.DoesNotExist: if the message was pruned.
    """
    with connection.cursor() as cursor:
        values: dict[str, Any] = {"message_id": message_id, "channel": str(channel), "span": ENTERED_WITHIN}
        cursor.execute(READ, values)
        row = cursor.fetchone()
    if row is None:
        raise OutboxMessage.DoesNotExist(f"there is no message {message_id}")
    name, version, payload, is_wanted, sent_since = row
    event = registry.load(name, version, payload)
    assert isinstance(event, OrderEvent)
    return event, is_wanted, sent_since


# The addresses are compared as in the index.
READ = f"""
SELECT event_name, event_version, payload::json, NOT EXISTS (
    SELECT FROM {Preference._meta.db_table} AS preference
    WHERE lower(preference.email) = lower(message.payload ->> 'customer_email')
      AND preference.channel = %(channel)s AND NOT preference.enabled
), (
    SELECT min(of_order.created_at) FROM {OutboxMessage._meta.db_table} AS of_order
    WHERE of_order.key = message.key
      AND EXISTS (SELECT FROM {Restore._meta.db_table} WHERE noted_at > message.created_at - %(span)s)
    HAVING min(of_order.created_at) < (SELECT max(noted_at) FROM {Restore._meta.db_table})
)
FROM {OutboxMessage._meta.db_table} AS message WHERE message.id = %(message_id)s
"""  # noqa: S608 - our own tables


def _claim(
    event: OrderEvent, is_wanted: bool, *, channel: str, message_id: str, recipient: str
) -> Notification | None:
    """Claim the notification for one try; create it if this is the first try."""
    which = {"message_id": message_id, "channel": channel, "recipient": recipient}
    written = _describe(event, channel=channel)
    if is_wanted:
        if first := Notification.objects.write_claimed(lease=LEASE, **which, **written):
            return first
    else:
        _suppress(which, written)
    with transaction.atomic(durable=True):
        notification = Notification.objects.get(**which)
        if _given_up(notification):
            return None
        claimed = Notification.objects.claim(notification.pk, lease=LEASE)
        if claimed and claimed.was_abandoned:
            losses.found_abandoned()  # in the same transaction: a worker that dies after the claim is counted
        if claimed:
            return claimed
        held = Notification.objects.filter(
            pk=notification.pk, status=Notification.Status.SENDING, lease_until__isnull=False
        )
        rest = held.values_list(F("lease_until") - Now(), flat=True).first()
    if rest is not None:
        # Returning False would lose the notification if that worker has died.
        rest = max(rest, dt.timedelta(seconds=1))
        raise NotNow(f"another worker is sending {notification}", retry_after=rest)
    return None


def _given_up(notification: Notification) -> bool:
    """Whether it was given up and not replayed: another copy of its message must not try again."""
    if notification.status != Notification.Status.FAILED:
        return False
    dead_letters = DeadLetter.objects.filter(
        message_id=notification.message_id, consumer=f"notifications.tasks.send_{notification.channel}"
    )
    last = dead_letters.order_by("-pk").values_list("resolution", flat=True).first()
    return last in (DeadLetter.Resolution.OPEN, DeadLetter.Resolution.DISCARDED)


def _suppress(which: dict[str, str], written: dict[str, str]) -> None:
    """Record that the customer does not want it, unless it was begun before they opted out."""
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


def _sent_before(adapter: ports.ChannelAdapter, claimed: Notification, *, since: dt.datetime | None) -> str:
    """The provider's id of a notification sent without a record, by an earlier try or before a restore."""
    if not claimed.was_open and not since:
        return ""
    found = adapter.find(claimed, since=min(since or claimed.created_at, claimed.created_at))
    known = set(
        Notification.objects.filter(provider_message_id__in=found).values_list("provider_message_id", flat=True)
    )
    adopted = next((provider_id for provider_id in found if provider_id not in known), "")
    if adopted:
        telemetry.emit("notification.adopted", channel=claimed.channel, message_id=str(claimed.message_id))
    return adopted


def _hold_back(claimed: Notification) -> None:
    """
    Let a person decide about a notification that may have been sent before a restore, without a look-up.

    Raises:
        HeldAfterRestore: unless the settings or that person allow to send it.
    """
    if settings.NOTIFICATIONS_AFTER_RESTORE == "send" or channels.get(claimed.channel).can_look_up:
        return
    if not Restore.objects.filter(is_failover=False, noted_at__gt=Now() - Value(ENTERED_WITHIN)).exists():
        return  # a standby took over: notifications of the last seconds may be sent again, as after a crash
    held = DeadLetter.objects.filter(
        message_id=claimed.message_id,
        consumer=f"notifications.tasks.send_{claimed.channel}",
        error_class=HeldAfterRestore.__name__,
    )
    if not held.exclude(resolution__in=[DeadLetter.Resolution.OPEN, DeadLetter.Resolution.DISCARDED]).exists():
        raise HeldAfterRestore(
            f"{claimed} may have been sent before the database was restored, and the provider has no look-up: "
            "replay to send it, discard to skip it"
        )


def _record_sent(claimed: Notification, provider_message_id: str) -> bool:
    values: dict[str, Any] = {
        "id": claimed.pk,
        "version": claimed.version,
        "provider_message_id": storable.identifier(provider_message_id),
    }
    end, of_delivery = endings.statement("sent")
    with connection.cursor() as cursor:
        cursor.execute(SENT.format(end=end), values | of_delivery)
        changed = cursor.rowcount
    if changed:
        endings.recorded()
    signal = "notification.sent" if changed else "step.fenced"
    telemetry.emit(signal, channel=claimed.channel, message_id=str(claimed.message_id))
    return bool(changed)


SENT = f"""
WITH sent AS (
    UPDATE {Notification._meta.db_table}
    SET status = 'sent', provider_message_id = %(provider_message_id)s, outcome_open = FALSE,
        lease_until = NULL, error = '', sent_at = statement_timestamp()
    WHERE id = %(id)s AND version = %(version)s
    RETURNING id
), ended AS ({{end}})
SELECT id FROM sent
"""  # noqa: S608 - our own table


@contextlib.contextmanager
def _recording_failure(claimed: Notification) -> Iterator[None]:
    """Release the claim if the call fails, and record whether it may have reached the provider."""
    try:
        yield
    except BaseException as failure:
        crash_points.reached("notification.call_failed")
        # An open outcome stays open until a look-up or a success resolves it.
        unsent = isinstance(failure, Permanent | Transient) and not isinstance(failure, ports.OutcomeUnknown)
        unknown = isinstance(failure.__cause__, ports.OutcomeUnknown)  # the breaker wraps what opened it
        Notification.objects.filter(pk=claimed.pk, version=claimed.version).update(
            status=Notification.Status.PENDING if unsent and not unknown else Notification.Status.SENDING,
            outcome_open=claimed.was_open or not unsent or unknown,
            lease_until=None,
            error=storable.described(failure),
        )
        crash_points.reached("notification.let_go")
        raise
