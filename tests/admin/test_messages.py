"""The pages of messages and attempts: what waits, for how long, until when and why."""

from __future__ import annotations

import datetime as dt

from django.urls import reverse
from django.utils import timezone
from django.utils.html import strip_tags

from outbox.models import Attempt, OutboxMessage


def test_outbox_rows_are_found_by_their_ids(signed_in, order, dead_letter):
    client = signed_in("on-call")

    for window, terms in {
        "outbox_outboxmessage": (order.message_id, order.pk, order.correlation_id),
        "outbox_inboxentry": (order.message_id,),
        "outbox_attempt": (order.message_id,),
        "outbox_deadletter": (dead_letter.pk, order.message_id, order.pk, dead_letter.fingerprint),
    }.items():
        for term in terms:
            page = client.get(reverse(f"admin:{window}_changelist"), {"q": str(term)})
            assert len(page.context["cl"].result_list) == 1, (window, term)
        page = client.get(reverse(f"admin:{window}_changelist"), {"q": "9" * 40})
        assert len(page.context["cl"].result_list) == 0


def row_of(client, message_id) -> dict[str, str]:
    page = client.get(reverse("admin:outbox_outboxmessage_changelist"), {"q": str(message_id)})
    [message] = page.context["cl"].result_list
    window = page.context["cl"].model_admin
    return {name: getattr(window, name)(message) for name in ("undelivered_for", "waits_until", "why")}


def test_the_list_shows_why_a_message_waits_and_until_when(signed_in, order):
    later = timezone.now() + dt.timedelta(minutes=10)
    OutboxMessage.objects.update(
        not_before=later,
        created_at=timezone.now() - dt.timedelta(hours=3),
        last_error="ValueError: " + "x" * 500,
    )
    row = row_of(signed_in("on-call"), order.message_id)

    assert "3\xa0hours" in row["undelivered_for"]
    assert f"{later:%Y-%m-%d %H:%M}" in strip_tags(row["waits_until"])
    assert row["why"].startswith("ValueError: xxx")
    assert len(row["why"]) == 90


def test_a_postponed_message_shows_the_reason_of_its_consumer(signed_in, order):
    for error in ("the first", "the newest"):
        Attempt.objects.create(
            consumer="orders.tasks.charge",
            message_id=order.message_id,
            outcome="postponed",
            error_class="Unreachable",
            error=error,
        )

    assert row_of(signed_in("on-call"), order.message_id)["why"] == "Unreachable: the newest"


def test_a_parked_message_shows_the_reason_and_a_delivered_one_waits_for_nothing(signed_in, order):
    client = signed_in("on-call")

    OutboxMessage.objects.update(status="parked", last_error="UnknownEvent: orders.order_placed 9")
    assert row_of(client, order.message_id)["why"] == "UnknownEvent: orders.order_placed 9"
    OutboxMessage.objects.update(status="published", last_error="")
    assert set(row_of(client, order.message_id).values()) == {None}


def test_an_events_name_leads_to_its_messages(signed_in, order):
    page = signed_in("on-call").get(
        reverse("admin:outbox_outboxmessage_changelist"), {"q": "orders.order_placed"}
    )

    [message] = page.context["cl"].result_list
    details = reverse("admin:outbox_outboxmessage_change", args=[message.pk])
    assert f'<a href="{details}?' in page.text
    assert ">orders.order_placed</a>" in page.text
