"""What a person has ended stays ended: discarding cancels the waiting order, or changes nothing."""

from __future__ import annotations

import datetime as dt
import threading

import pytest
from celery import current_app
from django.db import connection

from orders import services, sweep, tasks
from orders.dead_letters import discards, needless
from orders.models import Order, Payment
from outbox import redelivery, testing
from outbox.consumer import ConsumerTask
from outbox.dead_letters import burying, campaigns, resolving
from outbox.models import DeadLetter, OutboxMessage
from outbox.resilience import Permanent
from outbox.verification import examination
from tests.conftest import close_breakers
from tests.factories import ProductFactory, place

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def stuck(drain, world):
    """An order whose charge was given up."""
    order = place(payment_method="pm_no_such_card")
    drain()
    return order


def status(order: Order) -> str:
    return Order.objects.get(pk=order.pk).status


def discard(**known):
    return resolving.discard(DeadLetter.objects.all(), by="ops", reason="not wanted", **known)


def let_time_pass(drain):
    for _ in range(4):
        testing.pass_time(dt.timedelta(minutes=10))
        close_breakers()
        sweep.resume_overdue()
        drain()


def test_a_dead_letter_of_an_unfinished_order_is_not_discarded_without_the_order(stuck, drain):
    resolved = discard()

    assert (resolved.done, [work.about for work in resolved.unfinished]) == (
        0,
        [f"{stuck.number} is validated"],
    )
    assert DeadLetter.objects.get().resolution == "open"
    let_time_pass(drain)
    assert status(stuck) == Order.Status.VALIDATED


def test_discarding_cancels_the_order_that_waits_and_nothing_starts_it_again(stuck, drain, world):
    Order.objects.filter(pk=stuck.pk).update(payment_method="pm_card_visa")
    assert discard(cancel=True).done == 1
    drain()
    let_time_pass(drain)

    assert status(stuck) == Order.Status.CANCELLED
    dead_letter = DeadLetter.objects.get()
    assert (dead_letter.resolution, dead_letter.resolved_by, dead_letter.reason) == (
        "discarded",
        "ops",
        "not wanted",
    )
    assert world.payments.count() == 0
    assert examination.run().passed


def test_an_order_that_was_charged_is_refunded_when_its_dead_letter_is_discarded(drain, world, monkeypatch):
    def refuse(*args, **kwargs):
        raise Permanent("no such address")

    product = ProductFactory(stock=3)
    order = place(product)
    with monkeypatch.context() as broken:
        broken.setattr("orders.steps.fulfill", refuse)
        drain()
    assert DeadLetter.objects.get().consumer == "orders.tasks.fulfill"

    discard(cancel=True)
    drain()
    let_time_pass(drain)
    assert status(order) == Order.Status.CANCELLED
    assert world.payments.count(kind="refund") == 1
    assert world.warehouse.count() == 0
    assert examination.run().passed


def test_an_order_that_was_discarded_by_older_code_is_not_resumed(stuck, drain, world):
    DeadLetter.objects.update(
        resolution="discarded", resolved_at=dt.datetime.now(dt.UTC), resolved_by="ops", reason="x"
    )
    Order.objects.filter(pk=stuck.pk).update(payment_method="pm_card_visa")
    let_time_pass(drain)

    assert status(stuck) == Order.Status.VALIDATED
    assert DeadLetter.objects.count() == 1
    assert world.payments.count() == 0


def test_a_stray_copy_of_the_message_does_not_charge_after_the_discard(stuck, drain, world):
    discard(cancel=True)
    Order.objects.filter(pk=stuck.pk).update(payment_method="pm_card_visa")
    redelivery.redeliver([stuck.message_id])
    drain()

    assert status(stuck) == Order.Status.CANCELLED
    assert world.payments.count() == 0


def test_a_dead_letter_of_the_refund_is_not_discarded_while_the_customer_waits_for_it(
    drain, world, monkeypatch
):
    order = place()
    with world.warehouse.failing(fault="error", status=503):
        drain()
    services.request_cancellation(order_id=order.pk, requested_by="customer")
    bury_in(monkeypatch, drain, "orders.compensation.refund")
    assert DeadLetter.objects.open().get().consumer == "orders.tasks.refund"

    for cancel in (False, True):
        resolved = discard(cancel=cancel)
        assert (resolved.done, [work.can_be_cancelled for work in resolved.unfinished]) == (0, [False])
    replay_and_check(drain, order)


def bury_in(monkeypatch, drain, name):
    def refuse(*args, **kwargs):
        raise Permanent("the account is closed")

    with monkeypatch.context() as broken:
        broken.setattr(name, refuse)
        close_breakers()
        drain()


def replay_and_check(drain, order):
    campaign = resolving.replay(DeadLetter.objects.all(), by="ops", reason="mended").campaign
    drain()
    assert campaigns.outcomes(campaign.pk).recovered == 1
    assert status(order) == Order.Status.CANCELLED


@pytest.mark.parametrize("step", ["validate", "charge", "fulfill"])
def test_a_cancellation_closes_the_dead_letters_of_steps_that_it_made_needless(step, drain, world, monkeypatch):
    order = place()
    bury_in(monkeypatch, drain, f"orders.steps.{step}")
    assert DeadLetter.objects.open().get().consumer == f"orders.tasks.{step}"

    services.request_cancellation(order_id=order.pk, requested_by="customer")
    dead_letter = DeadLetter.objects.get()
    assert (dead_letter.resolution, dead_letter.resolved_by, dead_letter.reason) == (
        "discarded",
        "system",
        needless.REASON,
    )
    drain()
    assert status(order) == Order.Status.CANCELLED
    assert examination.run().passed


