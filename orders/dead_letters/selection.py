"""Selection of the dead letters of one order, for the commands that replay and discard."""

from __future__ import annotations

from orders.models import Order
from outbox.management import selection


def key_of(number: str) -> str | None:
    """Return the key of the order with this number, ignoring case; None if there is none."""
    order = Order.objects.filter(number__iexact=number).first()
    return str(order.pk) if order else None


def register() -> None:
    """Offer `--order`."""
    selection.register("order", help="Those of the order with this number.", key_of=key_of)
