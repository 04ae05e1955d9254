"""The pages of notifications show texts as they were sent, without running anything in them."""

from __future__ import annotations

import uuid

import pytest
from django.urls import reverse

from notifications.models import Notification

MAIL = '<!DOCTYPE html><body style="color:red"><script>alert(1)</script></body>'


@pytest.fixture
def mail(db) -> Notification:
    return Notification.objects.create(
        message_id=uuid.uuid4(),
        order_id=uuid.uuid4(),
        order_number="OF-1042",
        channel="email",
        template="placed",
        recipient="ada@example.com",
        subject="Your order",
        text="<script>alert(1)</script>",
        html=MAIL,
    )


def directives(response) -> set[str]:
    return set(response["Content-Security-Policy"].split("; "))


def test_a_mail_is_shown_in_a_frame_that_may_do_nothing(signed_in, mail):
    page = signed_in("support").get(reverse("admin:notifications_notification_change", args=[mail.pk]))
    address = reverse("admin:notifications_notification_mail", args=[mail.pk])

    assert f'<iframe sandbox src="{address}"' in page.text
    assert "<script>alert(1)" not in page.text


def test_a_mail_may_show_its_styles_and_run_send_and_load_nothing(signed_in, mail):
    shown = signed_in("support").get(reverse("admin:notifications_notification_mail", args=[mail.pk]))

    assert shown.text == MAIL
    assert {"default-src 'none'", "style-src 'unsafe-inline'", "img-src data:", "sandbox"} <= directives(shown)
    assert {"form-action 'none'", "frame-ancestors 'self'"} <= directives(shown)
    assert shown["X-Frame-Options"] == "SAMEORIGIN"
    assert shown["X-Content-Type-Options"] == "nosniff"


def test_a_mail_is_for_those_who_may_see_notifications(client, signed_in, mail):
    address = reverse("admin:notifications_notification_mail", args=[mail.pk])

    assert client.get(address).status_code == 302
    assert signed_in("nobody").get(address).status_code == 403
    Notification.objects.update(html="")
    assert signed_in("support").get(address).status_code == 404


@pytest.mark.parametrize(
    "term", ["OF-1042", "of-1042", "ada@example.com", "Ada@Example.com", "order", "message"]
)
def test_a_notification_is_found_by_what_people_have_at_hand(signed_in, mail, term):
    term = {"order": str(mail.order_id), "message": str(mail.message_id)}.get(term, term)
    page = signed_in("support").get(reverse("admin:notifications_notification_changelist"), {"q": term})

    assert list(page.context["cl"].result_list) == [mail]


def test_sent_notifications_cannot_be_changed_or_deleted(signed_in, mail):
    client = signed_in("root")

    assert client.post(reverse("admin:notifications_notification_delete", args=[mail.pk])).status_code == 403
    assert client.post(reverse("admin:notifications_notification_change", args=[mail.pk])).status_code == 403
    assert client.get(reverse("admin:notifications_preference_add")).status_code == 200
