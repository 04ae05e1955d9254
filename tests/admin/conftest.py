"""Staff users of each kind, and rows for every page."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.contrib.auth.models import Group, User
from django.test import Client

from orderflow.login import groups
from orders.models import Order, Payment
from outbox import telemetry
from outbox.dead_letters import burying
from outbox.models import Attempt, DeadLetter, InboxEntry, OutboxMessage
from tests.factories import place

PASSWORD = "a long enough passphrase"

LISTS = {
    "orders_order": {"root", "on-call", "support"},
    "orders_product": {"root", "on-call", "support"},
    "orders_apiclient": {"root", "on-call"},
    "orders_apitoken": {"root"},
    "notifications_notification": {"root", "on-call", "support"},
    "outbox_outboxmessage": {"root", "on-call"},
    "outbox_inboxentry": {"root", "on-call"},
    "outbox_attempt": {"root", "on-call"},
    "outbox_deadletter": {"root", "on-call"},
    "outbox_replaycampaign": {"root", "on-call"},
    "outbox_verification": {"root", "on-call"},
    "outbox_repairrecord": {"root", "on-call"},
}
"""The lists, and the users who may open each."""


@pytest.fixture(autouse=True)
def _quick_passwords(settings) -> None:
    """Password hashing as slow as in production would take most of these tests' time."""
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    settings.LOGIN_RATE_PER_ADDRESS = settings.LOGIN_RATE_PER_USER = (
        "1000/minute"  # all requests have the same address
    )


def staff(name: str) -> User:
    """A staff user: root, on-call, support, or one without permissions."""
    groups.ensure()
    user = User.objects.create_user(name, password=PASSWORD, is_staff=True, is_superuser=name == "root")
    if group := {"on-call": "On-call", "support": "Support"}.get(name):
        user.groups.add(Group.objects.get(name=group))
    return user


@pytest.fixture
def signed_in(db) -> Callable[[str], Client]:
    def sign_in(name: str) -> Client:
        client = Client()
        client.force_login(User.objects.filter(username=name).first() or staff(name))
        return client

    return sign_in


@pytest.fixture
def stated():
    """The emitted signals: their names and fields."""
    found = []
    telemetry.register(receiver := lambda signal, fields: found.append((signal, fields)))
    yield found
    telemetry.unregister(receiver)


def messages_on(page) -> str:
    """Return the messages of a page."""
    return " ".join(str(message) for message in page.context["messages"])


def bury(order: Order, **changed) -> DeadLetter:
    known = {
        "source": "task",
        "consumer": "orders.tasks.charge",
        "error_class": "PaymentProviderDown",
        "error": "503 from the payment provider",
        "traceback": 'Traceback (most recent call last):\n  File "orders/tasks.py", line 7, in charge\n',
        "message_id": str(order.message_id),
        "payload": {"order_id": str(order.pk)},
        "headers": {"correlation_id": order.correlation_id},
        "attempts": 5,
        "worker": "celery@one",
    }
    return burying.bury(burying.Failure(**(known | changed)))


@pytest.fixture
def order(db) -> Order:
    return place()


@pytest.fixture
def dead_letter(order: Order) -> DeadLetter:
    OutboxMessage.objects.filter(pk=order.message_id).update(status="published")
    Attempt.objects.create(
        consumer="orders.tasks.charge",
        message_id=order.message_id,
        outcome="buried",
        error_class="PaymentProviderDown",
        error="503 from the payment provider",
    )
    InboxEntry.objects.create(consumer="notifications.tasks.send", message_id=order.message_id)
    Payment.objects.create(
        order=order,
        idempotency_key=f"order-{order.pk}",
        amount_minor=order.total_minor,
        currency=order.currency,
    )
    return bury(order)
