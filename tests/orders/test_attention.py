"""An order that needs a person shows it: in the admin, over the API, and in its history."""

from __future__ import annotations

import datetime as dt

import pytest
from django.db.models.functions import Now
from django.urls import reverse

from orderflow.ops import order_story
from orders import services
from orders.api import operations
from orders.clients import tokens
from orders.dead_letters import attention
from orders.models import Order
from outbox import testing
from outbox.dead_letters import burying, resolving
from outbox.models import Attempt, DeadLetter, OutboxMessage
from outbox.relay import relay
from tests.admin.conftest import _quick_passwords, signed_in  # noqa: F401 - fixtures
from tests.conftest import close_breakers
from tests.factories import place
from tests.orders.api.client import ApiClient, clear_limits

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def stuck(drain, world):
    order = place(payment_method="pm_no_such_card")
    drain()
    return Order.objects.get(pk=order.pk)


def ask(order: Order, **headers):
    clear_limits()
    return ApiClient(*tokens.ORDINARY, "orders:read:all").get(f"/api/v1/orders/{order.number}", **headers)


def test_the_api_shows_that_an_order_needs_a_person_and_suggests_slow_polling(stuck, drain):
    before = ask(place())
    assert (before.json()["needs_attention"], before["Retry-After"]) == (False, "1")

    answer = ask(stuck)
    assert (answer.json()["needs_attention"], answer["Retry-After"]) == (True, operations.PEOPLE_TAKE)

    Order.objects.filter(pk=stuck.pk).update(payment_method="pm_card_visa")
    resolving.replay(DeadLetter.objects.all(), by="ops", reason="mended")
    assert ask(stuck).json()["needs_attention"] is False
    drain()
    assert "Retry-After" not in ask(stuck)


def test_the_api_shows_it_in_its_list_too(stuck):
    fine = place()
    clear_limits()
    [first, second] = ApiClient(*tokens.ORDINARY, "orders:read:all").get("/api/v1/orders").json()["items"]

    assert {one["number"]: one["needs_attention"] for one in (first, second)} == {
        fine.number: False,
        stuck.number: True,
    }


def test_an_order_whose_dead_letter_was_discarded_without_it_still_needs_attention(stuck, signed_in):  # noqa: F811
    DeadLetter.objects.update(resolution="discarded", resolved_by="old version", reason="x", resolved_at=Now())

    assert list(attention.waiting(Order.objects.all())) == [stuck]
    assert attention.needed_by([stuck]) == {stuck.pk}
    assert ask(stuck).json()["needs_attention"] is True
    assert "discarded dead letter" in order_story.outlook(stuck)
    assert order_story.way_out(stuck) == ""  # a discarded dead letter cannot be replayed
    page = signed_in("support").get(reverse("admin:orders_order_change", args=[stuck.pk]))
    assert "nothing continues the order: cancel it" in page.text

    services.request_cancellation(order_id=stuck.pk, requested_by="ops")
    assert list(attention.waiting(Order.objects.all())) == []
    assert attention.needed_by([Order.objects.get(pk=stuck.pk)]) == set()


def test_the_list_shows_and_finds_orders_that_wait_for_a_person(stuck, signed_in):  # noqa: F811 - a fixture
    fine = place()
    burying.bury(
        burying.Failure(
            source="worker", consumer="orders.tasks.x", error_class="X", error="x", key="no id", body="x"
        )
    )
    page = signed_in("support").get(reverse("admin:orders_order_changelist"))
    assert page.text.count("needs attention</span>") == 1

    page = signed_in("support").get(reverse("admin:orders_order_changelist"), {"attention": "yes"})
    assert [order.pk for order in page.context["cl"].result_list] == [stuck.pk]
    assert fine.number not in page.text


def test_an_orders_page_leads_to_the_dead_letter_that_it_waits_for(stuck, signed_in):  # noqa: F811 - a fixture
    dead_letter = DeadLetter.objects.get()
    url = reverse("admin:outbox_deadletter_change", args=[dead_letter.pk])
    page = reverse("admin:orders_order_change", args=[stuck.pk])

    html = signed_in("root").get(page).text
    assert "This order needs attention." in html
    assert f'<a href="{url}">Open dead letter {dead_letter.pk}</a>' in html

    html = signed_in("support").get(page).text
    assert "This order needs attention." in html
    assert url not in html


