"""Periodic verifications are stored, shown in the admin, and pruned."""

from __future__ import annotations

import datetime as dt

import pytest
from celery import current_app
from django.contrib.auth.models import User
from django.urls import reverse
from django.utils import timezone

import celeryconfig
from outbox import tasks
from outbox.models import RepairRecord, Verification
from outbox.retention import pruning
from outbox.verification import examination
from tests.verification.corruptions import CORRUPTIONS, spoil

pytestmark = pytest.mark.django_db


def entries():
    tasks = ("outbox.tasks.verify", "outbox.tasks.compare_with_providers")
    return [entry for entry in celeryconfig.beat_schedule.values() if entry["task"] in tasks]


def test_beat_schedules_it_every_hour_and_daily_with_the_providers():
    hourly, daily = entries()
    assert (hourly["schedule"].hour, hourly["schedule"].minute) == (set(range(24)), {7})
    assert (daily["schedule"].hour, daily["task"]) == ({3}, "outbox.tasks.compare_with_providers")
    assert {current_app.amqp.router.route({}, entry["task"])["queue"].name for entry in entries()} == {"jobs"}


def test_a_run_limits_itself_within_the_limits_of_its_task():
    longest = examination.RUN_WITHIN + examination.STATEMENT_TIMEOUT
    assert longest.total_seconds() < tasks.verify.soft_time_limit < tasks.verify.time_limit


def test_the_task_stores_its_report_and_returns_it(books):
    spoil(books, CORRUPTIONS["totals-are-sums"])
    result = tasks.verify()

    kept = Verification.objects.get(pk=result["verification"])
    assert (result["passed"], result["failed"]) == (False, ["totals-are-sums"])
    assert (kept.passed, kept.by) == (False, "beat")


def test_the_daily_task_compares_the_last_hours_with_the_providers(books):
    result = tasks.compare_with_providers()

    kept = Verification.objects.get(pk=result["verification"])
    assert (result["passed"], kept.providers) == (True, True)
    assert kept.ran_at - kept.since > dt.timedelta(hours=25)


def test_the_admin_shows_the_verdict_on_every_invariant(books, client):
    spoil(books, CORRUPTIONS["totals-are-sums"])
    kept = examination.keep(examination.run(), by="beat")
    client.force_login(User.objects.create_superuser("root"))

    listed = client.get(reverse("admin:outbox_verification_changelist"))
    assert "totals-are-sums" in listed.text
    detail = client.get(reverse("admin:outbox_verification_change", args=[kept.pk])).text
    assert all(invariant["name"] in detail for invariant in kept.findings)
    assert f"order_trace {books.plain.number}" in detail
    assert detail.index("totals-are-sums") < detail.index("messages-move-on")


def test_the_admin_shows_repairs_read_only(client):
    record = RepairRecord.objects.create(
        invariant="example", subject="OF-1", what="<b>", repaired_by="cli:ada", reason="why"
    )
    client.force_login(User.objects.create_superuser("root"))
    page = reverse("admin:outbox_repairrecord_change", args=[record.pk])

    assert "&lt;b&gt;" in client.get(page).text
    assert client.post(page, {"reason": "other"}).status_code == 403
    assert client.get(reverse("admin:outbox_verification_add")).status_code == 403


def test_old_verifications_are_pruned_and_repairs_stay(settings):
    settings.OUTBOX_RETENTION_DAYS = 30
    for days in (29, 31):
        Verification.objects.create(
            ran_at=timezone.now() - dt.timedelta(days=days),
            took=dt.timedelta(seconds=1),
            providers=False,
            passed=True,
            by="beat",
            findings=[],
        )
    RepairRecord.objects.create(invariant="x", subject="x", what="x", repaired_by="x", reason="x")
    RepairRecord.objects.update(repaired_at=timezone.now() - dt.timedelta(days=900))

    assert pruning.prune()["verifications"] == 1
    assert (Verification.objects.count(), RepairRecord.objects.count()) == (1, 1)
