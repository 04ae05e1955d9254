"""`outbox_status` and `/healthz` in a new process, after the part that they report on was broken."""

from __future__ import annotations

import datetime as dt
import html
import json
import subprocess
import sys

import pytest
from celery import current_app
from django.conf import settings
from django.contrib.auth.models import User
from django.core import checks
from django.db import connection
from django.db.models import Value
from django.db.models.functions import Now
from django.urls import reverse

from orderflow.shared_state import breakers
from outbox import periodic, testing
from outbox.consumer import ConsumerTask
from outbox.database import clock
from outbox.models import Delivery, Verification
from outbox.retention import pruning
from outbox.verification import examination, restores
from tests.factories import place
from tests.processes import ROOT, environment, eventually
from tests.slow import but_first

SHARED = pytest.mark.skipif(
    not settings.REDIS_URL,
    reason="processes share breakers by REDIS_URL: name a server there, or use run.py test",
)


def in_a_fresh_process():
    """Return the output of the command."""
    answer = subprocess.run(
        [sys.executable, "manage.py", "outbox_status", "--format", "json"],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return json.loads(answer.stdout)


@pytest.fixture
def healthz(client, transactional_db):
    client.force_login(User.objects.create_user("operator", is_staff=True))
    return lambda: client.get("/healthz").json()["components"]


@pytest.mark.slow
@SHARED
def test_an_open_breaker_is_reported_by_a_process_that_made_no_call(drain, world, run, healthz):
    for _ in range(4):
        place()
    with world.payments.failing(fault="error", status=503):
        drain()
    eventually(lambda: breakers.shared_breaker("payments").circuit().state == "open", "the shared state")

    states = in_a_fresh_process()["breakers"]
    assert states["payments"]["state"] in ("open", "half-open")  # depending on how long the process took
    assert states["payments"]["waiting"] == 4
    assert 0 < states["payments"]["open_seconds"] < 300
    assert 0 <= states["payments"]["next_probe_seconds"] <= breakers.CONFIG.wait_duration_in_open
    assert states["warehouse"] == {"state": "closed"}
    assert healthz()["breakers"]["payments"]["waiting"] == 4
    breakers._made.clear()
    assert "4 waiting" in run("outbox_status").out


def test_breakers_are_unknown_while_redis_does_not_respond(run, healthz, settings):
    settings.REDIS_URL = "redis://127.0.0.1:9/0"
    breakers._made.clear()
    try:
        assert healthz()["breakers"]["payments"]["state"] == "unknown"
        assert "Redis does not respond" in " ".join(run("outbox_status").out.replace("│", " ").split())
    finally:
        breakers._made.clear()


def test_every_consumer_that_calls_a_provider_is_counted_among_those_that_wait():
    consumers = {name for name, task in current_app.tasks.items() if isinstance(task, ConsumerTask)}
    ours = {name for name in consumers if name.startswith(("orders.", "notifications."))}
    assert ours - {"orders.tasks.validate"} == {name for names in breakers.CONSUMERS.values() for name in names}


@pytest.mark.parametrize(
    "name", but_first(sorted(task.name for task in periodic.tasks() if "." in task.name), first=2)
)
def test_an_overdue_periodic_task_is_reported_everywhere(run, healthz, name):
    testing.do_periodic_tasks()
    assert (run("outbox_status").code, healthz()["periodic_tasks"]["status"]) == (0, "ok")

    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE outbox_periodicrun SET last_ended_at = last_ended_at - interval '3 days' WHERE name = %s",
            [name],
        )
    answer = run("outbox_status")
    assert (answer.code, f"Not done in time: {name}." in answer.error) == (3, True)
    assert healthz()["periodic_tasks"]["status"] == "degraded"
    assert "late" in healthz()["periodic_tasks"][name]
    verdict = run("verify")
    assert (verdict.code, "periodic-tasks-are-done" in verdict.error) == (1, True)
    [warning] = [one for one in checks.run_checks(databases=["default"]) if one.id == "orderflow.W005"]
    assert (name in warning.msg, warning.level) == (True, checks.WARNING)


def test_a_restore_is_shown_with_who_noted_it_and_how_far_its_data_go(run):
    assert json.loads(run("outbox_status", "--format", "json").out)["restore"] is None

    restores.declare(clock.now() - dt.timedelta(hours=2), by="cli:ada")
    shown = json.loads(run("outbox_status", "--format", "json").out)["restore"]
    assert (shown["noted_by"], shown["evidence"], shown["is_failover"]) == ("cli:ada", "declared", False)
    assert shown["data_until"] < shown["noted_at"]
    assert "by cli:ada" in " ".join(run("outbox_status").out.replace("│", " ").split())


def test_a_restore_is_shown_everywhere_until_it_is_compared_with_the_providers(
    world, run, healthz, client, settings
):
    def compare(ago):
        report = examination.run(since=clock.now() - ago, providers=True)
        assert report.passed
        examination.keep(report, by="ada")

    def shown():
        page = html.unescape(client.get(reverse("admin:index")).text)
        command = " ".join(run("outbox_status").out.replace("│", " ").split())
        found = healthz()["restore"]
        assert all(found["says"] in text for text in (page, command))
        return found["status"]

    assert healthz()["restore"] == {"status": "ok"}
    assert "was restored" not in client.get(reverse("admin:index")).text

    testing.do_periodic_tasks()
    restores.declare(clock.now() - dt.timedelta(hours=2), by="cli:ada")
    assert shown() == "degraded"
    compare(dt.timedelta(hours=1))
    assert shown() == "degraded"

    compare(dt.timedelta(hours=3))
    assert shown() == "ok"
    settings.OUTBOX_RETENTION_DAYS = -1
    pruning.prune()
    assert (Verification.objects.count(), shown()) == (1, "ok")


def test_an_unsent_redelivery_is_reported_as_overdue_everywhere(drain, world, run, healthz):
    place()
    with world.payments.failing(fault="error", status=503):
        drain()
    Delivery.objects.update(status="waiting", not_before=Now() - Value(dt.timedelta(minutes=5)))

    assert healthz()["relay"]["status"] == "degraded"
    assert healthz()["relay"]["oldest_due_seconds"] > 299
    assert "The oldest message has been due for" in run("outbox_status").error
