"""What staff may set in motion: each asks first, says what it did, and does it once."""

from __future__ import annotations

from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Group
from django.urls import reverse

from orderflow import groups
from orders.models import Order, Product
from outbox.models import DeadLetter, OutboxMessage
from tests.admin.conftest import bury
from tests.factories import ProductFactory, place

REPLAY = "admin:outbox_deadletter_resolve"


def said(page) -> str:
    return " ".join(str(message) for message in page.context["messages"])


def test_replay_asks_first_and_freezes_what_was_selected(signed_in, letter):
    client = signed_in("on-call")
    listing = reverse("admin:outbox_deadletter_changelist")

    page = client.post(listing, {"action": "replay", "_selected_action": [letter.pk]})
    later = bury(place(), error_class="Other")

    assert "1 message</strong> will be delivered again" in page.text
    assert "PaymentProviderDown" in page.text
    client.post(
        reverse(REPLAY, args=["replay"]),
        {"ids": page.context["ids"], "confirmed": "yes", "reason": "provider is back"},
    )
    letter.refresh_from_db()
    later.refresh_from_db()
    assert (letter.resolution, letter.resolved_by, letter.reason) == ("replayed", "on-call", "provider is back")
    assert later.resolution == "open"
    assert OutboxMessage.objects.get(pk=letter.message_id).redeliveries == 1


def test_nothing_is_replayed_or_discarded_without_a_reason(signed_in, letter):
    client = signed_in("on-call")

    for verb in ("replay", "discard"):
        page = client.post(
            reverse(REPLAY, args=[verb]), {"ids": letter.pk, "confirmed": "yes", "reason": "  \x00"}
        )
        assert 'role="alert"' in page.text

    letter.refresh_from_db()
    assert letter.resolution == "open"
    assert not LogEntry.objects.exists()


def test_a_second_submit_finds_nothing_to_do(signed_in, letter):
    client = signed_in("on-call")
    form = {"ids": letter.pk, "confirmed": "yes", "reason": "provider is back"}

    first = client.post(reverse(REPLAY, args=["replay"]), form, follow=True)
    second = client.post(reverse(REPLAY, args=["replay"]), form, follow=True)
    third = client.post(reverse(REPLAY, args=["discard"]), form, follow=True)

    assert "1 dead letter replayed." in said(first)
    assert "none of these was open any more" in said(second)
    assert "none of these was open any more" in said(third)
    assert OutboxMessage.objects.get(pk=letter.message_id).redeliveries == 1
    assert LogEntry.objects.count() == 1


def test_what_carries_no_message_can_be_discarded_only(signed_in, order):
    garbage = bury(order, message_id="", body="}{", source="worker")
    client = signed_in("on-call")
    form = {"ids": garbage.pk, "confirmed": "yes", "reason": "garbage from a test"}

    replayed = client.post(reverse(REPLAY, args=["replay"]), form, follow=True)
    assert "1 stayed open" in said(replayed)
    discarded = client.post(reverse(REPLAY, args=["discard"]), form, follow=True)
    assert "1 dead letter discarded." in said(discarded)
    assert DeadLetter.objects.get().reason == "garbage from a test"
    assert LogEntry.objects.get().change_message == "discarded: garbage from a test"


def test_what_is_no_id_is_left_out(signed_in, letter):
    form = {"ids": f"x,²,,-1,{'9' * 30}", "confirmed": "yes", "reason": "because"}

    page = signed_in("on-call").post(reverse(REPLAY, args=["discard"]), form, follow=True)

    assert page.status_code == 200
    letter.refresh_from_db()
    assert letter.resolution == "open"


def test_support_asks_for_a_cancellation_once(signed_in, order):
    client = signed_in("support")
    listing = reverse("admin:orders_order_changelist")

    page = client.post(listing, {"action": "cancel", "_selected_action": [order.pk]})
    assert "1 order</strong> will be asked for" in page.text
    assert Order.objects.get().cancel_requested_at is None
    form = {"ids": page.context["ids"], "confirmed": "yes"}
    first = client.post(reverse("admin:orders_order_cancel"), form, follow=True)
    second = client.post(reverse("admin:orders_order_cancel"), form, follow=True)

    assert "Cancellation of 1 order requested." in said(first)
    assert "asked for before" in said(second)
    assert OutboxMessage.objects.filter(event_name="orders.cancellation_requested").count() == 1
    assert LogEntry.objects.get().change_message == "Cancellation requested."


def test_a_rejected_order_is_too_late_to_cancel(signed_in, order):
    from django.utils import timezone

    Order.objects.filter(pk=order.pk).update(status="rejected", due_at=None, finished_at=timezone.now())

    page = signed_in("support").post(
        reverse("admin:orders_order_cancel"), {"ids": order.pk, "confirmed": "yes"}, follow=True
    )

    assert f"Too late to cancel: {order.number} is rejected." in said(page)


def test_a_delivery_counts_once(signed_in):
    product = ProductFactory(stock=10)
    client = signed_in("root")
    page = reverse("admin:orders_product_receive", args=[product.pk])

    client.post(page, {"quantity": 5, "seen": 10})
    again = client.post(page, {"quantity": 5, "seen": 10}, follow=True)
    assert client.post(page, {"quantity": 0, "seen": 15}).status_code == 200

    product.refresh_from_db()
    assert (product.received, product.on_hand) == (15, 15)
    assert "Not counted" in said(again)
    assert LogEntry.objects.get().change_message == "Received 5."
    assert signed_in("support").get(page).status_code == 403


def test_a_new_price_does_not_write_old_stock(signed_in):
    product = ProductFactory(stock=10)
    stale = Product.objects.get()
    Product.objects.update(on_hand=8, reserved=2)

    client = signed_in("root")
    client.post(
        reverse("admin:orders_product_change", args=[product.pk]),
        {"name": "New name", "price_minor": 300, "sku": "OTHER", "on_hand": 99},
    )
    product.refresh_from_db()
    assert (product.name, product.price_minor, product.sku) == ("New name", 300, stale.sku)
    assert (product.on_hand, product.reserved, product.received) == (8, 2, 10)

    client.post(
        reverse("admin:orders_product_add"), {"sku": "NEW", "name": "New", "price_minor": 1, "currency": "EUR"}
    )
    assert Product.objects.get(sku="NEW").on_hand == 0


def test_migrating_makes_the_groups_once_and_they_may_do_what_they_say(db):
    assert set(Group.objects.values_list("name", flat=True)) == {"Support", "On-call"}
    groups.ensure()

    def codenames(name: str) -> set[str]:
        return set(Group.objects.get(name=name).permissions.values_list("codename", flat=True))

    assert codenames("Support") == {"view_order", "view_product", "cancel_order", "view_notification"}
    assert {"replay_deadletter", "discard_deadletter", "view_outboxmessage"} <= codenames("On-call")
    assert not {"cancel_order", "view_apitoken", "change_product"} & codenames("On-call")
