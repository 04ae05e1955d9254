"""No admin page fails, whatever an address, a filter, a search or a form contains."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from http.cookies import SimpleCookie
from urllib.parse import quote, quote_plus, urlencode, urljoin

import pytest
from django.contrib import admin
from django.contrib.admin import options
from django.contrib.admin.views import main
from django.contrib.auth.models import User
from django.db import transaction
from django.test import Client, RequestFactory
from django.urls import URLPattern, URLResolver, get_resolver, reverse

from orders.models import Product
from tests.admin.conftest import (  # noqa: F401 - fixtures
    PASSWORD,
    _quick_passwords,
    dead_letter,
    order,
    signed_in,
    staff,
)
from tests.hostile.requests import ODD, TEXTS
from tests.slow import but_first

BROKEN_ENCODINGS = {
    "half a character": "%ED%A0%80",
    "no UTF-8": "%FF%C0%AF",
    "half a sequence": "%E2%82",
    "no hexadecimal": "%zz%",
    "NUL": "%00",
}
"""Percent-encodings that no encoder of texts produces."""

SENT = {name: quote_plus(text, errors="surrogatepass") for name, text in TEXTS.items()} | BROKEN_ENCODINGS
IN_PATH = {
    name: quote(text, safe="", errors="surrogatepass") for name, text in TEXTS.items()
} | BROKEN_ENCODINGS
MOST_ODD = [*ODD, "no UTF-8"]
admin.autodiscover()
LISTS = {
    f"{model._meta.app_label}_{model._meta.model_name}": shown for model, shown in admin.site._registry.items()
}
OWN = [main.SEARCH_VAR, main.PAGE_VAR, main.ORDER_VAR, main.ALL_VAR, main.IS_FACETS_VAR, options.IS_POPUP_VAR]
OWN += ["_changelist_filters", "_source_model", "ot", "nothing"]
ALONE = [main.ERROR_FLAG, options.TO_FIELD_VAR]
"""Parameters of every list. The last ones lead to another page, whatever the others contain."""

LOOKUPS = ["exact", "in", "isnull", "gte", "range", "year", "regex", "nothing__year"]


def patterns(resolver, prefix="") -> Iterator[tuple[str, URLPattern]]:
    """Return every address of the admin, as a pattern with the names of its parts."""
    for pattern in resolver.url_patterns:
        route = prefix + str(pattern.pattern)
        if isinstance(pattern, URLResolver):
            yield from patterns(pattern, route)
        else:
            yield route, pattern


ADMIN = [
    (route, pattern)
    for resolver in get_resolver().url_patterns
    if isinstance(resolver, URLResolver) and resolver.app_name == "admin"
    for route, pattern in patterns(resolver, str(resolver.pattern))
]
PART = re.compile(r"<[^>]+>|\(\?P<[^>]+>[^)]*\)")


@pytest.fixture
def root(signed_in, dead_letter):  # noqa: F811
    """An administrator, and a row for each kind of page."""
    return Asker(signed_in("root"))


FORM = "application/x-www-form-urlencoded"


class Asker:
    """Makes requests within a savepoint, so that a page that fails does not affect the next."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.client.raise_request_exception = False
        self.failed: list[str] = []

    def ask(self, address: str, what: str, form: bytes | None = None, *, kind: str = FORM) -> None:
        before = transaction.savepoint()
        if form is None:
            response = self.client.get(address)
        else:
            signed_in = self.client.cookies.copy()
            response = self.client.generic("POST", address, form, kind)
            self.client.cookies = signed_in
        transaction.set_rollback(False)
        transaction.savepoint_rollback(before)
        if response.status_code >= 500:
            error = getattr(response, "exc_info", (None, "nothing that was raised"))[1]
            self.failed.append(f"{response.status_code} {address[:150]} {what}: {error!r}")


def filters(shown) -> tuple[list[str], list[str]]:
    """Return the parameters that the filters of a list read, and their fields."""
    request = RequestFactory().get("/")
    request.user = User(username="root", is_active=True, is_staff=True, is_superuser=True)
    names, fields = [], []
    for spec in shown.get_list_filter(request):
        if isinstance(spec, type):
            names.append(spec.parameter_name)
        else:
            fields.append(spec[0] if isinstance(spec, tuple | list) else spec)
    if shown.date_hierarchy:
        fields.append(shown.date_hierarchy)
        names += [f"{shown.date_hierarchy}__{part}" for part in ("year", "month", "day")]
    return names + fields, fields


