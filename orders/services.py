"""
The operations on orders that others may request: place one, cancel one.

The steps that follow are in `steps`; `sweep` resumes late orders.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from django.db import transaction
from django.db.models import Value
from django.db.models.functions import Now

from orders import contracts, moves, placing
from orders.dead_letters import needless
from orders.models import IdempotencyRecord, Order, OrderLine, Product
from orders.transitions import STEP_DEADLINE, placed
from outbox import context, crash_points, publisher, telemetry

COUNTRY = re.compile(r"[A-Z]{2}", re.ASCII)
"""ISO 3166-1 alpha-2, as warehouses require it."""


class UnknownProduct(Exception):
    """The order contains unknown products; `skus` lists them."""

    def __init__(self, skus: Sequence[str]) -> None:
        super().__init__(f"there is no product {', '.join(skus)}")
        self.skus = list(skus)


class MixedCurrencies(Exception):
    """The order's products are not all priced in the order's currency."""


class NotShippable(Exception):
    """The order lacks what the warehouse needs to ship it; the message says what."""


class NotChargeable(Exception):
    """The payment provider cannot charge the order's total; the message says why."""


class KeyInUse(Exception):
    """Another request with this idempotency key is in progress."""


class KeyReused(Exception):
    """The idempotency key was used before, for a different request."""


class NotCancellable(Exception):
    """The order has been shipped or has ended; it can no longer be cancelled."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Contact:
    """The customer's contact; an empty address disables that channel."""

    name: str = ""
    email: str = ""
    phone: str = ""
    push_token: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Item:
    """A quantity of one product; `unit_price_minor` overrides the current price, for orders taken elsewhere."""

    sku: str
    quantity: int
    unit_price_minor: int | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class IdempotencyKey:
    """A client's key: its scope, and the fingerprint of its request."""

    scope: str
    key: str
    fingerprint: str

    @classmethod
    def of(cls, *, scope: str, key: str, request: Any) -> IdempotencyKey:
        """Fingerprint a request by its canonical JSON."""
        canonical = json.dumps(request, sort_keys=True, separators=(",", ":"), default=str)
        return cls(scope=scope, key=key, fingerprint=hashlib.sha256(canonical.encode()).hexdigest())


@dataclasses.dataclass(frozen=True, kw_only=True)
class OrderRequest:
    """A request for an order, with its key."""

    items: Sequence[Item]
    currency: str
    payment_method: str
    contact: Contact
    idempotency: IdempotencyKey
    country: str
    """ISO 3166-1 alpha-2. Required for shipping."""
    source: str = "api"
    client_id: int | None = None
    """The API client that owns the order; None if there is none."""
    client_reference: str = ""
    placed_at: dt.datetime | None = None
    """None: now. Set for orders that were taken elsewhere."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Placement:
    """The order of a key, the response to its request, and whether this call only repeated it."""

    order: Order
    answer: dict[str, Any]
    replayed: bool


Answer: TypeAlias = Callable[[Order, Sequence[OrderLine]], dict[str, Any]]
"""The client's response for an order that is about to be written; its lines are not in the database yet."""


def no_answer(order: Order, lines: Sequence[OrderLine]) -> dict[str, Any]:
    """For callers that need no response."""
    return {}


Refusal: TypeAlias = Callable[[int, str], str]
"""Why an amount of a currency cannot be charged; empty if it may be. The payment provider's adapter knows."""


def no_refusal(amount_minor: int, currency: str) -> str:
    """For callers that leave it to the validation step."""
    return ""


def place_order(
    *,
    items: Sequence[Item],
    currency: str,
    payment_method: str,
    contact: Contact,
    idempotency: IdempotencyKey,
    country: str,
    source: str = "api",
    client_id: int | None = None,
    client_reference: str = "",
    placed_at: dt.datetime | None = None,
    answer: Answer = no_answer,
    refusal: Refusal = no_refusal,
) -> Placement:
    """
    Place an order, or return the one that this key placed before.

    The order, its lines, its history, the idempotency record with the result of `answer`, and `OrderPlaced` are
    written in one transaction. Items of the same product at the same price are merged.

    Raises:
        KeyInUse: if a request with the same key is in progress; trying again shortly is safe.
        KeyReused: if the key was used for a different request.
        UnknownProduct, MixedCurrencies: if the items cannot be ordered; nothing was written.
        NotShippable: if the country is invalid; nothing was written.
        NotChargeable: if there is a `refusal` of the total; nothing was written.
    """
    order_request = OrderRequest(
        items=items,
        currency=currency,
        payment_method=payment_method,
        contact=contact,
        idempotency=idempotency,
        country=country,
        source=source,
        client_id=client_id,
        client_reference=client_reference,
        placed_at=placed_at,
    )
    try:
        placement = _place_alone(order_request, answer, refusal)
    except placing.KeyTaken:
        placement = _place_alone(order_request, answer, refusal)
    crash_points.reached("order.placed")
    return placement