def test_an_order_whose_message_is_parked_waits_for_code_that_can_read_it(drain, world, signed_in):  # noqa: F811
    order = place()
    OutboxMessage.objects.filter(pk=order.message_id).update(event_version=99)
    drain()

    assert list(attention.waiting(Order.objects.all())) == [order]
    assert attention.needed_by([order]) == {order.pk}
    answer = ask(order)
    assert (answer.json()["needs_attention"], answer["Retry-After"]) == (True, operations.PEOPLE_TAKE)
    assert "Its message is parked: " in order_story.outlook(order)
    page = signed_in("support").get(reverse("admin:orders_order_change", args=[order.pk]))
    assert "This order needs attention." in page.text

    OutboxMessage.objects.filter(pk=order.message_id).update(event_version=1)
    relay.unpark()
    drain()
    assert list(attention.waiting(Order.objects.all())) == []
    assert ask(order).json()["status"] == "fulfilled"


def test_the_outlook_shows_why_a_message_waits_that_no_queue_accepts():
    order = place()
    OutboxMessage.objects.filter(pk=order.message_id).update(
        last_error="NotDelivered: no queue accepts the work"
    )

    assert "after NotDelivered: no queue accepts the work" in order_story.outlook(order)


def test_a_notification_that_failed_does_not_make_its_order_wait(drain, world):
    order = place(contact=services.Contact(email="bounce@example.com"))
    drain()

    assert DeadLetter.objects.open().exists()
    assert not attention.is_needed(order)
    assert list(attention.waiting(Order.objects.all())) == []


def test_a_refund_that_is_owed_needs_attention_although_its_order_has_ended(drain, world):
    order = place()
    services.request_cancellation(order_id=order.pk, requested_by="customer")
    drain()
    burying.bury(
        burying.Failure(
            source="task",
            consumer="orders.tasks.refund_stranded",
            error_class="X",
            error="x",
            message_id=str(order.message_id),
        )
    )

    assert list(attention.waiting(Order.objects.all())) == [order]
    assert "must be replayed or discarded" in order_story.outlook(Order.objects.get(pk=order.pk))


def test_an_outage_is_one_line_of_the_history(drain, world):
    order = place(contact=services.Contact())
    with world.payments.failing(fault="error", status=503):
        for _ in range(5):
            drain()
            testing._let_waits_shrink(dt.timedelta(minutes=3))
        checks = Attempt.objects.filter(outcome="waited").count()
        assert checks >= 5
        [wait] = [entry for entry in order_story.story(order) if entry.kind == "wait"]
    since = Attempt.objects.earliest("pk").failed_at
    assert wait.what == f"orders.tasks.charge waiting since {since:%H:%M} UTC, {checks} checks"
    assert not wait.trouble
    assert not [entry for entry in order_story.story(order) if entry.trouble]

    close_breakers()
    testing._let_waits_shrink(dt.timedelta(minutes=3))
    drain()
    [wait] = [entry for entry in order_story.story(order) if entry.kind == "wait"]
    assert " waited from " in wait.what


def test_a_failure_of_its_own_ends_a_wait():
    order = place()
    for outcome in ("waited", "waited", "retried", "waited"):
        Attempt.objects.create(
            consumer="orders.tasks.charge",
            message_id=order.message_id,
            outcome=outcome,
            error_class="X",
            error="x",
        )

    kinds = [entry.kind for entry in order_story.story(order) if entry.kind in ("wait", "attempt")]
    assert sorted(kinds) == ["attempt", "wait", "wait"]


def test_the_history_shows_replays_and_their_results(stuck, drain):
    resolving.replay(DeadLetter.objects.all(), by="ada", reason="a guess")
    assert "is being replayed, by ada" in order_story.outlook(stuck)
    drain()

    entries = [entry.what for entry in order_story.story(stuck) if entry.kind == "dead letter"]
    assert entries[-2:] == ["replayed by ada", "the replay ended: failed again"]
