"""
The window on dead letters, with two levers: replay and discard.

The levers need their own permissions, ask for a reason on a page that says what exactly they will do,
and call the same functions as the commands.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.views.main import SEARCH_VAR, ChangeList
from django.core.exceptions import PermissionDenied
from django.db.models import Count, Q, QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.text import Truncator
from django.views.decorators.http import require_POST

from outbox import admin_parts, dead_letters
from outbox.admin_parts import KeyedAdmin, as_uuid, chip, pretty
from outbox.models import Attempt, DeadLetter, DeadLetterQuerySet

MOST_AT_ONCE = 5000
"""What one confirmation page takes; for more there are the commands."""


class ResolutionFilter(admin.SimpleListFilter):
    """Shows the open letters unless asked for others; a search looks through all of them."""

    title = "resolution"
    parameter_name = "resolution"
    ALL = "all"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [*((value, str(label)) for value, label in DeadLetter.Resolution.choices), (self.ALL, "all")]

    def value(self) -> str:
        searching = self.request.GET.get(SEARCH_VAR, "").strip()
        return super().value() or (self.ALL if searching else DeadLetter.Resolution.OPEN.value)

    def choices(self, changelist: ChangeList) -> Iterator[Any]:
        _, *own = super().choices(changelist)  # the first is Django's "All", which here is one of our own
        yield from own

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset if self.value() == self.ALL else queryset.filter(resolution=self.value())


@admin.register(DeadLetter)
class DeadLetterAdmin(KeyedAdmin):
    """What could not be finished. Replay and discard lead to a page that asks why."""

    list_display = ("id", "about", "consumer", "error_class", "short_error", "attempts", "age", "state")
    list_filter = (ResolutionFilter, "consumer", "error_class", "buried_at")
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
        return admin_parts.age(letter.buried_at)

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
            "command": f'python3 run.py replay_failures --id {letter.pk} --reason ""' if is_open else "",
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
        causes = preview.by_cause if verb == "replay" else _causes(letters.unresolved())
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
            "causes": sorted(causes.items(), key=lambda cause: (-cause[1], cause[0])),
            "why_not": ", ".join(preview.why_not()),
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


def _causes(letters: DeadLetterQuerySet) -> dict[tuple[str, str], int]:
    """How many of the letters there are, by consumer and error class."""
    counts = letters.order_by().values_list("consumer", "error_class").annotate(letters=Count("pk"))
    return {(consumer, error): number for consumer, error, number in counts}


def _summary(letter: DeadLetter) -> str:
    tries = "once" if letter.attempts == 1 else f"{letter.attempts} times"
    about = f" on {letter.event_name}" if letter.event_name else ""
    error = Truncator(letter.error).chars(160)
    return (
        f"{letter.consumer} tried {tries}{about} and gave up. The last error was {letter.error_class}: {error}"
    )
