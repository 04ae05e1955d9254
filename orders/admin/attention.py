"""Orders that need attention, in the order admin: a chip, a filter, a banner with the cause."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from orders.dead_letters import attention
from orders.models import Order
from outbox.admin.lists import KeysetChangeList
from outbox.admin.parts import chip, may_view
from outbox.models import DeadLetter

LOOKS = {"attention": ("bad", "!")}
MOST_SHOWN = 5
"""The number of dead letters in a banner."""


class AttentionFilter(admin.SimpleListFilter):
    """Only orders that need attention."""

    title = "needs attention"
    parameter_name = "attention"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("yes", "Needs attention")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Order]) -> QuerySet[Order]:
        return attention.waiting(queryset) if self.value() == "yes" else queryset


class OrderList(KeysetChangeList):
    """Queries once per page which of its orders need attention."""

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        waiting = attention.needed_by(list(self.result_list))
        for order in self.result_list:
            order.needs_attention = order.pk in waiting


def with_chip(order: Any, shown: SafeString) -> SafeString:
    """The order's status, with a chip if it needs attention and that was queried before."""
    if not getattr(order, "needs_attention", False):
        return shown
    return format_html("{} {}", shown, chip("attention", "needs attention", LOOKS))


def causes(request: HttpRequest, order: Any) -> list[tuple[DeadLetter, str]]:
    """The dead letters that the order waits for, with their URLs if the user may see them."""
    found = list(attention.dead_letters_of(order).defer("payload", "headers", "traceback")[:MOST_SHOWN])
    order.waits_for = attention.why(order)
    order.needs_attention = bool(found or order.waits_for)
    may = may_view(request, DeadLetter)
    return [
        (dead_letter, reverse("admin:outbox_deadletter_change", args=[dead_letter.pk]) if may else "")
        for dead_letter in found
    ]