def test_a_step_that_fails_after_the_cancellation_leaves_no_open_dead_letter(drain, world, monkeypatch):
    order = place()

    def cancelled_meanwhile(**_):
        services.request_cancellation(order_id=order.pk, requested_by="customer")
        raise Permanent("no")

    with monkeypatch.context() as broken:
        broken.setattr("orders.steps.charge", cancelled_meanwhile)
        drain()

    dead_letter = DeadLetter.objects.get(consumer="orders.tasks.charge")
    assert (dead_letter.resolution, dead_letter.reason) == ("discarded", needless.REASON)
    assert status(order) == Order.Status.CANCELLED


def test_a_replay_overtaken_by_a_cancellation_reports_that(stuck, drain):
    campaign = resolving.replay(DeadLetter.objects.all(), by="ops", reason="mended").campaign
    services.request_cancellation(order_id=stuck.pk, requested_by="customer")
    drain()

    assert str(campaigns.outcomes(campaign.pk)) == "1 sent: 1 no longer needed"
    assert DeadLetter.objects.get().resolution == "discarded"


def test_the_dead_letters_of_notifications_and_of_stranded_charges_outlive_a_cancellation(drain, world):
    order = place()
    for consumer in ("notifications.tasks.send_email", "orders.tasks.refund_stranded", "orders.tasks.refund"):
        burying.bury(
            burying.Failure(
                source="task", consumer=consumer, error_class="X", error="x", message_id=str(order.message_id)
            )
        )
    services.request_cancellation(order_id=order.pk, requested_by="customer")
    drain()

    assert status(order) == Order.Status.CANCELLED
    assert DeadLetter.objects.open().count() == 3


def test_a_dead_letter_of_a_notification_is_discarded_without_the_order(drain, world):
    order = place(payment_method="pm_card_visa")
    burying.bury(
        burying.Failure(
            source="task",
            consumer="notifications.tasks.send_email",
            workflow="notifications.workflows.by_email",
            error_class="X",
            error="x",
            message_id=str(order.message_id),
        )
    )

    assert discard().done == 1
    assert Order.objects.get().cancel_requested_at is None


def test_a_charge_that_died_before_its_replay_was_noted_is_found_recovered(stuck, drain, monkeypatch):
    Order.objects.filter(pk=stuck.pk).update(payment_method="pm_card_visa")
    campaign = resolving.replay(DeadLetter.objects.all(), by="ops", reason="mended").campaign
    with monkeypatch.context() as dying:
        dying.setattr(campaigns, "record_success", lambda **_: 0)
        drain()
    assert status(stuck) == Order.Status.FULFILLED
    assert campaigns.end_finished() == 0  # it is left to its workers for a while

    testing.pass_time(campaigns.PATIENCE)
    assert campaigns.end_finished() == 1
    assert str(campaigns.outcomes(campaign.pk)) == "1 sent: 1 recovered"


def test_a_charge_held_by_another_worker_does_not_count_as_recovered(stuck, drain):
    Order.objects.filter(pk=stuck.pk).update(lease_until=dt.datetime.now(dt.UTC) + dt.timedelta(minutes=1))
    campaign = resolving.replay(DeadLetter.objects.all(), by="ops", reason="mended").campaign
    drain()

    assert campaigns.outcomes(campaign.pk).recovered == 0
    assert Payment.objects.filter(status=Payment.Status.SUCCEEDED).count() == 0


def test_an_operator_and_a_customer_who_cancel_at_the_same_time_both_succeed(stuck):
    together, failed = threading.Barrier(2), []

    def act(do):
        try:
            together.wait(10)
            do()
        except Exception as error:
            failed.append(error)
        finally:
            connection.close()

    ways = [
        lambda: discard(cancel=True),
        lambda: services.request_cancellation(order_id=stuck.pk, requested_by="customer"),
    ]
    threads = [threading.Thread(target=act, args=[way]) for way in ways]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)

    assert failed == []
    assert DeadLetter.objects.get().resolution == "discarded"
    assert OutboxMessage.objects.filter(event_name="orders.cancellation_requested").count() == 1


def test_every_step_that_can_be_given_up_defines_when_it_is_done():
    from orders.dead_letters import discards

    steps = {name for name in tasks.sweep.app.tasks if name.startswith("orders.tasks.")}
    assert steps - {"orders.tasks.sweep"} == {*discards.BEFORE, discards.STRANDED}


def consumers_of_orders():
    found = {name: task for name, task in current_app.tasks.items() if name.startswith("orders.")}
    return {name: task for name, task in found.items() if isinstance(task, ConsumerTask)}


def test_every_step_defines_in_which_statuses_an_order_needs_it():
    assert consumers_of_orders().keys() == {*discards.BEFORE, discards.STRANDED}


def test_every_step_that_a_cancellation_makes_needless_closes_its_dead_letter():
    closing = {
        name
        for name, task in consumers_of_orders().items()
        if type(task).on_buried is needless.close_if_needless
    }
    assert closing == set(needless.NEEDLESS)