@pytest.mark.parametrize("window", but_first(sorted(LISTS)))
def test_no_parameter_of_a_list_fails(root, window):
    names, fields = filters(LISTS[window])
    address = reverse(f"admin:{window}_changelist")
    for what, value in SENT.items():
        root.ask(f"{address}?{'&'.join(f'{name}={value}' for name in OWN)}", what)
    for what in MOST_ODD:
        root.ask(f"{address}?{SENT[what]}={SENT[what]}", what)
        for name in [*ALONE, *names]:
            root.ask(f"{address}?{name}={SENT[what]}", what)
    for what in ("a huge number", "a list", "no UTF-8", "a regular expression"):
        for field in [*fields, LISTS[window].model._meta.pk.name]:
            for lookup in LOOKUPS:
                root.ask(f"{address}?{field}__{lookup}={SENT[what]}", what)

    assert not root.failed, "\n".join(root.failed)


@pytest.mark.parametrize("route", but_first(sorted(route for route, _ in ADMIN if PART.search(route)), first=8))
def test_no_part_of_an_address_fails(root, route):
    for what in MOST_ODD:
        address = "/" + PART.sub(IN_PATH[what], route).replace("^", "").replace("$", "").replace("\\", "")
        root.ask(address, what)
        if what in ("NUL", "a huge number", "no UTF-8"):
            root.ask(address, what, b"")

    assert not root.failed, "\n".join(root.failed)


COOKIES = {
    "messages": ['"\\000"', "[[1]]", "x:y:z", "a" * 4000, '["__json_message", 9, "x"]'],
    "csrftoken": ["x", "\xff" * 32, "a" * 4000, '"\\000"'],
    "sessionid": ["x" * 4000, "' OR 1=1", '"\\377"', ".eJw:x:y"],
    "theme": ["<script>"],
}
REQUEST_HEADERS = {
    "Accept-Language": ["x" * 4000, "en;q=NaN,de;q=1e999", "../../etc", ",;=" * 500, "zh-hant-x-" + "a-" * 900],
    "Referer": ["javascript:alert(1)", "http://[::1", "//", "x" * 4000],
    "Origin": ["null", "http://[", "http://other", "x" * 4000],
    "If-Modified-Since": ["Thu, 30 Feb 99999 25:61:61 GMT", "x" * 4000],
    "If-None-Match": ['W/"', "*, *", '"' * 4000],
    "Range": ["bytes=9-1", "bytes=-99999999999999999999", "bytes=" + "0-1," * 900],
    "X-Requested-With": ["XMLHttpRequest\x0b"],
    "Content-Type": [
        "multipart/form-data",
        "multipart/form-data; boundary=" + "b" * 4000,
        "text/plain; charset=\xff",
    ],
}
BOUNDARY = "multipart/form-data; boundary=b"
FORM_BODIES = {
    "fields without end": (FORM, b"&".join(b"f%d=1" % n for n in range(2_000))),
    "only separators": (FORM, b"&=&" * 20_000),
    "another encoding": ("application/x-www-form-urlencoded; charset=utf-16", b"\xff\xfea\x00"),
    "a part that does not end": (BOUNDARY, b'--b\r\nContent-Disposition: form-data; name="q"\r\n\r\nx'),
    "a file without a name": (
        BOUNDARY,
        b'--b\r\nContent-Disposition: form-data; name="f"; filename=""\r\n\r\nx\r\n--b--\r\n',
    ),
    "a file named as a path": (
        BOUNDARY,
        b'--b\r\nContent-Disposition: form-data; name="f"; filename="../../x\x00"\r\n\r\nx\r\n--b--\r\n',
    ),
    "a part in base64 that is none": (
        BOUNDARY,
        b"--b\r\nContent-Disposition: form-data; name=q\r\nContent-Transfer-Encoding: base64\r\n\r\n!\r\n--b--",
    ),
    "parts without end": (
        BOUNDARY,
        b"--b\r\nContent-Disposition: form-data; name=q\r\n\r\n\r\n" * 2_000 + b"--b--",
    ),
    "no parts": (BOUNDARY, b"--b--"),
    "a part of headers": (BOUNDARY, b"--b\r\n" + b"X: y\r\n" * 5_000 + b"\r\n\r\n--b--"),
}


@pytest.mark.parametrize("page", but_first(["admin:login", "admin:index", "admin:orders_order_changelist"]))
def test_no_cookie_or_header_fails(root, page):
    address, session = reverse(page), root.client.cookies.copy()
    for name, values in COOKIES.items():
        for value in values:
            root.client.cookies = SimpleCookie()
            root.client.defaults["HTTP_COOKIE"] = "; ".join(
                f"{known}={value if known == name else session[known].value}" for known in {name, *session}
            )
            root.ask(address, f"cookie {name}={value[:20]}")
            root.ask(address, f"cookie {name}={value[:20]}", b"username=a&password=b")
    root.client.defaults.pop("HTTP_COOKIE")
    root.client.cookies = session
    for name, values in REQUEST_HEADERS.items():
        for value in values:
            root.client.defaults = {f"HTTP_{name.upper().replace('-', '_')}": value}
            root.ask(address, f"{name}: {value[:20]}")
            root.ask(address, f"{name}: {value[:20]}", b"username=a&password=b")

    assert not root.failed, "\n".join(root.failed)


