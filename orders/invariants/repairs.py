"""
Repairs of orders that are safe by construction. `outbox.verification` runs each in a transaction.

Each checks again under a lock, and does what the system does anyway: it delivers a message again, whose steps
detect what is done, or releases stock that no order holds.
"""

from __future__ import annotations

from django.db.models import F, Sum, Value
from django.db.models.functions import Now

from orders import adapters, contracts, moves, ports
from orders.effects import capture
from orders.models import Order, OrderLine, Payment, Product
from orders.reconciliation import recovery
from orders.sweep import WORKFLOWS
from orders.transitions import STEP_DEADLINE
from outbox import publisher, redelivery
from outbox.database import clock
from outbox.models import OutboxMessage
from outbox.verification.catalogue import Repair


def _start_again(number: str) -> str:
    """Deliver the message of an unfinished order again, as the sweep would."""
    order = Order.objects.select_for_update(no_key=True).get(number=number)
    if order.is_final or (order.due_at and order.due_at > clock.now()):
        return ""
    if not redelivery.resume([order.message_id], workflow=WORKFLOWS):
        return ""
    Order.objects.filter(pk=order.pk).update(
        resumptions=F("resumptions") + 1, due_at=Now() + Value(STEP_DEADLINE)
    )
    return f"deliver message {order.message_id} again, so that {order.status} continues"


def _refund_stranded(number: str) -> str:
    """Deliver the message for the refund of a stranded charge again; publish it if it does not exist."""
    order = Order.objects.select_for_update(no_key=True).get(number=number)
    charged = Payment.objects.filter(order=order, status=Payment.Status.SUCCEEDED)
    if order.status not in (moves.Status.REJECTED, moves.Status.CANCELLED):
        return ""
    if not charged.exclude(refund__status="succeeded").exists():
        return ""
    stranded = OutboxMessage.objects.filter(key=str(order.pk), event_name=contracts.ChargeStranded.name)
    if known := stranded.order_by("pk").values_list("pk", flat=True).first():
        again = redelivery.resume([known], workflow=WORKFLOWS)
        return f"deliver message {known} again, which refunds the charge" if again else ""
    message_id = publisher.publish(contracts.ChargeStranded.of(order))
    return f"publish ChargeStranded as {message_id}, which refunds the charge"


def _ask_for_charge(number: str) -> ports.Charge | None:
    order = Order.objects.get(number=number)
    return adapters.payment_gateway().look_up(idempotency_key=f"order-{order.pk}-charge")


def _adopt_stranded(number: str, charge: ports.Charge | None) -> str:
    """Record a charge that its worker could not record, as that worker would have; its message refunds it."""
    order = Order.objects.select_for_update(no_key=True).get(number=number)
    if order.status not in (moves.Status.REJECTED, moves.Status.CANCELLED):
        return ""
    if not charge or not charge.succeeded:
        return ""
    payment = recovery.payment_of(order, charge)
    if payment.status == Payment.Status.SUCCEEDED:
        return ""
    capture(payment, charge)
    message_id = publisher.publish(contracts.ChargeStranded.of(order))
    return f"record charge {charge.id}, and publish ChargeStranded as {message_id}, which refunds it"


def _release_stock(sku: str) -> str:
    """Release reserved stock that no order holds; the opposite difference needs a person."""
    product = Product.objects.select_for_update(no_key=True).get(sku=sku)
    lines = OrderLine.objects.filter(product=product, order__status__in=moves.HOLDING_STOCK)
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
ADOPT_STRANDED = Repair(
    what="record the stranded charge and refund it", apply=_adopt_stranded, query=_ask_for_charge
)
ENTER_AGAIN = Repair(what="enter the forgotten order again", apply=recovery.enter_order, query=recovery.ask)
RELEASE_STOCK = Repair(what="release what no order holds", apply=_release_stock)
