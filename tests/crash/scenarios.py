"""
Work that passes all crash points between its effects, as small stories.

Each has a part that goes well (`prepare`), a part in which the process may die (`work`), and what a
client or an operator does when it is over (`afterwards`).
"""

from __future__ import annotations

import collections
import contextlib
import datetime as dt
import functools
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import kombu.pools
from celery import current_app
from django.conf import settings
from django.db import transaction

from notifications import sweep as lost_news
from notifications.models import Notification, Preference
from orders import adapters, compensation, imports, invoices, services, steps
from orders import sweep as late_orders
from orders.models import Order, Product
from outbox import crash_points, dead_letters, publisher, relay, retention, testing
from outbox.contracts import Event
from outbox.models import DeadLetter, OutboxMessage
from outbox.resilience import Transient
from tests.factories import ProductFactory, place
from tests.outbox.events import Happened

EVERY_WAY = services.Contact(
    name="Ada Example", email="ada@example.com", phone="+447700900123", push_token="device-ada"
)
BAD_CARD = "pm_no_such_card"


def nothing(story):
    pass


@dataclass
class Story:
    """One scenario, and what its parts tell each other."""

    name: str
    prepare: Callable
    work: Callable
    afterwards: Callable = nothing
    world: object = None
    order: Order | None = None


STORIES: dict[str, Story] = {}


def story(**parts):
    def add(prepare):
        name = prepare.__name__
        STORIES[name] = Story(name=name, prepare=prepare, **parts)
        return prepare

    return add


def drain(story):
    testing.drain()


def drain_all(story):
    testing.drain(redeliveries=True)


def fault(server, **what):
    server.control(**what)


# orders --------------------------------------------------------------------------------------------


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
    """An invoice a chunk: whoever dies after the first has not begun the second."""
    with tempfile.NamedTemporaryFile("w", suffix=".csv") as file:
        file.write(",".join(invoices.COLUMNS) + "\n")
        for invoice, quantity in ((536365, 6), (536366, 2)):
            file.write(f"{invoice},85123A,HEART,{quantity},2010-12-01 08:26:00,2.55,17850,United Kingdom\n")
        file.flush()
        collections.deque(imports.run(Path(file.name), imports.Options(chunk=1)), maxlen=0)


@story(work=import_orders, afterwards=import_orders)
def imported(story):
    pass


def request_cancellation(story):
    services.request_cancellation(order_id=story.order.pk, requested_by="customer")


@story(work=request_cancellation, afterwards=request_cancellation)
def asked_to_cancel(story):
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
    """A worker is overtaken: it freezes before its charge, and the order is cancelled meanwhile."""
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
    """Not a story to die in: what a frozen worker that dies leaves at the provider, `verify` finds."""
    validated(story)


def sweep_orders(story):
    late_orders.resume_overdue()
    testing.drain()


@story(work=sweep_orders)
def lost_by_the_broker(story):
    story.order = place()
    relay.drain()
    testing.purge()
    testing.pass_time(dt.timedelta(minutes=1))


# dead letters --------------------------------------------------------------------------------------


def mend_the_card(story):
    Order.objects.filter(pk=story.order.pk).update(payment_method="pm_card_visa")


def replay(story):
    dead_letters.replay(DeadLetter.objects.all(), by="on call", reason="card corrected")


def replay_and_drain(story):
    replay(story)
    testing.drain()


def discard(story):
    dead_letters.discard(DeadLetter.objects.all(), by="on call", reason="a mistake")


def mend_and_replay(story):
    testing.drain()
    mend_the_card(story)
    replay(story)


@story(work=drain, afterwards=mend_and_replay)
def buried(story):
    story.order = place(payment_method=BAD_CARD)


@story(work=replay_and_drain, afterwards=replay)
def replayed(story):
    buried(story)
    testing.drain()
    mend_the_card(story)


def discard_again(story):
    mend_the_card(story)
    discard(story)


@story(work=discard, afterwards=discard_again)
def discarded(story):
    """The order is not final: its sweep takes it up again, now with a card that works."""
    buried(story)
    testing.drain()


def discard_all(story):
    testing.drain(redeliveries=True)
    discard(story)


@story(work=drain_all, afterwards=discard_all)
def news_for_a_mailbox_that_is_none(story):
    story.order = place(contact=services.Contact(email="bounce@example.com"))


@story(work=drain)
def news_that_nobody_wants(story):
    Preference.objects.create(email="ada@example.com", channel="sms", enabled=False)
    story.order = place(contact=EVERY_WAY)


# relay ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Learned(Event):
    """An event that today's code knows and nobody subscribes to."""

    name = "tests.learned"
    version = 2
    key_field = "about"
    upcasters = {1: lambda payload: payload}

    about: str = "thing-1"


def refuse_to_build(message):
    raise ValueError("a workflow that cannot be built")


SUBSCRIPTIONS = [(Happened, refuse_to_build)]


def publish(event):
    with transaction.atomic():
        return publisher.publish(event)


def let_the_relay_give_up(story):
    for _ in range(len(relay.POSTPONEMENTS) + 1):
        relay.drain()
        testing.pass_time(dt.timedelta(hours=1))


def let_the_relay_give_up_and_discard(story):
    let_the_relay_give_up(story)
    discard(story)


@story(work=let_the_relay_give_up, afterwards=let_the_relay_give_up_and_discard)
def a_workflow_that_cannot_be_built(story):
    publish(Happened())


def unpark_and_drain(story):
    relay.drain()
    relay.unpark()
    relay.drain()


@story(work=unpark_and_drain, afterwards=unpark_and_drain)
def events_that_older_code_did_not_know(story):
    """Two were parked, one of each version; a third will be, and stays."""
    for version in (1, 2):
        OutboxMessage.objects.filter(pk=publish(Learned())).update(
            status="parked", event_version=version, last_error="UnknownEvent: not known then"
        )
    OutboxMessage.objects.filter(pk=publish(Learned())).update(event_version=3)


def drain_without_broker(story):
    with without_broker():
        relay.drain()


@contextlib.contextmanager
def without_broker():
    """Let no connection to a broker come about."""

    def refuse(*_, **__):
        raise ConnectionRefusedError("connection refused")

    establish = kombu.Connection._establish_connection
    kombu.Connection._establish_connection = refuse
    close_pools()
    try:
        yield
    finally:
        kombu.Connection._establish_connection = establish


def close_pools():
    """Leave no connection to the broker open."""
    kombu.pools.reset()
    current_app._after_fork()


@story(work=drain_without_broker)
def the_broker_is_down(story):
    story.order = place()


def drain_as_if_redelivered(story):
    run = testing.run
    testing.run = functools.partial(run, redelivered=True)
    try:
        testing.drain()
    finally:
        testing.run = run


@story(work=drain_as_if_redelivered)
def delivered_again_by_the_broker(story):
    story.order = place()


# upkeep --------------------------------------------------------------------------------------------


def prune(story):
    retention.prune(batch=1)


@story(work=prune)
def old_messages_are_deleted(story):
    for _ in range(2):
        publish(Learned())
    testing.drain()
    testing.pass_time(dt.timedelta(days=settings.OUTBOX_RETENTION_DAYS + 1))


def sweep_news(story):
    lost_news.resume_lost()
    testing.drain()


@story(work=sweep_news)
def news_the_broker_lost(story):
    story.order = place(contact=EVERY_WAY)
    testing.drain()
    Notification.objects.all().delete()
    testing.pass_time(dt.timedelta(minutes=2))