def place_orders(
    order_requests: Sequence[OrderRequest], *, answer: Answer = no_answer, refusal: Refusal = no_refusal
) -> list[Placement]:
    """
    Place orders as `place_order` does, all of them within the caller's transaction, or none.

    Their keys must differ. A refusal aborts the transaction.

    Raises:
        orders.placing.KeyTaken: if a key was used at this very moment; in a new transaction it is found.
        KeyInUse, KeyReused, UnknownProduct, MixedCurrencies, NotShippable, NotChargeable: as for `place_order`.
    """
    known = placing.ask(
        [(order_request.idempotency.scope, order_request.idempotency.key) for order_request in order_requests],
        {item.sku for order_request in order_requests for item in order_request.items},
    )
    placements: list[Placement] = []
    drafts: list[tuple[placing.Draft, context.Context]] = []
    for order_request, key in zip(order_requests, known.keys, strict=True):
        if key.record:
            placements.append(_recall(order_request.idempotency, key.record))
        elif key.held:
            with context.ensure(actor=order_request.idempotency.scope) as work:
                draft = _draft(order_request, key, known, answer, refusal)
            drafts.append((draft, work))
            placements.append(Placement(order=draft.order, answer=draft.record.answer, replayed=False))
        else:
            raise KeyInUse(order_request.idempotency.key)
    if drafts:
        placing.write([draft for draft, _ in drafts])
    for draft, work in drafts:
        order = draft.order
        with context.bind(work):
            telemetry.emit("order.moved", order_id=str(order.pk), before="", after=str(order.status))
    return placements


def request_cancellation(*, order_id: Any, requested_by: str) -> Order:
    """
    Request the cancellation of an order; repeating it changes nothing. The workflow does the rest.

    A running step is not interrupted: if it ships the order first, the order stays shipped.

    Raises:
        NotCancellable: if the order is shipped or has ended in another way.
        Order.DoesNotExist: if there is no such order.
    """
    with transaction.atomic(durable=True):
        order = Order.objects.select_for_update(no_key=True).get(pk=order_id)
        if order.cancel_requested_at or order.status in (moves.Status.CANCELLING, moves.Status.CANCELLED):
            return order
        if order.status not in moves.CANCELLABLE:
            raise NotCancellable(f"{order.number} is {order.status}")
        ask_to_cancel(order, requested_by=requested_by)
    crash_points.reached("cancellation.requested")
    return Order.objects.get(pk=order.pk)


def ask_to_cancel(order: Order, *, requested_by: str) -> None:
    """Request the cancellation of an order that the caller has locked and that can be cancelled."""
    message_id = publisher.publish(contracts.CancellationRequested.of(order, requested_by=requested_by))
    # The version stays: a charge in progress must still be able to record its result.
    Order.objects.filter(pk=order.pk).update(
        cancel_requested_at=Now(), message_id=message_id, due_at=Now() + Value(STEP_DEADLINE)
    )
    needless.close_needless(order)
    said = {"order_id": str(order.pk), "by": requested_by}
    transaction.on_commit(lambda: telemetry.emit("order.cancellation_requested", **said))


def _place_alone(order_request: OrderRequest, answer: Answer, refusal: Refusal) -> Placement:
    with context.ensure(actor=order_request.idempotency.scope), transaction.atomic(durable=True):
        return place_orders([order_request], answer=answer, refusal=refusal)[0]


def _recall(idempotency: IdempotencyKey, record: placing.Record) -> Placement:
    if record.fingerprint != idempotency.fingerprint:
        raise KeyReused(idempotency.key)
    return Placement(order=Order.objects.get(pk=record.order_id), answer=record.answer, replayed=True)


def _draft(
    order_request: OrderRequest, key: placing.Key, known: placing.Known, answer: Answer, refusal: Refusal
) -> placing.Draft:
    if not COUNTRY.fullmatch(order_request.country):
        raise NotShippable("the country must be two capital letters, as in GB")
    lines = _lines(order_request, known.products)
    total_minor = sum(line.total_minor for line in lines)
    if reason := refusal(total_minor, order_request.currency):
        raise NotChargeable(reason)
    order = Order(
        number=f"OF-{key.number}",
        source=order_request.source,
        client_id=order_request.client_id,
        client_reference=order_request.client_reference,
        customer_name=order_request.contact.name,
        customer_email=order_request.contact.email,
        customer_phone=order_request.contact.phone,
        customer_push_token=order_request.contact.push_token,
        country=order_request.country,
        payment_method=order_request.payment_method,
        currency=order_request.currency,
        total_minor=total_minor,
        correlation_id=context.current().correlation_id,
        placed_at=order_request.placed_at or known.now,
        due_at=known.now + STEP_DEADLINE,
    )
    for line in lines:
        line.order = order
    [message] = publisher.messages([contracts.OrderPlaced.of(order)])
    order.message_id = message.pk
    record = IdempotencyRecord(
        scope=order_request.idempotency.scope,
        key=order_request.idempotency.key,
        fingerprint=order_request.idempotency.fingerprint,
        order=order,
        answer=answer(order, lines),
    )
    return placing.Draft(order=order, lines=lines, transition=placed(order), message=message, record=record)


def _lines(order_request: OrderRequest, products: Mapping[str, Product]) -> list[OrderLine]:
    if unknown := sorted({item.sku for item in order_request.items} - products.keys()):
        raise UnknownProduct(unknown)
    lines: dict[tuple[str, int], OrderLine] = {}
    for item in order_request.items:
        product = products[item.sku]
        if product.currency != order_request.currency:
            raise MixedCurrencies(
                f"{product.sku} is priced in {product.currency}, the order in {order_request.currency}"
            )
        price = product.price_minor if item.unit_price_minor is None else item.unit_price_minor
        line = lines.setdefault(
            (item.sku, price), OrderLine(product=product, quantity=0, unit_price_minor=price)
        )
        line.quantity += item.quantity
    return list(lines.values())
