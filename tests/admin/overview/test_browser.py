"""In a real browser: axe-core finds nothing, nothing is cut off, and a refresh disturbs nobody."""

from __future__ import annotations

import pytest
from django.contrib.sessions.models import Session

from orderflow.ops.overview import page as overview_page
from outbox.models import Heartbeat
from outbox.statistics.catalogue import BOUNDS
from tests.admin import axe
from tests.admin.conftest import PASSWORD, bury, staff
from tests.admin.overview.conftest import beat, bucket, healthy
from tests.admin.test_browser import page, picture, shop  # noqa: F401 - a fixture
from tests.admin.test_widths import CUT_OFF
from tests.factories import place

pytestmark = pytest.mark.slow

SOON = 20_000
"""Milliseconds."""


def a_day() -> None:
    """A day with an incident: for two hours nothing was sampled and nothing finished, then it was caught up."""
    for ago in range(0, 1430, 10):
        wave = 40 + 30 * ((ago // 60) % 5)
        if 400 <= ago < 520:
            continue
        slow = 5 if 380 <= ago < 400 else 0
        bucket("messages.oldest_due", ago=ago, maximum=200.0 * bool(slow) + ago % 7 / 10)
        for outcome, share in (("fulfilled", 20), ("rejected", 2), ("cancelled", 1)):
            histogram = [0] * (len(BOUNDS) + 1)
            histogram[5 + slow], histogram[7 + slow] = wave * share // 20, wave * share // 120
            count = sum(histogram)
            if count:
                maximum = BOUNDS[7 + slow]
                bucket("orders.finished", outcome, ago=ago, count=count, maximum=maximum, histogram=histogram)
    for ago, buried, resolved in ((395, 6, 0), (390, 9, 0), (300, 1, 10), (200, 0, 4), (60, 1, 0)):
        bucket("dead_letters.buried", "orders.tasks.charge", ago=ago, count=buried)
        bucket("dead_letters.resolved", "recovered", ago=ago, count=resolved)


@pytest.fixture
def browser(page, live_server, monkeypatch):  # noqa: F811
    monkeypatch.setattr(overview_page, "REFRESHED_EVERY", 1)
    staff("root")
    healthy()
    shop()
    bury(place(), error_class="<b>Unreachable</b>", consumer="notifications.tasks.send_email")
    a_day()
    page.url_of = lambda path: f"{live_server.url}{path}"
    page.goto(page.url_of("/admin/"))
    page.fill("#id_username", "root")
    page.fill("#id_password", PASSWORD)
    page.click("[type=submit]")
    page.wait_for_selector("#of-refreshing")
    return page


def refreshed(browser) -> None:
    """Wait until the page has been refreshed."""
    before = browser.inner_text("#of-as-of")
    browser.wait_for_function("before => document.querySelector('#of-as-of').innerText !== before", arg=before)


def no_node_is_new(browser) -> bool:
    return browser.evaluate(
        "[...document.querySelectorAll('#of-overview *:not(svg *)')].every(node => node.isKnown)"
    )


MARK = "[...document.querySelectorAll('#of-overview *:not(svg *)')].forEach(node => { node.isKnown = true; })"


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_core_finds_nothing_and_nothing_is_cut_off(browser, theme):
    browser.click("#of-pause")
    browser.evaluate("theme => { document.documentElement.dataset.theme = theme; }", theme)
    for width in (1440, 390):
        browser.set_viewport_size({"width": width, "height": 900})
        for is_open in (False, True):
            browser.evaluate(
                "is => document.querySelectorAll('details').forEach(each => { each.open = is; })", is_open
            )
            assert browser.evaluate(CUT_OFF) == []
            assert browser.evaluate("document.documentElement.scrollWidth") <= width
            assert axe.violations(browser) == []
    browser.set_viewport_size({"width": 1440, "height": 900})
    browser.evaluate("document.querySelectorAll('details').forEach(each => { each.open = false; })")
    if theme == "light":
        picture(browser, "overview", full=True)
    assert browser.errors == []


def test_assistive_technology_reads_states_plots_and_tables(browser):
    browser.click("#of-pause")
    told = browser.get_by_role
    assert told("heading", level=1).all_inner_texts() == ["Overview"]
    assert {"Status", "The last 24 hours", "Causes of dead letters", "All pages"} == set(
        told("heading", level=2).all_inner_texts()
    )
    assert told("list", name="Queues").get_by_role("listitem").count() == 6
    assert "answers" in told("list", name="System").get_by_role("listitem").first.inner_text()
    names = [image.get_attribute("aria-labelledby") for image in told("img").all()]
    assert len(names) == 4
    for name in ("Orders that became final, by outcome", "Oldest due message"):
        assert told("img", name=name).count() == 1
        assert told("figure", name=name).count() == 1
    browser.locator("#of-orders-details summary").press("Enter")
    table = told("table", name="Orders that became final, by outcome, by half-hours, newest first")
    assert table.get_by_role("columnheader").all_inner_texts() == [
        "FROM (UTC)",
        "FULFILLED",
        "REJECTED",
        "CANCELLED",
    ]
    assert table.get_by_role("rowheader").count() == 48


def test_a_refresh_changes_what_has_changed_and_nothing_else(browser):
    browser.evaluate(MARK)
    browser.focus("#of-orders-details summary")
    browser.keyboard.press("Enter")
    browser.evaluate("document.querySelector('#of-orders-details .of-numbers').scrollTop = 50")
    refreshed(browser)

    assert no_node_is_new(browser)
    assert browser.evaluate("document.activeElement.closest('details')?.id") == "of-orders-details"
    assert browser.evaluate("document.querySelector('#of-orders-details').open")
    assert browser.evaluate("document.querySelector('#of-orders-details .of-numbers').scrollTop") == 50
    assert browser.inner_text("#of-announced") == ""

    Heartbeat.objects.filter(role="beat").delete()
    browser.wait_for_selector("#of-part-beat >> text=never seen", timeout=SOON)
    assert "Beat: never seen" in browser.inner_text("#of-announced")
    assert no_node_is_new(browser)
    beat("beat")
    browser.wait_for_selector("#of-part-beat >> text=1 alive", timeout=SOON)
    assert browser.inner_text("#of-announced") == browser.inner_text("#of-summary")
    assert browser.evaluate("document.activeElement.closest('details')?.id") == "of-orders-details"
    assert browser.errors == []


def test_focus_stays_where_something_disappears(browser):
    browser.focus(".of-causes tbody tr:last-child a")
    browser.evaluate("document.activeElement.id = 'mine'")
    from outbox.models import DeadLetter

    DeadLetter.objects.update(resolution="discarded")
    browser.wait_for_selector("text=No dead letter is open.", timeout=SOON)
    refreshed(browser)

    assert browser.evaluate("document.activeElement !== document.body")
    browser.evaluate("document.activeElement.blur()")
    browser.wait_for_selector(".of-causes tbody tr", state="detached", timeout=SOON)


def test_a_reader_can_pause_and_a_hidden_tab_rests(browser):
    asked = []
    browser.on("request", lambda request: asked.append(request.url) if "overview/" in request.url else None)
    browser.click("#of-pause")
    assert browser.get_attribute("#of-pause", "aria-pressed") == "true"
    browser.wait_for_timeout(1)  # a request that was already sent ends
    paused_at = len(asked)
    browser.reload()
    assert browser.get_attribute("#of-pause", "aria-pressed") == "true"
    browser.wait_for_timeout(2500)
    assert len(asked) == paused_at

    browser.click("#of-pause")
    refreshed(browser)
    browser.evaluate(
        "() => { Object.defineProperty(document, 'hidden', {get: () => window.rests, configurable: true});"
        " window.rests = true; document.dispatchEvent(new Event('visibilitychange')); }"
    )
    browser.wait_for_timeout(300)
    rested_at = len(asked)
    browser.wait_for_timeout(2500)
    assert len(asked) == rested_at
    browser.evaluate("() => { window.rests = false; document.dispatchEvent(new Event('visibilitychange')); }")
    refreshed(browser)


def test_a_page_that_is_not_refreshed_any_more_says_so(browser):
    browser.route("**/admin/overview/", lambda route: route.fulfill(status=503))
    browser.wait_for_selector("#of-refreshed >> text=What is shown is old", timeout=SOON)
    assert browser.inner_text("#of-announced") == "The database does not answer. What is shown is old."
    assert "1 alive" in browser.inner_text("#of-part-beat")
    browser.unroute("**/admin/overview/")
    browser.wait_for_selector("#of-refreshed >> text=Refreshed every", timeout=SOON)
    assert browser.inner_text("#of-announced") == "The overview is refreshed again."

    Session.objects.all().delete()
    browser.wait_for_selector("#of-refreshed >> text=You are logged out", timeout=SOON)
    assert browser.is_hidden("#of-pause")
    assert browser.url == browser.url_of("/admin/")


def test_without_scripts_the_page_is_complete(browser):
    cookies = browser.context.cookies()
    context = browser.context.browser.new_context(java_script_enabled=False)
    context.add_cookies(cookies)
    plain = context.new_page()
    plain.goto(browser.url_of("/admin/"))

    assert plain.is_visible("#of-part-beat >> text=1 alive")
    assert plain.is_visible("#of-orders")
    assert plain.is_hidden("#of-pause")
    assert plain.locator(".of-plot > svg").count() == 4
    plain.click("#of-orders-details summary")
    assert plain.is_visible("#of-orders-details table")
    context.close()


def test_nothing_moves_for_readers_who_do_not_want_it(browser):
    browser.emulate_media(reduced_motion="reduce")
    moving = browser.evaluate(
        "[...document.querySelectorAll('#of-overview, #of-overview *:not(svg *)')].filter(each => {"
        " const style = getComputedStyle(each);"
        " return style.animationName !== 'none' || parseFloat(style.transitionDuration) > 0; }).length"
    )
    assert moving == 0
