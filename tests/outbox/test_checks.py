"""System checks report what is missing in a project's settings, and how to correct it."""

from __future__ import annotations

import pytest
from celery import Celery

from outbox import checks, schedule


@pytest.fixture
def app():
    app = Celery("somebody's", set_as_current=False)
    app.conf.update(
        task_acks_late=True, task_reject_on_worker_lost=True, worker_consumer=checks.CONSUMER,
        beat_schedule=schedule.beat(queue="celery", jobs="celery"),
    )  # fmt: skip
    return app


def test_the_documented_settings_pass_the_checks(app):
    assert not list(checks.traps(app))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"task_acks_late": False}, "task_acks_late"),
        ({"task_reject_on_worker_lost": False}, "task_reject_on_worker_lost"),
        ({"worker_consumer": "celery.worker:Consumer"}, "worker_consumer"),
        ({"beat_schedule": {}}, "outbox.tasks.drain"),
    ],
)
def test_a_system_check_reports_each_open_trap(app, change, named):
    app.conf.update(change)

    [warning] = checks.traps(app)
    assert named in f"{warning.msg} {warning.hint}"
    assert warning.hint


def test_another_database_is_an_error(settings):
    settings.DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3"}}

    [error] = checks.check_database()
    assert (error.id, "sqlite3" in error.hint) == ("outbox.E001", True)
