"""A small consistent system, built once for a module; each test corrupts it in its own transaction."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sqlite3
from types import SimpleNamespace

import pytest
from django.apps import apps
from django.db import connection, transaction
from django.test import override_settings

from orderflow.sandbox import access
from orders import adapters, services
from orders.models import Order
from outbox import inbox, testing
from outbox.dead_letters import resolving
from outbox.models import DeadLetter, RelayState
from outbox.verification import catalogue
from outbox.verification.catalogue import Invariant
from tests.conftest import close_breakers, service_account
from tests.factories import ProductFactory, place

EXAMPLE = Invariant(
    name="example", sentence="Nothing is wrong.", sql="SELECT 'x' WHERE FALSE", command="look at {id}"
)

NOBODY = services.Contact()
EVERYWHERE = services.Contact(
    name="Ada Example", email="ada@example.com", phone="+447700900001", push_token="device-1"
)


def providers(world, credentials):
    """The settings that connect to the sandbox."""
    return override_settings(
        STRIPE_API_BASE=world.payments.url,
        STRIPE_API_KEY="sk_test_tests",
        WAREHOUSE_URL=world.warehouse.url,
        WAREHOUSE_TOKEN="token",
        EMAIL_BACKEND="notifications.channels.smtp.Backend",
        EMAIL_HOST="127.0.0.1",
        EMAIL_PORT=world.smtp.smtp_port,
        EMAIL_HOST_USER=access.USER,
        EMAIL_HOST_PASSWORD=world.password,
        TWILIO_API_BASE=world.sms.url,
        TWILIO_ACCOUNT_SID="AC" + "0" * 32,
        TWILIO_AUTH_TOKEN="token",
        TWILIO_FROM="+15005550006",
        FCM_API_BASE=world.push.url,
        FCM_PROJECT_ID="orderflow-test",
        FCM_CREDENTIALS_FILE=str(credentials),
        SANDBOX_URL=world.mailbox.url,
        SANDBOX_PASSWORD=world.password,
    )


@pytest.fixture(scope="module")
def books(running_world, tmp_path_factory, django_db_setup, django_db_blocker):
    """One processed order of every kind, committed; deleted after the module."""
    credentials = tmp_path_factory.mktemp("fcm") / "fcm.json"
    credentials.write_text(json.dumps(service_account(f"{running_world.push.url}/token")))
    running_world.clear()
    with django_db_blocker.unblock(), providers(running_world, credentials):
        adapters.forget()
        close_breakers()
        testing.purge()
        try:
            yield work_off()
        finally:
            testing.purge()
            forget_everything()
            running_world.clear()
    adapters.forget()


def work_off():
    """Place the orders and drain; return them by name, in their final state."""
    placed = {
        "shipped": place(ProductFactory(sku="SHIPPED"), contact=EVERYWHERE),
        "plain": place(ProductFactory(sku="PLAIN"), contact=NOBODY),
        "cancelled": place(ProductFactory(sku="NOSHIP-1"), contact=NOBODY),
        "rejected": place(payment_method="pm_card_visa_chargeDeclined"),
        "stuck": place(payment_method="pm_no_such_card", contact=NOBODY),
        "bounced": place(contact=services.Contact(email="bounce@example.com", phone="+447700900002")),
        "withdrawn": place(),
    }
    services.request_cancellation(order_id=placed["withdrawn"].pk, requested_by="customer")
    testing.drain()
    bounced = DeadLetter.objects.unresolved().filter(key=str(placed["bounced"].pk))
    resolving.replay(bounced, by="somebody", reason="the mailbox exists now")
    testing.drain()
    with transaction.atomic():
        inbox.once("a consumer", placed["shipped"].message_id)
    placed["waiting"] = place()
    testing.do_periodic_tasks()
    return SimpleNamespace(**{name: Order.objects.get(pk=order.pk) for name, order in placed.items()})


def forget_everything():
    """Empty the tables of the three apps, except the relay's row, which a migration creates."""
    models = [
        model
        for app in ("outbox", "orders", "notifications")
        for model in apps.get_app_config(app).get_models()
    ]
    with connection.cursor() as cursor:
        cursor.execute(
            f"TRUNCATE {', '.join(model._meta.db_table for model in models if model is not RelayState)}"
        )


@pytest.fixture
def only(monkeypatch):
    """Examine only these invariants."""

    def only(*changes):
        chosen = [
            dataclasses.replace(EXAMPLE, name=f"example-{n}", **change) for n, change in enumerate(changes)
        ]
        monkeypatch.setattr(catalogue, "_invariants", {one.name: one for one in chosen})

    return only


@pytest.fixture
def ledger(running_world):
    """Open a provider's ledger directly, for SQL; it is restored after the test."""
    with contextlib.ExitStack() as repairs:

        def opened(name):
            server = getattr(running_world, name)
            sandbox = sqlite3.connect(
                server.data_dir / f"{server.name}.sqlite3", isolation_level=None, timeout=5
            )
            before = sandbox.execute("SELECT * FROM entries").fetchall()
            repairs.callback(put_right, sandbox, before)
            return sandbox

        yield opened


def put_right(sandbox, before):
    with contextlib.closing(sandbox):
        sandbox.execute("BEGIN IMMEDIATE")
        sandbox.execute("DELETE FROM entries")
        sandbox.executemany(f"INSERT INTO entries VALUES ({', '.join('?' * 7)})", before)
        sandbox.execute("COMMIT")
