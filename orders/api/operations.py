"""The operations of the API: place, list, show and cancel orders."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import hashlib
import re
from collections.abc import Iterator
from typing import Annotated, Any

from django.db import DataError
from django.http import HttpRequest, HttpResponse
from ninja import Header, Path, Query, Router, Status

from orders import adapters, cards, queries, services
from orders.api import bodies, fields, representations, schemas
from orders.api.auth import BearerToken
from orders.api.problems import FieldError, Problem
from orders.clients import tokens
from orders.models import ApiToken, Order, OrderQuerySet
from outbox import context

router = Router(tags=["orders"])

PEOPLE_TAKE = "300"
"""Seconds after which a client may poll again for an order that needs attention."""

ORDER_ID = Annotated[
    str,
    Path(
        pattern=r"^[A-Za-z0-9-]{1,40}$",
        description="The order's id or its number, `OF-…`.",
        examples=["OF-1000"],
    ),
]


def _answers(good: dict[int, Any], *problems: int) -> dict[int, Any]:
    """The responses of an operation: its own, its problems, and those that every operation has."""
    return good | dict.fromkeys(sorted({*problems, 401, 403, 429, 500, 503}), schemas.ProblemDocument)


class AuthenticatedRequest(HttpRequest):
    """A request that `BearerToken` has authenticated."""

    auth: ApiToken


@router.post(
    "/orders",
    auth=BearerToken(tokens.WRITE),
    response=_answers({201: schemas.OrderSummary}, 400, 409, 411, 413, 415, 422),
    by_alias=True,
    operation_id="place_order",
    url_name="orders",
)
def place_order(
    request: AuthenticatedRequest,
    response: HttpResponse,
    order: schemas.NewOrder,
    idempotency_key: Annotated[
        str,
        Header(
            alias="Idempotency-Key",
            pattern=fields.IDEMPOTENCY_KEY,
            description="1 to 255 visible ASCII characters, bare and without a comma, or quoted; sent once. "
            "The same key and body get the same response, for as long as the order exists.",
            examples=["0193670c-6c5f-7a5e-8a4e-1f0f2a9b6c11"],
        ),
    ],
) -> Status[dict[str, Any]]:
    """
    Place an order. Once there is a response, the order is stored and every step of it will run.

    Repeating the request with the same `Idempotency-Key` is safe at any time: it gets the response of the
    first one, with `Idempotent-Replayed: true`.
    """
    if cards.are_in(idempotency_key):
        raise Problem(
            "card-number", errors=[FieldError("Idempotency-Key", "card-number", "a UUID is a good key")]
        )
    with _acting(request), _placing(order):
        placement = services.place_order(
            items=[services.Item(sku=item.sku, quantity=item.quantity) for item in order.items],
            currency=order.currency,
            payment_method=order.payment_method,
            contact=services.Contact(
                name=order.customer.name,
                email=order.customer.email or "",
                phone=order.customer.phone or "",
                push_token=order.customer.push_token or "",
            ),
            country=order.country,
            client_reference=order.client_reference,
            source="api",
            client_id=request.auth.client_id,
            idempotency=services.IdempotencyKey.of(
                scope=f"api:{request.auth.client_id}",
                key=_unquoted(idempotency_key),
                request=order.model_dump(mode="json"),
            ),
            answer=representations.placed,
            refusal=adapters.payment_gateway().refusal_of,
        )
    response["Location"] = representations.address(placement.order)
    if placement.replayed:
        response["Idempotent-Replayed"] = "true"
    return Status(201, placement.answer)


@router.get(
    "/orders",
    auth=BearerToken(tokens.READ, tokens.READ_ALL),
    response=_answers({200: schemas.OrderPage}, 422),
    by_alias=True,
    operation_id="list_orders",
    url_name="orders",
)
def list_orders(request: AuthenticatedRequest, filters: Query[schemas.OrderFilters]) -> dict[str, Any]:
    """
    The client's orders, newest first, in pages. Orders placed meanwhile do not shift the pages.

    With the scope `orders:read:all`, those of every client, and those that no client has placed.
    """
    _refuse_unknown_parameters(request)
    try:
        orders, next_cursor = queries.orders_page(
            among=_readable(request),
            limit=filters.limit,
            cursor=filters.cursor or "",
            status=filters.status or "",
            client_reference=filters.client_reference or "",
            email=filters.email or "",
            placed_after=filters.placed_after,
            placed_before=filters.placed_before,
        )
    except queries.BadCursor as bad:
        raise _invalid(FieldError("cursor", "cursor", str(bad))) from bad
    return {"items": representations.listed(orders), "next_cursor": next_cursor or None}


@router.get(
    "/orders/{order_id}",
    auth=BearerToken(tokens.READ, tokens.READ_ALL),
    response=_answers({200: schemas.OrderDetail, 304: None}, 404),
    by_alias=True,
    operation_id="get_order",
    url_name="get_order",
)
def get_order(request: AuthenticatedRequest, response: HttpResponse, order_id: ORDER_ID) -> Any:
    """
    One order of the client: its state, and how it got there. Those of others need `orders:read:all`.

    Send the `ETag` back as `If-None-Match` to get 304 while nothing has changed. While the order is not final,
    `Retry-After` is the time until the next poll: minutes once it `needs_attention`.
    """
    with _missing(order_id):
        order = queries.order_for_api(order_id, among=_readable(request))
    shown = schemas.OrderDetail.model_validate(representations.detail(order))
    digest = hashlib.sha256(shown.model_dump_json(by_alias=True).encode()).hexdigest()[:24]
    headers = {"ETag": f'"{order.version}-{digest}"', "Cache-Control": "private, no-cache"}
    if not order.is_final:
        headers["Retry-After"] = PEOPLE_TAKE if shown.needs_attention else _look_again_in(order)
    if _matches(request.headers.get("If-None-Match", ""), headers["ETag"]):
        return HttpResponse(status=304, headers=headers)
    for name, value in headers.items():
        response[name] = value
    return shown.model_dump(by_alias=True)


@router.post(
    "/orders/{order_id}/cancel",
    auth=BearerToken(tokens.CANCEL),
    response=_answers({202: schemas.Cancellation}, 400, 404, 409, 411, 413, 415),
    by_alias=True,
    operation_id="cancel_order",
    url_name="cancel_order",
)
def cancel_order(
    request: AuthenticatedRequest, response: HttpResponse, order_id: ORDER_ID
) -> Status[dict[str, Any]]:
    """
    Request the cancellation of one's own order, with a refund if it was charged. Repeating it changes nothing.

    202 means that the request is accepted; the order shows the result. If it is being shipped at this moment it
    may stay shipped.
    """
    bodies.refuse_unreadable(request)
    with _acting(request), _missing(order_id):
        try:
            order = queries.find_order(order_id, among=_own(request))
            order = services.request_cancellation(order_id=order.pk, requested_by=f"api:{request.auth.name}")
        except services.NotCancellable as refused:
            raise Problem("not-cancellable", str(refused)) from refused
    response["Location"] = representations.address(order)
    return Status(202, representations.cancellation(order))


def _own(request: AuthenticatedRequest) -> OrderQuerySet:
    """The orders that the client has placed, with any of its tokens."""
    return Order.objects.of_client(request.auth.client_id)


def _readable(request: AuthenticatedRequest) -> OrderQuerySet:
    return Order.objects.all() if tokens.READ_ALL in request.auth.scopes else _own(request)


@contextlib.contextmanager
def _acting(request: AuthenticatedRequest) -> Iterator[None]:
    """Record the token as the actor in the order's history."""
    with context.bind(dataclasses.replace(context.current(), actor=f"api:{request.auth.name}")):
        yield


