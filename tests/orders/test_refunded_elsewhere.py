"""Money that a person has refunded by other means, because the provider would not."""

from __future__ import annotations

import datetime as dt

import pytest
from django.db.models import Value
from django.db.models.functions import Now

from orderflow.ops import order_story
from orders.models import Order, Product, Refund
from outbox import redelivery
from outbox.dead_letters import resolving
from outbox.models import DeadLetter
from outbox.verification import examination
from tests.orders.test_undecided_payments import notified, now, refund_left_in, wait

pytestmark = pytest.mark.usefixtures("world")


def discard(**ways):
    return resolving.discard(DeadLetter.objects.all(), by="on call", reason="bank transfer 4711", **ways)


def test_an_order_whose_customer_has_the_money_back_by_other_means_ends_as_refunded(world, drain):
    order = refund_left_in(world, drain, "failed")
    assert discard(mark_done=True).done == 1
    wait(drain)

    assert now(order).status == Order.Status.CANCELLED
    refund, dead_letter = Refund.objects.get(), DeadLetter.objects.get()
    assert (refund.status, refund.given_back_by, refund.given_back_how) == (
        Refund.Status.SUCCEEDED,
        "on call",
        "bank transfer 4711",
    )
    assert (dead_letter.resolution, dead_letter.resolved_by, dead_letter.reason) == (
        "discarded",
        "on call",
        "bank transfer 4711",
    )
    assert "refunded by other means £5.00, according to on call" in {
        entry.what for entry in order_story.story(now(order))
    }
    assert "cancelled" in notified()
    assert "refunded" not in notified()  # that message promises the money on the card
    assert world.payments.count(kind="refund") == 1
    assert Product.objects.get().reserved == 0
    assert examination.run(providers=True).passed


def test_an_additional_refund_by_the_provider_is_found_by_the_comparison(world, drain):
    refund_left_in(world, drain, "failed")
    discard(mark_done=True)
    [made] = world.payments.ledger(kind="refund")
    world.payments.change("refund", made["id"], status="succeeded", created=made["created"] - 3600)

    report = examination.run(providers=True)
    violated = [finding.invariant.name for finding in report.findings if finding.verdict == "violated"]
    assert violated == ["their-refunds-are-in-our-books"]


def test_a_dead_letter_of_a_refund_stays_open_unless_the_refund_is_confirmed(world, drain):
    order = refund_left_in(world, drain, "failed")
    [left] = discard(cancel=True).unfinished

    assert (left.can_be_cancelled, left.can_be_marked_done) == (False, True)
    assert now(order).status == Order.Status.CANCELLING


def test_no_order_is_ended_by_other_means_while_a_step_is_at_work_on_it(world, drain):
    order = refund_left_in(world, drain, "failed")
    Order.objects.filter(pk=order.pk).update(lease_until=Now() + Value(dt.timedelta(minutes=1)))
    [left] = discard(mark_done=True).unfinished

    assert not left.can_be_marked_done
    assert now(order).status == Order.Status.CANCELLING


def test_a_replayed_message_does_not_refund_twice(world, drain):
    order = refund_left_in(world, drain, "failed")
    message_id = now(order).message_id
    discard(mark_done=True)
    redelivery.redeliver([message_id])
    wait(drain)

    assert world.payments.count(kind="refund") == 1
    assert Refund.objects.get().given_back_by == "on call"
