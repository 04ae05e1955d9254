"""`erase_customer` leaves no contact data in the database, and the books can still be verified."""

from __future__ import annotations

import datetime as dt

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.db import connection
from django.utils import timezone

from notifications.models import Notification, Preference
from orderflow.personal.contact import Contact
from orders import services
from orders.models import IdempotencyRecord, Order, Payment
from outbox.dead_letters import burying
from outbox.models import Attempt, DeadLetter, OutboxMessage
from outbox.retention import pruning
from outbox.verification import examination
from tests.factories import ProductFactory, place
from tests.slow import but_first

CONTACT = {
    "name": "Grace Hopper-Unique",
    "email": "Grace.H@example.com",
    "phone": "+447700900456",
    "push_token": "device-token-of-grace",
}
SPELLINGS = [
    *CONTACT.values(), "grace.h%40example.com", "grace.h@EXAMPLE.com", "+44 7700 900456", "7700900456",
]  # fmt: skip


@pytest.fixture
def done(world, drain):
    """A fulfilled order with all its notifications, and an order of another customer."""
    product = ProductFactory()
    order = place(product, contact=services.Contact(**CONTACT))
    other = place(product, contact=services.Contact(name="Ada", email="ada@example.com"))
    drain()
    order.refresh_from_db()
    assert order.status == Order.Status.FULFILLED
    return order, other


def leave_traces(order):
    """Store the contact where errors, people and clients may store it."""
    text = f"refused: {', '.join(SPELLINGS)}"
    Attempt.objects.create(
        consumer="notifications.tasks.send_email", message_id=order.message_id, outcome="buried",
        error_class="RecipientRefused", error=text, traceback=text,
    )  # fmt: skip
    for message_id, key in ((str(order.message_id), str(order.pk)), ("", "")):
        failure = burying.Failure(
            source="task", consumer="notifications.tasks.send_email", error_class="RecipientRefused",
            error=text, traceback=text, message_id=message_id, key=key,
            payload={"order_id": str(order.pk), "body": text, "customer_name": CONTACT["name"]},
            headers={"to": CONTACT["email"], "deep": [{"at": text}]},
        )  # fmt: skip
        dead_letter = burying.bury(failure)
        DeadLetter.objects.filter(pk=dead_letter.pk).update(
            resolution="discarded", reason=text, resolved_by="staff", resolved_at=timezone.now()
        )
    OutboxMessage.objects.filter(pk=order.message_id).update(last_error=text)
    Payment.objects.filter(order=order).update(error=text)
    Order.objects.filter(pk=order.pk).update(client_reference=CONTACT["email"])
    IdempotencyRecord.objects.filter(order=order).update(answer={"contact": CONTACT})
    Preference.objects.create(email=CONTACT["email"].lower(), channel="sms", enabled=False)
    LogEntry.objects.create(
        user=User.objects.create_user("staff"), object_id=str(order.pk), object_repr=order.number,
        action_flag=2, change_message=text,
    )  # fmt: skip


def places_naming(*texts):
    """Return every table and column of the database that contains one of the texts, ignoring case."""
    found = set()
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'public'"
            " AND (data_type IN ('text', 'character varying', 'json', 'jsonb', 'bytea', 'ARRAY'))"
        )
        for table, column in cursor.fetchall():
            for text in texts:
                cursor.execute(
                    f'SELECT count(*) FROM "{table}" WHERE position(lower(%s) in lower("{column}"::text)) > 0',
                    [text],
                )
                if cursor.fetchone()[0]:
                    found.add((table, column))
    return found


