"""In a real browser, on desktop and phone screens, nothing is cut off and times are in one zone."""

from __future__ import annotations

import datetime as dt

import pytest
from django.urls import reverse
from django.utils import timezone

from notifications.models import Notification
from orders.models import Order, Product
from outbox.models import Attempt, DeadLetter, OutboxMessage
from tests.admin.conftest import LISTS, PASSWORD, bury, staff
from tests.admin.test_browser import page, shop  # noqa: F401 - a fixture

CUT_OFF = """() => {
  const wide = [document.documentElement, ...document.querySelectorAll('.results, .of-scroll')]
    .filter(box => box.scrollWidth > box.clientWidth);
  const beyond = [...document.querySelectorAll('#content-main td, #content-main th, #content-main iframe')]
    .filter(cell => cell.checkVisibility() && !cell.closest('thead'))
    .filter(cell => cell.getBoundingClientRect().right > innerWidth);
  return [...wide, ...beyond].map(found => found.tagName + '.' + found.className + '#' + found.id);
}"""
"""What does not fit into the window: boxes that scroll sideways, and cells beyond the edge."""


@pytest.fixture
def browser(page, live_server):  # noqa: F811
    staff("root")
    page.goto(f"{live_server.url}/admin/")
    page.fill("#id_username", "root")
    page.fill("#id_password", PASSWORD)
    page.click("[type=submit]")
    page.open = lambda path: page.goto(f"{live_server.url}{path}")
    return page


def stuck_shop() -> DeadLetter:
    """A database with the longest values that rows usually have."""
    dead_letter = shop()
    order = Order.objects.get(pk=dead_letter.key)
    Order.objects.filter(pk=order.pk).update(
        customer_email="a.customer.with.a.long.name@shop.example.com", number="OF-12345678"
    )
    Notification.objects.create(
        message_id=order.message_id,
        order_id=order.pk,
        order_number="OF-12345678",
        channel="email",
        template="placed",
        recipient="a.customer.with.a.long.name@shop.example.com",
        html="<p>Thank you</p>",
    )
    OutboxMessage.objects.filter(pk=order.message_id).update(
        status="pending",
        not_before=timezone.now() + dt.timedelta(hours=1),
        last_error="the broker does not answer: connection refused, again and again",
    )
    bury(order, consumer="notifications.tasks.send_email", error="no mailbox", attempts=12)
    return dead_letter


def pages(dead_letter: DeadLetter) -> list[str]:
    rows = {
        "orders_order": dead_letter.key,
        "orders_product": Product.objects.latest("pk").pk,
        "outbox_deadletter": dead_letter.pk,
        "outbox_outboxmessage": dead_letter.message_id,
        "outbox_attempt": Attempt.objects.latest("pk").pk,
        "notifications_notification": Notification.objects.latest("pk").pk,
    }
    lists = [reverse(f"admin:{window}_changelist") for window in LISTS]
    return [*lists, *(reverse(f"admin:{window}_change", args=[row]) for window, row in rows.items())]


@pytest.mark.slow
@pytest.mark.parametrize("width", [1440, 390])
def test_nothing_is_cut_off(browser, width):
    dead_letter = stuck_shop()
    browser.set_viewport_size({"width": width, "height": 900})

    cut_off = {}
    for path in pages(dead_letter):
        browser.open(path)
        if found := browser.evaluate(CUT_OFF):
            cut_off[path] = found
    assert cut_off == {}

    browser.open(reverse("admin:outbox_deadletter_changelist"))
    assert browser.is_visible("#result_list .field-age >> nth=0")
    assert browser.is_visible("#result_list .field-state .of-chip >> nth=0")
    assert browser.errors == []


@pytest.mark.slow
def test_pages_show_one_time_zone_wherever_their_reader_is(browser):
    dead_letter = stuck_shop()
    zones = set()
    for path in pages(dead_letter):
        browser.open(path)
        assert browser.is_visible("text=All times on these pages are in UTC.")
        zones |= {time[-6:] for time in browser.eval_on_selector_all("time", "all => all.map(t => t.dateTime)")}

    assert zones == {"+00:00"}
