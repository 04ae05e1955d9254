"""The pages of orders: orders are found by what people know, shown completely, and cancelled once."""

from __future__ import annotations

from django.contrib.admin.models import LogEntry
from django.urls import reverse
from django.utils import timezone

from orders import services
from orders.admin import clients
from orders.models import ApiClient, Order
from outbox.models import OutboxMessage
from tests.admin.conftest import messages_on
from tests.factories import ProductFactory, place


def test_an_orders_page_shows_its_whole_history(signed_in, order, dead_letter):
    page = signed_in("on-call").get(reverse("admin:orders_order_change", args=[order.pk])).text

    assert f"Dead letter {dead_letter.pk} must be replayed or discarded" in page
    assert reverse("admin:outbox_deadletter_change", args=[dead_letter.pk]) in page
    assert reverse("admin:outbox_outboxmessage_change", args=[order.message_id]) in page
    assert "5.00 GBP" in page
    assert "orders.order_placed" in page


def test_an_order_is_found_by_what_people_have_at_hand(signed_in, order):
    Order.objects.filter(pk=order.pk).update(client_reference="SHOP-77")
    place(ProductFactory(), contact=services.Contact(name="Bob", email="bob@example.com"))
    client = signed_in("support")

    def found(term: object) -> list[str]:
        page = client.get(reverse("admin:orders_order_changelist"), {"q": str(term)})
        return [row.number for row in page.context["cl"].result_list]

    for term in (
        order.number,
        order.number.lower(),
        order.number.removeprefix("OF-"),
        "ada@example.com",
        "Ada@Example.com",
        "SHOP-77",
        order.pk,
        order.message_id,
    ):
        assert found(term) == [order.number], term
    assert found("nothing of the kind") == []
    assert found("'; drop table orders_order; --") == []


def test_orders_are_filtered_by_their_client(signed_in, order, monkeypatch):
    monkeypatch.setattr(clients, "MOST_LISTED", 1)
    shop, other = (ApiClient.objects.create(name=name) for name in ("A shop", "The other shop"))
    Order.objects.filter(pk=order.pk).update(client=other)
    place(ProductFactory())
    client, listing = signed_in("on-call"), reverse("admin:orders_order_changelist")

    def found(value: object) -> list[str]:
        return [row.number for row in client.get(listing, {"client": value}).context["cl"].result_list]

    assert found(other.pk) == [order.number]
    assert found(shop.pk) == found("nobody") == found(-1) == found(2**63) == found("\u0663") == []
    assert "The other shop" not in client.get(listing).text  # only one name is listed
    assert "The other shop" in client.get(listing, {"client": other.pk}).text
    page = client.get(reverse("admin:orders_apiclient_change", args=[other.pk])).text
    assert f'href="{listing}?client={other.pk}"' in page


def test_support_requests_a_cancellation_once(signed_in, order):
    client = signed_in("support")
    listing = reverse("admin:orders_order_changelist")

    page = client.post(listing, {"action": "cancel", "_selected_action": [order.pk]})
    assert "1 order</strong> will be requested" in page.text
    assert Order.objects.get().cancel_requested_at is None
    form = {"ids": page.context["ids"], "confirmed": "yes"}
    first = client.post(reverse("admin:orders_order_cancel"), form, follow=True)
    second = client.post(reverse("admin:orders_order_cancel"), form, follow=True)

    assert "Cancellation of 1 order requested." in messages_on(first)
    assert "requested before" in messages_on(second)
    assert OutboxMessage.objects.filter(event_name="orders.cancellation_requested").count() == 1
    assert LogEntry.objects.get().change_message == "Cancellation requested."


def test_a_rejected_order_is_too_late_to_cancel(signed_in, order):
    Order.objects.filter(pk=order.pk).update(status="rejected", due_at=None, finished_at=timezone.now())

    page = signed_in("support").post(
        reverse("admin:orders_order_cancel"), {"ids": order.pk, "confirmed": "yes"}, follow=True
    )

    assert f"Too late to cancel: {order.number} is rejected." in messages_on(page)
