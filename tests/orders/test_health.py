"""Liveness, readiness and health: three checks with three results."""

from __future__ import annotations

import datetime as dt

import pytest
from django.contrib.auth.models import User
from django.db import OperationalError
from django.db.migrations.recorder import MigrationRecorder

from orderflow import health
from outbox import redelivery, status
from outbox.models import DeadLetter, Delivery, OutboxMessage
from tests.conftest import close_breakers
from tests.factories import place
from tests.orders.api.client import ApiClient, assert_problem


@pytest.fixture
def staff(client, db):
    client.force_login(User.objects.create_user("operator", is_staff=True))
    return client


@pytest.fixture
def _no_database(monkeypatch):
    def refuse():
        raise OperationalError("connection refused")

    monkeypatch.setattr(health, "_query_database", refuse)


def test_liveness_depends_on_no_server(client):
    """No database fixture: a query would fail."""
    response = client.get("/livez")

    assert (response.status_code, response.json()) == (200, {"status": "ok"})
    assert "no-store" in response["Cache-Control"]


def test_a_process_with_a_migrated_database_is_ready(client, db):
    assert client.get("/readyz").status_code == 200


def test_migrations_are_checked_until_they_are_applied(client, db, monkeypatch, django_assert_num_queries):
    monkeypatch.setattr(health, "_migrated", False)
    newest = MigrationRecorder.Migration.objects.filter(app="orders").latest("name")
    newest.delete()
    assert_problem(client.get("/readyz"), 503, "unavailable")

    MigrationRecorder.Migration.objects.create(app="orders", name=newest.name)
    assert client.get("/readyz").status_code == 200
    with django_assert_num_queries(1):
        client.get("/readyz")


@pytest.mark.usefixtures("_no_database")
def test_without_its_database_a_process_is_not_ready(client):
    response = client.get("/readyz")

    assert_problem(response, 503, "unavailable")
    assert response["Retry-After"]


def test_the_complete_status_is_shown_to_staff_and_to_holders_of_a_token(client, staff):
    from django.test import Client

    assert_problem(Client().get("/healthz"), 401, "unauthenticated")
    assert ApiClient().get("/healthz").status_code == 200
    assert staff.get("/healthz").status_code == 200


def test_a_healthy_system_is_ok(staff):
    close_breakers()  # earlier tests may have left them open
    answer = staff.get("/healthz").json()

    assert set(answer["components"]) == set(health.CHECKS)
    assert {name: each for name, each in answer["components"].items() if each["status"] != "ok"} == {}
    assert answer["status"] == "ok"


def components(client, *, status: int = 200) -> dict[str, str]:
    response = client.get("/healthz")
    assert response.status_code == status
    return {name: each["status"] for name, each in response.json()["components"].items()}


def test_late_and_undeliverable_messages_are_reported(staff):
    order = place()
    long_ago = dt.datetime.now(dt.UTC) - dt.timedelta(minutes=5)
    OutboxMessage.objects.filter(key=order.pk).update(not_before=long_ago)
    OutboxMessage.objects.filter(key=place().pk).update(status="parked")
    DeadLetter.objects.create(
        source="task", consumer="c", error_class="E", error="", fingerprint="f", digest="d"
    )
    answer = staff.get("/healthz").json()

    assert answer["status"] == "degraded"
    assert answer["components"]["relay"]["oldest_due_seconds"] >= 300
    assert answer["components"]["parked"] == {"status": "degraded", "count": 1}
    assert answer["components"]["dead_letters"] == {"status": "degraded", "open": 1}


def test_an_overdue_redelivery_is_reported_although_its_message_is_published(staff, drain):
    order = place()
    drain()
    [message] = OutboxMessage.objects.filter(key=order.pk, event_name="orders.order_placed")
    redelivery.redeliver([message.pk], workflow="orders.workflows.fulfillment")
    long_ago = dt.datetime.now(dt.UTC) - dt.timedelta(minutes=5)
    Delivery.objects.filter(message_id=message.pk).update(not_before=long_ago)
    answer = staff.get("/healthz").json()

    assert answer["components"]["relay"]["status"] == "degraded"
    assert answer["components"]["relay"]["oldest_due_seconds"] >= 300
    assert status.read()["oldest_due_seconds"] >= 300


def test_a_broker_outage_delays_work_but_does_not_refuse_it(staff, no_broker):
    assert components(staff)["broker"] == "degraded"


def test_an_open_breaker_is_reported(staff, monkeypatch):
    from outbox import resilience

    class Open(resilience.AlwaysClosed):
        def circuit(self):
            return resilience.Circuit(state="open", open_seconds=1.0, next_probe_seconds=14.0)

    monkeypatch.setattr(resilience, "breaker", lambda name: Open())

    assert components(staff)["breakers"] == "degraded"


@pytest.mark.usefixtures("_no_database")
def test_without_the_database_nothing_works(staff):
    assert components(staff, status=503)["database"] == "failing"


def test_the_root_leads_to_the_admin(client):
    response = client.get("/")

    assert (response.status_code, response["Location"]) == (302, "/admin/")
