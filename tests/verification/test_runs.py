"""A run reads one snapshot, is limited in time, and can be restricted to the last hours."""

from __future__ import annotations

import dataclasses
import datetime as dt

import pytest
from django.db import connection
from django.utils import timezone

from outbox import redelivery
from outbox.models import Delivery, OutboxMessage
from outbox.resilience import Outage
from outbox.verification import catalogue, examination
from outbox.verification.catalogue import NotComparable
from tests.verification.conftest import EXAMPLE
from tests.verification.corruptions import CORRUPTIONS, spoil


def verdicts(report):
    return [str(finding.verdict) for finding in report.findings]


def test_a_name_belongs_to_one_invariant(only):
    only({})
    with pytest.raises(catalogue.Ambiguous):
        catalogue.register([dataclasses.replace(EXAMPLE, name="example-0")])


def test_offending_ids_are_capped_and_counted(db, only):
    only({"sql": "SELECT number FROM generate_series(1, 700) AS number"})
    [finding] = examination.run().findings

    assert (finding.count, len(finding.ids), len(finding.offending)) == (700, 20, 500)
    assert finding.command == "look at 1"
    assert finding.as_json()["ids"] == [str(number) for number in range(1, 21)]


def test_a_query_that_times_out_has_that_verdict_and_does_not_pass(db, only):
    only({"sql": "SELECT 'x' FROM pg_sleep(5)"}, {})
    report = examination.run(statement_timeout=dt.timedelta(milliseconds=30))

    assert verdicts(report) == ["timed out", "ok"]
    assert not report.passed


def test_a_run_out_of_time_examines_no_more(db, only):
    only({}, {})
    report = examination.run(within=dt.timedelta())

    assert (verdicts(report), report.passed) == (["timed out", "timed out"], False)


def test_a_list_that_is_too_long_is_out_of_time(db, only, monkeypatch):
    def endless():
        while True:
            yield 1

    only({"compare": lambda rows, snapshot: snapshot.once("list", endless)})
    assert verdicts(examination.run(within=dt.timedelta(milliseconds=50))) == ["timed out"]


def test_a_failing_provider_is_called_once_in_a_run(db, only):
    calls = []

    def fails():
        calls.append(1)
        raise Outage("nobody answers")

    only(*[{"compare": lambda rows, snapshot: snapshot.once("list", fails)}] * 3)
    report = examination.run()

    assert (verdicts(report), calls) == (["unanswered"] * 3, [1])
    assert report.findings[0].note == "nobody answers"


def test_an_impossible_comparison_is_a_note_and_no_failure(db, only):
    def compare(rows, snapshot):
        raise NotComparable("the provider keeps no list")

    only({"compare": compare})
    report = examination.run()

    assert (report.passed, report.findings[0].note) == (True, "the provider keeps no list")


def test_a_mistake_in_a_query_is_an_error_and_not_a_verdict(db, only):
    only({"sql": "SELECT no_such_column"})
    with pytest.raises(Exception, match="no_such_column"):
        examination.run()


def test_the_statement_timeout_is_the_runs_own(db, only):
    only({})
    examination.run()
    with connection.cursor() as cursor:
        cursor.execute("SHOW statement_timeout")
        assert cursor.fetchone() == ("30s",)


def test_with_since_only_what_changed_since_counts(books, db):
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM orders_idempotencyrecord WHERE order_id = %s", [books.plain.pk])

    assert examination.run(since=timezone.now() - dt.timedelta(hours=1)).failed == ["orders-remember-their-key"]
    assert examination.run(since=timezone.now() + dt.timedelta(hours=1)).passed


def test_pruned_messages_are_not_missed(books, db, settings):
    settings.OUTBOX_RETENTION_DAYS = 0
    with connection.cursor() as cursor:
        cursor.execute(
            "DELETE FROM outbox_outboxmessage WHERE key = ANY(%s)",
            [[str(books.shipped.pk), str(books.plain.pk), str(books.cancelled.pk)]],
        )

    assert examination.run().failed == []
    assert OutboxMessage.objects.exists()


def test_a_broker_that_is_down_explains_no_delay_and_stops_no_run(books, db, no_broker):
    assert examination.run().passed
    spoil(books, CORRUPTIONS["unfinished-orders-go-on"])

    assert examination.run().failed == ["unfinished-orders-go-on"]


def test_a_step_that_waits_in_its_queue_is_not_late(books, db):
    spoil(books, CORRUPTIONS["unfinished-orders-go-on"])
    Delivery.objects.create(
        message_id=books.waiting.message_id,
        workflow="orders.workflows.fulfillment",
        generation=0,
        status=Delivery.Status.SENT,
        queue="orders",
    )

    assert examination.run().passed


def test_a_waiting_notification_hides_no_late_order(books, db):
    spoil(books, CORRUPTIONS["unfinished-orders-go-on"])
    redelivery.redeliver(
        [books.waiting.message_id], workflow="notifications.workflows.by_email", wait=dt.timedelta(minutes=47)
    )

    assert examination.run().failed == ["unfinished-orders-go-on"]
