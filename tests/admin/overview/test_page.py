"""The first page: who sees which part, what it costs, and that it shows hostile values as text."""

from __future__ import annotations

import re
import time

import pytest
from django.db import OperationalError, ProgrammingError, connection
from django.urls import reverse

from orderflow.login import middleware
from orderflow.ops.overview import causes, history, moment, patience, servers, strip
from outbox.models import DeadLetter
from tests.admin.conftest import bury
from tests.admin.overview.conftest import INDEX, bucket, healthy, part
from tests.factories import ProductFactory, place

SECTIONS = ("System", "Queues", "Providers")


@pytest.mark.parametrize(
    ("name", "groups", "plots", "has_causes"),
    [
        ("root", [*SECTIONS], ["orders", "durations", "longest-due", "dead-letters"], True),
        ("on-call", [*SECTIONS], ["orders", "durations", "longest-due", "dead-letters"], True),
        ("support", [], ["orders", "durations"], False),
        ("nobody", [], [], False),
    ],
)
def test_everybody_sees_the_parts_of_what_they_may_view(overview, name, groups, plots, has_causes):
    bury(place())
    page = overview(name)

    assert [group.name for group in page.shown.groups] == groups
    assert [plot.slug for plot in page.shown.plots] == plots
    assert (page.shown.causes is not None) is has_causes
    assert ("PaymentProviderDown" in page.text) is has_causes
    assert ("You may not view any" in page.text) is (name == "nobody")
    assert ("of-pause" in page.text) is (name != "nobody")


def test_one_permission_shows_one_part(signed_in, django_user_model):
    from django.contrib.auth.models import Permission

    client = signed_in("nobody")
    nobody = django_user_model.objects.get(username="nobody")
    nobody.user_permissions.add(Permission.objects.get(codename="view_verification"))
    page = client.get(reverse(INDEX))

    assert [(group.name, [one.slug for one in group.parts]) for group in page.context["overview"].groups] == [
        ("System", ["verification"])
    ]
    assert page.context["overview"].plots == []


def test_the_list_of_pages_is_on_the_first_page(overview):
    page = overview("support")

    assert f'href="{reverse("admin:orders_order_changelist")}"' in page.text
    assert reverse("admin:outbox_deadletter_changelist") not in page.text
    assert page.text.index("All pages") > page.text.index("The last 24 hours")
    assert page.text.count("<h1>") == 1


@pytest.mark.parametrize("name", ["on-call", "support", "nobody"])
@pytest.mark.parametrize("view", [INDEX, "admin:overview"])
def test_the_page_costs_few_queries_however_much_there_is(
    signed_in, name, view, django_assert_max_num_queries, django_assert_num_queries
):
    client = signed_in(name)
    healthy()
    client.get(reverse(view))
    with django_assert_max_num_queries(12) as few:
        client.get(reverse(view))
    product = ProductFactory()
    for number in range(12):
        bury(place(product), error_class=f"Error{number}")
        bucket("messages.oldest_due", ago=number, maximum=1)
    with django_assert_num_queries(len(few)):
        client.get(reverse(view))


def test_the_script_gets_the_part_that_changes_and_nobody_else_does(signed_in, client):
    fragment = signed_in("root").get(reverse("admin:overview"))

    assert fragment.status_code == 200
    assert "<html" not in fragment.text
    assert "of-summary" in fragment.text
    assert "no-store" in fragment["Cache-Control"]
    assert client.get(reverse("admin:overview")).status_code == 302


def test_refreshing_does_not_prolong_a_session(signed_in):
    client = signed_in("root")
    session = client.session
    session[middleware.SEEN] -= 1000
    session.save()
    client.get(reverse("admin:overview"), headers={"X-Automatic": "1"})
    assert time.time() - client.session[middleware.SEEN] > 900

    session[middleware.SEEN] -= 1000
    session.save()
    assert client.get(reverse("admin:overview"), headers={"X-Automatic": "1"}).status_code == 302


def test_causes_are_counted_by_fingerprint_and_lead_to_their_dead_letters(overview, signed_in):
    for number in range(3):
        bury(place(), error_class="Unreachable", consumer=f"orders.tasks.{number % 2}")
    DeadLetter.objects.update(fingerprint="f" * 40)
    bury(place(), error_class="Rare")
    bury(place(), error_class="Closed")
    DeadLetter.objects.filter(error_class="Closed").update(resolution="discarded")
    page = overview()

    assert [(cause.error_class, cause.count, cause.share) for cause in page.shown.causes.causes] == [
        ("Unreachable", 3, 75),
        ("Rare", 1, 25),
    ]
    assert page.shown.causes.open == "4 open dead letters"
    listed = signed_in("root").get(page.shown.causes.causes[0].url)
    assert {row.error_class for row in listed.context["cl"].result_list} == {"Unreachable"}
    assert len(listed.context["cl"].result_list) == 3


