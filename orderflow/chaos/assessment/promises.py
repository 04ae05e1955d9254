"""
The promises to the client, compared with the database and with the providers' own ledgers.

Only the client knows which responses it received, and only the providers know what really happened. Each
finding names the broken rule and its subject.
"""

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import json
from collections.abc import Iterable, Sequence
from typing import Any

import requests
from django.conf import settings

from notifications.models import Notification
from orderflow.chaos.load.client import Placed
from orders.models import Order
from outbox import registry
from outbox.broker import dispatch
from outbox.command_lines import counted
from outbox.models import DeadLetter, OutboxMessage

PATIENCE = 30.0
"""Seconds to wait for a ledger."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finding:
    """A broken promise: the rule, its subject, and what was observed."""

    rule: str
    subject: str
    detail: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.subject}: {self.detail}"

    def as_json(self) -> dict[str, str]:
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ledgers:
    """The records of the providers: lists of entries from the sandbox."""

    charges: Sequence[dict[str, Any]]
    refunds: Sequence[dict[str, Any]]
    shipments: Sequence[dict[str, Any]]
    texts: Sequence[dict[str, Any]]
    mails: Sequence[dict[str, Any]]
    pushes: Sequence[dict[str, Any]]

    @classmethod
    def read(cls, *, mail_url: str) -> Ledgers:
        """Read the ledgers of all providers; with an empty `mail_url`, without the mail server's."""
        payments = settings.STRIPE_API_BASE
        return cls(
            charges=[entry for entry in _ledger(payments, "payment_intent") if entry["status"] == "succeeded"],
            refunds=_ledger(payments, "refund"),
            shipments=_ledger(settings.WAREHOUSE_URL, "shipment"),
            texts=_ledger(settings.TWILIO_API_BASE, "sms"),
            mails=_ledger(mail_url, "email") if mail_url else [],
            pushes=_ledger(settings.FCM_API_BASE, "push"),
        )


def check(placed: Sequence[Placed], ledgers: Ledgers) -> list[Finding]:
    """Compare the responses to the client with what exists, was charged, shipped and sent."""
    found: list[Finding] = []
    orders = {str(order.pk): order for order in _orders(placed)}
    references = collections.Counter(order.client_reference for order in orders.values())
    charges, shipments = _by_order(ledgers.charges), _by_order(ledgers.shipments)
    refunds = collections.Counter[str]()
    for refund in ledgers.refunds:
        refunds[str(refund["payment_intent"])] += int(refund["amount"])
    for one in placed:
        found += _client_side(one, orders, references)
    for order_id, order in orders.items():
        found += _provider_side(order, charges[order_id], shipments[order_id], refunds)
    found += _sent_twice(ledgers)
    return found


def unanswered(placed: Sequence[Placed]) -> list[Finding]:
    """The requests that never got a response, however often they were repeated."""
    return [
        Finding(
            rule="no answer",
            subject=one.planned.key,
            detail=f"{counted(len(one.tries), 'try', 'tries')}; {_last(one)}",
        )
        for one in placed
        if not one.is_answered
    ]


def unsent_notifications(placed: Sequence[Placed]) -> list[Finding]:
    """The notifications of the orders' messages that are unfinished: neither sent nor given up."""
    orders = {str(order.pk): order.number for order in _orders(placed)}
    ended = collections.Counter(
        str(message_id)
        for message_id in Notification.objects.filter(order_id__in=orders)
        .exclude(status__in=[Notification.Status.PENDING, Notification.Status.SENDING])
        .values_list("message_id", flat=True)
    )
    return [
        Finding(
            rule="notification not sent",
            subject=orders[row.key],
            detail=f"{row.event_name} {row.pk}: {ended[str(row.pk)]} of {due} notifications have ended",
        )
        for row in OutboxMessage.objects.filter(key__in=orders).order_by("pk")
        if ended[str(row.pk)] < (due := _notifications_of(row))
    ]


def dead_letters(*, since: dt.datetime) -> list[Finding]:
    """
    The dead letters since then. None is expected: every fault of a drill is temporary, and none of its orders
    is meant to fail for a technical reason.
    """
    return [
        Finding(
            rule="dead letter",
            subject=dead_letter.key or str(dead_letter.message_id),
            detail=f"{dead_letter.pk}: {dead_letter.consumer}: "
            f"{dead_letter.error_class}: {dead_letter.error[:200]}",
        )
        for dead_letter in DeadLetter.objects.unresolved().filter(buried_at__gte=since).order_by("pk")
    ]


def repeats(ledgers: Ledgers) -> dict[str, int]:
    """The number of duplicate mails and pushes. Their providers do not honour idempotency keys."""
    pushes = collections.Counter(_push_identity(push) for push in ledgers.pushes)
    return {
        "mails": sum(int(mail["duplicates"]) for mail in ledgers.mails),
        "pushes": sum(count - 1 for count in pushes.values()),
    }


