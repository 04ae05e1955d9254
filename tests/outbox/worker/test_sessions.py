"""Database sessions that are kept between tasks: used without a check, replaced when they are broken."""

from __future__ import annotations

import contextlib

import psycopg
import pytest
from celery import current_app
from django.db import connection

from outbox.worker import sessions
from tests.processes import eventually

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def task():
    return current_app.tasks["orders.tasks.validate"]


def use():
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        return cursor.fetchone()[0]


def test_a_kept_session_is_used_without_a_query_to_check_it(task):
    before = use()
    is_usable = connection.is_usable
    asked = []
    connection.is_usable = lambda: asked.append(True) or is_usable()
    try:
        sessions.check(task=task)
        assert (use(), asked) == (before, [])
    finally:
        del connection.is_usable


def test_a_session_that_the_server_ended_is_replaced(task):
    before = use()
    with contextlib.closing(connection.copy()) as elsewhere, elsewhere.cursor() as operator:
        operator.execute("SELECT pg_terminate_backend(%s)", [before])
        eventually(lambda: not is_there(operator, before), "the end of the session")
    sessions.check(task=task)

    assert use() != before


def is_there(cursor, pid):
    cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE pid = %s", [pid])
    return cursor.fetchone()[0]


def test_a_session_with_other_pending_data_is_kept(task):
    before = use()
    with connection.cursor() as cursor:
        cursor.execute("LISTEN something")
    with psycopg.connect(**parameters(), autocommit=True) as elsewhere:
        elsewhere.execute("NOTIFY something")
    sessions.check(task=task)

    assert use() == before


def parameters():
    known = connection.get_connection_params()
    return {name: value for name, value in known.items() if name not in ("cursor_factory", "context")}
