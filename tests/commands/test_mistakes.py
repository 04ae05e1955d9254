"""Mistyped commands and unreachable servers end in a message, never in a traceback."""

from __future__ import annotations

import pytest

from orders.models import Order
from tests.factories import ProductFactory


@pytest.mark.parametrize(
    "arguments",
    [
        ["--email", "nonsense"],
        ["--email", "x" * 300 + "@example.com"],
        ["--phone", "1" * 50],
        ["--key", "k" * 300],
        ["--quantity", "99999999999"],
        ["--card", "pm_" + "x" * 200],
        ["--name", "a\x00b"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_an_order_that_cannot_be_stored_is_refused_in_a_line(run, arguments):
    answer = run("place_order", "--sku", ProductFactory().sku, *arguments)

    assert answer.code == 1
    assert "\n" not in answer.error
    assert not Order.objects.exists()


def test_waiting_for_an_unprocessed_order_has_its_own_exit_code(run):
    answer = run("place_order", "--sku", ProductFactory().sku, "--wait", "0.1")

    assert (answer.code, "is placed after 0.1 s" in answer.error) == (3, True)
    assert Order.objects.get().number == answer.out.strip()


@pytest.mark.parametrize("since", ["99999999999999d", "2010-13-45", "soon"])
def test_an_invalid_time_is_refused(run, since):
    assert "use 30m" in run("replay_failures", "--since", since, "--reason", "x").error


def test_the_demo_without_a_broker_reports_that(run, world, no_broker):
    assert "the broker does not answer" in run("demo", orders=4, timeout=1).error
