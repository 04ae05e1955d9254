"""The first page takes at most 150 ms with a million rows in every table that it reads."""

from __future__ import annotations

import time

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from orderflow.ops.overview import patience
from outbox.models import StatisticsBucket, StatisticsCursor
from tests.admin.overview.conftest import INDEX, execute, healthy, part

FRESH, WAIT = patience.FRESH, patience.WAIT  # as in production, where not every page asks the broker

LIMIT = 0.150
"""Seconds, of a process that has shown the page before."""

MOST_TRIES = 30
"""Other tests share the machine, so the quickest counts."""

ID = "('00000000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid"
AT = "now() - n * interval '1 day' / %(rows)s"
TABLES = {
    "outbox_outboxmessage": f"""
        (id, event_name, event_version, key, payload, correlation_id, causation_id, trace, created_at, status,
         workflows, redeliveries, attempts, last_error, published_at, not_before)
        SELECT {ID}, 'orders.order_placed', 1, {ID}::text, '{{}}', '', '', '{{}}', {AT},
          CASE WHEN n %% 10 = 0 THEN 'pending' ELSE 'published' END, '{{}}', 0, 0, '', {AT}, {AT}
        FROM generate_series(1, %(rows)s) AS n""",
    "outbox_deadletter": f"""
        (source, consumer, message_id, workflow, event_name, key, task_id, error_class, error, traceback,
         fingerprint, payload, headers, attempts, worker, buried_at, digest, resolution, resolved_by, reason)
        SELECT 'task', 'consumer.' || n %% 9, {ID}, '', '', {ID}::text, '', 'Error' || n %% 70, repeat('x', 80),
          '', 'f' || n %% 3000, '{{}}', '{{}}', 1, 'w', {AT}, 'd' || n,
          CASE WHEN n %% 2 = 0 THEN 'open' ELSE 'discarded' END, '', ''
        FROM generate_series(1, %(rows)s) AS n""",
    "outbox_verification": f"""
        (ran_at, took, providers, passed, by, findings)
        SELECT {AT}, interval '1 second', FALSE, TRUE, 'beat', '[]'
        FROM generate_series(1, %(rows)s / 10) AS n""",
    # Every minute of two days, of the series that are read, and of others until there are enough rows.
    StatisticsBucket._meta.db_table: """
        (series, labels, minute, count, seconds, maximum, histogram)
        SELECT known.series, ARRAY[known.label], date_trunc('minute', now()) - n * interval '1 minute', 5, 3, 2,
            known.histogram
        FROM generate_series(0, 2879) AS n, (
            SELECT 'orders.finished', outcome, '{0,0,1,1,1,1,0,0,0,0,0,0,0,0,0,1}'::bigint[]
                FROM unnest('{fulfilled,rejected,cancelled}'::text[]) AS outcome
            UNION ALL SELECT 'dead_letters.buried', 'consumer.' || m, '{}' FROM generate_series(1, 5) AS m
            UNION ALL SELECT 'dead_letters.resolved', 'resolution.' || m, '{}' FROM generate_series(1, 3) AS m
            UNION ALL SELECT 'attempts.failed', 'consumer.' || m, '{}'
                FROM generate_series(1, %(rows)s / 2880 - 11) AS m
        ) AS known (series, label, histogram)
        UNION ALL SELECT 'messages.oldest_due', '{}', date_trunc('minute', now()) - n * interval '1 minute',
            1, 1, n %% 60, '{}' FROM generate_series(0, 2879) AS n""",
}


@pytest.fixture
def many_rows(db, request) -> int:
    rows: int = request.param
    execute("SET LOCAL statement_timeout = 0")  # of this transaction; the page's statements take milliseconds
    for table, seed in TABLES.items():
        execute(f"TRUNCATE {table} CASCADE")
        execute(f"ALTER TABLE {table} DISABLE TRIGGER USER")
        execute(f"INSERT INTO {table} {seed}", {"rows": rows})
        execute(f"ALTER TABLE {table} ENABLE TRIGGER USER")
        execute(f"ANALYZE {table}")
    # All of it is rolled up, as it is a minute after it was written.
    newest = "SELECT coalesce(max(id), 0) FROM outbox_deadletter"
    for series in ("dead_letters.buried", "dead_letters.resolved"):
        StatisticsCursor.objects.update_or_create(series=series)
        execute(
            f"UPDATE {StatisticsCursor._meta.db_table} SET counted_until = ({newest}) WHERE series = %s",
            [series],
        )
    healthy()
    return rows


@pytest.mark.parametrize(
    "many_rows",
    [
        pytest.param(100_000, marks=pytest.mark.slow),
        pytest.param(1_000_000, marks=pytest.mark.nightly),
    ],
    indirect=True,
)
@pytest.mark.timeout(600)
def test_the_page_is_as_quick_as_with_few_rows(signed_in, many_rows, monkeypatch):
    monkeypatch.setattr(patience, "FRESH", FRESH)
    monkeypatch.setattr(patience, "WAIT", WAIT)
    client, took = signed_in("on-call"), []
    client.get(reverse(INDEX))
    while len(took) < MOST_TRIES and min(took, default=LIMIT) >= LIMIT:
        with CaptureQueriesContext(connection) as queries:
            began = time.perf_counter()
            page = client.get(reverse(INDEX))
            took.append(time.perf_counter() - began)
    page.shown = page.context["overview"]

    assert len(queries) <= 12
    assert part(page, "oldest-due").state == "bad"
    assert len(page.shown.causes.causes) == 5
    assert [plot.summary for plot in page.shown.plots if plot.slug == "dead-letters"] != [
        "0 buried, 0 resolved."
    ]
    slowest = sorted(queries, key=lambda query: -float(query["time"]))[:3]
    assert min(took) < LIMIT, (took, [(query["time"], query["sql"][:200]) for query in slowest])
