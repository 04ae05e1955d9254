"""Admin of notifications (read-only) and of customers' preferences."""

from __future__ import annotations

from typing import ClassVar

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db.models import Q, QuerySet
from django.db.models.functions import Lower
from django.db.models.lookups import Exact
from django.http import Http404, HttpRequest, HttpResponse
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from notifications.models import Notification, Preference
from outbox.admin.parts import LongListAdmin, ReadOnlyAdmin, as_uuid, chip, moment

CHIPS = {
    "pending": ("wait", "…"),
    "sending": ("wait", "◔"),
    "sent": ("good", "✓"),
    "suppressed": ("quiet", "–"),
    "failed": ("bad", "✕"),
}

MAIL_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'self'; sandbox",
    "X-Frame-Options": "SAMEORIGIN",
}
"""The policy for showing an e-mail: its own styles and embedded images are allowed, scripts and requests are
not."""


@admin.register(Notification)
class NotificationAdmin(ReadOnlyAdmin):
    """What was sent to whom. The HTML of an e-mail is shown in a sandboxed frame without a session."""

    class Media:
        css: ClassVar = {"all": ["notifications/admin.css"]}

    list_display = ("number", "template", "channel", "recipient", "state", "attempts", "created", "sent")
    list_filter = ("channel", "status", "created_at")
    search_fields = ("order_number", "recipient", "order_id", "message_id", "provider_message_id")
    search_help_text = "The exact order number, recipient, order id, message id or id at the provider."
    ordering = ("-created_at", "id")
    fieldsets = (
        (None, {"fields": ("order_number", "order_id", "message_id", "template", "channel", "recipient")}),
        (
            "Delivery",
            {
                "fields": (
                    "state",
                    "provider_message_id",
                    "created_at",
                    "sent_at",
                    "attempts",
                    "error",
                    "outcome_open",
                    "lease_until",
                    "version",
                )
            },
        ),
        ("Content", {"fields": ("subject", "text_as_sent", "mail")}),
    )

    @admin.display(description="order", ordering="order_number")
    def number(self, notification: Notification) -> SafeString:
        return format_html('<span class="of-number">{}</span>', notification.order_number)

    @admin.display(description="status", ordering="status")
    def state(self, notification: Notification) -> SafeString:
        return chip(notification.status, notification.get_status_display(), CHIPS)

    @admin.display(description="created at (UTC)", ordering="created_at")
    def created(self, notification: Notification) -> SafeString:
        return moment(notification.created_at)

    @admin.display(description="sent at (UTC)", ordering="sent_at", empty_value="–")
    def sent(self, notification: Notification) -> SafeString | None:
        return moment(notification.sent_at) if notification.sent_at else None

    @admin.display(description="text")
    def text_as_sent(self, notification: Notification) -> SafeString:
        return format_html('<pre class="of-code" tabindex="0">{}</pre>', notification.text)

    @admin.display(description="HTML", empty_value="none")
    def mail(self, notification: Notification) -> SafeString | None:
        if not notification.html:
            return None
        return format_html(
            '<iframe sandbox src="{}" title="The e-mail as sent" width="640" height="560" '
            'referrerpolicy="no-referrer"></iframe>',
            reverse("admin:notifications_notification_mail", args=[notification.pk]),
        )

    def matching(self, term: str) -> Q:
        as_written = Notification.objects.filter(recipient=term).exists()
        found = Q(order_number=term.upper()) | Q(recipient=term if as_written else term.lower())
        if wanted := as_uuid(term):
            found |= Q(order_id=wanted) | Q(message_id=wanted)
        return found | Q(provider_message_id=term)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Notification]:
        found = super().get_queryset(request)
        shows_list = getattr(request.resolver_match, "url_name", "") == "notifications_notification_changelist"
        return found.defer("text", "html") if shows_list else found

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(self.show_mail)
        return [path("<int:pk>/mail/", view, name="notifications_notification_mail"), *super().get_urls()]

    def show_mail(self, request: HttpRequest, pk: int) -> HttpResponse:
        """Show the HTML of an e-mail as sent, with its own policy: that of the admin would block its styles."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        notification = Notification.objects.filter(pk=pk).exclude(html="").first()
        if notification is None:
            raise Http404(pk)
        return HttpResponse(notification.html, headers=MAIL_HEADERS)


@admin.register(Preference)
class PreferenceAdmin(LongListAdmin):
    """Customers' preferences. A change applies to notifications created from then on."""

    list_display = ("email", "channel", "enabled")
    search_fields: ClassVar = ["email"]
    search_help_text = "The e-mail address, in upper or lower case."
    ordering = ("-id",)

    def matching(self, term: str) -> Q:
        return Q(Exact(Lower("email"), term.lower()))
