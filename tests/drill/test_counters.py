"""Whether a drill notices a counter that differs from its rows; each test breaks one thing."""

from __future__ import annotations

import pytest
from django.db.models import F

from orderflow.chaos.assessment import counters
from outbox.models import StatisticsCursor, StatisticsTotal
from outbox.statistics import rolling_up
from tests.factories import ProductFactory, place

pytestmark = pytest.mark.django_db


@pytest.fixture
def orders(world, drain):
    """An order of each end, whose work is done and partly counted."""
    ends = [place(), place(payment_method="pm_card_visa_chargeDeclined"), place(ProductFactory(sku="NOSHIP-1"))]
    drain()
    return ends


def wrong():
    return [finding.subject for finding in counters.compare()]


def test_counters_equal_the_rows(orders):
    assert counters._rows()["orders.finished"] == {("fulfilled",): 1, ("rejected",): 1, ("cancelled",): 1}
    assert wrong() == []


def test_without_rows_nothing_is_counted():
    assert wrong() == []


@pytest.mark.parametrize("name", ["orders.placed", "orders.finished", "notifications.ended"])
def test_rows_that_are_not_counted_are_noticed(orders, name):
    StatisticsCursor.objects.update_or_create(series=name, defaults={"counted_until": 10**9})
    assert wrong() == [name]


def test_rows_that_are_counted_twice_are_noticed(orders):
    rolling_up.roll_up()
    StatisticsTotal.objects.update_or_create(series="orders.placed", labels=[], defaults={"count": 1})
    StatisticsTotal.objects.filter(series="orders.placed").update(count=F("count") + 3)
    assert wrong() == ["orders.placed"]