def _client_side(
    one: Placed, orders: dict[str, Order], references: collections.Counter[str]
) -> Iterable[Finding]:
    reference = str(one.planned.body["client_reference"])
    if references[reference] > 1:
        yield Finding(rule="placed twice", subject=reference, detail=f"{references[reference]} orders")
    if one.refused:
        yield Finding(rule="refused", subject=reference, detail=one.refused)
    if not one.is_accepted:
        return
    order = orders.get(one.order_id)
    if order is None:
        yield Finding(rule="lost", subject=one.order_number, detail="accepted, but not in the database")
    elif not order.is_final:
        yield Finding(rule="not final", subject=order.number, detail=f"{order.status}, due {order.due_at}")
    elif order.status != order.Status.FULFILLED and one.planned.kind == "good":
        yield Finding(rule="wrong end", subject=order.number, detail=f"{order.status}: {order.reason}")
    elif one.cancellation == 202 and order.status not in (order.Status.CANCELLED, order.Status.FULFILLED):
        yield Finding(rule="wrong end", subject=order.number, detail=f"{order.status}, should be cancelled")


def _provider_side(
    order: Order,
    charges: Sequence[dict[str, Any]],
    shipments: Sequence[dict[str, Any]],
    refunds: collections.Counter[str],
) -> Iterable[Finding]:
    if len(charges) > 1:
        ids = ", ".join(str(charge["id"]) for charge in charges)
        yield Finding(rule="charged twice", subject=order.number, detail=ids)
    if len(shipments) > 1:
        ids = ", ".join(str(shipment["id"]) for shipment in shipments)
        yield Finding(rule="shipped twice", subject=order.number, detail=ids)
    if not order.is_final:
        return
    kept = sum(int(charge["amount_received"]) - refunds[str(charge["id"])] for charge in charges)
    owed = order.total_minor if order.status == order.Status.FULFILLED else 0
    if kept != owed:
        yield Finding(
            rule="wrong amount",
            subject=order.number,
            detail=f"{order.status}: the provider kept {kept}, {owed} is owed",
        )
    parcels = 1 if order.status == order.Status.FULFILLED else 0
    if len(shipments) < parcels:
        yield Finding(rule="not shipped", subject=order.number, detail="fulfilled without a parcel")
    if len(shipments) > parcels == 0:
        yield Finding(rule="shipped in vain", subject=order.number, detail=f"{order.status}, but shipped")


def _sent_twice(ledgers: Ledgers) -> Iterable[Finding]:
    """An SMS can be looked up before it is sent again, so no customer gets the same one twice."""
    texts = collections.Counter((str(text["to"]), str(text["body"])) for text in ledgers.texts)
    for (recipient, body), count in texts.items():
        if count > 1:
            yield Finding(rule="SMS sent twice", subject=recipient, detail=f"{count} times: {body[:80]}")


def _orders(placed: Sequence[Placed]) -> list[Order]:
    """The drill's orders, whether or not the client received their ids."""
    return list(
        Order.objects.filter(client_reference__in=[one.planned.body["client_reference"] for one in placed])
    )


def _notifications_of(row: OutboxMessage) -> int:
    """The number of notifications that a message causes: one per task that its workflows start."""
    message = row.message(registry.load(row.event_name, row.event_version, row.payload))
    handlers = registry.workflows_for(message.event, only=["notifications."]).values()
    canvases = [canvas for handler in handlers if (canvas := handler(message)) is not None]
    return sum(len(list(dispatch.signatures_in(canvas))) for canvas in canvases)


def _by_order(entries: Sequence[dict[str, Any]]) -> collections.defaultdict[str, list[dict[str, Any]]]:
    grouped: collections.defaultdict[str, list[dict[str, Any]]] = collections.defaultdict(list)
    for entry in entries:
        grouped[str(entry.get("order_id") or (entry.get("metadata") or {}).get("order_id") or "")].append(entry)
    return grouped


def _ledger(url: str, kind: str) -> list[dict[str, Any]]:
    session = requests.Session()
    session.trust_env = False
    session.auth = ("sandbox", settings.SANDBOX_PASSWORD)
    answer = session.get(f"{url}/_ledger", params={"kind": kind, "format": "ndjson"}, timeout=PATIENCE)
    answer.raise_for_status()
    return [json.loads(line) for line in answer.text.splitlines()]


def _push_identity(push: dict[str, Any]) -> str:
    return json.dumps([push[name] for name in ("token", "title", "body", "data")], sort_keys=True)


def _last(one: Placed) -> str:
    last = one.tries[-1]
    return last.error or f"last answer {last.status}"
