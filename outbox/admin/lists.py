"""
Lists that cost the same with a million rows as with a hundred.

They use keyset pagination: a page begins where the previous one ended, addressed by the values of the ordering,
not by an offset. Rows are counted up to a limit. The values of a filter are found by skipping through an index,
never by reading all rows.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlencode

from django.contrib import admin
from django.contrib.admin.views.main import PAGE_VAR, ChangeList
from django.core.exceptions import ValidationError
from django.core.paginator import Paginator
from django.core.serializers.json import DjangoJSONEncoder
from django.db import connection
from django.db.models import Model, Q, QuerySet
from django.db.models.expressions import Combinable
from django.http import HttpRequest, QueryDict
from django.urls import reverse

MOST_COUNTED = 10_000
MOST_OFFERED = 50
"""Values that a filter offers."""

OLDER, NEWER = "after-", "before-"
"""The prefixes of a page's address: the page after a row, or the page before it."""


class KeysetChangeList(ChangeList):
    """A list with keyset pagination, in the ordering of its admin."""

    is_keyset = True
    first = newer = older = ""
    """The addresses of the first page and of its neighbours; empty if there is none."""

    @property
    def order(self) -> list[str]:
        """The columns of the ordering; together they are unique."""
        return [str(name) for name in self.model_admin.ordering or ()]

    def get_ordering(self, request: HttpRequest, queryset: QuerySet[Any]) -> list[str | Combinable]:
        return [*self.order]

    def get_results(self, request: HttpRequest) -> None:
        self.first = self.get_query_string()
        rows, has_newer, has_older = self._page(request.GET.get(PAGE_VAR, ""))
        self.newer = self._address(NEWER, rows[0]) if rows and has_newer else ""
        self.older = self._address(OLDER, rows[-1]) if rows and has_older else ""
        self.result_count = self.queryset.order_by()[: MOST_COUNTED + 1].count()
        self.counted = f"more than {MOST_COUNTED:,}" if self.result_count > MOST_COUNTED else self.result_count
        self.show_full_result_count, self.full_result_count = False, None
        self.show_admin_actions = bool(rows)
        self.result_list = rows
        self.can_show_all, self.multi_page = False, has_newer or has_older
        self.paginator = Paginator([], self.list_per_page)

    def _page(self, place: str) -> tuple[list[Any], bool, bool]:
        """The rows of the page at a place, and whether there are newer and older ones."""
        order, backwards = self.order, place.startswith(NEWER)
        values = read_place(self.model, order, place.removeprefix(NEWER if backwards else OLDER))
        if values is None:
            rows = list(self.queryset.order_by(*order)[: self.list_per_page + 1])
            return rows[: self.list_per_page], False, len(rows) > self.list_per_page
        towards = [_turned(name) for name in order] if backwards else order
        found = self.queryset.order_by(*towards).filter(beyond(towards, values))
        rows = list(found[: self.list_per_page + 1])
        more, rows = len(rows) > self.list_per_page, rows[: self.list_per_page]
        return (rows[::-1], more, True) if backwards else (rows, True, more)

    def _address(self, direction: str, row: Model) -> str:
        return self.get_query_string({PAGE_VAR: direction + place_of(self.order, row)})


def beyond(order: list[str], values: list[Any]) -> Q:
    """
    Return a condition for the rows after the one with these values.

    The condition always includes the first column, so an index scan can start at the beginning of the page.
    """
    (name, *others), (value, *rest) = order, values
    column, comparison = name.removeprefix("-"), "lt" if name.startswith("-") else "gt"
    strictly = Q(**{f"{column}__{comparison}": value})
    if not others:
        return strictly
    return Q(**{f"{column}__{comparison}e": value}) & (strictly | beyond(others, rest))


def place_of(order: list[str], row: Model) -> str:
    """Return the address of a row's place in an ordering."""
    values = [getattr(row, name.removeprefix("-")) for name in order]
    exactly = [value.isoformat() if hasattr(value, "isoformat") else value for value in values]
    return base64.urlsafe_b64encode(json.dumps(exactly, cls=DjangoJSONEncoder).encode()).decode().rstrip("=")


def read_place(model: type[Model], order: list[str], place: str) -> list[Any] | None:
    """Return the values in the address of a place; None if it is invalid."""
    try:
        values = json.loads(base64.urlsafe_b64decode(place.encode("ascii") + b"=" * (-len(place) % 4)))
        fields = [model._meta.get_field(name.removeprefix("-")) for name in order]
        return [
            field.to_python(value)  # type: ignore[union-attr]
            for field, value in zip(fields, values, strict=True)
        ]
    except (UnicodeError, binascii.Error, ValueError, TypeError, ValidationError):
        return None


def _turned(name: str) -> str:
    return name.removeprefix("-") if name.startswith("-") else f"-{name}"


class IndexedValuesFilter(admin.FieldListFilter):
    """Offers the first values of a column; the column must be the first of an index."""

    def __init__(self, field: Any, request: HttpRequest, params: Any, *arguments: Any, **named: Any) -> None:
        self.lookup_kwarg = named["field_path"]
        self.chosen = (params.get(self.lookup_kwarg) or [None])[-1]
        super().__init__(field, request, params, *arguments, **named)
        self.values = distinct_values(arguments[0], field.column)

    def expected_parameters(self) -> list[str | None]:
        return [self.lookup_kwarg]

    def choices(self, changelist: ChangeList) -> Any:
        everything = changelist.get_query_string(remove=[self.lookup_kwarg])
        yield {"selected": self.chosen is None, "query_string": everything, "display": "All"}
        for value in self.values:
            address = changelist.get_query_string({self.lookup_kwarg: value})
            yield {"selected": value == self.chosen, "query_string": address, "display": value}


def distinct_values(model: type[Model], column: str) -> list[str]:
    """Return the values of a column, in order, with one index lookup for each."""
    table = model._meta.db_table
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            WITH RECURSIVE hop AS (
                (SELECT {column} AS value FROM {table} ORDER BY {column} LIMIT 1)
                UNION ALL
                SELECT (SELECT {column} FROM {table} WHERE {column} > hop.value ORDER BY {column} LIMIT 1)
                FROM hop WHERE hop.value IS NOT NULL
            )
            SELECT value FROM hop WHERE value IS NOT NULL LIMIT %s
            """,  # noqa: S608 - names of our own table and column
            [MOST_OFFERED],
        )
        return [value for (value,) in cursor.fetchall()]


FILTERS = "_changelist_filters"
"""Django's name for the filters of the list from which the user came."""


def filters_of(request: HttpRequest) -> str:
    """Return the filters of that list, from a form, from the page's address, or from the list's own address."""
    given = request.POST.get(FILTERS, request.GET.get(FILTERS))
    return (request.GET if given is None else QueryDict(given)).urlencode()


def back_to(request: HttpRequest, model: type[Model], ids: Sequence[Any]) -> str:
    """Return the address to show after an action on these rows: their page, or the list with its filters."""
    window, filters = f"admin:{model._meta.app_label}_{model._meta.model_name}", filters_of(request)
    if len(ids) == 1:
        query = urlencode({FILTERS: filters}) if filters else ""
        return f"{reverse(f'{window}_change', args=ids)}?{query}".rstrip("?")
    return f"{reverse(f'{window}_changelist')}?{filters}".rstrip("?")
