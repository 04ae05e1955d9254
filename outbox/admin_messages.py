"""Windows on the outbox, on the inbox and on attempts that failed. Nothing can be changed in them."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import OuterRef, QuerySet, Subquery, Value
from django.db.models.functions import Coalesce, Concat, Left, NullIf
from django.http import HttpRequest
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.text import Truncator

from outbox.admin_parts import KeyedAdmin, ReadOnlyAdmin, age, chip, moment, pretty
from outbox.models import Attempt, InboxEntry, OutboxMessage

SHORT = 90
"""Characters of an error that a list shows."""

REASON = Coalesce(
    NullIf(Left("last_error", 2 * SHORT), Value("")),
    Subquery(
        Attempt.objects.filter(message_id=OuterRef("pk"))
        .order_by("-pk")
        .values(said=Concat("error_class", Value(": "), Left("error", 2 * SHORT)))[:1]
    ),
)
"""Why a message waits: what kept the relay from delivering it, or else what its latest consumer said."""


def _short(text: str | None) -> str | None:
    return Truncator(text).chars(SHORT) if text else None


@admin.register(OutboxMessage)
class OutboxMessageAdmin(KeyedAdmin):
    """Every event that was published, and how far it got."""

    list_display = (
        "event_name",
        "about",
        "state",
        "undelivered_for",
        "waits_until",
        "why",
        "created",
        "redeliveries",
        "attempts",
    )
    list_filter = ("status", "event_name", "created_at")
    search_fields = ("id", "key", "correlation_id", "event_name")
    search_help_text = "A message id, an order's id, a correlation id or an event's name, exactly."
    ordering = ("-id",)
    fieldsets = (
        (None, {"fields": ("id", "event_name", "event_version", "about", "state", "last_error")}),
        (
            "Delivery",
            {"fields": ("created_at", "not_before", "published_at", "attempts", "redeliveries", "workflows")},
        ),
        ("Where it comes from", {"fields": ("key", "correlation_id", "causation_id", "trace")}),
        ("What it says", {"fields": ("content",)}),
    )

    @admin.display(description="status", ordering="status")
    def state(self, message: OutboxMessage) -> SafeString:
        return chip(message.status, message.get_status_display())

    @admin.display(description="undelivered for", ordering="-created_at", empty_value="–")
    def undelivered_for(self, message: OutboxMessage) -> SafeString | None:
        return None if message.status == OutboxMessage.Status.PUBLISHED else age(message.created_at)

    @admin.display(description="waits until (UTC)", ordering="not_before", empty_value="–")
    def waits_until(self, message: OutboxMessage) -> SafeString | None:
        waits = message.status == OutboxMessage.Status.PENDING and message.not_before > timezone.now()
        return moment(message.not_before) if waits else None

    @admin.display(description="why", empty_value="–")
    def why(self, message: Any) -> str | None:
        return None if message.status == OutboxMessage.Status.PUBLISHED else _short(message.reason)

    @admin.display(description="created at (UTC)", ordering="created_at")
    def created(self, message: OutboxMessage) -> SafeString:
        return moment(message.created_at)

    @admin.display(description="payload")
    def content(self, message: OutboxMessage) -> SafeString:
        return pretty(message.payload)

    def get_queryset(self, request: HttpRequest) -> QuerySet[OutboxMessage]:
        found = super().get_queryset(request)
        shows_list = getattr(request.resolver_match, "url_name", "") == "outbox_outboxmessage_changelist"
        return found.annotate(reason=REASON).defer("payload", "trace", "last_error") if shows_list else found


@admin.register(InboxEntry)
class InboxEntryAdmin(ReadOnlyAdmin):
    """Which consumer has taken which message into effect."""

    list_display = ("consumer", "message_id", "taken_at")
    list_filter = ("consumer", "taken_at")
    search_fields = ("message_id",)
    search_help_text = "A message id, exactly."
    ordering = ("-taken_at", "-id")


@admin.register(Attempt)
class AttemptAdmin(ReadOnlyAdmin):
    """Tries that did not succeed."""

    list_display = ("consumer", "error_class", "what_then", "failed_at", "next_try_at", "message_id")
    list_filter = ("outcome", "consumer", "error_class", "failed_at")
    search_fields = ("message_id",)
    search_help_text = "A message id, exactly."
    ordering = ("-id",)
    fields = (
        "consumer",
        "message_id",
        "what_then",
        "failed_at",
        "next_try_at",
        "worker",
        "error_class",
        "error",
        "trace",
    )

    @admin.display(description="outcome", ordering="outcome")
    def what_then(self, attempt: Attempt) -> SafeString:
        return chip(attempt.outcome, attempt.get_outcome_display())

    @admin.display(description="traceback")
    def trace(self, attempt: Attempt) -> SafeString:
        return format_html('<pre class="of-code" tabindex="0">{}</pre>', attempt.traceback or "none kept")
