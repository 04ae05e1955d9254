"""Every window opens for those it is for, and for nobody else; none needs inline script or style."""

from __future__ import annotations

import re

import pytest
from django.contrib.admin.models import LogEntry
from django.urls import reverse

from orders import services
from orders.models import ApiToken, Order, Product
from outbox.models import Attempt, InboxEntry, OutboxMessage
from tests.admin.conftest import bury
from tests.factories import ProductFactory, place

LISTS = {
    "orders_order": {"root", "on-call", "support"},
    "orders_product": {"root", "on-call", "support"},
    "orders_apitoken": {"root"},
    "notifications_notification": {"root", "on-call", "support"},
    "outbox_outboxmessage": {"root", "on-call"},
    "outbox_inboxentry": {"root", "on-call"},
    "outbox_attempt": {"root", "on-call"},
    "outbox_deadletter": {"root", "on-call"},
}


@pytest.mark.parametrize("name", ["root", "on-call", "support", "nobody"])
def test_lists_and_details_open_for_those_they_are_for(signed_in, letter, name):
    client = signed_in(name)
    token = ApiToken.objects.create(name="shop", digest="d" * 64)
    rows = {
        "orders_order": Order.objects.get().pk,
        "orders_product": Product.objects.get().pk,
        "orders_apitoken": token.pk,
        "outbox_outboxmessage": OutboxMessage.objects.get().pk,
        "outbox_inboxentry": InboxEntry.objects.get().pk,
        "outbox_attempt": Attempt.objects.get().pk,
        "outbox_deadletter": letter.pk,
    }

    assert client.get(reverse("admin:index")).status_code == 200
    for window, readers in LISTS.items():
        expected = 200 if name in readers else 403
        assert client.get(reverse(f"admin:{window}_changelist")).status_code == expected, window
        if window in rows:
            page = client.get(reverse(f"admin:{window}_change", args=[rows[window]]))
            assert page.status_code == expected, window
            assert token.digest not in page.text


@pytest.mark.parametrize("window", [name for name in LISTS if name not in ("orders_product",)])
def test_not_even_a_superuser_adds_changes_or_deletes_rows(signed_in, letter, window):
    client = signed_in("root")

    assert client.get(reverse(f"admin:{window}_add")).status_code == 403
    for row, page in {"outbox_deadletter": letter.pk, "orders_order": Order.objects.get().pk}.items():
        if window == row:
            assert client.get(reverse(f"admin:{window}_delete", args=[page])).status_code == 403
            assert (
                client.post(reverse(f"admin:{window}_change", args=[page]), {"error": "x"}).status_code == 403
            )


def test_levers_need_their_own_permission(signed_in, order, letter):
    replay, discard = (reverse("admin:outbox_deadletter_resolve", args=[v]) for v in ("replay", "discard"))
    cancel = reverse("admin:orders_order_cancel")

    def answers(name: str) -> list[int]:
        client = signed_in(name)
        return [
            client.post(replay, {"ids": letter.pk}).status_code,
            client.post(discard, {"ids": letter.pk}).status_code,
            client.post(cancel, {"ids": order.pk}).status_code,
        ]

    assert answers("root") == [200, 200, 200]
    assert answers("on-call") == [200, 200, 403]
    assert answers("support") == [403, 403, 200]
    assert answers("nobody") == [403, 403, 403]
    assert signed_in("root").get(replay).status_code == 405
    assert not LogEntry.objects.exists()


@pytest.mark.parametrize("visitor", ["anonymous", "root"])
def test_pages_carry_the_policy_and_obey_it(client, signed_in, order, letter, visitor, settings):
    settings.FLOWER_URL, settings.SANDBOX_URL = "http://flower.example/", "http://sandbox.example/"
    pages = [client.get(reverse("admin:login"))]
    if visitor == "root":
        client = signed_in("root")
        product = reverse("admin:orders_product_receive", args=[Product.objects.get().pk])
        pages = [client.get(reverse(f"admin:{window}_changelist")) for window in LISTS]
        pages += [
            client.get(reverse("admin:index")),
            client.get(reverse("admin:orders_order_change", args=[order.pk])),
            client.get(reverse("admin:outbox_deadletter_change", args=[letter.pk])),
            client.get(product),
            client.post(reverse("admin:outbox_deadletter_resolve", args=["replay"]), {"ids": letter.pk}),
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
    letter = bury(
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
        client.get(reverse("admin:outbox_deadletter_change", args=[letter.pk])),
        client.post(
            reverse("admin:outbox_deadletter_resolve", args=["discard"]), {"ids": letter.pk, "reason": evil}
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


def test_an_orders_page_tells_its_whole_story(signed_in, order, letter):
    page = signed_in("on-call").get(reverse("admin:orders_order_change", args=[order.pk])).text

    assert f"Dead letter {letter.pk} waits for somebody" in page
    assert reverse("admin:outbox_deadletter_change", args=[letter.pk]) in page
    assert reverse("admin:outbox_outboxmessage_change", args=[order.message_id]) in page
    assert "5.00 GBP" in page
    assert "orders.order_placed" in page


def test_an_order_is_found_by_what_people_have_at_hand(signed_in, order):
    Order.objects.filter(pk=order.pk).update(client_reference="SHOP-77")
    place(ProductFactory(), contact=services.Contact(name="Bob", email="bob@example.com"))
    client = signed_in("support")

    def found(term: object) -> list[str]:
        page = client.get(reverse("admin:orders_order_changelist"), {"q": str(term)})
        return [row.number for row in page.context["cl"].result_list]

    for term in (
        order.number,
        order.number.lower(),
        order.number.removeprefix("OF-"),
        "ada@example.com",
        "Ada@Example.com",
        "SHOP-77",
        order.pk,
        order.message_id,
    ):
        assert found(term) == [order.number], term
    assert found("nothing of the kind") == []
    assert found("'; drop table orders_order; --") == []


def test_machinery_is_found_by_its_ids(signed_in, order, letter):
    client = signed_in("on-call")

    for window, terms in {
        "outbox_outboxmessage": (order.message_id, order.pk, order.correlation_id),
        "outbox_inboxentry": (order.message_id,),
        "outbox_attempt": (order.message_id,),
        "outbox_deadletter": (letter.pk, order.message_id, order.pk, letter.fingerprint),
    }.items():
        for term in terms:
            page = client.get(reverse(f"admin:{window}_changelist"), {"q": str(term)})
            assert len(page.context["cl"].result_list) == 1, (window, term)
        page = client.get(reverse(f"admin:{window}_changelist"), {"q": "9" * 40})
        assert len(page.context["cl"].result_list) == 0
