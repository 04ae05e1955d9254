"""Stories of orders: processed, compensated, and lost."""

from __future__ import annotations

import collections
import datetime as dt
import tempfile
from pathlib import Path

from orders import adapters, compensation, effects, services, steps
from orders import sweep as late_orders
from orders.imports import importer, invoices
from orders.models import Product
from outbox import crash_points, testing
from outbox.database import clock
from outbox.models import DatabaseIdentity, Delivery
from outbox.relay import relay
from outbox.resilience import Transient
from outbox.verification import restores
from tests.crash.stories.story import EVERY_WAY, drain, drain_all, fault, story
from tests.factories import ProductFactory, place


@story(work=drain)
def fulfilled(story):
    story.order = place(contact=EVERY_WAY)


@story(work=drain)
def declined(story):
    story.order = place(payment_method="pm_card_visa_chargeDeclined")


@story(work=drain)
def out_of_stock(story):
    story.order = place(ProductFactory(stock=1))


@story(work=drain)
def refused_by_the_warehouse(story):
    story.order = place(ProductFactory(sku="NOSHIP-crash"))


def place_with_a_key(story):
    story.order = place(
        Product.objects.get(),
        idempotency=services.IdempotencyKey.of(scope="crash", key="1", request={}),
    )


@story(work=place_with_a_key, afterwards=place_with_a_key)
def placed(story):
    ProductFactory()


def import_orders(story):
    """Each chunk has one invoice: a process that dies after the first has not begun the second."""
    with tempfile.NamedTemporaryFile("w", suffix=".csv") as file:
        file.write(",".join(invoices.COLUMNS) + "\n")
        for invoice, quantity in ((536365, 6), (536366, 2)):
            file.write(f"{invoice},85123A,HEART,{quantity},2010-12-01 08:26:00,2.55,17850,United Kingdom\n")
        file.flush()
        collections.deque(importer.run(Path(file.name), importer.Options(chunk=1)), maxlen=0)


@story(work=import_orders, afterwards=import_orders)
def imported(story):
    pass


def request_cancellation(story):
    services.request_cancellation(order_id=story.order.pk, requested_by="customer")


@story(work=request_cancellation, afterwards=request_cancellation)
def cancellation_requested(story):
    story.order = place()


@story(work=drain)
def cancelled_before_the_charge(story):
    story.order = place()
    request_cancellation(story)


@story(work=drain)
def cancelled_after_the_charge(story):
    story.order = place()
    with story.world.warehouse.failing(fault="error", status=503):
        testing.drain()
    request_cancellation(story)


@story(work=drain_all)
def cancelled_while_nobody_knows_of_the_charge(story):
    story.order = place()
    fault(story.world.payments, fault="drop_after", times=1, match=f"order-{story.order.pk}-charge")
    relay.drain()
    steps.validate(order_id=str(story.order.pk))
    try:
        steps.charge(order_id=str(story.order.pk), gateway=adapters.payment_gateway())
    except Transient:
        request_cancellation(story)


@story(work=drain_all)
def charged_without_an_answer(story):
    story.order = place()
    fault(story.world.payments, fault="drop_after", times=1, match=f"order-{story.order.pk}-charge")


@story(work=drain_all)
def asked_for_the_charge_again(story):
    story.order = place()
    fault(story.world.payments, fault="drop_before", times=1, match=f"order-{story.order.pk}-charge")


@story(work=drain_all)
def charge_needs_its_customer(story):
    story.order = place()
    fault(story.world.payments, fault="state", state="requires_action", match=f"order-{story.order.pk}-charge")


@story(work=drain)
def cancelled_while_the_charge_is_reserved(story):
    story.order = place()
    fault(story.world.payments, fault="state", state="requires_capture", match=f"order-{story.order.pk}-charge")
    testing.drain()
    request_cancellation(story)


def carry_out_refunds(story):
    for refund in story.world.payments.ledger(kind="refund"):
        story.world.payments.change("refund", refund["id"], status="succeeded")


@story(work=drain, afterwards=carry_out_refunds)
def refund_takes_its_time(story):
    cancelled_after_the_charge(story)
    fault(story.world.payments, fault="state", state="pending", match=f"order-{story.order.pk}-refund")


@story(work=drain_all)
def shipped_without_an_answer(story):
    story.order = place()
    fault(story.world.warehouse, fault="drop_after", times=1, match=f"order-{story.order.pk}-shipment")


@story(work=drain_all)
def met_an_outage(story):
    story.order = place(contact=EVERY_WAY)
    fault(story.world.payments, fault="error", status=503, times=1)
    fault(story.world.sms, fault="error", status=503, times=1)


@story(work=drain_all)
def met_an_outage_of_the_warehouse(story):
    story.order = place()
    fault(story.world.warehouse, fault="error", status=503, times=1)


@story(work=drain)
def charged_after_it_was_cancelled(story):
    """A worker is suspended before its charge, and the order is cancelled meanwhile."""
    validated(story)
    charge_too_late(story)


def validated(story):
    story.order = place()
    relay.drain()
    testing.purge()
    steps.validate(order_id=str(story.order.pk))


def charge_too_late(story):
    gateway = adapters.payment_gateway()

    class Frozen:
        def charge(self, **request):
            testing.pass_time(compensation.LOOK_UP_LAG)
            request_cancellation(story)
            compensation.cancel(order_id=str(story.order.pk), gateway=gateway, warehouse=adapters.warehouse())
            crash_points.reached("another process has done that")
            return gateway.charge(**request)

    steps.charge(order_id=str(story.order.pk), gateway=Frozen())


@story(work=charge_too_late)
def overtaken_before_its_charge(story):
    """No process dies in this story: `verify` finds what a suspended worker leaves at the provider."""
    validated(story)


def sweep_orders(story):
    late_orders.resume_overdue()
    testing.drain()


@story(work=sweep_orders)
def lost_by_the_broker(story):
    """The workflow has ended without finishing the order. The outbox's sweep finds other lost messages."""
    story.order = place()
    relay.drain()
    testing.purge()
    Delivery.objects.filter(workflow__startswith=late_orders.WORKFLOWS).delete()
    testing.pass_time(dt.timedelta(minutes=1))


ONLY_SMS = services.Contact(phone="+447700900123")
"""Of what can be looked up: nobody has to decide about it."""


@story(work=drain_all)
def looked_up_after_a_restore(story):
    story.order = place(contact=ONLY_SMS)
    restores.declare(clock.now(), by="on call")


@story(work=drain_all)
def in_a_database_that_was_restored(story):
    """The next connection detects the restore."""
    story.order = place(contact=ONLY_SMS)
    DatabaseIdentity.objects.update_or_create(pk=1, defaults={"names": {"system": "another"}, "started_at": ""})


@story(work=drain_all)
def entered_after_a_restore(story):
    story.order = place(contact=ONLY_SMS)
    charged_in_the_forgotten_time(story.order)


@story(work=drain_all)
def cancelled_after_a_restore(story):
    story.order = place(contact=ONLY_SMS)
    charged_in_the_forgotten_time(story.order)
    request_cancellation(story)


def charged_in_the_forgotten_time(order):
    """Only the provider knows of the charge."""
    adapters.payment_gateway().charge(
        amount_minor=order.total_minor,
        currency=order.currency,
        payment_method=order.payment_method,
        order_id=str(order.pk),
        idempotency_key=effects.charge_key(order.pk),
    )
    restores.declare(clock.now(), by="on call")
