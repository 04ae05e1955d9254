"""Discarding in the admin: cancel the waiting order and discard, or leave the dead letter open."""

from __future__ import annotations

from django.contrib.auth.models import Permission, User
from django.urls import reverse

from orders.models import Order
from outbox.models import DeadLetter
from tests.admin.conftest import messages_on

DISCARD = "/admin/outbox/deadletter/resolve/discard/"


def allow_cancelling(name: str) -> None:
    permission = Permission.objects.get(codename="cancel_order")
    User.objects.get(username=name).user_permissions.add(permission)


def test_the_page_names_the_order_that_waits_and_offers_to_cancel_it(signed_in, order, dead_letter):
    page = signed_in("root").post(DISCARD, {"ids": dead_letter.pk})

    assert f"{order.number} is placed" in page.text
    assert 'name="cancel"' in page.text


def test_without_the_order_the_dead_letter_is_not_discarded(signed_in, order, dead_letter):
    form = {"ids": dead_letter.pk, "confirmed": "yes", "reason": "not wanted"}
    page = signed_in("root").post(DISCARD, form, follow=True)

    assert "1 stayed open" in messages_on(page)
    assert order.number in messages_on(page)
    assert DeadLetter.objects.get().resolution == "open"
    assert Order.objects.get().cancel_requested_at is None


def test_discarding_with_the_order_ends_both(signed_in, dead_letter):
    form = {"ids": dead_letter.pk, "confirmed": "yes", "reason": "not wanted", "cancel": "yes"}
    page = signed_in("root").post(DISCARD, form, follow=True)

    assert "1 dead letter discarded." in messages_on(page)
    closed = DeadLetter.objects.get()
    assert (closed.resolution, closed.resolved_by, closed.reason) == ("discarded", "root", "not wanted")
    assert Order.objects.get().cancel_requested_at is not None


def test_a_user_who_may_not_cancel_orders_is_neither_offered_it_nor_allowed_to(signed_in, dead_letter):
    client = signed_in("on-call")
    form = {"ids": dead_letter.pk, "confirmed": "yes", "reason": "not wanted", "cancel": "yes"}

    assert 'name="cancel"' not in client.post(DISCARD, {"ids": dead_letter.pk}).text
    assert client.post(DISCARD, form).status_code == 403
    assert DeadLetter.objects.get().resolution == "open"

    allow_cancelling("on-call")
    assert 'name="cancel"' in client.post(DISCARD, {"ids": dead_letter.pk}).text
    client.post(DISCARD, form)
    assert DeadLetter.objects.get().resolution == "discarded"


def test_a_replay_leads_to_the_page_with_its_result(signed_in, dead_letter):
    client = signed_in("on-call")
    replay = reverse("admin:outbox_deadletter_resolve", args=["replay"])
    page = client.post(replay, {"ids": dead_letter.pk, "confirmed": "yes", "reason": "mended"}, follow=True)

    campaign = dead_letter.replays.get().campaign
    url = reverse("admin:outbox_replaycampaign_change", args=[campaign.pk])
    assert f'<a href="{url}">See the outcome</a>' in messages_on(page)
    assert "1 sent: 1 under way" in client.get(url).text
    assert "1 sent: 1 under way" in client.get(reverse("admin:outbox_replaycampaign_changelist")).text
