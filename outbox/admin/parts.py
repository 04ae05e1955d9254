"""What operator windows are made of: read-only rows, exact searches, and how things look in them."""

from __future__ import annotations

import datetime as dt
import json
import uuid
from collections.abc import Callable, Iterable
from typing import Any

from django.contrib import admin
from django.contrib.admin.views.main import ChangeList
from django.db.models import Model, OuterRef, Q, QuerySet, Subquery, UUIDField
from django.db.models.functions import Now
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.timesince import timesince

from outbox.admin.lists import KeysetChangeList
from outbox.models import OutboxMessage

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


Mask = Callable[[Any, Any], Any]


def _hide(value: Any, said: Any) -> Any:
    return "[hidden]" if value else value


_mask: list[Mask] = [_hide]


def mask_with(mask: Mask) -> None:
    """Let the app that knows what contact data looks like decide what pages show of texts and JSON."""
    _mask[0] = mask


def masked(value: Any, said: Any) -> Any:
    """A text or JSON, fit for those who need not know the customer of whom its message `said` something."""
    return _mask[0](value, said)


def said_by(column: str) -> Subquery:
    """For `annotate(said=…)`: the payload of the message whose id is in this column."""
    return Subquery(OutboxMessage.objects.filter(pk=OuterRef(column)).values("payload")[:1])


def chip(status: str, word: str, looks: dict[str, tuple[str, str]] | None = None) -> SafeString:
    """A status as a word with a sign."""
    look, sign = (looks or CHIPS).get(status, ("quiet", "·"))
    return format_html(
        '<span class="of-chip of-{}"><span aria-hidden="true">{}</span> {}</span>', look, sign, word
    )


def moment(at: dt.datetime) -> SafeString:
    """A time as lists show it: short; where there is no room for one line, the date stands above the time."""
    day, time = f"{at.astimezone(dt.UTC):%Y-%m-%d %H:%M}".split()
    return format_html(
        '<time class="of-time" datetime="{0}" title="{0}"><span>{1}</span> <span>{2}</span></time>',
        at.isoformat(timespec="seconds"),
        day,
        time,
    )


def age(since: dt.datetime, *, now: dt.datetime) -> SafeString:
    """How long ago something happened, in its largest unit; the time itself is in the title."""
    exactly = since.isoformat(timespec="seconds")
    ago = timesince(since, now=now, depth=1)
    return format_html('<time class="of-age" datetime="{0}" title="{0}">{1}</time>', exactly, ago)


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


class LongListAdmin(admin.ModelAdmin):
    """For tables that grow without end. Searches are exact, so that indexes answer them."""

    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER  # they count all rows once for every value
    list_per_page = 50
    sortable_by = ()
    """No column can be sorted by: that would read all rows. Every list has an order that an index has too."""

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return KeysetChangeList

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        """Each row says as `read_at` when it was read, by the clock that its other times are of."""
        return super().get_queryset(request).annotate(read_at=Now())

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


class ReadOnlyAdmin(LongListAdmin):
    """Nobody adds, changes or deletes rows here."""

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class _KeyedChangeList(KeysetChangeList):
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


def may_view(request: HttpRequest, model: type[Model]) -> bool:
    """Whether the user may open windows on the model, so that links lead nowhere forbidden."""
    return request.user.has_perm(f"{model._meta.app_label}.view_{model._meta.model_name}")
