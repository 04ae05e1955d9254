"""
Dead letters of steps that a cancellation made needless: they are closed automatically.

Once a cancellation is requested, no step towards shipping starts any more, so a failed one needs no decision.
The dead letters of refunds, stranded charges and notifications stay open.
"""

from __future__ import annotations

from typing import Any

from orders.models import Order
from outbox.dead_letters import resolving

NEEDLESS = ("orders.tasks.validate", "orders.tasks.charge", "orders.tasks.fulfill")
"""The steps that a cancelled order does not need."""

REASON = "a cancellation of the order made this step needless"


def close_needless(order: Order) -> int:
    """Close the dead letters that the order's cancellation made needless, in the caller's transaction."""
    return resolving.close_needless(key=str(order.pk), consumers=NEEDLESS, reason=REASON, by="system")


def close_if_needless(*, order_id: str = "", **_: Any) -> None:
    """Close the dead letter of a step that failed after the cancellation, while it is being buried."""
    order = Order.objects.filter(pk=order_id, cancel_requested_at__isnull=False).first()
    if order:
        close_needless(order)
