"""Queries of orders, for the API and for pages. Nothing here writes."""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import re
import uuid
from collections.abc import Iterable
from typing import Any

from django.db.models import Q, QuerySet
from django.db.models.functions import Now

from orders.models import Order, OrderTransition

_NUMBER = re.compile(r"OF-[0-9]{1,17}", re.IGNORECASE | re.ASCII)
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE | re.ASCII)


class BadCursor(ValueError):
    """The cursor was not issued by a page."""


def find_order(reference: str, *, among: QuerySet[Order] | None = None) -> Order:
    """
    Return the order with this id or number, among those that may be seen; by default among all.

    Raises:
        Order.DoesNotExist: if there is none, or the reference is neither an id nor a number.
    """
    orders = Order.objects.all() if among is None else among
    if _NUMBER.fullmatch(reference):
        return orders.get(number=reference.upper())
    if _UUID.fullmatch(reference):
        return orders.get(pk=uuid.UUID(reference))
    raise Order.DoesNotExist(f"{reference!r} is neither an order's id nor its number")


def order_for_api(reference: str, *, among: QuerySet[Order]) -> Any:
    """
    Return the order with this id or number among those that may be seen, with all data that the API shows, and
    the time of the query as `read_at`.

    Raises:
        Order.DoesNotExist: if there is none.
    """
    shown = among.select_related("shipment").prefetch_related(
        "lines__product", "payments__refund", "transitions"
    )
    return find_order(reference, among=shown.annotate(read_at=Now()))


def timeline(order: Order) -> list[OrderTransition]:
    """The order's moves, oldest first."""
    return sorted(order.transitions.all(), key=lambda transition: transition.pk)


def orders_page(
    *,
    among: QuerySet[Order],
    limit: int,
    cursor: str = "",
    status: str = "",
    client_reference: str = "",
    email: str = "",
    placed_after: dt.datetime | None = None,
    placed_before: dt.datetime | None = None,
) -> tuple[list[Order], str]:
    """
    Return one page of the orders that may be seen, newest first, and the cursor of the next page, empty after
    the last one.

    A cursor identifies the last order of its page, so orders placed meanwhile shift nothing.

    Raises:
        BadCursor: if the cursor cannot be read.
    """
    chosen = among.order_by("-placed_at", "id").prefetch_related("lines__product")
    exactly = {"status": status, "client_reference": client_reference, "customer_email": email}
    chosen = chosen.filter(**{name: value for name, value in exactly.items() if value})
    if placed_after is not None:
        chosen = chosen.filter(placed_at__gt=placed_after)
    if placed_before is not None:
        chosen = chosen.filter(placed_at__lt=placed_before)
    if cursor:
        at, last = _read_cursor(cursor)
        # Both conditions include `placed_at <= at`, so that the index scan starts where the page begins.
        chosen = chosen.filter(Q(placed_at__lt=at) | Q(id__gt=last), placed_at__lte=at)
    found = list(chosen[: limit + 1])
    page = found[:limit]
    return page, _cursor_after(page[-1]) if len(found) > limit else ""


def payments(order: Order) -> Iterable[Any]:
    """The order's payments, oldest first."""
    return sorted(order.payments.all(), key=lambda payment: payment.pk)


def _cursor_after(order: Order) -> str:
    position = f"{order.placed_at.astimezone(dt.UTC).isoformat()}|{order.pk}"
    return base64.urlsafe_b64encode(position.encode()).decode().rstrip("=")


def _read_cursor(cursor: str) -> tuple[dt.datetime, uuid.UUID]:
    try:
        position = base64.urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4)).decode("ascii")
        at, _, last = position.partition("|")
        moment = dt.datetime.fromisoformat(at)
        if moment.tzinfo is None or not _UUID.fullmatch(last):
            raise BadCursor(cursor)
        return moment.astimezone(dt.UTC), uuid.UUID(last)
    except (UnicodeError, binascii.Error, ValueError, OverflowError) as unreadable:
        raise BadCursor("the cursor was not issued by a page") from unreadable
