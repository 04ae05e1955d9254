"""Every page opens only for users with its permission."""

from __future__ import annotations

import datetime as dt

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Group
from django.urls import reverse

from orderflow.login import groups
from orders.clients import tokens
from orders.models import Order, Product
from outbox.models import Attempt, InboxEntry, OutboxMessage
from tests.admin.conftest import LISTS
from tests.slow import but_first


@pytest.mark.parametrize("name", but_first(["support", "nobody", "on-call", "root"], first=2))
def test_lists_and_details_open_for_those_they_are_for(signed_in, dead_letter, name):
    client = signed_in(name)
    token, secret = tokens.create("shop", scopes=[tokens.READ])
    _, newer = tokens.rotate("shop", overlap=dt.timedelta(hours=1))
    token.refresh_from_db()
    digests = {token.digest, token.superseded.get().digest}
    rows = {
        "orders_order": Order.objects.get().pk,
        "orders_product": Product.objects.get().pk,
        "orders_apiclient": token.client_id,
        "orders_apitoken": token.pk,
        "outbox_outboxmessage": OutboxMessage.objects.get().pk,
        "outbox_inboxentry": InboxEntry.objects.get().pk,
        "outbox_attempt": Attempt.objects.get().pk,
        "outbox_deadletter": dead_letter.pk,
    }

    assert client.get(reverse("admin:index")).status_code == 200
    for window, readers in LISTS.items():
        expected = 200 if name in readers else 403
        assert client.get(reverse(f"admin:{window}_changelist")).status_code == expected, window
        if window in rows:
            page = client.get(reverse(f"admin:{window}_change", args=[rows[window]]))
            assert page.status_code == expected, window
            assert not [kept for kept in (*digests, secret, newer) if kept in page.text]


@pytest.mark.parametrize("window", [name for name in LISTS if name not in ("orders_product",)])
def test_not_even_a_superuser_adds_changes_or_deletes_rows(signed_in, dead_letter, window):
    client = signed_in("root")

    assert client.get(reverse(f"admin:{window}_add")).status_code == 403
    for row, page in {"outbox_deadletter": dead_letter.pk, "orders_order": Order.objects.get().pk}.items():
        if window == row:
            assert client.get(reverse(f"admin:{window}_delete", args=[page])).status_code == 403
            assert (
                client.post(reverse(f"admin:{window}_change", args=[page]), {"error": "x"}).status_code == 403
            )


def test_actions_need_their_own_permissions(signed_in, order, dead_letter):
    replay, discard = (reverse("admin:outbox_deadletter_resolve", args=[v]) for v in ("replay", "discard"))
    cancel = reverse("admin:orders_order_cancel")

    def answers(name: str) -> list[int]:
        client = signed_in(name)
        return [
            client.post(replay, {"ids": dead_letter.pk}).status_code,
            client.post(discard, {"ids": dead_letter.pk}).status_code,
            client.post(cancel, {"ids": order.pk}).status_code,
        ]

    assert answers("root") == [200, 200, 200]
    assert answers("on-call") == [200, 200, 403]
    assert answers("support") == [403, 403, 200]
    assert answers("nobody") == [403, 403, 403]
    assert signed_in("root").get(replay).status_code == 405
    assert not LogEntry.objects.exists()


def test_migrating_creates_the_groups_once_with_their_permissions(db):
    assert set(Group.objects.values_list("name", flat=True)) == {"Support", "On-call"}
    groups.ensure()

    def codenames(name: str) -> set[str]:
        return set(Group.objects.get(name=name).permissions.values_list("codename", flat=True))

    assert codenames("Support") == {"view_order", "view_product", "cancel_order", "view_notification"}
    assert {"replay_deadletter", "discard_deadletter", "view_outboxmessage"} <= codenames("On-call")
    assert not {"cancel_order", "view_apitoken", "view_supersededsecret", "change_product"} & codenames(
        "On-call"
    )
