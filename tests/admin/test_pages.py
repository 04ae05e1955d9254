"""Every page follows its policy: no inline script or style, no hostile text, few queries."""

from __future__ import annotations

import re

import pytest
from django.urls import reverse

from notifications.models import Notification
from orders.models import Order, Product
from outbox.models import Attempt, OutboxMessage
from tests.admin.conftest import LISTS, bury
from tests.factories import ProductFactory, place


@pytest.mark.parametrize("visitor", ["anonymous", "root"])
def test_pages_carry_the_policy_and_obey_it(client, signed_in, order, dead_letter, visitor, settings):
    settings.FLOWER_URL, settings.SANDBOX_URL = "http://flower.example/", "http://sandbox.example/"
    pages = [client.get(reverse("admin:login"))]
    if visitor == "root":
        client = signed_in("root")
        product = reverse("admin:orders_product_receive", args=[Product.objects.get().pk])
        pages = [client.get(reverse(f"admin:{window}_changelist")) for window in LISTS]
        pages += [
            client.get(reverse("admin:index")),
            client.get(reverse("admin:orders_order_change", args=[order.pk])),
            client.get(reverse("admin:outbox_deadletter_change", args=[dead_letter.pk])),
            client.get(product),
            client.post(reverse("admin:outbox_deadletter_resolve", args=["replay"]), {"ids": dead_letter.pk}),
            client.post(reverse("admin:orders_order_cancel"), {"ids": order.pk}),
        ]
        assert "http://flower.example/" in pages[0].text
        assert "http://sandbox.example/" in pages[0].text
        assert "/api/v1/docs" in pages[0].text

    for page in pages:
        assert page.status_code == 200
        assert "default-src 'self'" in page["Content-Security-Policy"]
        assert not re.search(r"<style|\sstyle=|\son[a-z]+=|javascript:", page.text)
        for attributes, content in re.findall(r"<script([^>]*)>(.*?)</script>", page.text, re.DOTALL):
            assert ("src=" in attributes and not content.strip()) or "application/json" in attributes


def test_hostile_text_is_shown_as_text(signed_in):
    evil = "</pre></textarea><script>alert(1)</script>"
    product = ProductFactory(name=evil[:200])
    order = place(product, client_reference=evil)
    Order.objects.filter(pk=order.pk).update(customer_name=evil, reason=evil)
    dead_letter = bury(
        order,
        error=evil,
        error_class=evil,
        traceback=evil,
        consumer=evil,
        payload={evil: evil},
        headers={evil: 1},
    )
    Attempt.objects.create(
        consumer=evil,
        message_id=order.message_id,
        outcome="retried",
        error_class=evil,
        error=evil,
        traceback=evil,
    )
    client = signed_in("root")

    pages = [
        client.get(reverse("admin:orders_order_changelist")),
        client.get(reverse("admin:orders_order_change", args=[order.pk])),
        client.get(reverse("admin:orders_product_receive", args=[product.pk])),
        client.get(reverse("admin:outbox_attempt_changelist")),
        client.get(reverse("admin:outbox_attempt_change", args=[Attempt.objects.get().pk])),
        client.get(reverse("admin:outbox_deadletter_changelist")),
        client.get(reverse("admin:outbox_deadletter_change", args=[dead_letter.pk])),
        client.post(
            reverse("admin:outbox_deadletter_resolve", args=["discard"]),
            {"ids": dead_letter.pk, "reason": evil},
        ),
    ]

    for page in pages:
        assert page.status_code == 200
        assert "<script>alert" not in page.text


def test_lists_need_as_many_queries_for_many_rows_as_for_one(signed_in, django_assert_max_num_queries):
    client = signed_in("root")
    product = ProductFactory()
    for _ in range(15):
        bury(place(product))

    for window in ("orders_order", "outbox_outboxmessage", "outbox_deadletter", "outbox_attempt"):
        with django_assert_max_num_queries(12):
            assert client.get(reverse(f"admin:{window}_changelist")).status_code == 200


def test_a_page_needs_as_many_queries_for_a_long_history_as_for_a_short_one(
    signed_in, order, dead_letter, django_assert_max_num_queries
):
    for number in range(15):
        bury(order, consumer=f"consumer.{number}")
        Attempt.objects.create(
            consumer=f"orders.tasks.{number}", message_id=order.message_id, error_class="X", error="x"
        )
        Attempt.objects.create(
            consumer=f"notifications.tasks.{number}",
            message_id=order.message_id,
            outcome="waited",
            error_class="X",
            error="x",
        )
        order.payments.create(
            idempotency_key=f"again-{number}", amount_minor=1, currency="GBP", status="declined"
        )
        notification = Notification.objects.create(
            message_id=order.message_id,
            order_id=order.pk,
            channel="email",
            recipient=f"{number}@example.com",
            html="<p>x</p>",
        )
    client = signed_in("root")
    pages = {
        "orders_order": order.pk,
        "outbox_outboxmessage": order.message_id,
        "outbox_deadletter": dead_letter.pk,
        "notifications_notification": notification.pk,
    }

    for window, row in pages.items():
        address = reverse(f"admin:{window}_change", args=[row])
        client.get(address)  # what a process reads once, such as the types of content
        with django_assert_max_num_queries({"orders_order": 18, "outbox_deadletter": 8}.get(window, 6)):
            assert client.get(address).status_code == 200


def test_pages_of_what_needs_attention_link_to_their_runbooks(signed_in, order, dead_letter, settings):
    client = signed_in("root")
    settings.RUNBOOKS_URL = "https://docs.example/runbooks/"
    page = client.get(reverse("admin:outbox_deadletter_change", args=[dead_letter.pk]))
    assert 'href="https://docs.example/runbooks/DeadLettersGrowing.md"' in page.text
    parked = place()
    OutboxMessage.objects.filter(pk=parked.message_id).update(status="parked", last_error="unknown event")
    page = client.get(reverse("admin:orders_order_change", args=[parked.pk]))
    assert 'href="https://docs.example/runbooks/stuck-order.md"' in page.text

    settings.RUNBOOKS_URL = ""
    page = client.get(reverse("admin:outbox_deadletter_change", args=[dead_letter.pk]))
    assert "docs/runbooks/" in page.text, "the file's path"
    assert not re.search(r'href="[^"]*(runbooks|\.md)', page.text)
