"""A setting that a provider refuses is an outage of its channel, like wrong credentials: nothing is buried."""

from __future__ import annotations

import contextlib
import json
import smtplib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest
from django.conf import settings as project_settings

from notifications import channels
from notifications.channels import email
from notifications.models import Notification
from notifications.ports import RecipientRefused
from orderflow.shared_state import credentials
from orders import adapters
from outbox import testing
from outbox.models import Attempt, DeadLetter
from outbox.resilience import Outage, SettingsRefused
from tests.conftest import close_breakers
from tests.factories import place
from tests.notifications.publishing import ONLY_EMAIL, ONLY_PUSH, ONLY_SMS, publish
from tests.slow import but_first

pytestmark = pytest.mark.skipif(
    not project_settings.REDIS_URL,
    reason="processes tell each other by REDIS_URL: name a server there, or use run.py test",
)

CHANNELS = {"email": ONLY_EMAIL, "sms": ONLY_SMS, "push": ONLY_PUSH}


@pytest.fixture(autouse=True)
def fresh(world):
    forget()
    yield
    forget()


def forget():
    channels.forget()
    adapters.forget()
    close_breakers()
    credentials._seen.clear()


def begin(provider, **changed):
    if provider in CHANNELS:
        publish(**CHANNELS[provider] | changed)
    else:
        place()


def assert_waits_for(setting, provider):
    assert not DeadLetter.objects.exists()
    assert set(Attempt.objects.values_list("outcome", flat=True)) == {Attempt.Outcome.WAITED}
    assert f"correct {setting}" in credentials.refused()[provider]


WRONG = [
    ("sms", "TWILIO_FROM", "+15005550001"),
    ("sms", "TWILIO_FROM", "+15005550007"),
    ("email", "DEFAULT_FROM_EMAIL", "forbidden@example.com"),
    ("email", "DEFAULT_FROM_EMAIL", "forbidden-later@example.com"),
    ("email", "DEFAULT_FROM_EMAIL", "no address"),
    ("push", "FCM_PROJECT_ID", "unknown-project"),
    ("push", "FCM_API_BASE", "no address"),
    ("sms", "TWILIO_API_BASE", "no address"),
    ("warehouse", "WAREHOUSE_URL", "no address"),
]


@pytest.mark.parametrize(("provider", "setting", "value"), but_first(WRONG))
def test_a_wrong_setting_buries_nothing_and_work_goes_on_once_it_is_corrected(
    world, drain, settings, provider, setting, value
):
    right = getattr(settings, setting)
    setattr(settings, setting, value)
    for _ in range(4):
        begin(provider)
    for _ in range(4):
        forget()
        drain()
        testing.pass_time(project_settings.PROVIDER_TIMEOUT * 200)
    if provider == "push" and setting == "FCM_PROJECT_ID":
        setting = "FCM_CREDENTIALS_FILE and FCM_PROJECT_ID"
    assert_waits_for(setting, provider)

    setattr(settings, setting.split()[-1], right)
    testing.pass_time(project_settings.PROVIDER_TIMEOUT * 200)
    forget()
    drain()
    if provider in CHANNELS:
        assert set(Notification.objects.values_list("status", flat=True)) == {"sent"}
    assert not DeadLetter.objects.exists()


def test_devices_of_another_project_are_our_mistake_until_one_of_ours_was_reached(world, drain):
    begin("push", customer_push_token="elsewhere-1")
    drain()
    assert_waits_for("FCM_CREDENTIALS_FILE and FCM_PROJECT_ID", "push")

    forget()
    begin("push")
    drain()
    testing.pass_time(project_settings.PROVIDER_TIMEOUT * 200)
    forget()
    drain()
    assert DeadLetter.objects.get().error_class == "RecipientRefused"
    assert sorted(Notification.objects.values_list("status", flat=True)) == ["failed", "sent"]


