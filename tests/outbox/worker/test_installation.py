"""`outbox.install` guards an application, and leaves alone what the project has set and what its tasks are."""

from __future__ import annotations

import gc
import types

import pytest
from celery import Celery, concurrency, signals
from celery.app.control import Control as StockControl

import outbox
from outbox import schedule
from outbox.worker import beat, consumer, control, installation, threads

OWN_ENTRY = {"task": "theirs.tick", "schedule": 60.0}


@pytest.fixture
def app():
    app = Celery("somebody's", broker="redis://somewhere", set_as_current=False)
    outbox.install(app)
    return app


def test_worker_beat_and_remote_control_are_guarded(app):
    assert app.conf.worker_consumer == f"{consumer.__name__}:{consumer.GuardedConsumer.__name__}"
    assert app.conf.beat_scheduler == f"{beat.__name__}:{beat.Scheduler.__name__}"
    assert issubclass(app.Beat, beat.Program)
    assert app.Beat.app is app
    assert isinstance(app.control, control.Control)
    assert isinstance(app.clock, control.BoundedClock)
    assert concurrency.get_implementation("threads") is threads.TaskPool


def test_what_a_worker_has_loaded_is_not_searched_for_garbage_again(app):
    assert gc.get_freeze_count() == 0
    installation.freeze()
    try:
        assert gc.get_freeze_count() > 10_000
    finally:
        gc.unfreeze()
    connected = {receiver() for _, receiver in signals.worker_ready.receivers}
    assert installation.freeze in connected


def test_the_schedule_is_completed_with_the_queues_of_the_settings(app, settings):
    settings.OUTBOX_RELAY_QUEUE, settings.OUTBOX_JOBS_QUEUE = "ticks", ""
    app.conf.beat_schedule = {"their tick": OWN_ENTRY}
    app.conf.task_default_queue = "usual"

    entries = app.conf.beat_schedule
    assert entries["their tick"] == OWN_ENTRY
    assert {entry["options"]["queue"] for name, entry in entries.items() if name != "their tick"} == {
        "ticks",
        "usual",
    }
    assert entries.keys() == schedule.beat().keys() | {"their tick"}


def test_an_entry_that_the_project_has_under_the_same_name_stays(app):
    app.conf.beat_schedule = {"prune the outbox": OWN_ENTRY}

    assert app.conf.beat_schedule["prune the outbox"] == OWN_ENTRY


@pytest.mark.parametrize("early", [True, False])
def test_what_the_project_has_set_wins_whenever_it_is_read(early):
    app = Celery("somebody's", broker="redis://somewhere", set_as_current=False)
    theirs = {
        "CELERY_WORKER_CONSUMER": "celery.worker.consumer:Consumer",
        "CELERY_BROKER_TRANSPORT_OPTIONS": {"socket_timeout": 99, "visibility_timeout": 7200},
    }
    app.config_from_object(types.SimpleNamespace(**theirs), namespace="CELERY")
    if early:
        assert app.conf.broker_transport_options["socket_timeout"] == 99  # configured before it is installed
    outbox.install(app)

    assert app.conf.worker_consumer == theirs["CELERY_WORKER_CONSUMER"]
    assert app.conf.beat_scheduler == installation.DEFAULTS["beat_scheduler"]
    expected = {**installation.TRANSPORT_OPTIONS["redis"], **theirs["CELERY_BROKER_TRANSPORT_OPTIONS"]}
    assert app.conf.broker_transport_options == expected


def test_a_remote_control_of_the_project_stays():
    class TheirControl(StockControl):
        pass

    app = Celery("somebody's", control=TheirControl, set_as_current=False)
    outbox.install(app)

    assert type(app.control) is TheirControl


def somebodys():
    """A task of the project."""


def test_tasks_of_the_project_run_as_before(app):
    stock = Celery("stock", set_as_current=False)
    theirs, before = (each.task(somebodys, name="theirs.task", shared=False) for each in (app, stock))

    for option in ("acks_late", "reject_on_worker_lost", "ignore_result", "time_limit", "Request"):
        assert getattr(theirs, option) == getattr(before, option), option


def test_installing_twice_is_installing_once(app):
    outbox.install(app)

    assert app.conf.beat_schedule.keys() == schedule.beat().keys()
    assert not installation.missing_options(app)
