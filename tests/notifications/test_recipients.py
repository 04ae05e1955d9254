"""A notification reaches the given recipient once, or nobody."""

from __future__ import annotations

import contextlib
import datetime as dt

import pytest
from django.core.mail.message import sanitize_address
from hypothesis import given
from hypothesis import strategies as st

from notifications import ports
from notifications.channels import email as email_channel
from notifications.channels import sms
from notifications.models import Notification
from outbox import testing
from outbox.models import DeadLetter
from outbox.relay import probes
from tests.conftest import close_breakers
from tests.notifications.publishing import ONLY_EMAIL, ONLY_SMS, publish

IDNA_2008 = [
    ("user@straße.example", "user@xn--strae-oqa.example"),
    ("user@STRASSE.example", "user@STRASSE.example"),
    ("user@βόλος.example", "user@xn--nxasmm1c.example"),
    ("user@bücher.example", "user@xn--bcher-kva.example"),
    ("user@BÜCHER.example", "user@xn--bcher-kva.example"),
    ("user@نامه\u200cای.example", "user@xn--mgba3gch31f060k.example"),
    ("user@under_score.example", "user@under_score.example"),
]
MAILBOXES = [
    ("user+tag@example.com", "user+tag@example.com"),
    ("o'brien@example.com", "o'brien@example.com"),
    ("user%host.example@example.com", "user%host.example@example.com"),
    ("=?user?@example.com", "=?user?@example.com"),
    ('"a@b"@example.com', '"a@b"@example.com'),
    ('"a\\"b>"@example.com', '"a\\"b>"@example.com'),
    ('"user"@example.com', "user@example.com"),
    ("user@[192.0.2.1]", "user@[192.0.2.1]"),
]
NO_ADDRESS = [
    "user@a\u200db.example",
    "user@a\u200cb.example",
    "user@-bücher-.example",
    "user@b\u00fccher..example",
    "user@☃.example",
    "straße@example.com",
    "user@" + "ü" * 70 + ".example",
    "user@\u2024example\u2024com",
    "=?us-ascii?q?user?=@example.com",
    "=?utf-8?q?eve=40evil.example?=@example.com",
    '"=?us-ascii?q?user?="@example.com',
    '""@example.com',
    '"@example.com',
    '<"@example.com',
    "user@[",
    ".<.@example.com",
    "user@example.com(eve)",
    "(" * 120 + "user@example.com",
]


@pytest.mark.parametrize(("address", "right"), IDNA_2008 + MAILBOXES)
def test_mail_goes_to_the_address_that_was_given(world, drain, address, right):
    publish(**(ONLY_EMAIL | {"customer_email": address}))
    drain()

    assert [recipient for mail in world.smtp.ledger() for recipient in mail["recipients"]] == [right]


@pytest.mark.parametrize("address", NO_ADDRESS)
def test_an_invalid_address_is_refused_and_not_guessed(world, drain, address):
    publish(**(ONLY_EMAIL | {"customer_email": address}))
    drain()

    assert world.smtp.count() == 0
    assert DeadLetter.objects.get().error_class == "RecipientRefused"


@given(st.text(min_size=1, max_size=80))
def test_any_address_is_ascii_or_refused(address):
    with contextlib.suppress(ports.RecipientRefused):
        assert email_channel.ascii_address(address).isascii()


TEXT = "Your order OF-10 is on its way – DHL “Paket” é"
KEPT = {
    "the same": lambda text: text,
    "a trial account's": lambda text: f"Sent from your Twilio trial account - {text}",
    "smart-encoded": lambda text: text.replace("–", "-").replace("“", '"').replace("”", '"').replace("é", "e"),
    "with a notice": lambda text: f"{text} Reply STOP to unsubscribe",
    "with other spaces": lambda text: text.replace(" ", "\u00a0"),
}


@given(st.from_regex(email_channel.PLAIN, fullmatch=True))
def test_django_changes_nothing_about_a_plain_address(address):
    assert sanitize_address(address, "utf-8") == address == email_channel.ascii_address(address)


@pytest.mark.parametrize("change", KEPT)
def test_a_text_message_is_recognised_despite_changes(change):
    assert sms.has_text(KEPT[change](TEXT), TEXT)


@pytest.mark.parametrize(
    "other", [TEXT.replace("OF-10", "OF-100"), TEXT[:30], "", None, TEXT.replace("way", "ways")]
)
def test_another_text_is_not_recognised(other):
    assert not sms.has_text(other, TEXT)
    assert not sms.has_text(TEXT, "")
    assert not sms.has_text(TEXT, "– …")


@pytest.mark.parametrize("change", KEPT)
def test_a_text_message_whose_response_was_lost_is_sent_once_despite_changes(world, drain, change):
    with world.sms.failing(fault="malformed", times=1):
        publish(**ONLY_SMS, carrier="DHL – Paket")
        drain()
        [taken] = world.sms.ledger(kind="sms")
        world.sms.change("sms", taken["sid"], body=KEPT[change](taken["body"]))
    for _ in range(3):
        testing.pass_time(dt.timedelta(minutes=10))
        close_breakers()
        probes.sweep()
        drain()

    assert world.sms.count(kind="sms") == 1
    assert Notification.objects.get().provider_message_id == taken["sid"]
