"""`manage.py place_order`"""

from __future__ import annotations

import uuid
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from orders import services
from orders.models import Product

CARDS = {
    "visa": "pm_card_visa",
    "mastercard": "pm_card_mastercard",
    "declined": "pm_card_visa_chargeDeclined",
    "insufficient": "pm_card_visa_chargeDeclinedInsufficientFunds",
}


class Command(BaseCommand):
    help = "Places one order, as a customer would."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--sku", action="append", required=True, help="A product; repeat for more.")
        parser.add_argument(
            "--quantity", action="append", type=int, help="How many of each --sku, in the same order (1)."
        )
        parser.add_argument("--card", default="visa", help=f"{', '.join(CARDS)}, or a provider's token pm_….")
        parser.add_argument("--name", default="")
        parser.add_argument("--email", default="")
        parser.add_argument("--phone", default="", help="E.164, for SMS.")
        parser.add_argument("--push-token", default="")
        parser.add_argument("--country", default="GB")
        parser.add_argument("--key", help="Idempotency key; the same one gives the same order.")

    def handle(self, *args: Any, **options: Any) -> None:
        skus, quantities = options["sku"], options["quantity"] or [1] * len(options["sku"])
        if len(quantities) != len(skus):
            raise CommandError("Give one --quantity for each --sku, or none at all.")
        if min(quantities) < 1:
            raise CommandError("--quantity must be at least 1.")
        card = CARDS.get(options["card"], options["card"])
        if not card.startswith("pm_"):
            raise CommandError(f"--card must be one of {', '.join(CARDS)}, or a token that starts with pm_.")
        first = Product.objects.filter(sku=skus[0]).first()
        try:
            placed = services.place_order(
                items=[
                    services.Item(sku=sku, quantity=quantity)
                    for sku, quantity in zip(skus, quantities, strict=True)
                ],
                currency=first.currency if first else "GBP",
                payment_method=card,
                contact=services.Contact(
                    name=options["name"],
                    email=options["email"],
                    phone=options["phone"],
                    push_token=options["push_token"],
                ),
                country=options["country"],
                source="cli",
                idempotency=services.IdempotencyKey.of(
                    scope="cli",
                    key=options["key"] or str(uuid.uuid4()),
                    request=[skus, quantities, card, options["email"], options["phone"]],
                ),
            )
        except (services.UnknownProduct, services.MixedCurrencies) as refused:
            raise CommandError(f"{refused}.") from refused
        except services.KeyReused as refused:
            raise CommandError(f"The key {refused} was used for another order.") from refused
        again = " (placed before under this key)" if placed.replayed else ""
        self.stdout.write(f"{placed.order.number}{again}")
        self.stderr.write(f"Follow it: python3 run.py order_trace {placed.order.number}")
