"""The plots show what the buckets and the newest rows contain, and what nobody measured as not known."""

from __future__ import annotations

import datetime as dt
import math

from orderflow.ops.overview import history
from orders.models import OrderTransition
from outbox.database import clock
from outbox.statistics.catalogue import BOUNDS
from tests.admin.conftest import bury
from tests.admin.overview.conftest import bucket
from tests.admin.test_browser import WAY, walk
from tests.factories import place

EVERYTHING = {"orders": True, "oldest_due": True, "dead_letters": True}


def plots(**wanted) -> dict:
    return {plot.slug: plot for plot in history.read(clock.now(), **(wanted or EVERYTHING))}


def histogram(**places: int) -> list[int]:
    found = [0] * (len(BOUNDS) + 1)
    for place_, number in places.items():
        found[int(place_[1:])] = number
    return found


def values(plot, name: str) -> list:
    [line] = [line for line in plot.lines if line.name == name]
    return list(line.values)


def test_an_empty_database_has_plots_without_orders(db):
    found = plots()

    assert set(found) == {"orders", "durations", "longest-due", "dead-letters"}
    assert values(found["orders"], "fulfilled") == [0] * 48
    assert all(math.isnan(value) for value in values(found["durations"], "median (p50)"))
    assert values(found["longest-due"], "longest wait") == [None] * 48
    assert not found["longest-due"].is_known
    assert found["longest-due"].summary == "Nothing has been measured."
    assert found["durations"].summary == "No order became final."
    assert found["orders"].starts[-1] <= clock.now() < found["orders"].starts[-1] + history.STEP


def test_only_what_is_wanted_is_read(db, django_assert_num_queries):
    assert set(plots(orders=True, oldest_due=False, dead_letters=False)) == {"orders", "durations"}
    now = clock.now()
    with django_assert_num_queries(0):
        assert history.read(now, orders=False, oldest_due=False, dead_letters=False) == []


def test_buckets_are_added_by_outcome_and_half_hour(db):
    for ago, count in ((120, 5), (600, 7)):
        bucket("orders.finished", "fulfilled", ago=ago, count=count, maximum=3.0, histogram=histogram(p6=count))
    bucket("orders.finished", "rejected", ago=120, count=2, maximum=20.0, histogram=histogram(p8=2))
    bucket("orders.finished", "fulfilled", ago=1600, count=99)
    found = plots()

    assert sorted(set(values(found["orders"], "fulfilled"))) == [0, 5, 7]
    assert sum(values(found["orders"], "rejected")) == 2
    assert found["orders"].summary == "12 fulfilled, 2 rejected, 0 cancelled."
    [at] = [place_ for place_, value in enumerate(values(found["orders"], "rejected")) if value]
    slow = values(found["durations"], "95th percentile (p95)")
    assert 10 < slow[at] <= 20
    assert 2.5 <= values(found["durations"], "median (p50)")[at] <= 5


def test_orders_that_nobody_has_counted_yet_are_shown(db):
    order = place()
    walk(order, WAY)
    OrderTransition.objects.create(order=order, from_status="charged", to_status="fulfilled")

    assert values(plots()["orders"], "fulfilled")[-1] == 1


def test_a_stretch_without_samples_is_not_known(db):
    for ago in (0, 1, 2, 200, 201):
        bucket("messages.oldest_due", ago=ago, maximum=float(ago))
    found = plots()["longest-due"]

    known = [value for value in found.lines[0].values if value is not None]
    assert max(known) == 201
    assert len(known) <= 4
    assert found.unknown
    assert "201" not in found.summary
    assert found.summary == "No message that was due waited longer than 3 min."


def test_dead_letters_are_counted_when_they_are_buried_and_when_they_are_resolved(db):
    dead_letter = bury(place())
    bury(place())
    dead_letter.resolution, dead_letter.resolved_at = "discarded", clock.now() + dt.timedelta(seconds=0)
    dead_letter.save()
    found = plots()["dead-letters"]

    assert found.summary == "2 buried, 1 resolved."
