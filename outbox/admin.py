"""
Windows on the machinery, with two levers: replay and discard.

Rows are read-only. The levers need their own permissions, ask for a reason on a page that says what
exactly they will do, and call the same functions as the commands.
"""

from __future__ import annotations

import datetime as dt
import json
import uuid
from collections.abc import Callable, Iterable
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.views.main import ChangeList
from django.core.exceptions import PermissionDenied
from django.db.models import Count, Model, Q, QuerySet, UUIDField
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.text import Truncator
from django.utils.timesince import timesince
from django.views.decorators.http import require_POST

from outbox import dead_letters
from outbox.models import Attempt, DeadLetter, DeadLetterQuerySet, InboxEntry, OutboxMessage

MOST_AT_ONCE = 5000
"""What one confirmation page takes; for more there are the commands."""

CHIPS = {
    "pending": ("wait", "…"),
    "published": ("good", "✓"),
    "parked": ("warn", "‖"),
    "buried": ("bad", "✕"),
    "open": ("bad", "!"),
    "replayed": ("good", "↻"),
    "discarded": ("quiet", "–"),
    "retried": ("wait", "↻"),
    "postponed": ("wait", "…"),
    "waited": ("wait", "‖"),
    "lost": ("warn", "?"),
}
"""By status: how its chip looks, and its sign, so that nobody depends on seeing the colour."""

KeyLinks = Callable[[Iterable[str]], dict[str, SafeString]]


def _no_links(keys: Iterable[str]) -> dict[str, SafeString]:
    return {}


_key_links: list[KeyLinks] = [_no_links]


def link_keys_with(links: KeyLinks) -> None:
    """Let the app that knows what keys stand for turn many of them into links at once."""
    _key_links[0] = links


def key_link(key: str) -> str:
    """The link to what one key stands for, or the key itself."""
    return _key_links[0]([key]).get(key, key)


def chip(status: str, word: str, looks: dict[str, tuple[str, str]] | None = None) -> SafeString:
    """A status as a word with a sign."""
    look, sign = (looks or CHIPS).get(status, ("quiet", "·"))
    return format_html(
        '<span class="of-chip of-{}"><span aria-hidden="true">{}</span> {}</span>', look, sign, word
    )


def moment(at: dt.datetime) -> SafeString:
    """A time as lists show it: short, and in one line."""
    shown = f"{at.astimezone(dt.UTC):%Y-%m-%d %H:%M}"
    exactly = at.isoformat(timespec="seconds")
    return format_html('<time class="of-time" datetime="{0}" title="{0}">{1}</time>', exactly, shown)


def pretty(value: Any) -> SafeString:
    """JSON to be read by people, escaped."""
    return format_html(
        '<pre class="of-code" tabindex="0">{}</pre>', json.dumps(value, indent=2, ensure_ascii=False)
    )


def as_uuid(text: str) -> uuid.UUID | None:
    """The UUID that somebody typed or pasted, or None."""
    try:
        return uuid.UUID(text.strip())
    except ValueError:
        return None


class ReadOnlyAdmin(admin.ModelAdmin):
    """Nobody adds, changes or deletes rows here. Searches are exact, so that indexes answer them."""

    show_full_result_count = False
    list_per_page = 50

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        term = search_term.strip()
        return (queryset.filter(self.matching(term)) if term else queryset), False

    def matching(self, term: str) -> Q:
        """What a search for `term` finds: rows that have it, exactly, in one of the `search_fields`."""
        found = Q(pk__in=[])
        for name in self.search_fields:
            is_uuid = isinstance(self.model._meta.get_field(name), UUIDField)
            value = as_uuid(term) if is_uuid else term
            if value is not None:
                found |= Q(**{name: value})
        return found


class _KeyedChangeList(ChangeList):
    """Finds what the keys of a page stand for in one query."""

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        links = _key_links[0]({row.key for row in self.result_list if row.key})
        for row in self.result_list:
            row.key_link = links.get(row.key, row.key)


class KeyedAdmin(ReadOnlyAdmin):
    """For rows whose key stands for something of another app."""

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return _KeyedChangeList

    @admin.display(description="about", ordering="key")
    def about(self, row: Any) -> str:
        return getattr(row, "key_link", None) or key_link(row.key) or "–"