def test_a_flood_of_dead_letters_is_read_to_a_limit_and_says_so(overview, monkeypatch):
    monkeypatch.setattr(causes, "MOST_READ", 2)
    monkeypatch.setattr(causes, "MOST_SHOWN", 1)
    for number in range(4):
        bury(place(), error_class=f"Error{number}")
    page = overview()

    assert page.shown.causes.open == "more than 2 open dead letters"
    assert page.shown.causes.others == 2
    assert "the causes are those of the newest 2" in page.text


def test_hostile_text_is_shown_as_text(overview):
    evil = "</svg></table><script>alert(1)</script>\u202e" + "x" * 100
    bury(place(), error_class=evil, consumer=evil, error=evil)
    bucket("dead_letters.buried", evil, ago=3)
    bucket("orders.finished", "fulfilled", ago=3, count=2**62, maximum=1e12, histogram=[0] * 15 + [2**62])
    page = overview()

    assert "<script>alert" not in page.text
    assert "&lt;script&gt;" in page.text
    assert "4.6E" in page.text
    assert not re.search(r"<style|\sstyle=|\son[a-z]+=|javascript:", page.text)


@pytest.fixture
def broken(monkeypatch, transactional_db):
    """Lets one of the page's reads fail."""

    def breaks(module, error: Exception) -> None:
        def fail(*_: object, **__: object):
            raise error

        monkeypatch.setattr(module, "read", fail)

    return breaks


@pytest.mark.parametrize("module", [moment, history, causes])
def test_with_database_trouble_the_page_says_so(overview, broken, module):
    bury(place())
    broken(module, OperationalError("could not connect to 10.0.0.7 as secret"))
    page = overview()

    assert "The database does not answer." in page.text
    assert "secret" not in page.text
    database = part(page, "database")
    assert (database.state, database.word) == ("bad", "does not answer")
    assert part(page, "broker").word == "answers"
    if module is moment:
        assert part(page, "relay").word == part(page, "verification").word == "unknown"
        assert part(page, "queue-orders").word == "consumers unknown"
        assert "The time of the database is unknown" in page.text


def test_a_table_that_is_missing_is_no_silent_database(overview, broken):
    broken(history, ProgrammingError("no such table"))

    assert part(overview(), "database").word == "refused a query (ProgrammingError)"


@pytest.mark.parametrize("error", [OperationalError, ValueError])
def test_without_the_database_every_page_says_what_is_wrong(client, signed_in, monkeypatch, error):
    client = signed_in("root")
    client.raise_request_exception = False

    def refuse(*_: object, **__: object):
        raise error("connection refused by 10.0.0.7")

    with monkeypatch.context() as broken:
        broken.setattr(connection, "cursor", refuse)
        page = client.get(reverse("admin:orders_order_changelist"))
        api = client.get("/api/v1/orders", headers={"Authorization": "Bearer x"})
    assert api["Content-Type"].startswith("application/problem+json")
    if error is ValueError:
        assert page.status_code == 500
        return
    assert page.status_code == 503
    assert page["Retry-After"] == "5"
    assert "The database does not answer" in page.text
    assert "10.0.0.7" not in page.text


def test_a_broker_that_hangs_does_not_hang_the_page(overview, monkeypatch):
    import threading

    ends = threading.Event()
    monkeypatch.setattr(patience, "WAIT", 0.1)
    hangs = patience.Question(lambda: ends.wait(60))
    monkeypatch.setattr(servers, "broker", hangs)
    monkeypatch.setattr(servers, "providers", hangs)
    monkeypatch.setattr(strip, "SILENT_FOR", 60)
    assert (part(overview(), "broker").state, part(overview(), "broker").word) == ("unknown", "unknown")
    monkeypatch.setattr(strip, "SILENT_FOR", 0)
    began = time.monotonic()
    page = overview()
    took = time.monotonic() - began
    ends.set()

    assert part(page, "broker").word == "does not answer"
    assert part(page, "breaker-sms").word == "unknown"
    assert took < 5, "far less than the hanging answer takes"
