"""Building blocks of admin pages: read-only rows, exact searches, and formatting."""

from __future__ import annotations

import datetime as dt
import json
import uuid
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

from django.contrib import admin
from django.contrib.admin.views.main import ChangeList
from django.db.models import Model, OuterRef, Q, QuerySet, Subquery, UUIDField
from django.db.models.functions import Now
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.timesince import timesince

from outbox.admin.lists import KeysetChangeList
from outbox.models import DeadLetter, OutboxMessage

CHIPS = {
    "pending": ("wait", "…"),
    "published": ("good", "✓"),
    "parked": ("warn", "‖"),
    "buried": ("bad", "✕"),
    "open": ("bad", "!"),
    "replaying": ("wait", "↻"),
    "recovered": ("good", "✓"),
    "replayed": ("quiet", "↻"),
    "under_way": ("wait", "…"),
    "failed": ("bad", "✕"),
    "ended": ("quiet", "–"),
    "discarded": ("quiet", "–"),
    "retried": ("wait", "↻"),
    "postponed": ("wait", "…"),
    "waited": ("wait", "‖"),
    "lost": ("warn", "?"),
}
"""The style and the sign of each status; the sign is for people who cannot see the colour."""

KeyLinks = Callable[[Iterable[str]], dict[str, SafeString]]


def _no_links(keys: Iterable[str]) -> dict[str, SafeString]:
    return {}


_key_links: list[KeyLinks] = [_no_links]


def link_keys_with(links: KeyLinks) -> None:
    """Register a function that turns many keys into links at once."""
    _key_links[0] = links


def key_link(key: str) -> str:
    """Return the link for a key, or the key itself."""
    return _key_links[0]([key]).get(key, key)


RunbookLink = Callable[[DeadLetter], SafeString | str]

_runbook_links: list[RunbookLink] = []


def link_runbooks_with(link: RunbookLink) -> None:
    """Register a function that returns a link to the runbook for a dead letter."""
    _runbook_links[:] = [link]


def runbook_link(dead_letter: DeadLetter) -> SafeString | str:
    """Return the link to the runbook for a dead letter; empty if the project has none."""
    return _runbook_links[0](dead_letter) if _runbook_links else ""


Mask = Callable[[Any, Any], Any]


def _hide(value: Any, payload: Any) -> Any:
    return "[hidden]" if value else value


_mask: list[Mask] = [_hide]


def mask_with(mask: Mask) -> None:
    """Register a function that removes contact data from texts and JSON."""
    _mask[0] = mask


def masked(value: Any, payload: Any) -> Any:
    """Return a text or JSON without contact data; `payload` is that of its message."""
    return _mask[0](value, payload)


def event_payload(column: str) -> Subquery:
    """Return an annotation: the payload of the message whose id is in this column."""
    return Subquery(OutboxMessage.objects.filter(pk=OuterRef(column)).values("payload")[:1])


def chip(status: str, word: str, styles: dict[str, tuple[str, str]] | None = None) -> SafeString:
    """Return a status as a word with a sign."""
    style, sign = (styles or CHIPS).get(status, ("quiet", "·"))
    return format_html(
        '<span class="of-chip of-{}"><span aria-hidden="true">{}</span> {}</span>', style, sign, word
    )


def moment(at: dt.datetime) -> SafeString:
    """Return a short time for lists. If there is no room for one line, the date is above the time."""
    day, time = f"{at.astimezone(dt.UTC):%Y-%m-%d %H:%M}".split()
    return format_html(
        '<time class="of-time" datetime="{0}" title="{0}"><span>{1}</span> <span>{2}</span></time>',
        at.isoformat(timespec="seconds"),
        day,
        time,
    )


def age(since: dt.datetime, *, now: dt.datetime) -> SafeString:
    """Return how long ago something happened, in its largest unit; the title contains the time."""
    exactly = since.isoformat(timespec="seconds")
    ago = timesince(since, now=now, depth=1)
    return format_html('<time class="of-age" datetime="{0}" title="{0}">{1}</time>', exactly, ago)


def pretty(value: Any) -> SafeString:
    """Return indented, escaped JSON."""
    return format_html(
        '<pre class="of-code" tabindex="0">{}</pre>', json.dumps(value, indent=2, ensure_ascii=False)
    )


def as_uuid(text: str) -> uuid.UUID | None:
    """Return the UUID in a text, or None."""
    try:
        return uuid.UUID(text.strip())
    except ValueError:
        return None


class LongListAdmin(admin.ModelAdmin):
    """For tables that grow without limit. Searches are exact, so they can use indexes."""

    class Media:
        css: ClassVar = {"all": ["outbox/admin.css"]}

    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER  # they count all rows once for every value
    list_per_page = 50
    sortable_by = ()
    """No column is sortable, because that would read all rows. Every list has the ordering of an index."""

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return KeysetChangeList

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        """Annotate each row with `read_at`, the current time by the database's clock."""
        return super().get_queryset(request).annotate(read_at=Now())

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        term = search_term.strip()
        return (queryset.filter(self.matching(term)) if term else queryset), False

    def matching(self, term: str) -> Q:
        """Return a condition for rows in which one of the `search_fields` equals `term`."""
        found = Q(pk__in=[])
        for name in self.search_fields:
            is_uuid = isinstance(self.model._meta.get_field(name), UUIDField)
            value = as_uuid(term) if is_uuid else term
            if value is not None:
                found |= Q(**{name: value})
        return found


class ReadOnlyAdmin(LongListAdmin):
    """Rows cannot be added, changed or deleted."""

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class _KeyedChangeList(KeysetChangeList):
    """Resolves the keys of a page with one query."""

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        links = _key_links[0]({row.key for row in self.result_list if row.key})
        for row in self.result_list:
            row.key_link = links.get(row.key, row.key)


class KeyedAdmin(ReadOnlyAdmin):
    """For rows whose key identifies an object of another app."""

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return _KeyedChangeList

    @admin.display(description="about", ordering="key")
    def about(self, row: Any) -> str:
        return getattr(row, "key_link", None) or key_link(row.key) or "–"


def may_view(request: HttpRequest, model: type[Model]) -> bool:
    """Return whether the user may view the model, so that pages link only to permitted ones."""
    return request.user.has_perm(f"{model._meta.app_label}.view_{model._meta.model_name}")
