"""Settings that would hurt later are told by `manage.py check`, with what to do."""

from __future__ import annotations

import dataclasses
import datetime as dt

import pytest
from celery import current_app
from django.conf import settings

from orderflow import checks
from orders import tasks


class Overridden:
    """Django's settings but for one; overriding DATABASES for real would take the tests' own away."""

    def __init__(self, name, value):
        setattr(self, name, value)

    def __getattr__(self, name):
        return getattr(settings, name)


@pytest.mark.parametrize(
    ("name", "value", "finding"),
    [
        ("BROKER_URL", "sqs://", "orderflow.E001"),
        ("DATABASES", {"default": {"ENGINE": "django.db.backends.sqlite3"}}, "orderflow.E002"),
        (
            "DATABASES",
            {"default": {"ENGINE": "django.db.backends.postgresql", "OPTIONS": {"pool": True}}},
            "orderflow.E003",
        ),
        ("PAYMENT_GATEWAY", "orders.adapters.no_such.Gateway", "orderflow.E004"),
        ("FCM_CREDENTIALS_FILE", "/no/such/file.json", "orderflow.E005"),
        ("OUTBOX_RETENTION_DAYS", 1, "orderflow.E006"),
        ("PROVIDER_TIMEOUT", dt.timedelta(seconds=10), "orderflow.E007"),
        ("REDIS_URL", "", "orderflow.W001"),
        ("WAREHOUSE_URL", "", "orderflow.W002"),
    ],
)
def test_a_bad_setting_is_found(monkeypatch, name, value, finding):
    monkeypatch.setattr(checks, "settings", Overridden(name, value))

    assert finding in {message.id for message in checks.check_settings()}


def test_tries_that_outlast_the_providers_memory_of_a_key_are_found(monkeypatch):
    patient = dataclasses.replace(tasks.GATEWAY_RETRY, redelivery_waits=[dt.timedelta(hours=24)])
    monkeypatch.setattr(current_app.tasks[tasks.charge.name], "policy", patient)

    [finding] = [message for message in checks.check_settings() if message.id == "orderflow.E008"]
    assert "orders.tasks.charge" in finding.msg


def test_good_settings_give_no_errors(world):
    assert not [message for message in checks.check_settings() if message.id.startswith("orderflow.E")]
