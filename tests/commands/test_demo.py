"""The demo with real workers: every order ends, and only what was provoked lies in dead letters."""

from __future__ import annotations

import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import connection

from orderflow.ops import demo
from orders.models import Order
from outbox import testing
from outbox.models import DeadLetter
from outbox.verification import examination
from tests import processes


@pytest.fixture
def working(transactional_db, world, tmp_path):
    """A relay, its clock, and a worker for everything else."""
    testing.purge()
    with processes.stack(tmp_path) as stack:
        started = [
            stack.relay(),
            stack.worker("orders", "orders", pool="threads", concurrency=4),
            stack.worker("notifications", "email", "sms", "push", pool="threads", concurrency=4),
        ]
        stack.beat()
        for process in started:
            process.wait_until_ready()
        yield stack
    testing.purge()


@contextlib.contextmanager
def verified_all_the_while():
    """Compare promises, books and providers again and again; nothing may ever be found amiss."""
    stop, runs, amiss = threading.Event(), [], []

    def verify():
        with contextlib.closing(connection):
            while not stop.wait(0.2):
                report = examination.run(providers=True)
                runs.append(report)
                amiss.extend(finding.as_json() for finding in report.findings if finding.verdict != "ok")

    with ThreadPoolExecutor(1) as pool:
        verifying = pool.submit(verify)
        try:
            yield
        finally:
            stop.set()
        verifying.result(30)
    assert len(runs) > 3
    assert not amiss


@pytest.mark.slow
def test_the_demo_ends_well_and_tells_what_to_try(run, working, world, settings):
    settings.SANDBOX_URL = world.mailbox.url
    with verified_all_the_while():
        answer = run("demo", orders=16, timeout=60)

    assert (answer.code, answer.error) == (0, "")
    assert Order.objects.count() == 16
    assert not Order.objects.unfinished().exists()
    assert DeadLetter.objects.filter(consumer="notifications.tasks.send_email").exists()
    assert DeadLetter.objects.filter(message_id=None).count() == 1
    assert "Break it and watch" in answer.out
    assert "replay_failures" in answer.out
    assert run("verify", "--providers").code == 0


def test_only_the_demos_own_faults_go_with_it(world):
    mine = world.payments.control(fault="slow", latency_ms=1, match="nobody")

    with demo.faults():
        assert len(world.payments.faults()) == 1 + len(demo.FAULTS)

    assert [fault["id"] for fault in world.payments.faults()] == [mine["id"]]


def test_faults_that_somebody_has_cleared_are_no_trouble(world):
    with demo.faults():
        world.payments.clear_faults()

    assert world.payments.faults() == []