@admin.register(OutboxMessage)
class OutboxMessageAdmin(KeyedAdmin):
    """Every event that was published, and how far it got."""

    list_display = (
        "id",
        "event_name",
        "about",
        "state",
        "created_at",
        "not_before",
        "redeliveries",
        "attempts",
    )
    list_filter = ("status", "event_name", "created_at")
    search_fields = ("id", "key", "correlation_id")
    search_help_text = "A message id, an order's id or a correlation id, exactly."
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

    @admin.display(description="payload")
    def content(self, message: OutboxMessage) -> SafeString:
        return pretty(message.payload)

    def get_queryset(self, request: HttpRequest) -> QuerySet[OutboxMessage]:
        found = super().get_queryset(request)
        shows_list = getattr(request.resolver_match, "url_name", "") == "outbox_outboxmessage_changelist"
        return found.defer("payload", "trace", "last_error") if shows_list else found


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


@admin.register(DeadLetter)
class DeadLetterAdmin(KeyedAdmin):
    """What could not be finished. Replay and discard lead to a page that asks why."""

    list_display = ("id", "about", "consumer", "error_class", "short_error", "attempts", "age", "state")
    list_filter = ("resolution", "consumer", "error_class", "buried_at")
    search_fields = ("id", "message_id", "key", "fingerprint")
    search_help_text = "A letter's number, a message id, an order's id or a fingerprint, exactly."
    ordering = ("-buried_at", "-id")
    actions = ("replay", "discard")
    fieldsets = (
        (
            None,
            {"fields": (("about", "state"), ("consumer", "attempts"), ("event_name", "message"))},
        ),
        (
            "What went wrong",
            {
                "fields": (
                    "error_class",
                    "error",
                    ("buried_at", "worker"),
                    ("source", "workflow"),
                    "fingerprint",
                )
            },
        ),
        ("Resolution", {"fields": (("resolved_by", "resolved_at"), "reason")}),
    )

    @admin.display(description="error")
    def short_error(self, letter: DeadLetter) -> str:
        return Truncator(letter.error).chars(90)

    @admin.display(description="age", ordering="-buried_at")
    def age(self, letter: DeadLetter) -> SafeString:
        return format_html(
            '<time datetime="{0}" title="{0}">{1}</time>',
            letter.buried_at.isoformat(timespec="seconds"),
            timesince(letter.buried_at, depth=1),
        )

    @admin.display(description="resolution", ordering="resolution")
    def state(self, letter: DeadLetter) -> SafeString:
        return chip(letter.resolution, letter.get_resolution_display())

    @admin.display(description="message")
    def message(self, letter: DeadLetter) -> str:
        if letter.message_id is None:
            return "none that could be read"
        url = reverse("admin:outbox_outboxmessage_change", args=[letter.message_id])
        return format_html('<a href="{}">{}</a>', url, letter.message_id)

    def matching(self, term: str) -> Q:
        found = Q(message_id=as_uuid(term)) if as_uuid(term) else Q(pk__in=[])
        if term.isascii() and term.isdigit() and len(term) < 19:
            found |= Q(pk=int(term))
        return found | Q(key=term) | Q(fingerprint=term)

    def get_queryset(self, request: HttpRequest) -> QuerySet[DeadLetter]:
        found = super().get_queryset(request)
        shows_list = getattr(request.resolver_match, "url_name", "") == "outbox_deadletter_changelist"
        return found.defer("payload", "headers", "traceback") if shows_list else found

    def has_replay_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("outbox.replay_deadletter")

    def has_discard_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("outbox.discard_deadletter")

    @admin.action(description="Replay: deliver the messages again…", permissions=["replay"])
    def replay(self, request: HttpRequest, queryset: DeadLetterQuerySet) -> HttpResponse | None:
        return self._ask_for(request, "replay", queryset)

    @admin.action(description="Discard: close without delivering…", permissions=["discard"])
    def discard(self, request: HttpRequest, queryset: DeadLetterQuerySet) -> HttpResponse | None:
        return self._ask_for(request, "discard", queryset)

    def get_urls(self) -> list[URLPattern]:
        resolve = self.admin_site.admin_view(require_POST(self.resolve))
        return [path("resolve/<str:verb>/", resolve, name="outbox_deadletter_resolve"), *super().get_urls()]

    def resolve(self, request: HttpRequest, verb: str) -> HttpResponse:
        """Ask about the letters named in `ids`; once a reason comes with them, do it."""
        if verb not in ("replay", "discard"):
            raise Http404(verb)
        allowed = self.has_replay_permission if verb == "replay" else self.has_discard_permission
        if not (self.has_view_permission(request) and allowed(request)):
            raise PermissionDenied
        ids = [
            int(part) for part in request.POST.get("ids", "").split(",") if part.isascii() and part.isdigit()
        ]
        ids = [pk for pk in ids if pk < 2**63][:MOST_AT_ONCE]
        if "confirmed" not in request.POST:
            return self._confirmation(request, verb, ids)
        act = dead_letters.replay if verb == "replay" else dead_letters.discard
        try:
            resolved = act(
                DeadLetter.objects.filter(pk__in=ids),
                by=request.user.get_username(),
                reason=request.POST.get("reason", "").replace("\x00", ""),
                user_id=request.user.pk,
            )
        except dead_letters.ReasonMissing:
            return self._confirmation(request, verb, ids, error="Say why: the next person reads it here.")
        self._report(request, verb, resolved)
        if len(ids) == 1:
            return HttpResponseRedirect(reverse("admin:outbox_deadletter_change", args=ids))
        return HttpResponseRedirect(reverse("admin:outbox_deadletter_changelist"))

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        letter: DeadLetter = context["original"]
        is_open = letter.resolution == DeadLetter.Resolution.OPEN
        context |= {
            "summary": _summary(letter),
            "tries": Attempt.objects.filter(message_id=letter.message_id, consumer=letter.consumer).order_by(
                "pk"
            )
            if letter.message_id
            else [],
            "payload": pretty(letter.payload),
            "headers": pretty(letter.headers),
            "can_replay": is_open and letter.message_id and self.has_replay_permission(request),
            "can_discard": is_open and self.has_discard_permission(request),
            "command": f"python3 run.py replay_failures --id {letter.pk} --reason …" if is_open else "",
        }
        return super().render_change_form(request, context, *args, **kwargs)

    def _ask_for(self, request: HttpRequest, verb: str, letters: DeadLetterQuerySet) -> HttpResponse | None:
        ids = list(letters.unresolved().order_by("pk").values_list("pk", flat=True)[: MOST_AT_ONCE + 1])
        if not ids:
            self.message_user(request, "None of these is open any more.", messages.WARNING)
            return None
        if len(ids) > MOST_AT_ONCE:
            command = f"python3 run.py {verb}_failures"
            self.message_user(
                request,
                f"More than {MOST_AT_ONCE} at once: narrow the filter, or use {command}.",
                messages.ERROR,
            )
            return None
        return self._confirmation(request, verb, ids)

    def _confirmation(
        self, request: HttpRequest, verb: str, ids: list[int], error: str = ""
    ) -> TemplateResponse:
        letters = DeadLetter.objects.filter(pk__in=ids)
        preview = dead_letters.preview(letters)
        still_open = preview.replayable + preview.unreadable
        groups = (
            letters.unresolved()
            .values("consumer", "error_class")
            .annotate(letters=Count("pk"))
            .order_by("-letters", "consumer", "error_class")
        )
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": f"{verb.capitalize()} dead letters",
            "verb": verb,
            "ids": ",".join(map(str, ids)),
            "open": still_open,
            "count": preview.replayable if verb == "replay" else still_open,
            "resolved": len(ids) - still_open,
            "preview": preview,
            "groups": groups,
            "reason": request.POST.get("reason", ""),
            "error": error,
        }
        request.current_app = self.admin_site.name
        return TemplateResponse(request, "admin/outbox/deadletter/resolve.html", context)

    def _report(self, request: HttpRequest, verb: str, resolved: dead_letters.Resolved) -> None:
        done = "replayed" if verb == "replay" else "discarded"
        if resolved.done:
            letters = "1 dead letter" if resolved.done == 1 else f"{resolved.done} dead letters"
            self.message_user(request, f"{letters} {done}.", messages.SUCCESS)
        if resolved.unreadable:
            self.message_user(
                request,
                f"{resolved.unreadable} stayed open: no message to deliver. They can be discarded.",
                messages.WARNING,
            )
        if not resolved.done and not resolved.unreadable:
            self.message_user(request, "Nothing to do: none of these was open any more.", messages.WARNING)


def _summary(letter: DeadLetter) -> str:
    tries = "once" if letter.attempts == 1 else f"{letter.attempts} times"
    about = f" on {letter.event_name}" if letter.event_name else ""
    error = Truncator(letter.error).chars(160)
    return (
        f"{letter.consumer} tried {tries}{about} and gave up. The last error was {letter.error_class}: {error}"
    )


def may_view(request: HttpRequest, model: type[Model]) -> bool:
    """Whether the user may open windows on the model, so that links lead nowhere forbidden."""
    return request.user.has_perm(f"{model._meta.app_label}.view_{model._meta.model_name}")
