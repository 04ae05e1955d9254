"""Products and orders for tests."""

from __future__ import annotations

import itertools
from typing import Any

import factory

from orders import services
from orders.models import Order, Product

_keys = itertools.count(1)


class ProductFactory(factory.django.DjangoModelFactory):
    """Create a product with enough stock for any test, or with `stock`."""

    class Meta:
        model = Product

    class Params:
        stock = 1000

    sku = factory.Sequence(lambda number: f"SKU-{number}")
    name = factory.Sequence(lambda number: f"Product {number}")
    price_minor = 250
    on_hand = factory.SelfAttribute("stock")
    received = factory.SelfAttribute("stock")


def place(product: Product | None = None, *, quantity: int = 2, **changed: Any) -> Order:
    """Place an order as a customer does. Keyword arguments override those of `services.place_order`."""
    if "items" not in changed:
        product = product or ProductFactory()
        changed["items"] = [services.Item(sku=product.sku, quantity=quantity)]
    arguments: dict[str, Any] = {
        "currency": "GBP",
        "payment_method": "pm_card_visa",
        "contact": services.Contact(name="Ada Example", email="ada@example.com"),
        "country": "GB",
        "idempotency": services.IdempotencyKey.of(scope="test", key=str(next(_keys)), request={}),
    }
    return services.place_order(**(arguments | changed)).order
