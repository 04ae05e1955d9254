"""Credentials that a provider refuses are an outage of that channel: visible, and without spending attempts."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import json
import time
from io import StringIO

import pytest
from django.conf import settings as project_settings
from django.core.management import call_command
from django.urls import reverse

from notifications import channels
from notifications.models import Notification
from orderflow.shared_state import breakers, credentials
from orders import adapters
from orders.models import Order
from outbox import status, testing
from outbox.models import Attempt, DeadLetter
from outbox.resilience import CredentialsRefused, Outage
from tests.conftest import close_breakers
from tests.factories import place
from tests.notifications.publishing import ONLY_EMAIL, ONLY_PUSH, ONLY_SMS, publish
from tests.slow import but_first

pytestmark = pytest.mark.skipif(
    not project_settings.REDIS_URL,
    reason="processes tell each other by REDIS_URL: name a server there, or use run.py test",
)

CHANNELS = {"email": ONLY_EMAIL, "sms": ONLY_SMS, "push": ONLY_PUSH}
REFUSED = [
    ("sms", 401, None),
    ("payments", 401, None),
    ("payments", 403, None),
    ("warehouse", 401, None),
    ("warehouse", 403, None),
    ("sms", 403, None),
    ("push", 401, "messages:send"),
    ("push", 403, "messages:send"),
    ("push", 401, "/token"),
    ("email", 535, None),
    ("email", 530, None),
]


@pytest.fixture(autouse=True)
def fresh(world):
    channels.forget()
    credentials._seen.clear()
    yield
    channels.forget()
    credentials._seen.clear()


def server(world, provider):
    return world.smtp if provider == "email" else getattr(world, provider)


def begin(provider, number):
    for _ in range(number):
        if provider in CHANNELS:
            publish(**CHANNELS[provider])
        else:
            place()


def is_done():
    if Order.objects.exists():
        return set(Order.objects.values_list("status", flat=True)) == {Order.Status.FULFILLED}
    return set(Notification.objects.values_list("status", flat=True)) == {"sent"}


@pytest.mark.parametrize(("provider", "code", "match"), but_first(REFUSED))
def test_refused_credentials_bury_nothing_and_work_goes_on_once_they_are_corrected(
    world, drain, provider, code, match
):
    begin(provider, 6)
    with server(world, provider).failing(fault="error", status=code, match=match):
        for _ in range(8):
            drain()
            testing.pass_time(dt.timedelta(minutes=20))
            close_breakers()
    assert not DeadLetter.objects.exists()
    assert set(Attempt.objects.values_list("outcome", flat=True)) == {Attempt.Outcome.WAITED}
    assert Attempt.objects.filter(error__contains="rejects our credentials").exists()

    drain()
    assert is_done()


@pytest.mark.parametrize("password", ["wrong", ""])
def test_a_refused_mail_password_is_an_outage_until_it_is_corrected(world, drain, settings, password):
    right, settings.EMAIL_HOST_PASSWORD = settings.EMAIL_HOST_PASSWORD, password
    begin("email", 3)
    for _ in range(8):
        drain()
        testing.pass_time(dt.timedelta(minutes=20))
        close_breakers()
    assert not DeadLetter.objects.exists()
    assert set(Attempt.objects.values_list("outcome", flat=True)) == {Attempt.Outcome.WAITED}
    code = 535 if password else 530
    assert Attempt.objects.filter(error__contains=f"rejects our credentials (it answered {code})").exists()
    assert not Attempt.objects.filter(error__contains=right).exists()

    settings.EMAIL_HOST_PASSWORD = right
    drain()
    assert is_done()
    assert world.smtp.count() == 3


@pytest.mark.parametrize("provider", but_first(["sms", "payments", "warehouse", "push", "email"]))
def test_refusals_are_shown_with_the_settings_to_correct(world, drain, admin_client, provider):
    begin(provider, 5)
    code = 535 if provider == "email" else 401
    with server(world, provider).failing(
        fault="error", status=code, match="send" if provider == "push" else None
    ):
        drain()

    breakers._made.clear()  # like another process without own observations
    credentials._seen.clear()
    shown = status.read()["credentials_refused"]
    assert list(shown) == [provider]
    assert "correct " in shown[provider]
    out = StringIO()
    call_command("outbox_status", "--format", "json", stdout=out)
    assert json.loads(out.getvalue())["credentials_refused"] == shown
    health = admin_client.get("/healthz").json()["components"]["credentials"]
    assert health == {"status": "degraded", provider: shown[provider]}
    assert shown[provider] in admin_client.get(reverse("admin:index")).text.replace("&#x27;", "'")
    # Messages that met the open breaker show the reason, too.
    assert not Attempt.objects.exclude(error__contains="rejects our credentials").exists()


def test_a_probe_that_succeeds_ends_the_notice():
    breaker = breakers.SharedBreaker(
        "sms", config=dataclasses.replace(breakers.CONFIG, wait_duration_in_open=0.2)
    )
    for _ in range(4):
        with pytest.raises(Outage, match="credentials"), breaker.guard():
            raise CredentialsRefused("Twilio", settings="TWILIO_AUTH_TOKEN", answer=401)
    assert list(credentials.refused()) == ["sms"]

    until = time.monotonic() + 20
    while credentials.refused() and time.monotonic() < until:
        with contextlib.suppress(Outage), breaker.guard():
            pass
    assert credentials.refused() == {}


@pytest.mark.parametrize("file", ["/no/such/file.json", __file__])
def test_a_key_file_that_cannot_be_read_is_an_outage_of_push(world, drain, settings, file):
    settings.FCM_CREDENTIALS_FILE = file
    begin("push", 2)
    drain()

    assert not DeadLetter.objects.exists()
    assert set(Attempt.objects.values_list("outcome", "error_class")) == {("waited", "CredentialsRefused")}


@pytest.mark.parametrize("key", ["", "sk_live_wrong"])
def test_a_missing_key_is_an_outage_of_payments(world, drain, settings, key):
    settings.STRIPE_API_KEY = key
    adapters.forget()
    place()
    drain()

    assert not DeadLetter.objects.exists()
    assert set(Attempt.objects.values_list("outcome", flat=True)) == {Attempt.Outcome.WAITED}


def test_a_recipient_that_is_refused_with_a_403_is_no_outage(world, drain):
    publish(**(ONLY_SMS | {"customer_phone": "+15005550004"}))
    drain()

    assert DeadLetter.objects.get().error_class == "RecipientRefused"
    assert credentials.refused() == {}
