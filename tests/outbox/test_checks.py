"""System checks report what is missing in a project's settings, and how to correct it."""

from __future__ import annotations

import types

import pytest
from celery import Celery, concurrency
from celery.app.control import Control
from kombu import Queue, compression
from kombu.transport import TRANSPORT_ALIASES

import outbox
from outbox import checks
from outbox.consumer import ConsumerTask

STOCK_POOL = "celery.concurrency.thread:TaskPool"
REDIS, RABBITMQ = "redis://somewhere", "amqp://somewhere"


def work(**_):
    """A consumer of these tests."""


def make(url, **settings):
    app = Celery("somebody's", broker=url, set_as_current=False)
    outbox.install(app)
    assert app.conf.worker_consumer  # which reads all settings: what is set later replaces them
    app.conf.update(settings)
    return app


@pytest.mark.parametrize("url", [REDIS, "rediss://somewhere", RABBITMQ, "amqps://a;amqps://b", "memory://"])
def test_an_application_with_the_outbox_installed_is_not_complained_about(url):
    assert not list(checks.traps(make(url)))


@pytest.mark.parametrize(
    ("url", "change", "number", "named"),
    [
        (REDIS, {"worker_consumer": "celery.worker.consumer:Consumer"}, 2, "worker_consumer"),
        (REDIS, {"beat_schedule": {}}, 3, "outbox.tasks.drain"),
        (REDIS, {"beat_scheduler": checks.STOCK_SCHEDULER}, 7, "beat_scheduler"),
        (REDIS, {"broker_transport_options": {"visibility_timeout": 60}}, 8, "socket_timeout"),
        (RABBITMQ, {"broker_transport_options": {"read_timeout": 9, "write_timeout": 9}}, 8, "confirm_publish"),
    ],
)
def test_a_trap_that_a_setting_opens_is_named(url, change, number, named):
    [warning] = checks.traps(make(url, **change))

    assert (warning.id, named in f"{warning.msg} {warning.hint}") == (f"outbox.W{number:03}", True)
    assert "outbox.install(app)" in warning.hint


@pytest.mark.parametrize(("url", "scheme"), [(REDIS, "redis"), (RABBITMQ, "amqp")])
def test_a_transport_that_is_not_guarded_is_named(monkeypatch, url, scheme):
    app = make(url)
    monkeypatch.setitem(TRANSPORT_ALIASES, scheme, "kombu.transport.redis:Transport")

    [warning] = checks.traps(app)
    assert (warning.id, checks.UNGUARDED_TRANSPORT[scheme] in warning.msg) == ("outbox.W004", True)


def test_bodies_without_a_limit_and_unchecked_commands_are_named(monkeypatch):
    app = make(REDIS)
    app.control_cls = f"{Control.__module__}:{Control.__qualname__}"
    monkeypatch.setitem(compression._decoders, "application/x-gzip", bytes)

    assert [warning.id for warning in checks.traps(app)] == ["outbox.W005", "outbox.W006"]


def test_a_pool_of_threads_that_drops_time_limits_is_named(monkeypatch):
    app = make(REDIS)
    monkeypatch.setitem(concurrency.ALIASES, "threads", STOCK_POOL)

    [warning] = checks.traps(app)
    assert (warning.id, "time limits" in warning.msg) == ("outbox.W009", True)


def test_an_application_without_the_line_is_told_every_trap(monkeypatch):
    monkeypatch.setitem(TRANSPORT_ALIASES, "redis", "kombu.transport.redis:Transport")
    monkeypatch.setitem(compression._decoders, "application/x-gzip", bytes)
    monkeypatch.setitem(concurrency.ALIASES, "threads", STOCK_POOL)
    app = Celery("somebody's", broker=REDIS, set_as_current=False)

    assert sorted(warning.id[-1] for warning in checks.traps(app)) == list("23456789")


def test_another_database_is_an_error(settings):
    settings.DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3"}}

    [error] = checks.check_database()
    assert (error.id, "sqlite3" in error.hint) == ("outbox.E001", True)


def test_a_consumer_whose_route_has_no_queue_is_an_error():
    app = make(REDIS, task_queues=[Queue("jobs")], task_create_missing_queues=False)
    app.conf.task_routes = {"shop.bill": {"queue": "mistyped"}, "*": {"queue": "jobs"}}
    for name in ("shop.bill", "shop.ship"):
        app.task(work, name=name, base=ConsumerTask)

    [error] = checks.lost_routes(app)
    assert (error.id, "shop.bill" in error.msg, "mistyped" in error.msg) == ("outbox.E002", True, True)


def test_a_pool_for_all_sessions_is_named(monkeypatch):
    database = {"ENGINE": "django.db.backends.postgresql", "OPTIONS": {"pool": True}}
    monkeypatch.setattr(checks, "django_settings", types.SimpleNamespace(DATABASES={"default": database}))

    [warning] = checks.check_sessions()
    assert (warning.id, "OUTBOX_SESSION_POOL_SIZE" in warning.hint) == ("outbox.W010", True)


def test_threads_that_cannot_share_sessions_are_named(monkeypatch):
    monkeypatch.setattr(checks.sessions, "is_installed", lambda: False)
    assert not list(checks.check_sessions())
    conf = types.SimpleNamespace(worker_pool="threads")
    monkeypatch.setattr(checks, "current_app", types.SimpleNamespace(conf=conf))

    assert [warning.id for warning in checks.check_sessions()] == ["outbox.W011"]
