"""`manage.py place_order`"""

from __future__ import annotations

import time
import uuid
from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.core.validators import validate_email
from django.db import DataError

from orders import adapters, cards, services
from orders.models import Order, Product
from outbox.command_lines import command_line

CARDS = {
    "visa": "pm_card_visa",
    "mastercard": "pm_card_mastercard",
    "declined": "pm_card_visa_chargeDeclined",
    "insufficient": "pm_card_visa_chargeDeclinedInsufficientFunds",
}

NOT_FINAL = 3


class Command(BaseCommand):
    help = "Places one order, as a customer would."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--sku", action="append", required=True, help="A product; repeat for more.")
        parser.add_argument(
            "--quantity", action="append", type=int, help="The quantity of each --sku, in the same order (1)."
        )
        parser.add_argument("--card", default="visa", help=f"{', '.join(CARDS)}, or a provider's token pm_….")
        parser.add_argument("--name", default="")
        parser.add_argument("--email", default="")
        parser.add_argument("--phone", default="", help="E.164, for SMS.")
        parser.add_argument("--push-token", default="")
        parser.add_argument("--country", default="GB")
        parser.add_argument("--key", help="Idempotency key; the same one gives the same order.")
        parser.add_argument(
            "--wait",
            type=float,
            metavar="SECONDS",
            help="Wait at most this long until the order is final; exit 3 if it is not.",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        skus, quantities = options["sku"], options["quantity"] or [1] * len(options["sku"])
        if len(quantities) != len(skus):
            raise CommandError("Give one --quantity for each --sku, or none at all.")
        if min(quantities) < 1:
            raise CommandError("--quantity must be at least 1.")
        card = CARDS.get(options["card"], options["card"])
        if not card.startswith("pm_"):
            raise CommandError(f"--card must be one of {', '.join(CARDS)}, or a token that starts with pm_.")
        try:
            validate_email(options["email"] or "none@example.com")
        except ValidationError as refused:
            raise CommandError(f"--email {options['email'][:80]!r} is not an address.") from refused
        for option in ("name", "email", "push_token", "key"):
            if cards.are_in(options[option] or ""):
                raise CommandError(
                    f"--{option.replace('_', '-')} looks like a card number, which is never stored."
                )
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
                refusal=adapters.payment_gateway().refusal_of,
                idempotency=services.IdempotencyKey.of(
                    scope="cli",
                    key=options["key"] or str(uuid.uuid4()),
                    request=[skus, quantities, card, options["email"], options["phone"]],
                ),
            )
        except (
            services.UnknownProduct,
            services.MixedCurrencies,
            services.NotShippable,
            services.NotChargeable,
        ) as refused:
            raise CommandError(f"{refused}.") from refused
        except services.KeyReused as refused:
            raise CommandError(f"The key {refused} was used for another order.") from refused
        except services.KeyInUse as refused:
            raise CommandError(f"Another order with the key {refused} is being placed; try again.") from refused
        except DataError as refused:
            reason = str(refused).partition("\n")[0]
            raise CommandError(f"A value is too long, too large or not text: {reason}.") from refused
        again = " (placed before under this key)" if placed.replayed else ""
        self.stdout.write(f"{placed.order.number}{again}")
        if options["wait"] is not None:
            self._wait(placed.order, options["wait"])
            return
        self.stderr.write(f"Follow it: {command_line('order_trace', placed.order.number)}")

    def _wait(self, order: Order, seconds: float) -> None:
        until = time.monotonic() + seconds
        while True:
            order.refresh_from_db()
            if order.is_final:
                self.stderr.write(f"{order.status}{f': {order.reason}' if order.reason else ''}")
                return
            if time.monotonic() >= until:
                raise CommandError(
                    f"{order.number} is {order.status} after {seconds:g} s."
                    f" See: {command_line('order_trace', order.number)}",
                    returncode=NOT_FINAL,
                )
            time.sleep(0.2)
