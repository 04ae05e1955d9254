"""A worker with threads ends by itself when it should be replaced, with an exit code that asks for it."""

from __future__ import annotations

import pytest
from celery.worker import state

from outbox import telemetry
from outbox.worker.retirement import RETIRED, Retirement, resident_kilobytes


@pytest.fixture
def retired(monkeypatch):
    """The signals that were emitted, and whether the worker was told to stop."""
    monkeypatch.setattr(state, "should_stop", None)
    emitted = []

    def receive(signal, fields):
        if signal == "worker.retired":
            emitted.append(fields)

    telemetry.register(receive)
    yield emitted
    telemetry.unregister(receive)


def retirement(drained, *, threads=32, memory=None):
    return Retirement(threads=threads, memory=memory, drain=drained.append)


def test_a_quarter_of_the_threads_may_not_hang(retired):
    drained = []
    watch = retirement(drained)
    watch.look(7)
    assert (state.should_stop, drained, retired) == (None, [], [])

    watch.look(8)
    watch.look(9)
    assert state.should_stop == RETIRED
    assert [(signal["reason"], signal["hanging"]) for signal in retired] == [("threads", 8)]
    assert len(drained) == 1


def test_a_process_that_has_grown_too_large_is_replaced(retired):
    watch = retirement([], memory=resident_kilobytes() + 50_000)
    watch.look(0)
    assert state.should_stop is None

    ballast = bytearray(100_000_000)
    ballast[::4096] = b"x" * len(ballast[::4096])
    watch.look(0)
    assert state.should_stop == RETIRED
    assert [signal["reason"] for signal in retired] == ["memory"]


def test_a_worker_that_stops_already_keeps_its_exit_code(retired, monkeypatch):
    monkeypatch.setattr(state, "should_stop", 0)
    retirement([]).look(32)
    assert state.should_stop == 0
