"""The demo with real workers: every order ends, and only the provoked failures become dead letters."""

from __future__ import annotations

import contextlib
import io
import itertools
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.core.management import call_command
from django.db import connection
from django.utils import timezone

from orderflow.management.commands import demo as command
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
    """Verify promises, books and providers repeatedly; no run may find a violation."""
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
def test_the_demo_succeeds_and_shows_what_to_try(run, working, world, settings):
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


def test_faults_that_were_cleared_meanwhile_are_no_problem(world):
    with demo.faults():
        world.payments.clear_faults()

    assert world.payments.faults() == []


class Clock(io.StringIO):
    """A clock that advances with every sleep, and an output that records when each line was written."""

    def __init__(self):
        super().__init__()
        self.now, self.lines = 100.0, []

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds

    def write(self, text):
        self.lines.append((self.now, text.strip()))
        return len(text)


class SlowRun(demo.Run):
    """Orders that are final after 5 seconds, notifications sent after 20, and dead letters buried after 44."""

    clock: Clock

    def open_orders(self):
        return []

    def unexpected_dead_letters(self):
        return []

    def notifications(self):
        return (9 if self.clock.now >= 120 else 2), 9

    def has_expected_dead_letters(self):
        return self.clock.now >= 144


def test_while_the_demo_waits_it_prints_every_few_seconds_for_what(monkeypatch):
    clock = SlowRun.clock = Clock()
    monkeypatch.setattr(command, "time", clock)
    monkeypatch.setattr(command.Command, "_final", lambda self, run: 20 if clock.now >= 105 else 3)
    monkeypatch.setattr(command.Command, "_show_result", lambda self, run: self.stdout.write("What happened"))
    monkeypatch.setattr(demo, "faults", contextlib.nullcontext)
    monkeypatch.setattr(
        demo, "begin", lambda: SlowRun(name="x", began_at=timezone.now(), order_ids=[None] * 20)
    )
    monkeypatch.setattr(demo, "place", lambda run, count: range(count))
    monkeypatch.setattr(demo, "poison", lambda run: None)
    call_command("demo", orders=20, stdout=clock, skip_checks=True)

    times, texts = zip(*clock.lines, strict=True)
    assert texts[-1] == "What happened"
    assert times[-1] > 143
    pauses = [after - before for before, after in itertools.pairwise(times)]
    assert max(pauses) <= command.AT_LEAST_EVERY + 0.2
    waits = list(dict.fromkeys(text.partition("waits for ")[2] for text in texts if "waits for" in text))
    assert waits == [
        "17 orders",
        "7 notifications",
        "the dead letters of the garbage and of the mailbox that does not exist",
    ]
