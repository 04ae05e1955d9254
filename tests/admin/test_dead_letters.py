"""The pages of dead letters: open ones first, and actions that require confirmation, report and run once."""

from __future__ import annotations

from django.contrib.admin.models import LogEntry
from django.urls import reverse

from outbox.models import Attempt, DeadLetter, OutboxMessage
from tests.admin.conftest import bury, messages_on
from tests.factories import place

REPLAY = "admin:outbox_deadletter_resolve"


def test_replay_asks_first_and_freezes_what_was_selected(signed_in, dead_letter):
    client = signed_in("on-call")
    listing = reverse("admin:outbox_deadletter_changelist")

    page = client.post(listing, {"action": "replay", "_selected_action": [dead_letter.pk]})
    later = bury(place(), error_class="Other")

    assert "1 message</strong> will be delivered again" in page.text
    assert "PaymentProviderDown" in page.text
    client.post(
        reverse(REPLAY, args=["replay"]),
        {"ids": page.context["ids"], "confirmed": "yes", "reason": "provider is back"},
    )
    dead_letter.refresh_from_db()
    later.refresh_from_db()
    assert (dead_letter.resolution, dead_letter.resolved_by, dead_letter.reason) == (
        "replaying",
        "on-call",
        "provider is back",
    )
    assert later.resolution == "open"
    assert OutboxMessage.objects.get(pk=dead_letter.message_id).redeliveries == 1


def test_nothing_is_replayed_or_discarded_without_a_reason(signed_in, dead_letter):
    client = signed_in("on-call")

    for verb in ("replay", "discard"):
        page = client.post(
            reverse(REPLAY, args=[verb]), {"ids": dead_letter.pk, "confirmed": "yes", "reason": "  \x00"}
        )
        assert 'role="alert"' in page.text

    dead_letter.refresh_from_db()
    assert dead_letter.resolution == "open"
    assert not LogEntry.objects.exists()


def test_a_second_submit_finds_nothing_to_do(signed_in, dead_letter):
    client = signed_in("on-call")
    form = {"ids": dead_letter.pk, "confirmed": "yes", "reason": "provider is back"}

    first = client.post(reverse(REPLAY, args=["replay"]), form, follow=True)
    second = client.post(reverse(REPLAY, args=["replay"]), form, follow=True)
    third = client.post(reverse(REPLAY, args=["discard"]), form, follow=True)

    assert "1 dead letter is being replayed." in messages_on(first)
    assert "none of these dead letters was open" in messages_on(second)
    assert "none of these dead letters was open" in messages_on(third)
    assert OutboxMessage.objects.get(pk=dead_letter.message_id).redeliveries == 1
    assert LogEntry.objects.count() == 1


def test_a_dead_letter_without_a_message_can_only_be_discarded(signed_in, order):
    garbage = bury(order, message_id="", body="}{", source="worker")
    client = signed_in("on-call")
    form = {"ids": garbage.pk, "confirmed": "yes", "reason": "garbage from a test"}

    replayed = client.post(reverse(REPLAY, args=["replay"]), form, follow=True)
    assert "1 stayed open" in messages_on(replayed)
    discarded = client.post(reverse(REPLAY, args=["discard"]), form, follow=True)
    assert "1 dead letter discarded." in messages_on(discarded)
    assert DeadLetter.objects.get().reason == "garbage from a test"
    assert LogEntry.objects.get().change_message == "discarded: garbage from a test"


def test_invalid_ids_are_ignored(signed_in, dead_letter):
    form = {"ids": f"x,²,,-1,{'9' * 30}", "confirmed": "yes", "reason": "because"}

    page = signed_in("on-call").post(reverse(REPLAY, args=["discard"]), form, follow=True)

    assert page.status_code == 200
    dead_letter.refresh_from_db()
    assert dead_letter.resolution == "open"


def listed(client, **query) -> set[str]:
    page = client.get(reverse("admin:outbox_deadletter_changelist"), query)
    assert page.status_code == 200
    return {row.resolution for row in page.context["cl"].result_list}


def test_the_list_shows_open_dead_letters_by_default(signed_in, dead_letter):
    DeadLetter.objects.create(consumer="x", error_class="X", error="x", digest="r", resolution="replayed")
    DeadLetter.objects.create(consumer="x", error_class="X", error="x", digest="d", resolution="discarded")
    client = signed_in("on-call")

    assert listed(client) == {"open"}
    assert listed(client, resolution="replayed") == {"replayed"}
    assert listed(client, resolution="all") == {"open", "replayed", "discarded"}
    assert listed(client, _facets="True") == {"open"}


def test_a_search_finds_resolved_dead_letters_too(signed_in, dead_letter):
    DeadLetter.objects.update(resolution="replayed")
    client = signed_in("on-call")

    assert listed(client, q=str(dead_letter.message_id)) == {"replayed"}
    assert listed(client, q=str(dead_letter.message_id), resolution="open") == set()


def test_the_breakdown_of_a_replay_counts_only_what_can_be_replayed(signed_in, order, dead_letter):
    garbage = bury(order, message_id="", body="}{", consumer="outbox.worker", error_class="UnreadableTask")
    form = {"ids": f"{dead_letter.pk},{garbage.pk}"}
    client = signed_in("on-call")

    replay = client.post(reverse(REPLAY, args=["replay"]), form)
    assert replay.context["causes"] == [(("orders.tasks.charge", "PaymentProviderDown"), 1)]
    assert "1 carried no message that could be read" in replay.text
    discard = client.post(reverse(REPLAY, args=["discard"]), form)
    assert [dead_letters for _, dead_letters in discard.context["causes"]] == [1, 1]


def test_an_outage_is_one_row_of_the_tries_that_led_to_a_dead_letter(signed_in, dead_letter):
    for _ in range(3):
        Attempt.objects.create(
            consumer=dead_letter.consumer,
            message_id=dead_letter.message_id,
            outcome="waited",
            error_class="Outage",
            error="Stripe does not answer",
        )
    page = signed_in("on-call").get(reverse("admin:outbox_deadletter_change", args=[dead_letter.pk]))

    assert page.text.count("Stripe does not answer") == 1
    assert ", 3 checks until " in page.text
