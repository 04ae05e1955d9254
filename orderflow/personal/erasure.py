"""
Replacing a customer's contact data in everything that the database keeps about their orders.

Amounts, products, times, statuses, providers' ids and keys stay, so that the books can still be verified.
Pending work needs the contact, so an order is erased only when none of its work is in progress. Erasing again,
as after a restore, is harmless.
"""

from __future__ import annotations

import dataclasses
import secrets
import uuid
from collections.abc import Iterator
from typing import Any

from django.apps import apps
from django.contrib.admin.models import LogEntry
from django.db import models, transaction
from django.db.models import Q, QuerySet
from django.db.models.functions import Cast, Lower

from notifications.models import Notification, Preference
from orderflow.personal.contact import ERASED, FIELDS, Contact
from orders.models import IdempotencyRecord, Order, OrderTransition, Payment, Refund, Shipment
from outbox import telemetry
from outbox.models import Attempt, DeadLetter, Delivery, OutboxMessage, Replay, ReplayCampaign

FREE_TEXTS = (models.TextField, models.JSONField)
"""
Fields that are searched for names, too; in others, such as a consumer's, a name may be one of our own words.
"""


@dataclasses.dataclass(frozen=True)
class Erased:
    """The result for one order."""

    number: str
    waits_for: str = ""
    """Why its data stays for now; empty if it was replaced."""
    history: int = 0
    """History entries, which are immutable, whose note names the customer."""


def orders_of(*, email: str = "", number: str = "") -> list[uuid.UUID]:
    """The orders of an e-mail address, ignoring case, or the one with this number."""
    wanted = Q(number=number.upper()) if number else Q(address=email.strip().lower())
    found = Order.objects.annotate(address=Lower("customer_email")).filter(wanted)
    return list(found.order_by("placed_at", "id").values_list("pk", flat=True))


def erase(order_id: uuid.UUID, *, by: str) -> Erased:
    """Replace the contact data of one order, in one transaction, or return what must happen first."""
    with transaction.atomic(durable=True):
        order = Order.objects.select_for_update().get(pk=order_id)
        messages = OutboxMessage.objects.select_for_update().filter(key=str(order_id))
        ids = [*messages.values_list("pk", flat=True), order.message_id]
        if waits_for := _under_way(order, ids):
            return Erased(order.number, waits_for)
        contact = Contact.of([{name: getattr(order, name) for name in FIELDS}, *_payloads_of(messages)])
        for rows in _rows(order, ids, contact):
            scrub(rows, contact)
        _replace(order, messages, contact)
        history = sum(
            contact.without(note) != note
            for note in OrderTransition.objects.filter(order=order).values_list("note", flat=True)
        )
    telemetry.emit("customer.erased", order_id=str(order_id), by=by)
    return Erased(order.number, history=history)


def forget_address(email: str) -> None:
    """Delete the notification preferences of an address that no order has any more."""
    if email and not Order.objects.annotate(address=Lower("customer_email")).filter(address=email.lower()):
        Preference.objects.annotate(address=Lower("email")).filter(address=email.lower()).delete()


def scrub(rows: QuerySet[Any], contact: Contact) -> int:
    """
    Remove the contact from all texts and JSON of these rows, except ids; return the number of changed rows.
    """
    fields = [field for field in rows.model._meta.concrete_fields if _may_hold(field)]
    changed = 0
    for row in rows.select_for_update(of=("self",)):
        new = {field.attname: _scrubbed(field, getattr(row, field.attname), contact) for field in fields}
        if different := {name: value for name, value in new.items() if value != getattr(row, name)}:
            rows.model._default_manager.filter(pk=row.pk).update(**different)
            changed += 1
    return changed


def _under_way(order: Order, ids: list[uuid.UUID]) -> str:
    """What still needs the customer's contact, in words; empty if nothing does."""
    unfinished = Notification.objects.filter(order_id=order.pk).unfinished()
    undelivered = OutboxMessage.objects.filter(pk__in=ids, status__in=["pending", "parked"])
    if not order.is_final:
        return f"it is {order.get_status_display()}; let it end, or cancel it"
    dead_letters = DeadLetter.objects.unresolved().filter(Q(message_id__in=ids) | Q(key=str(order.pk)))
    if dead_letter := dead_letters.order_by("pk").first():
        return f"dead letter {dead_letter.pk} is {dead_letter.get_resolution_display()}; replay or discard it"
    if undelivered.exists() or Delivery.objects.filter(message_id__in=ids).exists() or unfinished.exists():
        return "some of its messages are in progress; try again in a minute"
    return ""


