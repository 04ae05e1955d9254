"""Links from the pages of the admin to the traces of messages, if `OUTBOX_TRACE_URL_TEMPLATE` is set."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString, mark_safe

from outbox import contracts, tracing
from outbox.conf import settings
from outbox.models import OutboxMessage


class TracedAdmin(admin.ModelAdmin):
    """For rows that are a message, or whose `message_id` names one."""

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        """Add the links, if there is an address for them."""
        known = super().get_fieldsets(request, obj)
        return [*known, ("Trace", {"fields": ["trace_page"]})] if settings.TRACE_URL_TEMPLATE else known

    @admin.display(description="trace", empty_value="–")
    def trace_page(self, row: Any) -> SafeString | None:
        """The traces of the row's message; None if none is known."""
        ids = OutboxMessage.objects.filter(pk=getattr(row, "message_id", row.pk))
        trace = ids.values_list("trace", flat=True).first()
        return format_html_join(mark_safe("<br>"), "{}", [(link,) for link in _links(trace or {})]) or None


def _links(trace: Mapping[str, Any]) -> Iterator[SafeString]:
    replays: Mapping[str, Mapping[str, Any]] = trace.get(contracts.REPLAYS) or {}
    for what, of in [("", trace), *replays.items()]:
        if trace_id := tracing.recorded(of):
            url = settings.TRACE_URL_TEMPLATE.replace("{trace_id}", trace_id)
            is_replay = of is not trace
            text = f"replay of {what}" if what else "replay" if is_replay else trace_id
            yield format_html('<a href="{}" rel="noreferrer">{}</a>', url, text)
