"""Read-only admin of messages, inbox entries and failed attempts."""

from __future__ import annotations

import datetime as dt
from typing import Any, ClassVar

from django.contrib import admin
from django.db.models import OuterRef, QuerySet, Subquery, Value
from django.db.models.functions import Coalesce, Concat, Left, NullIf
from django.http import HttpRequest
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString, mark_safe
from django.utils.text import Truncator

from outbox.admin.lists import IndexedValuesFilter
from outbox.admin.parts import KeyedAdmin, ReadOnlyAdmin, age, chip, event_payload, masked, moment, pretty
from outbox.admin.traces import TracedAdmin
from outbox.database import clock, uuid7
from outbox.models import Attempt, Delivery, InboxEntry, OutboxMessage

SHORT = 90
"""Maximum length of an error in a list, in characters."""

REASON = Coalesce(
    NullIf(Left("last_error", 2 * SHORT), Value("")),
    Subquery(
        Attempt.objects.filter(message_id=OuterRef("pk"))
        .order_by("-pk")
        .values(summary=Concat("error_class", Value(": "), Left("error", 2 * SHORT)))[:1]
    ),
)
"""Why a message waits: the relay's error, or else the error of the latest attempt."""


def _short(text: str | None) -> str | None:
    return Truncator(text).chars(SHORT) if text else None


class CreatedFilter(admin.SimpleListFilter):
    """Filters by age, using the primary key: ids are in the order of their creation."""

    title = "created at"
    parameter_name = "created"
    SPANS: ClassVar = {"1h": dt.timedelta(hours=1), "1d": dt.timedelta(days=1), "7d": dt.timedelta(days=7)}

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("1h", "Past hour"), ("1d", "Past day"), ("7d", "Past 7 days")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        span = self.SPANS.get(self.value() or "")
        return queryset.filter(pk__gte=uuid7.first_at(clock.now() - span)) if span else queryset


@admin.register(OutboxMessage)
class OutboxMessageAdmin(TracedAdmin, KeyedAdmin):
    """Every published event, and the state of its delivery."""

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
    list_filter = ("status", ("event_name", IndexedValuesFilter), CreatedFilter)
    search_fields = ("id", "key", "correlation_id", "event_name")
    search_help_text = "The exact message id, key, correlation id or event name."
    ordering = ("-id",)
    fieldsets = (
        (None, {"fields": ("id", "event_name", "event_version", "about", "state", "shown_error")}),
        (
            "Delivery",
            {
                "fields": (
                    "created_at",
                    "not_before",
                    "published_at",
                    "attempts",
                    "redeliveries",
                    "outstanding",
                )
            },
        ),
        ("Where it comes from", {"fields": ("key", "correlation_id", "causation_id", "trace")}),
        ("Content", {"fields": ("content",)}),
    )

    @admin.display(description="status", ordering="status")
    def state(self, message: OutboxMessage) -> SafeString:
        return chip(message.status, message.get_status_display())

    @admin.display(description="undelivered for", ordering="-created_at", empty_value="–")
    def undelivered_for(self, message: Any) -> SafeString | None:
        if message.status == OutboxMessage.Status.PUBLISHED:
            return None
        return age(message.created_at, now=message.read_at)

    @admin.display(description="waits until (UTC)", ordering="not_before", empty_value="–")
    def waits_until(self, message: Any) -> SafeString | None:
        waits = message.status == OutboxMessage.Status.PENDING and message.not_before > message.read_at
        return moment(message.not_before) if waits else None

    @admin.display(description="why", empty_value="–")
    def why(self, message: Any) -> str | None:
        if message.status == OutboxMessage.Status.PUBLISHED or not message.reason:
            return None
        return _short(masked(message.reason, message.payload))

    @admin.display(description="created at (UTC)", ordering="created_at")
    def created(self, message: OutboxMessage) -> SafeString:
        return moment(message.created_at)

    @admin.display(description="outstanding", empty_value="–")
    def outstanding(self, message: OutboxMessage) -> SafeString | None:
        """The workflows that have not ended, and the state of each one."""
        found = Delivery.objects.filter(message_id=message.pk).order_by("workflow")
        rows = [(row.workflow, row.get_status_display(), row.queue) for row in found]
        return format_html_join(mark_safe("<br>"), "{}: {} ({})", rows) if rows else None

    @admin.display(description="payload")
    def content(self, message: OutboxMessage) -> SafeString:
        return pretty(masked(message.payload, message.payload))

    @admin.display(description="last error", empty_value="–")
    def shown_error(self, message: OutboxMessage) -> str | None:
        return masked(message.last_error, message.payload) if message.last_error else None

    def get_queryset(self, request: HttpRequest) -> QuerySet[OutboxMessage]:
        found = super().get_queryset(request)
        shows_list = getattr(request.resolver_match, "url_name", "") == "outbox_outboxmessage_changelist"
        return found.annotate(reason=REASON).defer("trace", "last_error") if shows_list else found


@admin.register(InboxEntry)
class InboxEntryAdmin(ReadOnlyAdmin):
    """Which consumer has handled which message."""

    list_display = ("consumer", "message_id", "taken_at")
    list_filter = ("taken_at",)
    search_fields = ("message_id",)
    search_help_text = "The exact message id."
    ordering = ("-taken_at", "-id")


@admin.register(Attempt)
class AttemptAdmin(ReadOnlyAdmin):
    """Failed tries."""

    list_display = ("consumer", "error_class", "what_then", "failed_at", "next_try_at", "message_id")
    list_filter = (("consumer", IndexedValuesFilter), ("error_class", IndexedValuesFilter), "failed_at")
    search_fields = ("message_id",)
    search_help_text = "The exact message id."
    ordering = ("-failed_at", "-id")
    fields = (
        "consumer",
        "message_id",
        "what_then",
        "failed_at",
        "next_try_at",
        "worker",
        "error_class",
        "shown_error",
        "trace",
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Attempt]:
        return super().get_queryset(request).annotate(event_payload=event_payload("message_id"))

    @admin.display(description="outcome", ordering="outcome")
    def what_then(self, attempt: Attempt) -> SafeString:
        return chip(attempt.outcome, attempt.get_outcome_display())

    @admin.display(description="traceback")
    def trace(self, attempt: Any) -> SafeString:
        shown = masked(attempt.traceback, attempt.event_payload) if attempt.traceback else "none"
        return format_html('<pre class="of-code" tabindex="0">{}</pre>', shown)

    @admin.display(description="error")
    def shown_error(self, attempt: Any) -> str:
        return str(masked(attempt.error, attempt.event_payload))