def _payloads_of(messages: QuerySet[OutboxMessage]) -> Iterator[dict[str, Any]]:
    for payload in messages.values_list("payload", flat=True):
        if isinstance(payload, dict):
            yield payload


def _rows(order: Order, ids: list[uuid.UUID], contact: Contact) -> Iterator[QuerySet[Any]]:
    """All rows whose texts, errors or tracebacks may contain the contact."""
    dead_letters = DeadLetter.objects.filter(
        Q(message_id__in=ids) | Q(key=str(order.pk)) | Q(pk__in=_naming(contact))
    )
    replays = Replay.objects.filter(dead_letter__in=list(dead_letters.values_list("pk", flat=True)))
    yield Order.objects.filter(pk=order.pk)
    yield Payment.objects.filter(order=order)
    yield Refund.objects.filter(payment__order=order)
    yield Shipment.objects.filter(order=order)
    yield IdempotencyRecord.objects.filter(order=order)
    yield Notification.objects.filter(order_id=order.pk)
    yield OutboxMessage.objects.filter(pk__in=ids)
    yield Attempt.objects.filter(message_id__in=ids)
    yield dead_letters
    yield ReplayCampaign.objects.filter(pk__in=list(replays.values_list("campaign", flat=True)))
    objects = [str(order.pk), *map(str, dead_letters.values_list("pk", flat=True))]
    yield LogEntry.objects.filter(object_id__in=objects)
    yield apps.get_model("django_celery_results", "TaskResult")._default_manager.filter(
        _mention(contact, "result", "traceback", "task_args", "task_kwargs")
    )


def _naming(contact: Contact) -> list[int]:
    """Dead letters of unreadable messages: only their text shows whose they are."""
    unread = DeadLetter.objects.filter(message_id=None).annotate(
        body=Cast("payload", models.TextField()), head=Cast("headers", models.TextField())
    )
    return list(
        unread.filter(_mention(contact, "body", "head", "error", "traceback")).values_list("pk", flat=True)
    )


def _mention(contact: Contact, *fields: str) -> Q:
    found = Q(pk__in=[])
    for value in contact.others:
        for field in fields:
            found |= Q(**{f"{field}__icontains": value})
    return found


def _replace(order: Order, messages: QuerySet[OutboxMessage], contact: Contact) -> None:
    """Replace the fields for contact data, whatever they contain."""
    nothing = {name: ERASED if name == FIELDS[0] else "" for name in FIELDS}
    Order.objects.filter(pk=order.pk).update(**nothing, version=models.F("version") + 1)
    for message in messages:
        known = {name: value for name, value in nothing.items() if name in message.payload}
        OutboxMessage.objects.filter(pk=message.pk).update(payload=message.payload | known)
    for notification in Notification.objects.filter(order_id=order.pk).only("pk"):
        Notification.objects.filter(pk=notification.pk).update(
            recipient=f"erased-{notification.pk}", subject="", text="", html="", error=""
        )
    # The address can be guessed from the hash of a request. The key stays: its request is refused from now on.
    for record in IdempotencyRecord.objects.filter(order=order).only("pk"):
        IdempotencyRecord.objects.filter(pk=record.pk).update(fingerprint=secrets.token_hex(32), answer={})


def _may_hold(field: models.Field[Any, Any]) -> bool:
    is_text = isinstance(field, (models.CharField, *FREE_TEXTS))
    return is_text and not field.choices and not field.primary_key


def _scrubbed(field: models.Field[Any, Any], value: Any, contact: Contact) -> Any:
    if isinstance(field, models.JSONField):
        return contact.without_in(value)
    if not isinstance(value, str):
        return value
    text = contact.without(value, with_names=isinstance(field, FREE_TEXTS))
    return text if field.max_length is None else text[: field.max_length]
