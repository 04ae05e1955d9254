"""Hooks of tasks run in the threads of a pool, in its child processes, or in the worker's main loop."""

from __future__ import annotations

import uuid

import pytest
from django.db import connection

from tests.chaos import tasks
from tests.threads import switches

pytestmark = pytest.mark.django_db(transaction=True)


def fail(monkeypatch):
    monkeypatch.setattr(tasks.finish, "_end_or_wait", lambda *_: connection.ensure_connection(), raising=False)
    tasks.finish.on_failure(ValueError("no"), "an id", [], {"message_id": str(uuid.uuid4())}, None)


def test_a_failure_in_a_thread_keeps_its_session(monkeypatch):
    kept = []

    def work():
        fail(monkeypatch)
        kept.append(connection.connection is not None)
        connection.close()

    switches.run(work)

    assert kept == [True]


def test_a_failure_in_the_main_loop_leaves_no_session_that_children_would_inherit(monkeypatch):
    fail(monkeypatch)

    assert connection.connection is None
