"""
Repairs of orders that are safe by construction. `outbox.verification` runs each in a transaction.

Each looks again under a lock, and does what the system does anyway: deliver a message again, whose steps
find what is done; or give back stock that no order holds.
"""

from __future__ import annotations

from django.db.models import F, Sum, Value
from django.db.models.functions import Now
from django.utils import timezone

from orders import contracts, moves
from orders.models import Order, OrderLine, Payment, Product
from orders.services import WORKFLOWS, facts
from orders.transitions import STEP_DEADLINE
from outbox import publisher
from outbox.models import OutboxMessage
from outbox.verification import Repair

HOLDING_STOCK = frozenset(
    {moves.Status.VALIDATED, moves.Status.CHARGE_UNKNOWN, moves.Status.CHARGED, moves.Status.CANCELLING}
)
"""The statuses from the reservation of stock to its shipment or release."""


def _start_again(number: str) -> str:
    """Deliver the message of an unfinished order again, as the sweep would."""
    order = Order.objects.select_for_update(no_key=True).get(number=number)
    if order.is_final or (order.due_at and order.due_at > timezone.now()):
        return ""
    if not publisher.resume([order.message_id], workflow=WORKFLOWS):
        return ""
    Order.objects.filter(pk=order.pk).update(
        resumptions=F("resumptions") + 1, due_at=Now() + Value(STEP_DEADLINE)
    )
    return f"deliver message {order.message_id} again, so that {order.status} goes on"


def _refund_stranded(number: str) -> str:
    """Deliver the message again that gives a stranded charge back; publish it if there never was one."""
    order = Order.objects.select_for_update(no_key=True).get(number=number)
    charged = Payment.objects.filter(order=order, status=Payment.Status.SUCCEEDED)
    if order.status not in (moves.Status.REJECTED, moves.Status.CANCELLED):
        return ""
    if not charged.exclude(refund__status="succeeded").exists():
        return ""
    stranded = OutboxMessage.objects.filter(key=str(order.pk), event_name=contracts.ChargeStranded.name)
    if known := stranded.order_by("pk").values_list("pk", flat=True).first():
        again = publisher.resume([known], workflow=WORKFLOWS)
        return f"deliver message {known} again, which refunds the charge" if again else ""
    message_id = publisher.publish(contracts.ChargeStranded(**facts(order)))
    return f"publish ChargeStranded as {message_id}, which refunds the charge"


def _release_stock(sku: str) -> str:
    """Give back what is reserved and held by no order; more being held than reserved is left to people."""
    product = Product.objects.select_for_update(no_key=True).get(sku=sku)
    lines = OrderLine.objects.filter(product=product, order__status__in=HOLDING_STOCK)
    held = lines.aggregate(held=Sum("quantity"))["held"] or 0
    surplus = product.reserved - held
    if surplus <= 0:
        return ""
    Product.objects.filter(pk=product.pk).update(
        reserved=F("reserved") - surplus, on_hand=F("on_hand") + surplus
    )
    return f"release {surplus} of {sku}: {product.reserved} are reserved, orders hold {held}"


START_AGAIN = Repair(what="start the order again", apply=_start_again)
REFUND_STRANDED = Repair(what="refund the stranded charge", apply=_refund_stranded)
RELEASE_STOCK = Repair(what="release what no order holds", apply=_release_stock)
