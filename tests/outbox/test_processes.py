"""Which processes are alive and which are gone, by their heartbeats."""

from __future__ import annotations

import datetime as dt
import uuid

import pytest
from django.db.models.functions import Now

from outbox import processes, status
from outbox.models import Heartbeat
from outbox.retention import pruning

pytestmark = pytest.mark.django_db


def seen(name, ago, *, started=1000, ended=False, pool="orders", role="worker", queues=("orders",)):
    """A process that was started, and last seen, so many seconds ago."""
    seconds = lambda number: Now() - dt.timedelta(seconds=number)  # noqa: E731
    return Heartbeat.objects.create(
        name=name,
        role=role,
        pool=pool,
        queues=list(queues),
        process=uuid.uuid4(),
        started_at=seconds(started),
        seen_at=seconds(ago),
        ended_at=seconds(ago) if ended else None,
    )


def standing(pool="orders"):
    return next(one for one in processes.standings() if one.pool == pool)


def test_processes_are_counted_by_role_and_pool():
    seen("orders@one", 3)
    seen("orders@two", 8)
    seen("relay@one", 1, role="relay", pool="relay", queues=["relay"])
    seen("beat@one", 2, role="beat", pool="beat", queues=[])

    assert [(one.role, one.pool, one.alive, one.gone) for one in processes.standings()] == [
        ("beat", "beat", 1, 0),
        ("relay", "relay", 1, 0),
        ("worker", "orders", 2, 0),
    ]
    assert standing().oldest_seen_seconds == pytest.approx(8, abs=1)
    assert processes.queues_with_consumers() == {"orders": 2, "relay": 1}


def test_a_process_that_is_no_longer_seen_is_gone_and_its_age_grows():
    seen("orders@one", 3)
    seen("orders@two", 200)

    assert (standing().alive, standing().gone) == (1, 1)
    assert standing().oldest_seen_seconds == pytest.approx(200, abs=1)
    assert "1 gone" in str(standing())
    assert processes.queues_with_consumers() == {"orders": 1}


def test_a_process_that_ended_in_order_is_not_missed():
    seen("orders@one", 200, ended=True)

    assert (standing().alive, standing().gone, standing().oldest_seen_seconds) == (0, 0, None)
    assert standing().queues == ()
    assert processes.queues_with_consumers() == {}


def test_a_lost_process_is_not_gone_once_a_later_one_has_taken_its_place():
    seen("orders@lost", 200)
    seen("orders@new", 2, started=150)

    assert (standing().alive, standing().gone) == (1, 0)
    assert standing().oldest_seen_seconds == pytest.approx(2, abs=1)


def test_one_process_takes_the_place_of_one():
    seen("orders@lost-first", 300)
    seen("orders@lost-second", 200)
    seen("orders@new", 2, started=150)

    assert (standing().alive, standing().gone) == (1, 1)


def test_a_process_that_was_already_there_takes_nobodys_place():
    seen("orders@lost", 200)
    seen("orders@other", 2, started=250)
    seen("email@new", 2, started=100, pool="email")

    assert (standing().alive, standing().gone) == (1, 1)


def test_a_successor_that_is_lost_as_well_is_gone_and_its_predecessor_is_not():
    seen("orders@first", 300)
    seen("orders@second", 100, started=250)

    assert (standing().alive, standing().gone) == (0, 1)
    assert standing().oldest_seen_seconds == pytest.approx(100, abs=1)


def test_a_successor_that_ended_in_order_has_ended_both():
    seen("orders@first", 300)
    seen("orders@second", 100, started=250, ended=True)

    assert (standing().alive, standing().gone) == (0, 0)


def test_heartbeats_are_read_in_one_query_and_shown_in_the_status(django_assert_num_queries):
    seen("orders@one", 3)
    with django_assert_num_queries(1):
        processes.standings()

    [shown] = status.read()["processes"]
    assert (shown["pool"], shown["alive"], shown["queues"]) == ("orders", 1, ["orders"])


def test_processes_that_were_not_seen_for_a_day_are_forgotten():
    seen("orders@old", 90_000, started=100_000)
    seen("orders@ended", 90_000, started=100_000, ended=True)
    seen("orders@yesterday", 80_000, started=100_000)

    assert pruning.prune()["heartbeats"] == 2
    assert [each.name for each in Heartbeat.objects.all()] == ["orders@yesterday"]
