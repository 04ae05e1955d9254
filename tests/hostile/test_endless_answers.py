"""Responses that do not end: each call still ends soon, as a transient failure."""

from __future__ import annotations

import datetime as dt
import json
import resource
import time

import pytest

from notifications import channels
from notifications.models import Channel
from orders import adapters
from outbox.http import bounded_smtp
from outbox.resilience import Transient
from tests.conftest import service_account
from tests.hostile import calls, endless

pytestmark = [pytest.mark.usefixtures("no_breakers"), pytest.mark.django_db]

SECONDS = 0.4

SLACK = 3.0
"""Seconds allowed beyond the timeout, on a shared machine."""

MORE_MEMORY = 200 * 1024
"""The peak memory that all of this may take, in KiB."""

CALLS = {
    "charge": calls.charge,
    "look up a charge": lambda: adapters.payment_gateway().look_up(idempotency_key="order"),
    "list charges": lambda: list(adapters.payment_gateway().charges(since=calls.LONG_AGO)),
    "ship": calls.ship,
    "list shipments": lambda: list(adapters.warehouse().shipments(since=None)),
    "send SMS": lambda: calls.send(Channel.SMS),
    "look up an SMS": lambda: channels.get(Channel.SMS).find(calls.notification(), since=calls.LONG_AGO),
    "list SMS": lambda: list(channels.get(Channel.SMS).sent(since=None)),
    "send push": lambda: calls.send(Channel.PUSH, recipient="device"),
}


@pytest.fixture
def provider(answer, world, settings, tmp_path):
    """One server in place of all providers, which sends this response."""
    server = endless.Server(endless.HTTP[answer], reads_first=True)
    address = f"http://127.0.0.1:{server.port}"
    credentials = tmp_path / "fcm.json"
    credentials.write_text(json.dumps(service_account(f"{address}/token")))
    settings.PROVIDER_TIMEOUT = dt.timedelta(seconds=SECONDS)
    for name in ("STRIPE_API_BASE", "WAREHOUSE_URL", "TWILIO_API_BASE", "FCM_API_BASE"):
        setattr(settings, name, address)
    settings.FCM_CREDENTIALS_FILE = str(credentials)
    adapters.forget()
    channels.forget()
    yield server
    server.close()
    channels.forget()


# Each takes as long as a call may: every response to the first call, and every call with the first response.
PAIRS = [
    pytest.param(answer, name, marks=[pytest.mark.slow] if which and number else [])
    for which, name in enumerate(CALLS)
    for number, answer in enumerate(endless.HTTP)
]


@pytest.mark.parametrize(("answer", "name"), PAIRS)
def test_a_call_to_a_provider_ends(provider, name):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.monotonic()
    with pytest.raises(Transient):
        CALLS[name]()

    assert time.monotonic() - began < SECONDS + SLACK
    assert provider.clients == 1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MORE_MEMORY


def test_a_response_of_the_usual_size_is_read_completely(world):
    made = [calls.charge().id for _ in range(3)]
    assert set(made) <= {charge.id for charge in adapters.payment_gateway().charges(since=calls.LONG_AGO)}


@pytest.fixture(params=endless.SMTP)
def mail_server(request, world, settings):
    server = endless.Server(endless.SMTP[request.param], reads_first=False)
    settings.EMAIL_PORT, settings.EMAIL_TIMEOUT = server.port, SECONDS
    yield server
    server.close()


def test_an_endless_response_of_a_mail_server_is_aborted(mail_server):
    began = time.monotonic()
    with pytest.raises(Transient):
        calls.send(Channel.EMAIL, recipient="ada@example.com", html="")

    assert time.monotonic() - began < bounded_smtp.DIALOGUE * SECONDS + SLACK
