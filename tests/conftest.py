"""Fixtures for all tests: the providers as real servers, and a drain that processes what is published."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from typing import Any

import hypothesis
import kombu
import pytest
import redis
from django.conf import settings as project_settings

from notifications import testing as notifications_testing  # noqa: F401 - registers what waits there
from notifications.channels import smtp
from orderflow.ops.overview import patience
from orderflow.sandbox import access
from orderflow.sandbox.launch import World
from orderflow.shared_state import breakers, credentials
from orders import adapters
from orders import testing as orders_testing  # noqa: F401 - registers what waits there
from outbox import telemetry, testing
from tests import flushing, static_files
from tests.slow import but_first

# The time that an example takes depends more on the machine than on the code.
hypothesis.settings.register_profile("any machine", deadline=None)
hypothesis.settings.load_profile("any machine")


TAKES = {"slow": "seconds to a minute", "nightly": "minutes, alone or with its like"}
"""How long a test with such a mark takes. A test of less than a second on an idle machine needs no mark."""

MUST_END_WITHIN = 400
"""The timeout in seconds of a test with such a mark and no timeout of its own, on a shared machine."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="also run tests of seconds to a minute each")
    parser.addoption("--nightly", action="store_true", help="run all there is, also tests of minutes each")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    asked_for = {"slow": config.getoption("--slow"), "nightly": config.getoption("--nightly")}
    asked_for["slow"] |= asked_for["nightly"]
    for item in items:
        for marker, is_asked_for in asked_for.items():
            if not item.get_closest_marker(marker):
                continue
            if not item.get_closest_marker("timeout"):
                item.add_marker(pytest.mark.timeout(MUST_END_WITHIN))
            if not is_asked_for:
                item.add_marker(pytest.mark.skip(reason=f"takes {TAKES[marker]}: run with --{marker}"))


def service_account(token_uri: str) -> dict[str, str]:
    """
    A service account of the push provider. Its key is small, because many tests read it and a usual key takes
    50 ms.
    """
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    return {
        "type": "service_account",
        "project_id": "orderflow-test",
        "private_key_id": "test",
        "private_key": key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ).decode(),
        "client_email": "test@orderflow-test.example",
        "client_id": "1",
        "token_uri": token_uri,
    }


@pytest.fixture(scope="session", autouse=True)
def quick_between_tests() -> Iterator[None]:
    """Speed up what every test does: emptying the database and starting the application."""
    with flushing.quick(), static_files.found_once():
        yield


@pytest.fixture(autouse=True)
def no_call_in_a_transaction() -> Iterator[None]:
    """Fail a test in which a provider is called within a transaction. Nobody is no provider."""
    called: list[str] = []

    def receive(signal: str, fields: dict[str, Any]) -> None:
        if signal == "provider.called_in_transaction" and fields["provider"] != "nobody":
            called.append(fields["provider"])

    telemetry.register(receive)
    yield
    telemetry.unregister(receive)
    assert not called, "a provider was called within a transaction"


@pytest.fixture(autouse=True)
def answers_of_now(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the overview ask the broker and Redis at every request, and wait for them on a busy machine."""
    monkeypatch.setattr(patience, "FRESH", 0.0)
    monkeypatch.setattr(patience, "WAIT", 20.0)


@pytest.fixture(scope="session")
def running_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """The sandbox servers, started once per session."""
    world = World(tmp_path_factory.mktemp("sandbox"))
    try:
        yield world
    finally:
        world.stop()


@pytest.fixture
def world(running_world: World, settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """The sandbox, empty and without faults, as the configured providers; the breakers are closed."""
    running_world.clear()
    credentials = tmp_path_factory.getbasetemp() / "fcm.json"
    if not credentials.exists():
        credentials.write_text(json.dumps(service_account(f"{running_world.push.url}/token")))
    settings.SANDBOX_PASSWORD = running_world.password
    settings.STRIPE_API_BASE = running_world.payments.url
    settings.STRIPE_API_KEY = "sk_test_tests"
    settings.WAREHOUSE_URL = running_world.warehouse.url
    settings.WAREHOUSE_TOKEN = "token"
    settings.EMAIL_BACKEND = "notifications.channels.smtp.Backend"
    settings.EMAIL_HOST = "127.0.0.1"
    settings.EMAIL_PORT = running_world.smtp.smtp_port
    settings.EMAIL_HOST_USER, settings.EMAIL_HOST_PASSWORD = access.USER, running_world.password
    settings.TWILIO_API_BASE = running_world.sms.url
    settings.TWILIO_ACCOUNT_SID = "AC" + "0" * 32
    settings.TWILIO_AUTH_TOKEN = "token"
    settings.TWILIO_FROM = "+15005550006"
    settings.FCM_API_BASE = running_world.push.url
    settings.FCM_PROJECT_ID = "orderflow-test"
    settings.FCM_CREDENTIALS_FILE = str(credentials)
    adapters.forget()
    close_breakers()
    yield running_world
    adapters.forget()
    smtp.kept.close()


def close_breakers() -> None:
    """Reset the breakers and the refused credentials, in this process and in the shared state."""
    breakers._made.clear()
    credentials._seen.clear()
    if project_settings.REDIS_URL:
        with contextlib.closing(redis.Redis.from_url(project_settings.REDIS_URL)) as shared:
            if names := list(shared.scan_iter("breaker:*")):
                shared.delete(*names)


@pytest.fixture(params=but_first([60, 0]), ids=["inline", "by the broker"])
def either_way(request: pytest.FixtureRequest, settings) -> None:
    """Continue chains in the process that finished a step, and then through the broker; see `inline`."""
    settings.OUTBOX_CHAIN_INLINE_SECONDS = request.param


@pytest.fixture
def no_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse all connections to a broker. Celery's configuration is shared by all tests and is not changed."""

    def refuse(*_: object, **__: object) -> None:
        raise ConnectionRefusedError("connection refused")

    monkeypatch.setattr(kombu.Connection, "_establish_connection", refuse)


@pytest.fixture(scope="session")
def purge() -> Iterator[Callable[[], None]]:
    """Empty all queues, which takes dozens of commands, unless the broker's keys have not changed."""
    left: set[bytes] = set()
    with contextlib.closing(redis.Redis.from_url(project_settings.BROKER_URL)) as broker:

        def purge() -> None:
            nonlocal left
            if set(broker.scan_iter(count=1000)) != left or not left:
                testing.purge()
                left = set(broker.scan_iter(count=1000))

        yield purge


@pytest.fixture
def drain(transactional_db, purge):
    """Process everything that is published, with the real broker; see `outbox.testing.drain`."""
    purge()
    yield testing.drain
    purge()
