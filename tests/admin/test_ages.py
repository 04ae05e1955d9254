"""Ages and remaining times are computed by the database, because the process's clock may be wrong."""

from __future__ import annotations

import datetime as dt

import pytest
from django.urls import reverse
from django.utils import timesince, timezone

from orderflow.ops import order_story
from outbox.database import clock
from outbox.models import OutboxMessage
from tests.admin.conftest import bury
from tests.factories import place

RIGHT = dt.datetime


@pytest.fixture(params=[-3, 3], ids=["three days slow", "three days fast"])
def skew(request, monkeypatch):
    """Make this process's clock wrong wherever a page reads it."""
    wrong = dt.timedelta(days=request.param)

    class Clock(dt.datetime):
        @classmethod
        def now(cls, tz=None):
            return RIGHT.now(tz) + wrong

    monkeypatch.setattr(timezone, "now", lambda: Clock.now(dt.UTC))
    monkeypatch.setattr(timesince, "datetime", type("datetime", (), {"datetime": Clock, "UTC": dt.UTC}))


def test_lists_show_ages_by_the_clock_of_the_database(signed_in, skew):
    bury(place())

    for name in ("outbox_deadletter", "outbox_outboxmessage"):
        page = signed_in("root").get(reverse(f"admin:{name}_changelist"))
        assert ">0\xa0minutes</time>" in page.text, name
    assert (
        "late"
        not in signed_in("root").get(reverse("admin:orders_order_changelist")).text.partition("<tbody>")[2]
    )


def test_a_history_shows_remaining_times_by_the_clock_of_the_database(db, skew):
    order = place()
    order.due_at = clock.now() + dt.timedelta(seconds=90)

    assert order_story._moment(order.due_at).endswith(("in 90 s", "in 89 s"))
    order.lease_until = clock.now() + dt.timedelta(seconds=5)
    OutboxMessage.objects.update(status="published", published_at=clock.now())
    assert order_story.outlook(order).startswith("A step is running")
