"""Settings that would cause trouble later are reported by `manage.py check`, with what to do."""

from __future__ import annotations

import dataclasses
import datetime as dt
import itertools
import re

import pytest
import yaml
from celery import current_app
from django.conf import settings
from django.core.checks import registry
from django.db import connection

from orderflow import checks
from orderflow.ops import capacity
from orders import tasks
from outbox.worker import sessions
from tests.processes import ROOT


class Overridden:
    """Django's settings with one changed; really overriding DATABASES would disable the tests' own."""

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
        ("API_RATE_LIMIT", "600 a minute or so", "orderflow.E013"),
        ("LOGIN_RATE_PER_ADDRESS", "", "orderflow.E013"),
        ("LOGIN_RATE_PER_USER", "20/minute;lots", "orderflow.E013"),
        ("REDIS_URL", "", "orderflow.W001"),
        ("WAREHOUSE_URL", "", "orderflow.W002"),
    ],
)
def test_a_bad_setting_is_found(monkeypatch, name, value, finding):
    monkeypatch.setattr(checks, "settings", Overridden(name, value))

    found = [*checks.check_settings(), *checks.check_rates()]
    assert finding in {message.id for message in found}


def test_retries_that_outlast_the_providers_keys_are_found(monkeypatch):
    patient = dataclasses.replace(tasks.GATEWAY_RETRY, redelivery_waits=[dt.timedelta(hours=24)])
    monkeypatch.setattr(current_app.tasks[tasks.charge.name], "policy", patient)

    [finding] = [message for message in checks.check_settings() if message.id == "orderflow.E008"]
    assert "orders.tasks.charge" in finding.msg


def test_too_many_sessions_for_the_server_are_found(db, monkeypatch):
    with connection.cursor() as cursor:
        cursor.execute("SHOW max_connections")
        allowed = int(cursor.fetchone()[0])
    monkeypatch.setattr(checks, "settings", Overridden("DATABASE_SESSIONS", allowed))

    [finding] = checks.check_sessions(databases=["default"])
    assert (finding.id, "PgBouncer" in finding.hint) == ("orderflow.W003", True)
    assert str(allowed) in finding.msg
    assert checks.check_sessions(databases=None) == [], "without being told to, no check asks a server"


def test_the_sessions_of_the_containers_fit_a_server_as_it_comes(db):
    assert checks.check_sessions(databases=["default"]) == []
    assert checks.check_sessions in registry.registry.get_checks(include_deployment_checks=False)


def sessions_of(words):
    """Count the sessions that a worker with this command line may open."""
    options = dict(itertools.pairwise(words))
    return sessions.most_of(
        options.get("-P", "prefork"), int(options.get("-c", 1)), has_relay=options["-Q"] == "relay"
    )


def test_by_default_the_sessions_are_those_of_the_containers():
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    workers = [words for service in services.values() if "-Q" in (words := service.get("command") or [])]
    web = re.search(r'"--workers=(\d+)", "--threads=(\d+)"', (ROOT / "Dockerfile").read_text())
    opened = int(web[1]) * int(web[2]) + sum(map(sessions_of, workers))

    default = re.search(r'"DATABASE_SESSIONS", (\d+)', (ROOT / "orderflow" / "settings.py").read_text())
    assert int(default[1]) == opened
    assert int(web[2]) == capacity.WEB_THREADS


def test_good_settings_give_no_errors(world):
    assert not [message for message in checks.check_settings() if message.id.startswith("orderflow.E")]


def test_only_a_deployment_check_warns_of_logins_without_a_second_factor(monkeypatch):
    assert [found.id for found in checks.check_logins()] == ["orderflow.W009"]
    assert checks.check_logins not in registry.registry.get_checks(include_deployment_checks=False)
    monkeypatch.setattr(checks, "settings", Overridden("ADMIN_SECOND_FACTOR", True))
    assert checks.check_logins() == []
