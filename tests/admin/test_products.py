"""The pages of products: deliveries count once, and a new price does not change the stock."""

from __future__ import annotations

from django.contrib.admin.models import LogEntry
from django.urls import reverse

from orders.models import Product
from tests.admin.conftest import messages_on
from tests.factories import ProductFactory


def test_a_delivery_counts_once(signed_in):
    product = ProductFactory(stock=10)
    client = signed_in("root")
    page = reverse("admin:orders_product_receive", args=[product.pk])

    client.post(page, {"quantity": 5, "seen": 10})
    again = client.post(page, {"quantity": 5, "seen": 10}, follow=True)
    assert client.post(page, {"quantity": 0, "seen": 15}).status_code == 200

    product.refresh_from_db()
    assert (product.received, product.on_hand) == (15, 15)
    assert "Not counted" in messages_on(again)
    assert LogEntry.objects.get().change_message == "Received 5."
    assert signed_in("support").get(page).status_code == 403


def test_a_new_price_does_not_write_old_stock(signed_in):
    product = ProductFactory(stock=10)
    stale = Product.objects.get()
    Product.objects.update(on_hand=8, reserved=2)

    client = signed_in("root")
    client.post(
        reverse("admin:orders_product_change", args=[product.pk]),
        {"name": "New name", "price_minor": 300, "sku": "OTHER", "on_hand": 99},
    )
    product.refresh_from_db()
    assert (product.name, product.price_minor, product.sku) == ("New name", 300, stale.sku)
    assert (product.on_hand, product.reserved, product.received) == (8, 2, 10)

    client.post(
        reverse("admin:orders_product_add"), {"sku": "NEW", "name": "New", "price_minor": 1, "currency": "EUR"}
    )
    assert Product.objects.get(sku="NEW").on_hand == 0
