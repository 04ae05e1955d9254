"""Rows that the overview reads: heartbeats, finished periodic tasks, buckets of the last day."""

from __future__ import annotations

import uuid

import pytest
from django.db import connection
from django.urls import reverse

import celeryconfig
from outbox import periodic
from outbox.models import Heartbeat, PeriodicRun, StatisticsBucket

INDEX = "admin:index"


def execute(statement: str, values=None) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement, values)


def beat(role: str, *queues: str, name: str = "", ago: float = 1, ended: bool = False) -> None:
    """A process that was seen so many seconds ago."""
    name = name or f"{role}-{'-'.join(queues)}@host"
    Heartbeat.objects.update_or_create(
        name=name,
        defaults={
            "role": role,
            "pool": queues[0] if queues else role,
            "queues": list(queues),
            "process": uuid.uuid4(),
            "started_at": "2026-01-01T00:00Z",
            "seen_at": "2026-01-01T00:00Z",
        },
    )
    execute(
        "UPDATE outbox_heartbeat SET started_at = statement_timestamp() - interval '1 day',"
        " seen_at = statement_timestamp() - make_interval(secs => %s),"
        " ended_at = CASE WHEN %s THEN statement_timestamp() END WHERE name = %s",
        [ago, ended, name],
    )


def done(name: str, *, ago: float = 1, error: str = "") -> None:
    """A periodic task that was last done so many seconds ago."""
    execute(
        "INSERT INTO outbox_periodicrun (name, first_began_at, last_began_at, last_ended_at, last_error)"
        " VALUES (%s, now() - interval '2 days', now(), now() - make_interval(secs => %s), %s)"
        " ON CONFLICT (name) DO UPDATE"
        " SET last_ended_at = excluded.last_ended_at, last_error = excluded.last_error",
        [name, ago, error],
    )


def healthy() -> None:
    """Every process runs, and every periodic task was done a second ago."""
    beat("beat")
    beat("relay", "relay")
    for queue in celeryconfig.QUEUES:
        if queue != "relay":
            beat("worker", queue)
    PeriodicRun.objects.all().delete()
    for task in periodic.tasks():
        done(task.name)


def bucket(series: str, *labels: str, ago: int, count: int = 1, maximum: float = 0, histogram=()) -> None:
    """A minute of a series, so many minutes ago."""
    execute(
        f"INSERT INTO {StatisticsBucket._meta.db_table}"
        " (series, labels, minute, count, seconds, maximum, histogram) VALUES"
        " (%s, %s, date_trunc('minute', now()) - make_interval(mins => %s), %s, %s, %s, %s)",
        [series, list(labels), ago, count, maximum, maximum, list(histogram)],
    )


@pytest.fixture
def overview(signed_in):
    """Opens the first page as a user, and returns it with `shown`, what the overview on it says."""

    def open_as(name: str = "root"):
        page = signed_in(name).get(reverse(INDEX))
        assert page.status_code == 200
        page.shown = page.context["overview"]
        return page

    return open_as


def part(page, slug: str):
    """A part of the status strip."""
    [found] = [part for group in page.shown.groups for part in group.parts if part.slug == slug]
    return found
