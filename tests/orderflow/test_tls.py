"""TLS without verification is refused by the checks, whichever option turns it off."""

from __future__ import annotations

import ssl

import pytest

from orderflow import checks
from orderflow.configuration import tls
from outbox.broker import amqp_transport
from tests.orderflow.test_checks import Overridden

CONTEXT = {"cert_reqs": ssl.CERT_REQUIRED, "server_hostname": "mq.example"}


def findings(monkeypatch, name, value, **others):
    overridden = Overridden(name, value)
    for other, its in others.items():
        setattr(overridden, other, its)
    monkeypatch.setattr(checks, "settings", overridden)
    return [found for found in checks.check_settings() if found.id in ("orderflow.E010", "orderflow.E011")]


@pytest.mark.parametrize("name", ["BROKER_URL", "REDIS_URL"])
@pytest.mark.parametrize(
    "url",
    [
        "rediss://:hidden@h/0?ssl_cert_reqs=none",
        "rediss://:hidden@h/0?ssl_cert_reqs=CERT_NONE",
        "rediss://:hidden@h/0?ssl_cert_reqs=",
        "rediss://:hidden@h/0?ssl_cert_reqs=optional",
        "rediss://:hidden@h/0?ssl_check_hostname=false",
        "rediss://:hidden@h/0?ssl_cert_reqs=required&ssl_cert_reqs=none",
        "rediss://:hidden@h/0?ssl%5Fcert_reqs=none",
        "rediss://:hidden@h/0?ssl_ca_certs=/no/such/file.pem",
        "rediss://:hidden@h/0?ssl_ca_certs=",
        "rediss://:hidden@h/0?ssl_keyfile=/etc/hostname",
        "rediss://:hidden@h/0?ssl_exclude_verify_flags=VERIFY_X509_STRICT",
        "rediss://:hidden@h/0;rediss://:hidden@i/0?ssl_cert_reqs=none",
        "redis://:hidden@h/0?ssl_cert_reqs=none",
        "redis://:hidden@h/0?ssl=true",
    ],
)
def test_redis_without_verification_is_refused(monkeypatch, name, url):
    found = findings(monkeypatch, name, tls.verifying(url))

    assert [each.id for each in found] == ["orderflow.E010"]
    assert name in found[0].msg
    assert "hidden" not in str(found)


@pytest.mark.parametrize(
    "url",
    [
        "amqps://u:hidden@h//?ssl_cert_reqs=CERT_NONE",
        "amqps://u:hidden@h//?ssl_check_hostname=no",
        "amqps://u:hidden@h//?ssl=false",
        "amqps://u:hidden@h//?transport=amqp",
        "amqps://u:hidden@h//?ssl_certfile=/no/such/file.pem",
        "amqp://u:hidden@h//?ssl=1",
        "amqp://u:hidden@h//?ssl_ca_certs=/etc/hostname",
        "amqps://u:hidden@h//;amqps://u:hidden@i//?ssl_cert_reqs=none",
    ],
)
def test_rabbitmq_without_verification_is_refused(monkeypatch, url):
    found = findings(monkeypatch, "BROKER_URL", url)

    assert [each.id for each in found] == ["orderflow.E010"]
    assert "hidden" not in str(found)


@pytest.mark.parametrize(
    ("url", "read"),
    [
        ("rediss://h/0", "rediss://h/0?ssl_cert_reqs=required"),
        ("rediss://h/0?ssl_cert_reqs=CERT_REQUIRED", "rediss://h/0?ssl_cert_reqs=required"),
        ("rediss://h?ssl_ca_certs=/a/b.pem", "rediss://h?ssl_ca_certs=/a/b.pem&ssl_cert_reqs=required"),
        ("REDISS://h/0", "rediss://h/0?ssl_cert_reqs=required"),
        ("redis://:a%2Fb@h:1/0", "redis://:a%2Fb@h:1/0"),
        ("amqps://u:p@h//;amqps://u:p@i//", "amqps://u:p@h//;amqps://u:p@i//"),
        ("rediss://[::1", "rediss://[::1"),
    ],
)
def test_verification_is_spelled_out_for_kombu(url, read):
    assert tls.verifying(url) == read


@pytest.mark.parametrize(
    ("host", "options", "environment", "errors"),
    [
        ("db.example", {"sslmode": "require"}, "production", 1),
        ("db.example", {"sslmode": "prefer"}, "production", 1),
        ("db.example", {"sslmode": "verify-ca"}, "production", 1),
        ("db.example", {}, "production", 1),
        ("", {"host": "db.example"}, "production", 1),
        ("", {"service": "orders"}, "production", 1),
        ("127.0.0.1,db.example", {}, "production", 1),
        ("db.example", {"sslmode": "verify-full", "sslrootcert": "/no/such.pem"}, "production", 1),
        ("db.example", {"sslmode": "verify-full", "sslrootcert": "/no/such.pem"}, "development", 1),
        ("db.example", {"sslmode": "verify-full"}, "production", 0),
        ("db.example", {"sslrootcert": "system"}, "production", 0),
        ("db.example", {"sslmode": "disable"}, "production", 0),
        ("db.example", {"sslmode": "require"}, "development", 0),
        ("127.0.0.1", {"sslmode": "prefer"}, "production", 0),
        ("::1", {}, "production", 0),
        ("/run/postgresql", {}, "production", 0),
    ],
)
def test_a_database_elsewhere_is_verified_or_declared_as_plain(monkeypatch, host, options, environment, errors):
    monkeypatch.delenv("PGSSLMODE", raising=False)
    database = {"ENGINE": "django.db.backends.postgresql", "HOST": host, "OPTIONS": options}

    found = findings(monkeypatch, "DATABASES", {"default": database}, ENVIRONMENT=environment)
    assert [each.id for each in found] == errors * ["orderflow.E011"]


def test_what_libpq_reads_from_its_own_variable_counts(monkeypatch):
    database = {"ENGINE": "django.db.backends.postgresql", "HOST": "db.example"}
    monkeypatch.setenv("PGSSLMODE", "verify-full")
    assert findings(monkeypatch, "DATABASES", {"default": database}, ENVIRONMENT="production") == []


def test_only_a_deployment_check_names_what_leaves_the_machine_without_tls(monkeypatch):
    monkeypatch.setattr(checks, "settings", Overridden("BROKER_URL", "redis://valkey:6379/0"))

    assert [found.id for found in checks.check_encryption() if "BROKER_URL" in found.msg] == ["orderflow.W007"]
    assert "orderflow.W007" not in {found.id for found in checks.check_settings()}
    monkeypatch.setattr(checks, "settings", Overridden("BROKER_URL", "rediss://valkey:6379/0"))
    assert [found for found in checks.check_encryption() if "BROKER_URL" in found.msg] == []


@pytest.mark.parametrize(
    ("asked", "context"),
    [
        (True, CONTEXT),
        ({}, CONTEXT),
        ({"ssl_cert_reqs": ssl.CERT_NONE, "ssl_check_hostname": False}, CONTEXT),
        ({"cert_reqs": ssl.CERT_NONE, "server_hostname": None}, CONTEXT),
        ({"ssl_ca_certs": "/ca"}, CONTEXT | {"ca_certs": "/ca"}),
        ({"server_hostname": "lb.example"}, CONTEXT | {"server_hostname": "lb.example"}),
    ],
)
def test_whatever_a_connection_to_rabbitmq_asks_for_it_verifies_authority_and_name(asked, context):
    assert amqp_transport.verified(asked, hostname="mq.example") == context
