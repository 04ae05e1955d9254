"""
What the outside may ask of orders: place one, cancel one.

The steps that follow a placed order are in `steps`, what takes up late ones in `sweep`.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from django.db import transaction
from django.db.models import Value
from django.db.models.functions import Now

from orders import contracts, moves, placing
from orders.models import IdempotencyRecord, Order, OrderLine, Product
from orders.transitions import STEP_DEADLINE, placed
from outbox import context, crash_points, publisher, telemetry


class UnknownProduct(Exception):
    """The order names products that do not exist; `skus` lists them."""

    def __init__(self, skus: Sequence[str]) -> None:
        super().__init__(f"there is no product {', '.join(skus)}")
        self.skus = list(skus)


class MixedCurrencies(Exception):
    """The order's products are not all priced in the order's currency."""


class KeyInUse(Exception):
    """Another request with this idempotency key is being worked on right now."""


class KeyReused(Exception):
    """The idempotency key was used before, for a different request."""


class NotCancellable(Exception):
    """The order has been shipped or has ended; it cannot be cancelled any more."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Contact:
    """How to reach the customer; an empty address means: not that way."""

    name: str = ""
    email: str = ""
    phone: str = ""
    push_token: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Item:
    """So many of one product; `unit_price_minor` overrides today's price, for orders taken elsewhere."""

    sku: str
    quantity: int
    unit_price_minor: int | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class IdempotencyKey:
    """A client's key: whose it is, and what the request it belongs to says."""

    scope: str
    key: str
    fingerprint: str

    @classmethod
    def of(cls, *, scope: str, key: str, request: Any) -> IdempotencyKey:
        """Fingerprint a request by its canonical JSON."""
        canonical = json.dumps(request, sort_keys=True, separators=(",", ":"), default=str)
        return cls(scope=scope, key=key, fingerprint=hashlib.sha256(canonical.encode()).hexdigest())


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wish:
    """An order as somebody asks for it, under a key."""

    items: Sequence[Item]
    currency: str
    payment_method: str
    contact: Contact
    idempotency: IdempotencyKey
    country: str = ""
    source: str = "api"
    client_reference: str = ""
    placed_at: dt.datetime | None = None
    """None: now. Said for orders that were taken elsewhere."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Placement:
    """The order a key stands for, the answer it got, and whether this call only repeated it."""

    order: Order
    answer: dict[str, Any]
    replayed: bool


Answer: TypeAlias = Callable[[Order, Sequence[OrderLine]], dict[str, Any]]
"""What the client of an order that is about to be written will be told; it has no lines in the database yet."""


def no_answer(order: Order, lines: Sequence[OrderLine]) -> dict[str, Any]:
    """For those who need none."""
    return {}


def place_order(
    *,
    items: Sequence[Item],
    currency: str,
    payment_method: str,
    contact: Contact,
    idempotency: IdempotencyKey,
    country: str = "",
    source: str = "api",
    client_reference: str = "",
    placed_at: dt.datetime | None = None,
    answer: Answer = no_answer,
) -> Placement:
    """
    Place an order, or return the one this key placed before.

    The order, its lines, its history, the idempotency record with what `answer` says and `OrderPlaced`
    are written in one transaction. Items of the same product at the same price merge.

    Raises:
        KeyInUse: if a request with the same key is in flight; trying again shortly is safe.
        KeyReused: if the key was used for a different request.
        UnknownProduct, MixedCurrencies: if the items cannot be ordered; nothing was written.
    """
    wish = Wish(
        items=items,
        currency=currency,
        payment_method=payment_method,
        contact=contact,
        idempotency=idempotency,
        country=country,
        source=source,
        client_reference=client_reference,
        placed_at=placed_at,
    )
    try:
        placement = _place_alone(wish, answer)
    except placing.KeyTaken:
        placement = _place_alone(wish, answer)
    crash_points.reached("order.placed")
    return placement


def place_orders(wishes: Sequence[Wish], *, answer: Answer = no_answer) -> list[Placement]:
    """
    Place orders as `place_order` does, all of them within the caller's transaction, or none.

    Their keys must differ. What is refused loses the transaction.

    Raises:
        orders.placing.KeyTaken: if a key was used at this very moment; in a new transaction it is found.
        KeyInUse, KeyReused, UnknownProduct, MixedCurrencies: as `place_order` does.
    """
    known = placing.ask(
        [(wish.idempotency.scope, wish.idempotency.key) for wish in wishes],
        {item.sku for wish in wishes for item in wish.items},
    )
    placements: list[Placement] = []
    drafts: list[tuple[placing.Draft, context.Context]] = []
    for wish, key in zip(wishes, known.keys, strict=True):
        if key.record:
            placements.append(_recall(wish.idempotency, key.record))
        elif key.held:
            with context.ensure(actor=wish.idempotency.scope) as work:
                draft = _draft(wish, key, known, answer)
            drafts.append((draft, work))
            placements.append(Placement(order=draft.order, answer=draft.record.answer, replayed=False))
        else:
            raise KeyInUse(wish.idempotency.key)
    if drafts:
        placing.write([draft for draft, _ in drafts])
    for draft, work in drafts:
        order = draft.order
        with context.bind(work):
            telemetry.emit("order.moved", order_id=str(order.pk), before="", after=str(order.status))
    return placements


def request_cancellation(*, order_id: Any, requested_by: str) -> Order:
    """
    Ask for an order to be cancelled; asking again changes nothing. The workflow does the rest.

    A step that is at work is not interrupted: if it ships the order first, the order stays shipped.

    Raises:
        NotCancellable: if the order is shipped or has ended otherwise.
        Order.DoesNotExist: if there is no such order.
    """
    with transaction.atomic(durable=True):
        order = Order.objects.select_for_update(no_key=True).get(pk=order_id)
        if order.cancel_requested_at or order.status in (moves.Status.CANCELLING, moves.Status.CANCELLED):
            return order
        if order.status not in moves.CANCELLABLE:
            raise NotCancellable(f"{order.number} is {order.status}")
        message_id = publisher.publish(
            contracts.CancellationRequested(**facts(order), requested_by=requested_by)
        )
        # The version stays: a charge on its way must still be able to say how it ended.
        Order.objects.filter(pk=order.pk).update(
            cancel_requested_at=Now(), message_id=message_id, due_at=Now() + Value(STEP_DEADLINE)
        )
    crash_points.reached("cancellation.requested")
    telemetry.emit("order.cancellation_requested", order_id=str(order.pk), by=requested_by)
    return Order.objects.get(pk=order.pk)


def facts(order: Order) -> dict[str, Any]:
    """What every event of the order says."""
    return {
        "order_id": str(order.pk),
        "order_number": order.number,
        "customer_name": order.customer_name,
        "customer_email": order.customer_email,
        "customer_phone": order.customer_phone,
        "customer_push_token": order.customer_push_token,
        "total_minor": order.total_minor,
        "currency": order.currency,
    }


def _place_alone(wish: Wish, answer: Answer) -> Placement:
    with context.ensure(actor=wish.idempotency.scope), transaction.atomic(durable=True):
        return place_orders([wish], answer=answer)[0]


def _recall(idempotency: IdempotencyKey, record: placing.Record) -> Placement:
    if record.fingerprint != idempotency.fingerprint:
        raise KeyReused(idempotency.key)
    return Placement(order=Order.objects.get(pk=record.order_id), answer=record.answer, replayed=True)


def _draft(wish: Wish, key: placing.Key, known: placing.Known, answer: Answer) -> placing.Draft:
    lines = _lines(wish, known.products)
    order = Order(
        number=f"OF-{key.number}",
        source=wish.source,
        client_reference=wish.client_reference,
        customer_name=wish.contact.name,
        customer_email=wish.contact.email,
        customer_phone=wish.contact.phone,
        customer_push_token=wish.contact.push_token,
        country=wish.country,
        payment_method=wish.payment_method,
        currency=wish.currency,
        total_minor=sum(line.total_minor for line in lines),
        correlation_id=context.current().correlation_id,
        placed_at=wish.placed_at or known.now,
        due_at=known.now + STEP_DEADLINE,
    )
    for line in lines:
        line.order = order
    [message] = publisher.messages([contracts.OrderPlaced(**facts(order))])
    order.message_id = message.pk
    record = IdempotencyRecord(
        scope=wish.idempotency.scope,
        key=wish.idempotency.key,
        fingerprint=wish.idempotency.fingerprint,
        order=order,
        answer=answer(order, lines),
    )
    return placing.Draft(order=order, lines=lines, transition=placed(order), message=message, record=record)


def _lines(wish: Wish, products: Mapping[str, Product]) -> list[OrderLine]:
    if unknown := sorted({item.sku for item in wish.items} - products.keys()):
        raise UnknownProduct(unknown)
    lines: dict[tuple[str, int], OrderLine] = {}
    for item in wish.items:
        product = products[item.sku]
        if product.currency != wish.currency:
            raise MixedCurrencies(
                f"{product.sku} is priced in {product.currency}, the order in {wish.currency}"
            )
        price = product.price_minor if item.unit_price_minor is None else item.unit_price_minor
        line = lines.setdefault(
            (item.sku, price), OrderLine(product=product, quantity=0, unit_price_minor=price)
        )
        line.quantity += item.quantity
    return list(lines.values())