@contextlib.contextmanager
def _missing(reference: str) -> Iterator[None]:
    """Respond alike for an order that does not exist and for another client's."""
    try:
        yield
    except Order.DoesNotExist as missing:
        raise Problem("not-found", f"this client has no order {reference}") from missing


@contextlib.contextmanager
def _placing(order: schemas.NewOrder) -> Iterator[None]:
    """Turn the exceptions of `services.place_order` into problems."""
    try:
        yield
    except services.KeyInUse as busy:
        raise Problem("idempotency-key-in-use", retry_after=1) from busy
    except services.KeyReused as reused:
        raise Problem("idempotency-key-reused") from reused
    except services.UnknownProduct as unknown:
        errors = [
            FieldError(f"/items/{position}/sku", "unknown-product", "there is no such product")
            for position, item in enumerate(order.items)
            if item.sku in unknown.skus
        ]
        raise Problem("unknown-product", errors=errors) from unknown
    except services.NotShippable as refused:
        raise _invalid(FieldError("/country", "country", str(refused))) from refused
    except services.MixedCurrencies as mixed:
        raise Problem("mixed-currencies", str(mixed)) from mixed
    except services.NotChargeable as refused:
        raise Problem("not-chargeable", str(refused)) from refused
    except DataError as error:
        if getattr(error.__cause__, "sqlstate", "") != "22003":  # numeric_value_out_of_range
            raise
        raise Problem("total-too-large") from error


def _invalid(*errors: FieldError) -> Problem:
    return Problem("validation-failed", errors=errors)


def _unquoted(key: str) -> str:
    return re.sub(r"\\(.)", r"\1", key[1:-1]) if key.startswith('"') else key


def _refuse_unknown_parameters(request: HttpRequest) -> None:
    """Otherwise a misspelt filter would be ignored and match everything."""
    errors = [
        FieldError(name, "unknown-parameter", "there is no such parameter")
        for name in request.GET
        if name not in schemas.OrderFilters.model_fields
    ]
    errors += [
        FieldError(name, "repeated-parameter", "this parameter may be given once")
        for name, values in request.GET.lists()
        if len(values) > 1
    ]
    if errors:
        raise _invalid(*errors)


def _look_again_in(order: Any) -> str:
    """Orders take a second or two; those that take longer are waiting for something."""
    return "1" if order.read_at - order.placed_at < dt.timedelta(minutes=1) else "10"


def _matches(asked: str, etag: str) -> bool:
    """`If-None-Match`, compared weakly (RFC 9110, 13.1.2)."""
    tags = [tag.strip().removeprefix("W/") for tag in asked.split(",")]
    return "*" in tags or etag in tags