@pytest.mark.parametrize("which", but_first(["by e-mail", "by order"]))
def test_nothing_in_the_database_names_the_customer_and_the_books_stay_provable(done, run, which):
    order, other = done
    leave_traces(order)
    # Before the erasure the database has them in many tables.
    assert len({table for table, _ in places_naming(*SPELLINGS)}) >= 8
    selected = ("--email", "GRACE.H@example.com") if which == "by e-mail" else ("--order", order.number)
    before = {
        name: getattr(order, name) for name in ("number", "total_minor", "status", "message_id", "country")
    }

    erased = run("erase_customer", *selected)

    assert (erased.code, erased.out.strip()) == (0, f"{order.number} erased")
    assert places_naming(*SPELLINGS, CONTACT["email"].split("@")[0]) == set()
    order.refresh_from_db()
    assert {name: getattr(order, name) for name in before} == before
    report = examination.run(providers=True)
    assert report.failed == []
    other.refresh_from_db()
    assert other.customer_email == "ada@example.com"
    assert Notification.objects.filter(order_id=other.pk, recipient="ada@example.com").exists()


def test_erasing_again_finds_nothing_and_harms_nothing(done, run):
    order, _ = done
    assert run("erase_customer", "--order", order.number).code == 0
    assert run("erase_customer", "--order", order.number).code == 0
    again = run("erase_customer", "--email", CONTACT["email"])
    assert again.code == 4
    assert CONTACT["email"] not in again.error


def test_a_request_repeated_after_that_places_no_other_order(done, run):
    order, _ = done
    record = IdempotencyRecord.objects.get(order=order)
    run("erase_customer", "--order", order.number)

    with pytest.raises(services.KeyReused):
        place(idempotency=services.IdempotencyKey.of(scope=record.scope, key=record.key, request={}))
    assert Order.objects.count() == 2


def test_pending_notifications_keep_their_contact(db, run):
    order = place(contact=services.Contact(**CONTACT))
    left = run("erase_customer", "--email", CONTACT["email"])

    assert left.code == 3
    assert "stays: it is placed" in left.out
    order.refresh_from_db()
    assert order.customer_email == CONTACT["email"]


def test_an_open_dead_letter_has_to_be_decided_on_first(done, run):
    order, _ = done
    failure = burying.Failure(
        source="task", consumer="notifications.tasks.send_sms", error_class="X", error="x",
        message_id=str(order.message_id), key=str(order.pk),
    )  # fmt: skip
    dead_letter = burying.bury(failure)
    left = run("erase_customer", "--order", order.number)
    assert left.code == 3
    assert f"dead letter {dead_letter.pk} is open" in left.out

    DeadLetter.objects.filter(pk=dead_letter.pk).update(resolution="discarded")
    assert run("erase_customer", "--order", order.number).code == 0


def test_a_dry_run_changes_nothing_and_shows_no_address(done, run):
    order, _ = done
    shown = run("erase_customer", "--email", CONTACT["email"], "--dry-run")

    assert shown.out.strip() == f"{order.number} would be erased"
    order.refresh_from_db()
    assert order.customer_email == CONTACT["email"]


@pytest.mark.parametrize("name", ["order", "orders", "Error", "a", "X Æ", "Mag(nus", "charge"])
def test_a_customers_name_that_is_a_common_word_changes_no_identifier(name):
    contact = Contact.of([{"customer_name": name, "customer_email": "a.b@example.com"}])
    headers = {"task": "orders.tasks.charge", "order_id": "order-1", "customer_name": name}

    erased = contact.without_in(headers)
    assert erased == headers | {"customer_name": "[erased]"}
    assert contact.without("orders.tasks.charge", with_names=False) == "orders.tasks.charge"


def test_notifications_are_kept_for_their_time_and_never_less_than_what_would_send_them_again(done, settings):
    settings.NOTIFICATION_RETENTION_DAYS = 10
    long_ago = timezone.now() - dt.timedelta(days=11)
    Notification.objects.update(created_at=long_ago)

    assert pruning.prune()["notifications"] == 0  # their messages are still there
    OutboxMessage.objects.update(published_at=long_ago)
    settings.OUTBOX_RETENTION_DAYS = 5
    count = Notification.objects.count()
    assert count
    settings.NOTIFICATION_RETENTION_DAYS = 20
    assert pruning.prune()["notifications"] == 0
    settings.NOTIFICATION_RETENTION_DAYS = 10
    assert pruning.prune()["notifications"] == count
    assert not Notification.objects.exists()
