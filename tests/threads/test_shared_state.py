"""What all threads of a process share stays whole while they are switched as often as possible."""

from __future__ import annotations

import functools
import threading
import uuid

import pytest

from orderflow.observability import redaction
from orderflow.shared_state import breakers, credentials
from outbox import context, crash_points, telemetry
from outbox.context import Context
from outbox.resilience import Outage, Transient
from outbox.worker import losses
from tests.threads import switches

THREADS, ROUNDS = 16, 50


def test_a_context_stays_in_its_thread():
    mixed = []

    def work():
        for _ in range(ROUNDS):
            with context.bind(Context(correlation_id=str(uuid.uuid4()))) as mine:
                with context.ensure() as inner:
                    mixed.extend([] if inner is mine else [inner])
                mixed.extend([] if context.current() is mine else [context.current()])
        mixed.extend([context.current_or_none()] if context.current_or_none() else [])

    switches.run(*[work] * THREADS)

    assert mixed == []


def test_a_thread_reports_abandoned_leases_to_its_own_delivery():
    mixed = []

    def work():
        for _ in range(ROUNDS):
            mine = []
            with losses.at_work(functools.partial(mine.append, 1)):
                losses.found_abandoned()
            mixed.extend([] if mine == [1] else [mine])

    switches.run(*[work] * THREADS)

    assert mixed == []


def test_a_provider_has_one_breaker_in_a_process(monkeypatch):
    monkeypatch.setattr(breakers, "_made", {})
    name, made = f"test-{uuid.uuid4()}", []

    switches.run(*[lambda: made.append(breakers.shared_breaker(name))] * THREADS)

    assert len(made) == THREADS
    assert len({id(breaker) for breaker in made}) == 1


def test_a_breaker_counts_the_calls_of_all_threads():
    breaker = breakers.SharedBreaker(f"test-{uuid.uuid4()}", url="")
    raised = []

    def fail():
        try:
            with breaker.guard():
                raise Transient("no")
        except Transient as error:
            raised.append(error)

    def succeed():
        for _ in range(ROUNDS):
            with breaker.guard():
                pass

    switches.run(*[succeed] * THREADS)
    assert breaker.state() == "closed"

    switches.run(*[fail] * THREADS)
    assert breaker.state() == "open"
    assert len(raised) == THREADS
    assert any(isinstance(error, Outage) for error in raised)


@pytest.mark.parametrize("url", ["", None], ids=["in this process", "in Redis"])
def test_refused_credentials_are_noted_and_forgotten_by_any_thread(settings, url):
    settings.REDIS_URL = settings.REDIS_URL if url is None else url
    provider = f"test-{uuid.uuid4()}"

    def work():
        for _ in range(5):
            credentials.note_refused(provider, "correct it")
            assert credentials.refusal_of(provider) in ("", "correct it")
            credentials.forget_refusal(provider)

    switches.run(*[work] * THREADS)

    assert credentials.refusal_of(provider) == ""


def test_crash_points_may_be_armed_and_disarmed_while_they_are_reached():
    reached, ended = set(), threading.Event()

    def arm():
        for _ in range(1000 * ROUNDS):
            crash_points.arm(reached.add)
            crash_points.disarm()
        ended.set()

    def reach():
        while not ended.is_set():
            crash_points.reached("step.begun")

    try:
        switches.run(arm, reach, reach)
    finally:
        ended.set()
        crash_points.disarm()

    assert reached <= {"step.begun"}


def test_a_receiver_that_another_thread_removes_hides_a_signal_from_no_other():
    got = []

    def removes(signal, fields):
        if signal == "tests.emitted":
            thread = threading.Thread(target=telemetry.unregister, args=[removes])
            thread.start()
            thread.join()

    def receives(signal, fields):
        got.append(signal)

    telemetry.register(removes)
    telemetry.register(receives)
    try:
        telemetry.emit("tests.emitted")
    finally:
        telemetry.unregister(receives)

    assert got == ["tests.emitted"]


def test_lines_are_redacted_in_every_thread_from_the_first_one_on():
    redaction._forget()

    def work(thread):
        for call in range(ROUNDS):
            line = redaction.redacted_text(f"{thread}.{call} sent to ada@example.com")
            assert line == f"{thread}.{call} sent to {redaction.REDACTED}"

    switches.run(*[lambda thread=thread: work(thread) for thread in range(THREADS)])
