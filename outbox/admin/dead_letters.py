"""
Admin of dead letters: read-only, with actions to replay and to discard.

The actions need their own permissions. They show what they will do, ask for a reason, and call the same
functions as the commands.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
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

from outbox import telemetry
from outbox.admin import parts
from outbox.admin.lists import IndexedValuesFilter, back_to, filters_of
from outbox.admin.parts import KeyedAdmin, as_uuid, chip, event_payload, masked, pretty
from outbox.admin.traces import TracedAdmin
from outbox.command_lines import command_line, counted
from outbox.dead_letters import owners, previews, resolving, waits
from outbox.models import Attempt, DeadLetter, DeadLetterQuerySet, OutboxMessage, Replay

MOST_AT_ONCE = 5000
"""The limit for one confirmation page; the commands have none."""


REVEALED = "Saw its contact data."
"""The entry in the admin's history of a dead letter."""

MOST_NAMED = 10
"""Pieces of unfinished work that a page names; the others are only counted."""


class ResolutionFilter(admin.SimpleListFilter):
    """Shows open dead letters by default; a search includes all of them."""

    title = "resolution"
    parameter_name = "resolution"
    ALL = "all"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [*((value, str(label)) for value, label in DeadLetter.Resolution.choices), (self.ALL, "all")]

    def value(self) -> str:
        searching = self.request.GET.get(SEARCH_VAR, "").strip()
        return super().value() or (self.ALL if searching else DeadLetter.Resolution.OPEN.value)

    def choices(self, changelist: ChangeList) -> Iterator[Any]:
        _, *own = super().choices(changelist)  # the first is Django's "All"; our own replaces it
        yield from own

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset if self.value() == self.ALL else queryset.filter(resolution=self.value())


