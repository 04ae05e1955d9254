"""The sizes of pools: those of `run.py`, where it has threads."""

from __future__ import annotations

import pytest

from benchmarks import pools, systems
from orderflow.stack import processes


def test_a_pool_of_threads_is_as_large_as_that_of_the_stack(monkeypatch):
    monkeypatch.setitem(processes.EARLY_POOLS, "orders", ("-P", "threads", "-c", "48"))
    assert pools.size_of("threads", "orders") == 48
    assert "48" in systems.ours().specs[0].command


def test_with_processes_in_the_stack_threads_have_their_usual_number(monkeypatch):
    monkeypatch.setitem(processes.EARLY_POOLS, "orders", ("-c", "4"))
    assert pools.size_of("threads", "orders") == pools.USUAL


def test_a_named_size_is_used():
    steps, _, emails, _ = systems.ours("prefork", steps=8, emails=6).specs
    assert ("8" in steps.command, "6" in emails.command) == (True, True)


@pytest.mark.parametrize("pool", pools.KINDS)
def test_every_thread_or_process_has_had_an_order_before_a_measurement(pool):
    assert systems.ours(pool).warm >= pools.size_of(pool, "orders")
