"""Windows on what customers were told, and the lever for what they want to hear."""

from __future__ import annotations

from typing import ClassVar

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.html import format_html

from notifications.models import Notification, Preference


@admin.register(Notification)
class NotificationAdmin(admin.ModelAdmin):
    """Read-only. The HTML of a mail is shown in a frame that may run nothing and knows no session."""

    list_display = (
        "order_number",
        "template",
        "channel",
        "recipient",
        "status",
        "attempts",
        "created_at",
        "sent_at",
    )
    list_filter: ClassVar = ["channel", "status", "template"]
    search_fields: ClassVar = ["order_number", "recipient", "=message_id"]
    ordering = ("-created_at", "-id")
    date_hierarchy = "created_at"
    show_full_result_count = False
    fieldsets = [  # noqa: RUF012 - django-stubs wants no ClassVar here
        (None, {"fields": ["order_number", "order_id", "message_id", "template", "channel", "recipient"]}),
        (
            "Delivery",
            {
                "fields": [
                    "status",
                    "provider_message_id",
                    "created_at",
                    "sent_at",
                    "attempts",
                    "error",
                    "outcome_open",
                    "lease_until",
                    "version",
                ]
            },
        ),
        ("What was said", {"fields": ["subject", "text_as_sent", "mail"]}),
    ]
    readonly_fields: ClassVar = [
        *(field.name for field in Notification._meta.fields if field.name not in ("id", "text", "html")),
        "text_as_sent",
        "mail",
    ]

    @admin.display(description="Text")
    def text_as_sent(self, notification: Notification) -> str:
        return format_html("<pre>{}</pre>", notification.text)

    @admin.display(description="HTML", empty_value="none")
    def mail(self, notification: Notification) -> str | None:
        if not notification.html:
            return None
        return format_html(
            '<iframe sandbox srcdoc="{}" title="The e-mail as sent" width="640" height="560" '
            'referrerpolicy="no-referrer"></iframe>',
            notification.html,
        )

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Notification | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Notification | None = None) -> bool:
        return False

    def get_queryset(self, request: HttpRequest) -> QuerySet[Notification]:
        found = super().get_queryset(request)
        shows_list = getattr(request.resolver_match, "url_name", "") == "notifications_notification_changelist"
        return found.defer("text", "html") if shows_list else found


@admin.register(Preference)
class PreferenceAdmin(admin.ModelAdmin):
    """What a customer wants to hear. A change counts for what is written from then on."""

    list_display = ("email", "channel", "enabled")
    list_filter: ClassVar = ["channel", "enabled"]
    search_fields: ClassVar = ["email"]
    ordering = ("email", "channel")
