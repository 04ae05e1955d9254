"""`manage.py erase_customer`"""

from __future__ import annotations

import getpass
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from orderflow.personal import erasure
from orders.models import Order

NOTHING_MATCHED = 4
SOME_LEFT = 3


class Command(BaseCommand):
    help = (
        "Replaces a customer's contact data permanently: in orders, messages, notifications, attempts, dead "
        "letters and idempotency records. Amounts and the providers' ids stay. An order is erased once none "
        "of its work is in progress. Run it again after restoring a backup."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        which = parser.add_mutually_exclusive_group(required=True)
        which.add_argument("--email", default="", help="All orders of this address.")
        which.add_argument("--order", default="", help="One order, by its number.")
        parser.add_argument("--dry-run", action="store_true", help="Show the orders, change nothing.")

    def handle(self, *args: Any, email: str, order: str, dry_run: bool, **options: Any) -> None:
        found = erasure.orders_of(email=email, number=order)
        if not found:
            if email and not dry_run:
                erasure.forget_address(email.strip())
            raise CommandError("No order matches; it may have been erased before.", returncode=NOTHING_MATCHED)
        orders = Order.objects.filter(pk__in=found)
        if dry_run:
            for number in orders.order_by("placed_at").values_list("number", flat=True):
                self.stdout.write(f"{number} would be erased")
            return
        addresses = {*orders.values_list("customer_email", flat=True), email.strip()}
        results = [erasure.erase(order_id, by=f"cli:{getpass.getuser()}") for order_id in found]
        for address in addresses:
            erasure.forget_address(address)
        self._show(results)

    def _show(self, results: list[erasure.Erased]) -> None:
        for one in results:
            self.stdout.write(
                f"{one.number} stays: {one.waits_for}" if one.waits_for else f"{one.number} erased"
            )
            if one.history:
                self.stdout.write(
                    f"{one.number}: the notes of {one.history} of its moves name the customer; history cannot "
                    "be changed."
                )
        if left := sum(bool(one.waits_for) for one in results):
            raise CommandError(f"{left} of {len(results)} orders were not erased.", returncode=SOME_LEFT)
