"""
Admin of API clients and their tokens, and the filter of orders by client. All of it is read-only: tokens are
created and revoked by `manage.py api_token`.
"""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import Count, Prefetch, Q, QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from orders.clients import tokens
from orders.models import ApiClient, ApiToken, Order, SupersededSecret
from outbox.admin.parts import ReadOnlyAdmin, chip, moment
from outbox.database import clock

CHIPS = {"valid": ("good", "✓"), "expired": ("warn", "!"), "revoked": ("quiet", "–")}

MOST_LISTED = 20
"""The number of clients in the filter. Every client's own page links to its orders, too."""

LARGEST_ID = 2**63 - 1


class ClientFilter(admin.SimpleListFilter):
    """The orders of one API client. The index `orders_by_client` supports it."""

    title = "API client"
    parameter_name = "client"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """The first clients by name, and the selected one."""
        named = list(ApiClient.objects.order_by("name")[:MOST_LISTED])
        chosen = _id(request.GET.get(self.parameter_name, ""))
        if chosen is not None and chosen not in {client.pk for client in named}:
            named += ApiClient.objects.filter(pk=chosen)
        return [(str(client.pk), client.name) for client in named]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Order]) -> QuerySet[Order]:
        """All orders if no client is selected; none for an invalid id."""
        if self.value() is None:
            return queryset
        chosen = _id(self.value() or "")
        return queryset.none() if chosen is None else queryset.filter(client_id=chosen)


def _id(text: str) -> int | None:
    """Parse an id from a URL parameter; None if it is invalid."""
    is_id = text.isascii() and text.isdigit() and len(text) <= len(str(LARGEST_ID))
    return found if is_id and (found := int(text)) <= LARGEST_ID else None


class ApiClientAdmin(ReadOnlyAdmin):
    """API clients, with links to their tokens and orders."""

    list_display = ("name", "tokens_in_use", "created_at")
    search_fields = ("name",)
    ordering = ("name",)
    fields = ("name", "tokens_in_use", "created_at", "orders")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        in_use = Count("tokens", filter=Q(tokens__revoked_at__isnull=True))
        return super().get_queryset(request).annotate(in_use=in_use)

    @admin.display(description="tokens that are not revoked")
    def tokens_in_use(self, client: Any) -> int:
        in_use: int = client.in_use
        return in_use

    @admin.display(description="orders")
    def orders(self, client: Any) -> SafeString:
        address = reverse("admin:orders_order_changelist")
        return format_html('<a href="{}?client={}">Orders of this client</a>', address, client.pk)


class ApiTokenAdmin(ReadOnlyAdmin):
    """API tokens and their scopes. Hashes of secrets are not shown, only the last characters of the secrets."""

    list_display = ("name", "client", "state", "ends_with", "scopes", "expires_at", "last_used_at")
    list_select_related = ("client",)
    search_fields = ("name", "client__name")
    ordering = ("name",)
    fields = (
        "name",
        "client",
        "state",
        "scopes",
        "allowed_networks",
        "ends_with",
        "older_secrets",
        "created_at",
        "expires_at",
        "revoked_at",
        "last_used_at",
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        newest_first = SupersededSecret.objects.select_related("token").order_by("-superseded_at")
        return super().get_queryset(request).prefetch_related(Prefetch("superseded", newest_first))

    @admin.display(description="state")
    def state(self, token: ApiToken) -> SafeString:
        state = tokens.state_of(token, now=clock.now())
        return chip(state, state, CHIPS)

    @admin.display(description="secret", ordering="last_four")
    def ends_with(self, token: ApiToken) -> str:
        return f"…{token.last_four}"

    @admin.display(description="secrets before", empty_value="none")
    def older_secrets(self, token: Any) -> SafeString | None:
        now = clock.now()
        return (
            format_html_join(
                ", ",
                "…{} ({}, {})",
                (
                    (secret.last_four, tokens.state_of(secret, now=now), moment(secret.valid_until))
                    for secret in token.superseded.all()
                ),
            )
            or None
        )


def register(site: admin.AdminSite) -> None:
    """Register these classes with the site."""
    site.register(ApiClient, ApiClientAdmin)
    site.register(ApiToken, ApiTokenAdmin)
