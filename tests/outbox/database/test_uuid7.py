"""Ids and the times they contain."""

from __future__ import annotations

import datetime as dt

from django.db import connection
from hypothesis import given
from hypothesis import strategies as st

from outbox.database import uuid7

MOMENTS = st.datetimes(dt.datetime(1971, 1, 1), dt.datetime(2200, 1, 1), timezones=st.just(dt.UTC))


@given(MOMENTS)
def test_the_lowest_id_of_a_moment_contains_its_millisecond(moment):
    found = uuid7.moment_of(uuid7.first_at(moment))

    assert dt.timedelta(0) <= moment - found < uuid7.MILLISECOND


def test_an_id_contains_its_creation_time(db):
    before = dt.datetime.now(dt.UTC)
    made = uuid7.new()

    assert made.version == 7
    assert abs(uuid7.moment_of(made) - before) < dt.timedelta(seconds=5)
    assert uuid7.first_at(uuid7.moment_of(made)) <= made


def test_the_database_reads_the_same_time(db):
    made = uuid7.new()
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {uuid7.moment_in_sql('%s')}", [str(made)])
        [found] = cursor.fetchone()

    assert found == uuid7.moment_of(made)
