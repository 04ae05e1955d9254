"""A window on the tasks of Django's framework: how far each one is, and what became of its attempts."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import OuterRef, QuerySet, Subquery
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from outbox.admin.lists import IndexedValuesFilter
from outbox.admin.messages import CreatedFilter
from outbox.admin.parts import ReadOnlyAdmin, chip, masked, moment, pretty
from outbox.models import DeadLetter, EnqueuedTask

LOOKS = {
    "READY": ("wait", "…"),
    "RUNNING": ("wait", "↻"),
    "SUCCESSFUL": ("good", "✓"),
    "FAILED": ("bad", "✕"),
}

GIVEN_UP = {DeadLetter.Resolution.OPEN, DeadLetter.Resolution.DISCARDED}


def _newest_dead_letter(column: str) -> Subquery:
    newest = DeadLetter.objects.filter(message_id=OuterRef("pk")).order_by("-pk")
    return Subquery(newest.values(column)[:1])


@admin.register(EnqueuedTask)
class EnqueuedTaskAdmin(ReadOnlyAdmin):
    """Every task that was enqueued. What has failed is replayed from its dead letter."""

    list_display = ("task", "state", "queue_name", "attempts", "enqueued", "last_attempt", "finished")
    list_filter = (("task", IndexedValuesFilter), CreatedFilter)
    search_fields = ("message_id", "task")
    search_help_text = "The id of a result, or the path of a task, exactly."
    ordering = ("-message_id",)
    fieldsets = (
        (None, {"fields": ("message_id", "task", "state", "message", "dead_letter")}),
        ("Times", {"fields": ("enqueued_at", "run_after", "started_at", "last_attempted_at", "finished_at")}),
        ("Where", {"fields": ("backend", "queue_name", "priority", "worker_ids")}),
        ("What it was called with, and what came of it", {"fields": ("arguments", "returned", "failures")}),
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[EnqueuedTask]:
        found = super().get_queryset(request)
        return found.annotate(
            resolution=_newest_dead_letter("resolution"), dead_letter_id=_newest_dead_letter("pk")
        )

    @admin.display(description="status")
    def state(self, task: Any) -> SafeString:
        status = task.status
        if status != EnqueuedTask.Status.SUCCESSFUL and task.resolution in GIVEN_UP:
            status = "FAILED"
        return chip(status, status.lower(), LOOKS)

    @admin.display(description="attempts")
    def attempts(self, task: EnqueuedTask) -> int:
        return len(task.worker_ids)

    @admin.display(description="enqueued at (UTC)")
    def enqueued(self, task: EnqueuedTask) -> SafeString:
        return moment(task.enqueued_at)

    @admin.display(description="last attempt (UTC)", empty_value="–")
    def last_attempt(self, task: EnqueuedTask) -> SafeString | None:
        return moment(task.last_attempted_at) if task.last_attempted_at else None

    @admin.display(description="finished at (UTC)", empty_value="–")
    def finished(self, task: EnqueuedTask) -> SafeString | None:
        return moment(task.finished_at) if task.finished_at else None

    @admin.display(description="message")
    def message(self, task: EnqueuedTask) -> SafeString:
        address = reverse("admin:outbox_outboxmessage_change", args=[task.pk])
        return format_html('<a href="{}">{}</a>', address, task.pk)

    @admin.display(description="dead letter", empty_value="–")
    def dead_letter(self, task: Any) -> SafeString | None:
        if task.dead_letter_id is None:
            return None
        address = reverse("admin:outbox_deadletter_change", args=[task.dead_letter_id])
        return format_html('<a href="{}">{}</a>', address, DeadLetter.Resolution(task.resolution).label)

    @admin.display(description="arguments")
    def arguments(self, task: EnqueuedTask) -> SafeString:
        called_with = {"args": task.args, "kwargs": task.kwargs}
        return pretty(masked(called_with, called_with))

    @admin.display(description="return value")
    def returned(self, task: EnqueuedTask) -> SafeString:
        return pretty(masked(task.return_value, task.kwargs))

    @admin.display(description="failed attempts", empty_value="–")
    def failures(self, task: EnqueuedTask) -> SafeString | None:
        shown = [(masked(error["traceback"], task.kwargs),) for error in task.errors]
        return format_html_join("", '<pre class="of-code" tabindex="0">{}</pre>', shown) if shown else None
