"""The texts that customers read."""

from __future__ import annotations

import pytest

from notifications import rendering
from notifications.channels import email as email_channel
from notifications.models import Notification
from notifications.money import format_amount
from orders.contracts import OrderCancelled, OrderFulfilled, OrderPlaced, OrderRefunded, OrderRejected
from tests.notifications.publishing import ONLY_EMAIL, event, publish

KINDS = [
    (OrderPlaced, {}),
    (OrderRejected, {"reason": "not in stock: SKU-1"}),
    (OrderFulfilled, {"carrier": "Royal Mail", "tracking_number": "RM123"}),
    (OrderCancelled, {"reason": "cancelled on request"}),
    (OrderRefunded, {"refunded_minor": 123_450}),
]


@pytest.mark.parametrize(("kind", "fields"), KINDS)
def test_every_event_has_its_texts(kind, fields):
    rendered_event = event(kind, **fields)
    mail = rendering.render(rendered_event, channel="email")
    short = rendering.render(rendered_event, channel="sms")

    assert rendered_event.order_number in mail.subject
    assert "\n" not in mail.subject
    assert rendered_event.order_number in mail.text
    assert "£1,234.50" in mail.text
    assert "£1,234.50" in mail.html
    assert '<html lang="en">' in mail.html
    assert rendered_event.order_number in short.text
    assert "\n" not in short.text
    assert len(short.text) <= 160
    assert not short.html
    assert "{{" not in mail.text + mail.html + short.text + mail.subject


def test_a_hostile_name_cannot_put_markup_into_a_mail():
    mail = rendering.render(event(customer_name='<script>alert("1")</script>'), channel="email")

    assert "<script" not in mail.html
    assert "&lt;script&gt;" in mail.html
    assert '<script>alert("1")</script>' in mail.text


def test_a_subject_is_always_one_line():
    hostile = event(order_number="OF-1\r\nBcc: everybody@example.com")

    assert rendering.render(hostile, channel="email").subject.splitlines() == [
        "Your order OF-1 Bcc: everybody@example.com is on its way"
    ]


@pytest.mark.parametrize(
    ("minor", "currency", "text"),
    [
        (0, "GBP", "£0.00"),
        (5, "gbp", "£0.05"),
        (123_456_789, "EUR", "€1,234,567.89"),
        (1_500, "JPY", "¥1,500"),
        (1_500, "KRW", "1,500 KRW"),
        (12_500, "KWD", "12.500 KWD"),
        (1_999, "CHF", "19.99 CHF"),
        (-250, "USD", "-$2.50"),
    ],
)
def test_amounts_are_written_with_the_decimals_of_their_currency(minor, currency, text):
    assert format_amount(minor, currency) == text


def test_a_mail_has_headers_for_automatic_mail_and_for_its_order(world, drain):
    publish(**ONLY_EMAIL)
    drain()
    notification = Notification.objects.get()

    first, second = (email_channel.compose(notification).message() for _ in range(2))
    assert first["Message-ID"] == second["Message-ID"] == notification.provider_message_id
    assert first["Auto-Submitted"] == "auto-generated"
    assert first["X-Order-Number"] == notification.order_number
    assert [part.get_content_type() for part in first.get_payload()] == ["text/plain", "text/html"]
