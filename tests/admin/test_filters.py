"""A filtered list is still filtered after an action on some of its rows."""

from __future__ import annotations

import re

import pytest
from django.urls import reverse

from orders.models import Order
from tests.admin.conftest import bury
from tests.factories import place

FILTERS = "consumer=orders.tasks.charge&q=&resolution=open"


def form_of(page) -> dict[str, str]:
    """Return what a confirmation page sends."""
    fields = re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', page.text)
    return {name: value.replace("&amp;", "&") for name, value in fields} | {"reason": "the cause is mended"}


@pytest.mark.parametrize("verb", ["replay", "discard"])
def test_filters_survive_a_replay_and_a_discard(signed_in, dead_letter, verb):
    client, other = signed_in("root"), bury(place())
    listing = reverse("admin:outbox_deadletter_changelist")
    resolve = reverse("admin:outbox_deadletter_resolve", args=[verb])
    action = {"action": verb, "_selected_action": [dead_letter.pk, other.pk]}

    page = client.post(f"{listing}?{FILTERS}", action)
    assert f'class="closelink" href="{listing}?{FILTERS.replace("&", "&amp;")}"' in page.text
    done = client.post(resolve, form_of(page) | {"cancel": "yes"})

    assert done.url == f"{listing}?{FILTERS}"
    assert client.get(done.url).status_code == 200


def test_filters_survive_the_replay_of_one_dead_letter_from_its_page(signed_in, dead_letter):
    client = signed_in("root")
    change = reverse("admin:outbox_deadletter_change", args=[dead_letter.pk])
    page = client.get(change, {"_changelist_filters": FILTERS})
    replay = reverse("admin:outbox_deadletter_resolve", args=["replay"])
    confirmation = client.post(replay, form_of(page))
    done = client.post(replay, form_of(confirmation), follow=True)

    assert done.redirect_chain[-1][0].startswith(f"{change}?_changelist_filters=")
    back = re.search(r'<a href="([^"]+)" class="closelink"', done.text)
    assert back
    assert client.get(back[1].replace("&amp;", "&")).context["cl"].params.items() >= {
        ("consumer", "orders.tasks.charge"),
        ("resolution", "open"),
    }


def test_filters_survive_a_cancellation(signed_in, order):
    client, other = signed_in("root"), place()
    listing = reverse("admin:orders_order_changelist")
    action = {"action": "cancel", "_selected_action": [order.pk, other.pk]}
    page = client.post(f"{listing}?status=placed", action)
    done = client.post(reverse("admin:orders_order_cancel"), form_of(page))

    assert done.url == f"{listing}?status=placed"
    assert Order.objects.filter(cancel_requested_at__isnull=False).count() == 2


def test_without_filters_actions_return_to_the_plain_list(signed_in, dead_letter):
    form = {"ids": f"{dead_letter.pk},0", "confirmed": "yes", "reason": "x"}
    hostile = {"_changelist_filters": "//evil.example\r\nSet-Cookie: a=b"}
    done = signed_in("root").post(reverse("admin:outbox_deadletter_resolve", args=["replay"]), form | hostile)

    assert done.url.startswith(reverse("admin:outbox_deadletter_changelist") + "?")
    assert "\n" not in done.url
    assert "evil.example" not in done.url.partition("?")[0]
