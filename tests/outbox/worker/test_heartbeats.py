"""Workers, relays and beat write that they are alive, and that they end in order."""

from __future__ import annotations

import os
import time

import pytest
from django.db import connection, connections

from orderflow.stack import ports
from outbox import processes
from outbox.models import Heartbeat
from outbox.worker import heartbeats
from tests.processes import eventually, stack

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _often(settings):
    settings.OUTBOX_HEARTBEAT_SECONDS = 0.02


def new(name="orders@here", role=Heartbeat.Role.WORKER):
    return heartbeats.Heartbeats(name=name, role=role, pool="orders", queues=["orders"])


def row():
    return Heartbeat.objects.filter(name="orders@here").first()


def test_a_process_beats_until_it_ends_in_order():
    beating = new()
    beating.start()
    first = eventually(row, "the first heartbeat")
    assert first.ended_at is None
    later = eventually(
        lambda: Heartbeat.objects.filter(name=first.name, seen_at__gt=first.seen_at).first(), "another one"
    )
    assert later.started_at == first.started_at

    beating.stop()

    assert row().ended_at is not None
    [standing] = processes.standings()
    assert (standing.alive, standing.gone) == (0, 0)


def test_a_process_that_is_started_again_under_its_name_continues_the_row():
    first = new()
    first.start()
    before = eventually(row, "the first heartbeat")
    first.stop()
    second = new()
    second.start()

    after = eventually(lambda: Heartbeat.objects.filter(ended_at=None).first(), "it is alive again")
    assert Heartbeat.objects.count() == 1
    assert after.process != before.process
    assert after.started_at > before.started_at
    second.stop()


def test_the_end_of_a_process_does_not_end_the_one_that_has_taken_its_name():
    first, second = new(), new()
    first._write(heartbeats.BEAT)
    second._write(heartbeats.BEAT)

    first._write(heartbeats.END)

    assert row().ended_at is None


def test_a_database_that_is_down_is_tried_again_with_one_line(monkeypatch, caplog):
    connection.ensure_connection()
    known = connections.databases["default"]
    port = known["PORT"]
    monkeypatch.setitem(known, "PORT", ports.choose())  # nobody listens there; this thread is connected
    beating = new()
    began = time.monotonic()
    beating.start()
    assert time.monotonic() - began < 1, "the main loop goes on at once"
    eventually(lambda: "could not be written" in caplog.text, "the database is missed")
    assert row() is None

    monkeypatch.setitem(known, "PORT", port)
    eventually(row, "the first heartbeat after the outage")
    assert caplog.text.count("could not be written") == 1
    beating.stop()


def test_a_fork_waits_for_a_heartbeat_but_not_for_long():
    with heartbeats._writing:
        began = time.monotonic()
        if (child := os.fork()) == 0:
            os._exit(0 if heartbeats._writing.acquire(timeout=1) else 1)
        took = time.monotonic() - began
        _, status = os.waitpid(child, 0)

    assert os.waitstatus_to_exitcode(status) == 0, "the child can beat"
    assert heartbeats.FORK_WAITS <= took < 5
    assert heartbeats._writing.acquire(timeout=1), "the parent can go on"
    heartbeats._writing.release()


@pytest.mark.slow
@pytest.mark.processes
@pytest.mark.parametrize(
    ("role", "start"),
    [
        ("worker", lambda started: started.worker("orders", "orders", **OFTEN)),
        ("worker", lambda started: started.worker("orders", "orders", pool="threads", **OFTEN)),
        ("relay", lambda started: started.relay(**OFTEN)),
        ("beat", lambda started: started.beat(**OFTEN)),
    ],
)
def test_real_processes_beat_and_are_missed_only_if_they_are_killed(role, start, tmp_path, settings):
    settings.OUTBOX_HEARTBEAT_SECONDS = 0.5

    def standing():
        return next((one for one in processes.standings() if one.role == role), None)

    with stack(tmp_path) as started:
        process = start(started)
        eventually(lambda: (found := standing()) and found.alive == 1, "it beats")
        process.kill()
        eventually(lambda: standing().gone == 1, "it is missed")

        process.start()
        eventually(lambda: (standing().alive, standing().gone) == (1, 0), "it has its row again")
        assert Heartbeat.objects.count() == 1

        process.ask_to_stop()
        eventually(lambda: Heartbeat.objects.get().ended_at, "it has ended in order")
        assert (standing().alive, standing().gone) == (0, 0)


OFTEN = {"HEARTBEAT_SECONDS": "0.5"}
