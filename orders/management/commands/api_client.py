"""`manage.py api_client`."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandParser
from django.db.models import Count, Q

from orders.clients import ownership
from orders.models import ApiClient


class Command(BaseCommand):
    help = "Lists the clients of the API, and assigns orders that were placed before orders had clients."

    def add_arguments(self, parser: CommandParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
        verbs.add_parser("list", help="List the clients and how many of their tokens are not revoked.")
        verbs.add_parser(
            "assign_orders",
            help="Assign orders without a client to the one whose key placed them: once, when the last process "
            "of a version without clients has ended. Running it again changes nothing.",
        )

    def handle(self, *args: Any, verb: str, **options: Any) -> None:
        getattr(self, f"_{verb}")()

    def _list(self) -> None:
        in_use = Count("tokens", filter=Q(tokens__revoked_at__isnull=True))
        for client in ApiClient.objects.annotate(in_use=in_use).order_by("name"):
            self.stdout.write(f"{client.name}\t{client.in_use} tokens\tsince {client.created_at:%Y-%m-%d}")

    def _assign_orders(self) -> None:
        self.stdout.write(f"{ownership.assign_orders()} orders were assigned to their client.")