@admin.register(DeadLetter)
class DeadLetterAdmin(TracedAdmin, KeyedAdmin):
    """Unfinished work. Replay and discard lead to a confirmation page that asks for a reason."""

    list_display = ("id", "about", "consumer", "error_class", "short_error", "attempts", "age", "state")
    list_filter = (
        ResolutionFilter,
        ("consumer", IndexedValuesFilter),
        ("error_class", IndexedValuesFilter),
        "buried_at",
    )
    search_fields = ("id", "message_id", "key", "fingerprint")
    search_help_text = "The exact number of a dead letter, message id, key or fingerprint."
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
                    "shown_error",
                    ("buried_at", "worker"),
                    ("source", "workflow"),
                    ("fingerprint", "runbook"),
                )
            },
        ),
        ("Resolution", {"fields": (("resolved_by", "resolved_at"), "reason")}),
    )

    @admin.display(description="error")
    def short_error(self, dead_letter: Any) -> str:
        return Truncator(masked(dead_letter.error, dead_letter.event_payload)).chars(90)

    @admin.display(description="error")
    def shown_error(self, dead_letter: Any) -> str:
        return str(
            dead_letter.error
            if _is_revealed(dead_letter)
            else masked(dead_letter.error, dead_letter.event_payload)
        )

    @admin.display(description="age", ordering="-buried_at")
    def age(self, dead_letter: Any) -> SafeString:
        return parts.age(dead_letter.buried_at, now=dead_letter.read_at)

    @admin.display(description="resolution", ordering="resolution")
    def state(self, dead_letter: DeadLetter) -> SafeString:
        return chip(dead_letter.resolution, dead_letter.get_resolution_display())

    @admin.display(description="runbook", empty_value="none registered")
    def runbook(self, dead_letter: DeadLetter) -> SafeString | str:
        return parts.runbook_link(dead_letter)

    @admin.display(description="message")
    def message(self, dead_letter: DeadLetter) -> str:
        if dead_letter.message_id is None:
            return "no readable message"
        url = reverse("admin:outbox_outboxmessage_change", args=[dead_letter.message_id])
        return format_html('<a href="{}">{}</a>', url, dead_letter.message_id)

    def matching(self, term: str) -> Q:
        found = Q(message_id=as_uuid(term)) if as_uuid(term) else Q(pk__in=[])
        if term.isascii() and term.isdigit() and len(term) < 19:
            found |= Q(pk=int(term))
        return found | Q(key=term) | Q(fingerprint=term)

    def get_queryset(self, request: HttpRequest) -> QuerySet[DeadLetter]:
        found = super().get_queryset(request).annotate(event_payload=event_payload("message_id"))
        shows_list = getattr(request.resolver_match, "url_name", "") == "outbox_deadletter_changelist"
        return found.defer("payload", "headers", "traceback") if shows_list else found

    def has_replay_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("outbox.replay_deadletter")

    def has_reveal_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("outbox.reveal_deadletter")

    def has_discard_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("outbox.discard_deadletter")

    @admin.action(description="Replay: deliver the messages again…", permissions=["replay"])
    def replay(self, request: HttpRequest, queryset: DeadLetterQuerySet) -> HttpResponse | None:
        return self._confirm(request, "replay", queryset)

    @admin.action(description="Discard: close without delivering…", permissions=["discard"])
    def discard(self, request: HttpRequest, queryset: DeadLetterQuerySet) -> HttpResponse | None:
        return self._confirm(request, "discard", queryset)

    def get_urls(self) -> list[URLPattern]:
        resolve = self.admin_site.admin_view(require_POST(self.resolve))
        reveal = self.admin_site.admin_view(require_POST(self.reveal))
        return [
            path("resolve/<str:verb>/", resolve, name="outbox_deadletter_resolve"),
            path("<int:pk>/reveal/", reveal, name="outbox_deadletter_reveal"),
            *super().get_urls(),
        ]

    def reveal(self, request: HttpRequest, pk: int) -> HttpResponse:
        """Show one dead letter with its contact data, after recording who sees it."""
        if not (self.has_view_permission(request) and self.has_reveal_permission(request)):
            raise PermissionDenied
        dead_letter = DeadLetter.objects.filter(pk=pk).first()
        if dead_letter is None:
            raise Http404(pk)
        self.log_change(request, dead_letter, REVEALED)
        telemetry.emit("dead_letter.revealed", dead_letter=pk, user_id=request.user.pk)
        request.method = "GET"  # the page only reads
        request.reveals = True  # type: ignore[attr-defined]
        response = self.change_view(request, str(pk))
        response["Cache-Control"] = "no-store"
        return response

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Any:
        dead_letter = super().get_object(request, object_id, from_field)
        if dead_letter is not None:
            dead_letter.is_revealed = getattr(request, "reveals", False)
        return dead_letter

    def resolve(self, request: HttpRequest, verb: str) -> HttpResponse:
        """Show the confirmation page for the dead letters in `ids`; with a reason, resolve them."""
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
        try:
            resolved = self._act(request, verb, DeadLetter.objects.filter(pk__in=ids))
        except resolving.ReasonMissing:
            return self._confirmation(
                request, verb, ids, error="Give a reason. It is shown on the dead letter."
            )
        self._report(request, verb, resolved)
        return HttpResponseRedirect(back_to(request, DeadLetter, ids))

    def _act(self, request: HttpRequest, verb: str, dead_letters: DeadLetterQuerySet) -> resolving.Resolved:
        decision: dict[str, Any] = {
            "by": request.user.get_username(),
            "reason": request.POST.get("reason", "").replace("\x00", ""),
            "user_id": request.user.pk,
        }
        if verb == "replay":
            return resolving.replay(dead_letters, **decision)
        ways: dict[str, Any] = {verb: verb in request.POST for verb in ("cancel", "mark_done")}
        if any(ways.values()) and not _may_end(request, list(_unfinished(dead_letters).values())):
            raise PermissionDenied
        return resolving.discard(dead_letters, **ways, **decision)

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        dead_letter: DeadLetter = context["original"]
        is_open = dead_letter.resolution == DeadLetter.Resolution.OPEN
        shown = _shown_of(dead_letter)
        context |= {
            "summary": _summary(dead_letter, shown(dead_letter.error)),
            "traceback": shown(dead_letter.traceback),
            "filters": filters_of(request),
            "tries": _tries(dead_letter, shown),
            "replays": [
                (replay, chip(replay.outcome, replay.get_outcome_display()))
                for replay in Replay.objects.filter(dead_letter=dead_letter)
                .select_related("campaign")
                .order_by("pk")
            ],
            "payload": pretty(shown(dead_letter.payload)),
            "headers": pretty(shown(dead_letter.headers)),
            "is_revealed": _is_revealed(dead_letter),
            "can_reveal": self.has_reveal_permission(request) and not _is_revealed(dead_letter),
            "can_replay": is_open and dead_letter.message_id and self.has_replay_permission(request),
            "can_discard": is_open and self.has_discard_permission(request),
            "command": self._command(request, dead_letter) if is_open else "",
        }
        return super().render_change_form(request, context, *args, **kwargs)

    def _command(self, request: HttpRequest, dead_letter: DeadLetter) -> str:
        """The command for what the user may do to the dead letter here; empty if there is none."""
        deliverable = (
            dead_letter.message_id and OutboxMessage.objects.filter(pk=dead_letter.message_id).exists()
        )
        if deliverable and self.has_replay_permission(request):
            return command_line("replay_failures", "--id", dead_letter.pk, reason="the cause is fixed")
        if not dead_letter.message_id and self.has_discard_permission(request):
            return command_line("discard_failures", "--id", dead_letter.pk, reason="it carries no message")
        return ""

    def _confirm(
        self, request: HttpRequest, verb: str, dead_letters: DeadLetterQuerySet
    ) -> HttpResponse | None:
        ids = list(dead_letters.open().order_by("pk").values_list("pk", flat=True)[: MOST_AT_ONCE + 1])
        if not ids:
            self.message_user(request, "None of these dead letters is open any more.", messages.WARNING)
            return None
        if len(ids) > MOST_AT_ONCE:
            command = command_line("help", f"{verb}_failures")
            self.message_user(
                request,
                f"More than {MOST_AT_ONCE} selected: narrow the filter. The command has no limit: {command}",
                messages.ERROR,
            )
            return None
        return self._confirmation(request, verb, ids)

    def _confirmation(
        self, request: HttpRequest, verb: str, ids: list[int], error: str = ""
    ) -> TemplateResponse:
        dead_letters = DeadLetter.objects.filter(pk__in=ids)
        preview = previews.preview(dead_letters)
        still_open = preview.replayable + preview.unreadable
        causes = preview.by_cause if verb == "replay" else _causes(dead_letters.open())
        unfinished = list(_unfinished(dead_letters).values()) if verb == "discard" else []
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": f"{verb.capitalize()} dead letters",
            "unfinished": unfinished,
            "waiting": sorted({work.about for work in unfinished})[:MOST_NAMED],
            "ways": _ways(request, unfinished),
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
            "filters": filters_of(request),
            "back": back_to(request, DeadLetter, ids),
        }
        request.current_app = self.admin_site.name
        return TemplateResponse(request, "admin/outbox/deadletter/resolve.html", context)

    def _report(self, request: HttpRequest, verb: str, resolved: resolving.Resolved) -> None:
        if resolved.done:
            self.message_user(request, _done(verb, resolved), messages.SUCCESS)
        if resolved.unfinished:
            about = ", ".join(sorted({work.about for work in resolved.unfinished})[:MOST_NAMED])
            self.message_user(
                request,
                f"{len(resolved.unfinished)} stayed open, because unfinished work waits: {about}. Replay, or "
                "discard together with that work where this is offered.",
                messages.WARNING,
            )
        if resolved.unreadable:
            self.message_user(
                request,
                f"{resolved.unreadable} stayed open, because there is no message to deliver. Discard instead.",
                messages.WARNING,
            )
        if not resolved.done and not resolved.unreadable and not resolved.unfinished:
            self.message_user(request, "Nothing to do: none of these dead letters was open.", messages.WARNING)