def test_a_queue_that_is_full_at_the_provider_is_an_outage(world, drain, settings):
    settings.TWILIO_FROM = "+15005550008"
    begin("sms")
    drain()

    assert set(Attempt.objects.values_list("outcome", flat=True)) == {Attempt.Outcome.WAITED}
    assert credentials.refused() == {}


@contextlib.contextmanager
def answering(status, body):
    """A server that gives the same response to everything."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self):
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            content = body.encode() if isinstance(body, str) else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = answer

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def stripe(code, message="no"):
    return {"error": {"type": "invalid_request_error", "code": code, "message": message}}


ANSWERS = [
    ("sms", 400, {"code": 21660, "message": "Mismatch", "status": 400}, "TWILIO_FROM"),
    ("sms", 400, {"code": 21703, "message": "no numbers", "status": 400}, "TWILIO_FROM"),
    ("sms", 404, {"code": 20404, "message": "not found", "status": 404}, "TWILIO_ACCOUNT_SID"),
    ("sms", 400, {"code": 20003, "message": "Authenticate", "status": 400}, "TWILIO_ACCOUNT_SID"),
    ("sms", 201, {"sid": "SM1", "status": "failed", "error_code": 30034}, "TWILIO_FROM"),
    ("warehouse", 404, "<html>nginx</html>", "WAREHOUSE_URL"),
    ("warehouse", 405, {}, "WAREHOUSE_URL"),
    ("payments", 404, stripe(None, "Unrecognized request URL (POST: /v2)."), "STRIPE_API_BASE"),
    ("payments", 400, stripe("testmode_charges_only"), "STRIPE_API_KEY"),
    ("payments", 400, stripe("account_invalid"), "STRIPE_API_KEY"),
    (
        "payments",
        400,
        stripe(
            "resource_missing",
            "No such PaymentMethod: 'pm_1'; a similar object exists in live mode, but a test mode key was used",
        ),
        "STRIPE_API_KEY",
    ),
]
ADDRESSES = {"sms": "TWILIO_API_BASE", "warehouse": "WAREHOUSE_URL", "payments": "STRIPE_API_BASE"}


def work_off(provider, status, body, drain, settings):
    """Process an order or a notification whose provider gives this one response to everything."""
    with answering(status, body) as address:
        setattr(settings, ADDRESSES[provider], address)
        forget()
        begin(provider)
        drain()


@pytest.mark.parametrize(("provider", "status", "body", "setting"), ANSWERS)
def test_responses_about_our_settings_bury_nothing(world, drain, settings, provider, status, body, setting):
    work_off(provider, status, body, drain, settings)
    assert_waits_for(setting, provider)


OF_ONE_ORDER = [
    (
        "payments",
        400,
        stripe(
            "resource_missing",
            "No such PaymentMethod: 'pm_1'; a similar object exists in test mode, but a live mode key was used",
        ),
        "PaymentRequestRefused",
    ),
    ("warehouse", 404, {"code": "unknown_sku", "reason": "no such article"}, "WarehouseRequestRefused"),
    ("sms", 400, {"code": 21617, "message": "too long", "status": 400}, "RequestRefused"),
]


@pytest.mark.parametrize(("provider", "status", "body", "error"), OF_ONE_ORDER)
def test_responses_about_one_order_hold_up_no_other(world, drain, settings, provider, status, body, error):
    work_off(provider, status, body, drain, settings)
    assert {dead_letter.error_class for dead_letter in DeadLetter.objects.all()} == {error}
    assert credentials.refused() == {}


def test_a_short_code_that_does_not_reach_a_country_holds_up_no_other(world, drain, settings):
    settings.TWILIO_FROM = "12345"
    work_off("sms", 400, {"code": 21606, "message": "not valid for this destination"}, drain, settings)

    assert DeadLetter.objects.get().error_class == "RequestRefused"


# replies of mail servers ----------------------------------------------------------------------------

RECIPIENT = "ada@example.com"
OF_SENDERS = [
    "5.7.1 <shop@example.com>: Sender address rejected: not owned by user shop",
    "5.1.8 <shop@example.com>: Sender address rejected: Domain not found",
    "5.7.1 <ada@example.com>: Relay access denied",
    "relay not permitted",
    "5.7.60 SMTP; Client does not have permissions to send as this sender",
    "5.7.64 TenantAttribution; Relay Access Denied",
    "Message rejected: Email address is not verified. The following identities failed the check: shop",
    "sorry, that domain isn't in my list of allowed rcpthosts (#5.7.1)",
]
OF_RECIPIENTS = [
    "5.1.1 <ada@example.com>: Recipient address rejected: User unknown",
    "5.7.1 The recipient does not accept mail from outside",
    "5.2.2 mailbox full",
]


def submit(monkeypatch, failure):
    """Send a mail to a server that replies like this."""

    def fail(*_, **__):
        raise failure

    monkeypatch.setattr(smtplib.SMTP, "sendmail", fail)
    notification = SimpleNamespace(
        pk=1, subject="s", text="t", html="", recipient=RECIPIENT, order_number="OF-1", template="placed",
        message_id=SimpleNamespace(hex="0" * 32),
    )  # fmt: skip
    return email.EmailChannel().send(notification)


def kinds(reply):
    encoded = reply.encode()
    yield smtplib.SMTPRecipientsRefused({RECIPIENT: (550, encoded)})
    yield smtplib.SMTPDataError(554, encoded)


@pytest.mark.parametrize("reply", OF_SENDERS)
def test_a_refused_sender_concerns_all_mail(monkeypatch, reply):
    for failure in kinds(reply):
        with pytest.raises(SettingsRefused, match="correct DEFAULT_FROM_EMAIL"):
            submit(monkeypatch, failure)


@pytest.mark.parametrize("reply", OF_RECIPIENTS)
def test_a_refused_recipient_concerns_one_mail(monkeypatch, reply):
    for failure in kinds(reply):
        with pytest.raises(RecipientRefused):
            submit(monkeypatch, failure)


@pytest.mark.parametrize(
    "recipient", ["relay.access.denied@example.com", "a@relay.denied.example", "sender.address@example.com"]
)
def test_a_recipient_cannot_name_themselves_so_that_all_mail_waits(monkeypatch, recipient):
    smtp_reply = f"5.1.1 <{recipient}> {recipient.upper()} {recipient.split('@')[0]}: unknown".encode()

    with pytest.raises(RecipientRefused):
        submit(monkeypatch, smtplib.SMTPRecipientsRefused({recipient: (550, smtp_reply)}))


@pytest.mark.parametrize(("code", "kind"), [(550, SettingsRefused), (553, SettingsRefused), (452, Outage)])
def test_a_refused_sender_is_not_an_error_of_the_mail(monkeypatch, code, kind):
    with pytest.raises(kind):
        submit(monkeypatch, smtplib.SMTPSenderRefused(code, b"no", "shop@example.com"))


def test_an_account_that_cannot_be_written_in_ascii_is_a_wrong_setting(world, drain, settings):
    settings.EMAIL_HOST_USER, settings.EMAIL_HOST_PASSWORD = "shop", "pässwörd"
    begin("email")
    drain()

    assert not DeadLetter.objects.exists()
    assert set(Attempt.objects.values_list("outcome", flat=True)) == {Attempt.Outcome.WAITED}
    assert "pässwörd" not in "".join(Attempt.objects.values_list("error", "traceback").first())


@pytest.mark.parametrize("failure", [smtplib.SMTPHeloError(550, b"no"), TimeoutError(), ConnectionResetError()])
def test_a_failure_before_a_mail_is_submitted_spends_no_attempt(world, drain, monkeypatch, failure):
    def fail(*_, **__):
        raise failure

    monkeypatch.setattr(smtplib.SMTP, "connect", fail)
    begin("email")
    drain()

    assert set(Attempt.objects.values_list("outcome", flat=True)) == {Attempt.Outcome.WAITED}