@pytest.mark.parametrize(
    "page", but_first(["admin:login", "admin:orders_order_changelist", "admin:orders_product_add"])
)
def test_no_body_fails(root, page):
    for what, (kind, body) in FORM_BODIES.items():
        root.ask(reverse(page), what, body, kind=kind)

    assert not root.failed, "\n".join(root.failed)


@pytest.mark.parametrize(
    "elsewhere", ["//other", "https://other/", "/\\other", "javascript:alert(1)", "/\t/other"]
)
def test_a_login_leads_to_no_other_site(db, elsewhere):
    staff("root")
    answer = Client().post(
        f"{reverse('admin:login')}?{urlencode({'next': elsewhere})}",
        {"username": "root", "password": PASSWORD, "next": elsewhere},
    )

    assert answer.status_code == 302
    assert answer["Location"].startswith("/")
    assert "other" not in answer["Location"]


class Forms(HTMLParser):
    """Return the forms of a page that are posted: their targets, and the fields with their values."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str]]] = []
        self._fields: dict[str, str] | None = None
        self._choice = ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        if tag == "form":
            self._fields = {}
            if (given.get("method") or "").lower() == "post":
                self.found.append((given.get("action") or "", self._fields))
        elif (
            tag in ("input", "select", "textarea", "button") and given.get("name") and self._fields is not None
        ):
            self._fields.setdefault(given["name"], given.get("value") or "")
            self._choice = given["name"] if tag == "select" else ""
        elif tag == "option" and self._choice and self._fields is not None and given.get("value"):
            self._fields[self._choice] = given["value"]


def pages(dead_letter) -> list[str]:  # noqa: F811
    """Return the pages that have forms."""
    product = Product.objects.get()
    found = [reverse(f"admin:{window}_changelist") for window in LISTS]
    found += [
        reverse(f"admin:{window}_add") for window in ("orders_product", "notifications_preference", "auth_user")
    ]
    found += [
        reverse("admin:login"),
        reverse("admin:password_change"),
        reverse("admin:orders_product_change", args=[product.pk]),
        reverse("admin:orders_product_receive", args=[product.pk]),
        reverse("admin:orders_order_change", args=[dead_letter.key]),
        reverse("admin:outbox_deadletter_change", args=[dead_letter.pk]),
        reverse("admin:auth_user_change", args=[User.objects.get().pk]),
    ]
    return found


CONFIRMATIONS = {
    "orders_order_cancel": {"ids": "", "confirmed": "yes", "_changelist_filters": ""},
    "replay": {"ids": "", "confirmed": "yes", "reason": "why", "_changelist_filters": ""},
    "discard": {
        "ids": "",
        "confirmed": "yes",
        "reason": "why",
        "cancel": "",
        "mark_done": "",
        "_changelist_filters": "",
    },
}
"""Pages that only accept what another page sends."""


def encoded(fields: dict[str, str], name: str, value: str) -> bytes:
    others = {
        other: quote_plus(text) for other, text in fields.items() if other not in (name, "csrfmiddlewaretoken")
    }
    return "&".join(f"{quote_plus(key)}={text}" for key, text in (others | {name: value}).items()).encode()


@pytest.mark.slow
def test_no_field_of_a_form_fails(root, dead_letter):  # noqa: F811
    tried = 0
    for address in pages(dead_letter):
        client = Client() if address == reverse("admin:login") else root.client
        for action, fields in Forms(client.get(address).text).found:
            if "_selected_action" in fields:
                fields["_selected_action"] = str(dead_letter.pk)
            for name in fields:
                tried += 1
                for what in ("NUL", "half a character", "a huge number", "a bad UUID", "no UTF-8"):
                    root.ask(urljoin(address, action), f"{name}: {what}", encoded(fields, name, SENT[what]))

    assert not root.failed, "\n".join(root.failed)
    assert tried > 60


@pytest.mark.parametrize("page", but_first(CONFIRMATIONS))
def test_no_field_of_a_confirmation_fails(root, dead_letter, page):  # noqa: F811
    fields, ids = CONFIRMATIONS[page], {"orders_order_cancel": dead_letter.key}.get(page, str(dead_letter.pk))
    address = (
        reverse(f"admin:{page}")
        if page in ("orders_order_cancel",)
        else reverse("admin:outbox_deadletter_resolve", args=[page])
    )
    for name in fields:
        for what in MOST_ODD:
            root.ask(address, f"{name}: {what}", encoded(fields | {"ids": ids}, name, SENT[what]))

    assert not root.failed, "\n".join(root.failed)


def test_the_walk_reaches_every_list_and_the_filters_of_those_that_have_any():
    """If no form were found, all the other tests would pass."""
    assert {"orders_order", "orders_product", "outbox_deadletter", "notifications_notification"} <= set(LISTS)
    assert len(ADMIN) > 5 * len(LISTS)
    assert {"status", "placed_at", "attention"} <= set(filters(LISTS["orders_order"])[0])
