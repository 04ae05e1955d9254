"""A real browser goes from an order to its dead letter and replays it, under the content security policy."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.conf import settings
from django.db import connections
from django.utils import timezone

from orders import moves
from orders.models import Order
from outbox.models import Attempt, DeadLetter, OutboxMessage
from tests.admin.conftest import PASSWORD, bury, staff
from tests.factories import ProductFactory, place

NAMES = ("chromium", "chromium-browser", "google-chrome")
HOW_TO = "no browser: apt-get install --no-install-recommends chromium, or name one in ORDERFLOW_CHROMIUM"
PICTURES = settings.BASE_DIR / "docs" / "screenshots"


def browser_program() -> str | None:
    named = os.environ.get("ORDERFLOW_CHROMIUM")
    return named or next(filter(None, map(shutil.which, NAMES)), None)


@pytest.fixture
def page(monkeypatch, transactional_db) -> Iterator:
    """A page of an installed browser; `page.errors` collects the errors that it reports."""
    program = browser_program()
    if not program or not Path(program).exists():
        pytest.skip(HOW_TO)
    playwright = pytest.importorskip("playwright.sync_api")
    monkeypatch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "true")  # playwright's loop lives in this thread
    options = ["--disable-dev-shm-usage", *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    with contextlib.ExitStack() as stack:
        try:
            driver = stack.enter_context(playwright.sync_playwright())
            browser = driver.chromium.launch(executable_path=program, args=options, timeout=20_000)
        except Exception as error:  # Playwright's Node, or the browser, lacks a library
            pytest.skip(f"{HOW_TO} (this one does not start: {str(error).splitlines()[0]})")
        stack.callback(browser.close)
        stack.callback(connections.close_all)  # the loop's connections, which nothing else closes
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        page.set_default_timeout(15_000)
        page.errors = []
        page.on(
            "console",
            lambda message: page.errors.append(message.text) if message.type == "error" else None,
        )
        yield page


def picture(page, name: str, *, full: bool = False) -> None:
    if os.environ.get("ORDERFLOW_SCREENSHOTS") == "1":
        page.evaluate("scrollTo(0, 0)")
        PICTURES.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=PICTURES / f"{name}.png", full_page=full)


WAY = ["validated", "charged", "fulfilled"]


def walk(order: Order, way: list[str]) -> None:
    """Process the order."""
    for status in way:
        ended = {"due_at": None, "finished_at": timezone.now()} if status in moves.FINAL else {}
        Order.objects.filter(pk=order.pk).update(status=status, **ended)


def shop() -> DeadLetter:
    """Some unfinished orders, one of them stuck because the payment provider is down."""
    mug = ProductFactory(sku="MUG-BLUE", name="Blue stoneware mug", price_minor=1250)
    lamp = ProductFactory(sku="LAMP-BRASS", name="Brass desk lamp", price_minor=6400)
    ways = [WAY, WAY, ["rejected"], WAY[:2], ["validated", "charge_unknown"], ["validated"], []]
    for quantity, way in enumerate(ways, start=1):
        walk(place(mug if quantity % 2 else lamp, quantity=quantity), way)
    stuck = place(lamp, quantity=1)
    walk(stuck, ["validated"])
    OutboxMessage.objects.filter(pk=stuck.message_id).update(status="published")
    for outcome in ("retried", "postponed", "postponed", "buried"):
        Attempt.objects.create(
            consumer="orders.tasks.charge",
            message_id=stuck.message_id,
            outcome=outcome,
            worker="orders@worker-1",
            error_class="Unreachable",
            error="the payment provider answers 503",
        )
    return bury(
        stuck,
        error_class="Unreachable",
        error="the payment provider answers 503",
        attempts=4,
        worker="orders@worker-1",
    )


@pytest.mark.slow
def test_from_an_order_to_its_dead_letter_to_a_replay(page, live_server):
    staff("root")
    dead_letter = shop()
    number = Order.objects.get(pk=dead_letter.key).number

    page.goto(f"{live_server.url}/admin/")
    page.fill("#id_username", "root")
    page.fill("#id_password", PASSWORD)
    page.click("[type=submit]")
    page.click("#content-main .model-order th a")
    page.wait_for_selector("#result_list")
    picture(page, "orders")
    page.click(f"#result_list >> text={number}")
    page.wait_for_selector("#of-timeline")
    picture(page, "order", full=True)
    page.click("text=orders.tasks.charge gave up after 4 attempts")
    page.wait_for_selector("#of-evidence")
    assert not page.is_visible("text=in charge")
    page.click("summary >> text=Traceback")
    assert page.is_visible("text=in charge")
    picture(page, "dead-letter", full=True)
    page.click("button >> text=Replay")
    page.fill("#id_reason", "The payment provider is back.")
    picture(page, "replay")
    page.click("input[type=submit]")
    page.wait_for_selector(".messagelist >> text=1 dead letter is being replayed.")

    assert page.is_visible(".field-state .of-chip >> text=being replayed")
    assert not page.is_visible("button >> text=Replay")
    dead_letter.refresh_from_db()
    assert (dead_letter.resolution, dead_letter.resolved_by) == ("replaying", "root")
    assert page.errors == []


@pytest.mark.slow
def test_a_browser_is_refused_after_too_many_logins_and_admitted_later(page, live_server, settings):
    settings.REDIS_URL, settings.LOGIN_RATE_PER_ADDRESS, settings.LOGIN_RATE_PER_USER = (
        "",
        "2/minute",
        "9/minute",
    )
    staff("root")
    for _ in range(3):
        page.goto(f"{live_server.url}/admin/login/")
        page.fill("#id_username", "root")
        page.fill("#id_password", "a wrong passphrase")
        with page.expect_navigation() as answered:
            page.click("[type=submit]")
    refusal = answered.value
    assert refusal.status == 429
    assert 1 <= int(refusal.headers["retry-after"]) <= 60
    assert page.is_visible(f"text=Try again in {refusal.headers['retry-after']} second")
    assert page.is_visible("[role=alert] >> text=too many login attempts")
    picture(page, "too-many-logins")

    settings.LOGIN_RATE_PER_ADDRESS = "100/minute"  # as if the minute had passed
    page.click("text=Back to the login")
    page.fill("#id_username", "root")
    page.fill("#id_password", PASSWORD)
    page.click("[type=submit]")
    page.wait_for_selector("#content-main .model-order")
    assert [error for error in page.errors if "429" not in error] == []


@pytest.mark.slow
def test_a_browser_sees_contact_data_once_it_is_revealed(page, live_server, stated):
    root = staff("root")
    dead_letter = shop()
    DeadLetter.objects.filter(pk=dead_letter.pk).update(error="no mailbox ada@example.com for Ada Example")
    page.goto(f"{live_server.url}/admin/outbox/deadletter/{dead_letter.pk}/change/")
    page.fill("#id_username", "root")
    page.fill("#id_password", PASSWORD)
    page.click("[type=submit]")
    page.wait_for_selector("#of-evidence")
    assert "ada@example.com" not in page.content()
    assert "Ada Example" not in page.content()
    picture(page, "dead-letter-masked")

    page.click("button >> text=Reveal contact data")
    page.wait_for_selector("text=Contact data is shown")
    assert "no mailbox ada@example.com for Ada Example" in page.content()
    page.goto(f"{live_server.url}/admin/outbox/deadletter/{dead_letter.pk}/history/")
    assert page.is_visible("text=Saw its contact data.")
    [revealed] = [fields for name, fields in stated if name == "dead_letter.revealed"]
    assert revealed == {"dead_letter": dead_letter.pk, "user_id": root.pk}
    assert page.errors == []
