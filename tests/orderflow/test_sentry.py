"""Sentry, by the envelopes that real processes send: groups, releases, monitors, and no personal data."""

from __future__ import annotations

import uuid

import kombu
import pytest

import celeryconfig
from orderflow.observability import monitors
from outbox.models import DeadLetter
from tests import processes
from tests.chaos import tasks
from tests.orderflow.envelopes import Receiver
from tests.processes import RedisServer, eventually
from tests.slow import but_first

TASKS = "tests.chaos.tasks"
PERSONAL = ("ada.lovelace", "447700900123", "4242424242424242")


@pytest.fixture
def receiver():
    receiver = Receiver()
    yield receiver
    receiver.close()


@pytest.fixture
def broker(tmp_path):
    server = RedisServer(tmp_path)
    yield server
    server.kill()


@pytest.fixture
def settings_of_processes(receiver, broker):
    return {
        "BROKER_URL": broker.url,
        "SENTRY_DSN": receiver.dsn,
        "ORDERFLOW_RELEASE": "orderflow@7.1",
        "ORDERFLOW_ENV": "test",
    }


def send(task, broker, **arguments):
    message_id = str(uuid.uuid4())
    with kombu.Connection(broker.url) as link:
        task.apply_async(kwargs={"message_id": message_id, **arguments}, queue="push", connection=link)
    return message_id


@pytest.mark.slow
@pytest.mark.processes
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("pool", ["threads", "prefork"])
def test_a_group_in_sentry_is_a_group_of_dead_letters(pool, receiver, broker, settings_of_processes, tmp_path):
    with processes.stack(tmp_path) as stack:
        worker = stack.worker("push", "push", pool=pool, concurrency=2, include=TASKS, **settings_of_processes)
        worker.wait_until_ready()
        for _ in range(2):
            send(tasks.refuse, broker, about="ada.lovelace@example.com, +447700900123, 4242424242424242")
        send(tasks.hang, broker)  # ended by its hard limit: nothing raises its error
        eventually(lambda: DeadLetter.objects.count() >= 2, worker.output)
        eventually(lambda: len(receiver.of("event")) >= 4, lambda: receiver.text[-3000:])

    letters = DeadLetter.objects.filter(consumer=tasks.refuse.name)
    assert letters.values_list("fingerprint").distinct().count() == 1
    fingerprint = letters[0].fingerprint
    events = [event for event in receiver.of("event") if event.get("transaction") == tasks.refuse.name]
    raised = [event for event in events if "exception" in event]
    buried = [event for event in events if "gave up a message" in (event.get("message") or "")]
    assert len(raised) == len(buried) == 2
    for event in (*raised, *buried):
        assert event["fingerprint"] == [fingerprint]
        assert (event["release"], event["environment"]) == ("orderflow@7.1", "test")
    assert {event["tags"]["message_id"] for event in buried} == {str(each.message_id) for each in letters}
    for personal in PERSONAL:
        assert personal not in receiver.text


@pytest.mark.slow
@pytest.mark.processes
@pytest.mark.django_db(transaction=True)
def test_periodic_tasks_check_in_when_they_are_done_and_when_they_fail(
    receiver, broker, settings_of_processes, tmp_path
):
    frequent = [
        name for name, entry in celeryconfig.beat_schedule.items() if entry["options"]["queue"] == "relay"
    ]
    with processes.stack(tmp_path) as stack:
        stack.relay(include="tests.chaos.failing_sweep", **settings_of_processes)
        stack.beat(**settings_of_processes)
        soon = [name for name in frequent if name not in ("read what was parked", "settle replays")]
        soon = [name for name in soon if celeryconfig.beat_schedule[name]["schedule"] <= 10]
        for name in soon:
            eventually(lambda name=name: receiver.check_ins(monitors.slug(name)), f"a check-in of {name}")

    failing = receiver.check_ins("resume-overdue-orders")
    assert {one["status"] for one in failing} == {"error"}
    [drained] = receiver.check_ins("drain-the-outbox")  # one a minute, although it runs every second
    assert drained["status"] == "ok"
    assert drained["monitor_config"] == {
        "schedule": {"type": "interval", "value": 1, "unit": "minute"},
        "timezone": "UTC",
        "checkin_margin": monitors.MARGIN,
        "max_runtime": monitors.LONGEST_RUN,
        "failure_issue_threshold": 2,
        "recovery_threshold": 1,
    }
    assert (drained["release"], drained["environment"]) == ("orderflow@7.1", "test")
    assert "ada.lovelace" not in receiver.text


@pytest.mark.slow
@pytest.mark.processes
@pytest.mark.django_db(transaction=True)
def test_an_hourly_task_checks_in_at_its_begin_and_at_its_end(
    receiver, broker, settings_of_processes, tmp_path
):
    from outbox.tasks import verify

    with processes.stack(tmp_path) as stack:
        worker = stack.worker("jobs", "jobs", **settings_of_processes)
        worker.wait_until_ready()
        with kombu.Connection(broker.url) as link:
            verify.apply_async(queue="jobs", connection=link)
        eventually(lambda: len(receiver.check_ins("verify-what-is-promised")) >= 2, worker.output)

    begun, ended = receiver.check_ins("verify-what-is-promised")
    assert (begun["status"], ended["status"]) == ("in_progress", "ok")
    assert begun["check_in_id"] == ended["check_in_id"]
    assert begun["monitor_config"]["schedule"] == {"type": "crontab", "value": "7 * * * *"}


def test_every_entry_of_the_schedule_has_a_monitor_with_a_slug_that_sentry_accepts():
    found = monitors.monitors()

    assert found.keys() == {entry["task"] for entry in celeryconfig.beat_schedule.values()}
    slugs = [monitor.slug for monitor in found.values()]
    assert len(set(slugs)) == len(celeryconfig.beat_schedule)
    assert all(len(each) <= 50 and each.strip("abcdefghijklmnopqrstuvwxyz0123456789-") == "" for each in slugs)


@pytest.mark.parametrize(
    ("said", "checked_in"),
    but_first([(["ok", "ok", "ok"], ["ok"]), (["ok", "error", "error", "ok"], ["ok", "error", "ok"])]),
)
def test_a_frequent_task_checks_in_once_a_minute_and_when_its_outcome_changes(said, checked_in, monkeypatch):
    sent = []
    monkeypatch.setattr(monitors, "capture_checkin", lambda **known: sent.append(known["status"]))
    monitor = monitors.Monitor(slug="drain", schedule={}, is_frequent=True)

    for status in said:
        monitor.say("in_progress")
        monitor.say(status)
    assert sent == checked_in

    monitor.said_at -= monitors.CHECKED_IN_EVERY
    monitor.say(said[-1])
    assert sent == [*checked_in, said[-1]]
