"""The outbox's pages show contact data only to users who may reveal it, and log each time that they do."""

from __future__ import annotations

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.urls import reverse

from orders import services
from outbox import telemetry
from outbox.models import Attempt, OutboxMessage
from tests.admin.conftest import bury, staff
from tests.factories import place

CONTACT = {
    "name": "Ada Lovelace",
    "email": "Ada.L@example.com",
    "phone": "+447700900123",
    "push_token": "token-of-ada-4711",
}
SPELLINGS = [*CONTACT.values(), "ada.l%40example.com", "+44 7700 900 123", "ADA.L@EXAMPLE.COM"]
TEXT = f"refused for {', '.join(SPELLINGS)}"


@pytest.fixture
def dead_letter(db):
    order = place(contact=services.Contact(**CONTACT))
    OutboxMessage.objects.filter(pk=order.message_id).update(status="buried", last_error=TEXT)
    Attempt.objects.create(
        consumer="orders.tasks.charge",
        message_id=order.message_id,
        outcome="buried",
        error_class="RecipientRefused",
        error=TEXT,
        traceback=TEXT,
    )
    payload = OutboxMessage.objects.get(pk=order.message_id).payload
    return bury(
        order,
        error=TEXT,
        traceback=f"Traceback\n{TEXT}",
        payload=payload | {"order_id": str(order.pk), "shipping_address": {"line1": "1 Main Street"}},
        headers={"recipient": CONTACT["name"], "task": "orders.tasks.charge", "note": [TEXT]},
    )


def pages(dead_letter):
    yield reverse("admin:outbox_deadletter_changelist")
    yield reverse("admin:outbox_deadletter_change", args=[dead_letter.pk])
    yield reverse("admin:outbox_outboxmessage_changelist")
    yield reverse("admin:outbox_outboxmessage_change", args=[dead_letter.message_id])
    yield reverse("admin:outbox_attempt_changelist")
    yield reverse("admin:outbox_attempt_change", args=[Attempt.objects.get().pk])


@pytest.mark.parametrize("name", ["root", "on-call"])
def test_no_page_of_the_outbox_shows_contact_data_by_default(signed_in, dead_letter, name):
    client = signed_in(name)
    for page in pages(dead_letter):
        shown = client.get(page).text
        for secret in [*SPELLINGS, "1 Main Street"]:
            assert secret not in shown, (page, secret)
    shown = client.get(reverse("admin:outbox_deadletter_change", args=[dead_letter.pk])).text
    assert dead_letter.key in shown
    assert "orders.tasks.charge" in shown


def test_revealing_needs_its_own_permission_and_is_recorded(signed_in, dead_letter):
    reveal = reverse("admin:outbox_deadletter_reveal", args=[dead_letter.pk])
    page = reverse("admin:outbox_deadletter_change", args=[dead_letter.pk])
    client = signed_in("on-call")
    assert "Reveal" not in client.get(page).text
    assert client.post(reveal).status_code == 403
    assert client.get(reveal).status_code == 405
    assert not LogEntry.objects.exists()
    user = User.objects.get(username="on-call")
    user.user_permissions.add(Permission.objects.get(codename="reveal_deadletter"))

    assert "Reveal contact data" in client.get(page).text
    signals = []
    telemetry.register(receiver := lambda signal, fields: signals.append((signal, fields)))
    shown = client.post(reveal)
    telemetry.unregister(receiver)

    assert shown.status_code == 200
    for secret in [*CONTACT.values(), "1 Main Street"]:
        assert secret in shown.text, secret
    assert "no-store" in shown["Cache-Control"]
    [entry] = LogEntry.objects.all()
    assert (entry.user, entry.object_id, entry.get_change_message()) == (
        user,
        str(dead_letter.pk),
        "Saw its contact data.",
    )
    assert ("dead_letter.revealed", {"dead_letter": dead_letter.pk, "user_id": user.pk}) in signals
    assert CONTACT["email"] not in client.get(page).text  # only once


def test_the_permission_to_reveal_alone_shows_nothing(db, dead_letter):
    user = staff("nobody")
    user.user_permissions.add(Permission.objects.get(codename="reveal_deadletter"))
    client = Client()
    client.force_login(user)

    assert client.post(reverse("admin:outbox_deadletter_reveal", args=[dead_letter.pk])).status_code == 403
    assert client.post(reverse("admin:outbox_deadletter_reveal", args=[10**6])).status_code == 403
    assert not LogEntry.objects.exists()
