"""The orders of a drill: drawn from the seed; some of them are meant to be refused."""

from __future__ import annotations

import dataclasses
import random
from typing import Any

from django.db.models import F

from orders.models import Product

PRODUCTS = {"DRILL-CUP": 900, "DRILL-BOOK": 2_400, "DRILL-COAT": 12_900}
UNSHIPPABLE = "NOSHIP-DRILL"
"""The sandbox's warehouse refuses SKUs that start with NOSHIP-, so that charges are refunded."""

GOOD_CARD, DECLINED_CARD = "pm_card_visa", "pm_card_visa_chargeDeclined"
SHARES = (("declined", 0.06), ("unshippable", 0.05), ("cancelled", 0.08))
"""The kinds of order that are not shipped, and their shares of all orders."""

MOST_OF_ONE = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlannedOrder:
    """One order to be placed: its number in the drill, its kind, its key, and the request body."""

    number: int
    kind: str
    key: str
    body: dict[str, Any]
    cancel_after: float | None = None
    """Seconds after the response; None: it is not cancelled."""


def draw(count: int, *, seed: int, run: str) -> list[PlannedOrder]:
    """Draw the orders of a drill; `run` makes their keys differ from those of another run."""
    dice = random.Random(f"orders {seed}")  # noqa: S311 - no secret
    return [_planned(number, run=run, dice=dice) for number in range(count)]


def stock(count: int) -> None:
    """Add enough stock of every product for `count` orders."""
    for sku, price in {**PRODUCTS, UNSHIPPABLE: 150_000}.items():
        stock_one(sku, count * MOST_OF_ONE, price=price)


def stock_one(sku: str, count: int, *, price: int) -> None:
    """Add stock of one product."""
    product, _ = Product.objects.get_or_create(sku=sku, defaults={"name": sku, "price_minor": price})
    Product.objects.filter(pk=product.pk).update(on_hand=F("on_hand") + count, received=F("received") + count)


def _planned(number: int, *, run: str, dice: random.Random) -> PlannedOrder:
    kind, draw = "good", dice.random()
    for name, share in SHARES:
        if draw < share:
            kind = name
            break
        draw -= share
    skus = [UNSHIPPABLE] if kind == "unshippable" else dice.sample(list(PRODUCTS), dice.choice((1, 2)))
    customer = {"name": f"Customer {number}", "email": f"{run}-{number}@example.com"}
    if number % 3 == 0:
        customer["phone"] = f"+4477{number:08d}"
    if number % 4 == 0:
        customer["push_token"] = f"device-{run}-{number}"
    return PlannedOrder(
        number=number,
        kind=kind,
        key=f"{run}-{number}",
        cancel_after=round(dice.uniform(0.0, 0.6), 2) if kind == "cancelled" else None,
        body={
            "items": [{"sku": sku, "quantity": dice.randint(1, MOST_OF_ONE)} for sku in skus],
            "currency": "GBP",
            "payment_method": DECLINED_CARD if kind == "declined" else GOOD_CARD,
            "customer": customer,
            "country": "GB",
            "client_reference": f"{run}-{number}",
        },
    )
