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

from orders import queries, services, tokens
from orders.api import pictures, schemas
from orders.api.auth import BearerToken
from orders.api.problems import FieldError, Problem
from orders.models import ApiToken, Order
from outbox import context

router = Router(tags=["orders"])

ORDER_ID = Annotated[
    str,
    Path(
        pattern=r"^[A-Za-z0-9-]{1,40}$",
        description="The order's id or its number, `OF-…`.",
        examples=["OF-1000"],
    ),
]


def _answers(good: dict[int, Any], *problems: int) -> dict[int, Any]:
    """The answers of an operation: its own, its problems, and those that every operation has."""
    return good | dict.fromkeys(sorted({*problems, 401, 403, 429, 500, 503}), schemas.ProblemDocument)


class AuthenticatedRequest(HttpRequest):
    """A request that `BearerToken` has let in."""

    auth: ApiToken


@router.post(
    "/orders",
    auth=BearerToken(tokens.WRITE),
    response=_answers({201: schemas.OrderSummary}, 400, 409, 413, 415, 422),
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
            pattern=schemas.IDEMPOTENCY_KEY,
            description="1 to 255 visible ASCII characters, bare or quoted. The same key and body get the same "
            "answer, for as long as the order exists.",
            examples=["0193670c-6c5f-7a5e-8a4e-1f0f2a9b6c11"],
        ),
    ],
) -> Status[dict[str, Any]]:
    """
    Place an order. Once answered, the order is stored and every step of it will run.

    Repeating the request with the same `Idempotency-Key` is safe at any time: it gets the answer of the
    first one, with `Idempotent-Replayed: true`.
    """
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
            country=order.country or "",
            client_reference=order.client_reference,
            source="api",
            idempotency=services.IdempotencyKey.of(
                scope=f"api:{request.auth.pk}",
                key=_unquoted(idempotency_key),
                request=order.model_dump(mode="json"),
            ),
            answer=pictures.placed,
        )
    response["Location"] = pictures.address(placement.order)
    if placement.replayed:
        response["Idempotent-Replayed"] = "true"
    return Status(201, placement.answer)


@router.get(
    "/orders",
    auth=BearerToken(tokens.READ),
    response=_answers({200: schemas.OrderPage}, 422),
    by_alias=True,
    operation_id="list_orders",
    url_name="orders",
)
def list_orders(request: AuthenticatedRequest, filters: Query[schemas.OrderFilters]) -> dict[str, Any]:
    """
    Orders, newest first, a page at a time. Orders placed meanwhile do not shift the pages.
    """
    _refuse_unknown_parameters(request)
    try:
        orders, next_cursor = queries.orders_page(
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
    return {"items": [pictures.summary(order) for order in orders], "next_cursor": next_cursor or None}


@router.get(
    "/orders/{order_id}",
    auth=BearerToken(tokens.READ),
    response=_answers({200: schemas.OrderDetail, 304: None}, 404),
    by_alias=True,
    operation_id="get_order",
    url_name="get_order",
)
def get_order(request: AuthenticatedRequest, response: HttpResponse, order_id: ORDER_ID) -> Any:
    """
    One order: where it stands, and how it got there.

    Send the `ETag` back as `If-None-Match` to be answered 304 while nothing has changed. While the order
    is not final, `Retry-After` says when to look again.
    """
    with _missing(order_id):
        order = queries.order_for_api(order_id)
    shown = schemas.OrderDetail.model_validate(pictures.detail(order))
    digest = hashlib.sha256(shown.model_dump_json(by_alias=True).encode()).hexdigest()[:24]
    headers = {"ETag": f'"{order.version}-{digest}"', "Cache-Control": "private, no-cache"}
    if not order.is_final:
        headers["Retry-After"] = _look_again_in(order)
    if _matches(request.headers.get("If-None-Match", ""), headers["ETag"]):
        return HttpResponse(status=304, headers=headers)
    for name, value in headers.items():
        response[name] = value
    return shown.model_dump(by_alias=True)


@router.post(
    "/orders/{order_id}/cancel",
    auth=BearerToken(tokens.WRITE),
    response=_answers({202: schemas.Cancellation}, 404, 409, 413, 415),
    by_alias=True,
    operation_id="cancel_order",
    url_name="cancel_order",
)
def cancel_order(
    request: AuthenticatedRequest, response: HttpResponse, order_id: ORDER_ID
) -> Status[dict[str, Any]]:
    """
    Ask for an order to be cancelled, and refunded if it was charged. Asking again changes nothing.

    202 means that it was asked for; the order says what became of it. If it is being shipped at this
    moment it may stay shipped.
    """
    with _acting(request), _missing(order_id):
        try:
            order = services.request_cancellation(
                order_id=queries.find_order(order_id).pk, requested_by=f"api:{request.auth.name}"
            )
        except services.NotCancellable as refused:
            raise Problem("not-cancellable", str(refused)) from refused
    response["Location"] = pictures.address(order)
    return Status(202, pictures.cancellation(order))


@contextlib.contextmanager
def _acting(request: AuthenticatedRequest) -> Iterator[None]:
    """Name the client as who acts, in the order's history."""
    with context.bind(dataclasses.replace(context.current(), actor=f"api:{request.auth.name}")):
        yield


@contextlib.contextmanager
def _missing(reference: str) -> Iterator[None]:
    try:
        yield
    except Order.DoesNotExist as missing:
        raise Problem("not-found", f"there is no order {reference}") from missing


@contextlib.contextmanager
def _placing(order: schemas.NewOrder) -> Iterator[None]:
    """Turn what `services.place_order` refuses into problems."""
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
    except services.MixedCurrencies as mixed:
        raise Problem("mixed-currencies", str(mixed)) from mixed
    except DataError as error:
        if getattr(error.__cause__, "sqlstate", "") != "22003":  # numeric_value_out_of_range
            raise
        raise Problem("total-too-large") from error


def _invalid(*errors: FieldError) -> Problem:
    return Problem("validation-failed", errors=errors)


def _unquoted(key: str) -> str:
    return re.sub(r"\\(.)", r"\1", key[1:-1]) if key.startswith('"') else key


def _refuse_unknown_parameters(request: HttpRequest) -> None:
    """A filter with a typing error would otherwise find everything."""
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


def _look_again_in(order: Order) -> str:
    """Orders take a second or two; those that take longer are waiting for something."""
    age = dt.datetime.now(dt.UTC) - order.placed_at
    return "1" if dt.timedelta() <= age < dt.timedelta(minutes=1) else "10"


def _matches(asked: str, etag: str) -> bool:
    """`If-None-Match`, compared weakly (RFC 9110, 13.1.2)."""
    tags = [tag.strip().removeprefix("W/") for tag in asked.split(",")]
    return "*" in tags or etag in tags