def _done(verb: str, resolved: resolving.Resolved) -> str:
    dead_letters = counted(resolved.done, "dead letter")
    if verb == "discard" or resolved.campaign is None:
        return f"{dead_letters} discarded."
    url = reverse("admin:outbox_replaycampaign_change", args=[resolved.campaign.pk])
    are = "is" if resolved.done == 1 else "are"
    return format_html('{} {} being replayed. <a href="{}">See the outcome</a>.', dead_letters, are, url)


def _is_revealed(dead_letter: DeadLetter) -> bool:
    return bool(getattr(dead_letter, "is_revealed", False))


def _shown_of(dead_letter: Any) -> Callable[[Any], Any]:
    """The function that prepares the dead letter's texts and JSON for the page."""
    if _is_revealed(dead_letter):
        return lambda value: value
    return lambda value: masked(value, dead_letter.event_payload)


def _tries(dead_letter: DeadLetter, shown: Callable[[Any], Any]) -> list[list[Attempt]]:
    """The tries that led to the dead letter, with the checks of each wait grouped."""
    if not dead_letter.message_id:
        return []
    tries = Attempt.objects.filter(message_id=dead_letter.message_id, consumer=dead_letter.consumer)
    groups = waits.grouped(tries.defer("traceback").order_by("pk"))
    for group in groups:
        group[-1].error = shown(group[-1].error)  # the page shows the last one
    return groups


def _unfinished(dead_letters: DeadLetterQuerySet) -> dict[int, owners.Unfinished]:
    return owners.unfinished(list(dead_letters.open().defer("payload", "headers", "traceback")))


def _may_end(request: HttpRequest, works: list[owners.Unfinished]) -> bool:
    """Whether the user may cancel or mark done all of the work that allows it."""
    needed = {work.permission for work in works if work.can_be_cancelled or work.can_be_marked_done}
    return all(request.user.has_perm(permission) for permission in needed)


def _ways(request: HttpRequest, works: list[owners.Unfinished]) -> list[tuple[owners.Way, bool]]:
    """The ways in which the user may end some of the work, and whether each is chosen already."""
    if not _may_end(request, works):
        return []
    return [
        (way, way.verb in request.POST)
        for way in owners.ways()
        if any(work.can_end_by(way.verb) for work in works)
    ]


def _causes(dead_letters: DeadLetterQuerySet) -> dict[tuple[str, str], int]:
    """The number of dead letters by consumer and error class."""
    counts = dead_letters.order_by().values_list("consumer", "error_class").annotate(dead_letters=Count("pk"))
    return {(consumer, error): number for consumer, error, number in counts}


def _summary(dead_letter: DeadLetter, error: str) -> str:
    tries = "once" if dead_letter.attempts == 1 else f"{dead_letter.attempts} times"
    about = f" on {dead_letter.event_name}" if dead_letter.event_name else ""
    error = Truncator(error).chars(160)
    return (
        f"{dead_letter.consumer} tried {tries}{about} and gave up. "
        f"The last error was {dead_letter.error_class}: {error}"
    )
