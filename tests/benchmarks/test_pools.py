"""The pools that are measured."""

from __future__ import annotations

import pytest

from benchmarks import pools, systems
from orderflow.stack import sizing


def test_a_named_size_is_used():
    steps, emails, *_ = systems.ours("prefork", steps=8, emails=6).specs
    assert ("8" in steps.command, "6" in emails.command) == (True, True)


@pytest.mark.parametrize("pool", pools.KINDS)
def test_every_thread_or_process_has_had_an_order_before_a_measurement(pool):
    assert systems.ours(pool).warm >= pools.slots(pool, "orders")


def test_there_are_as_many_workers_as_in_the_stack(monkeypatch):
    def sizes(environment):
        options = ("-P", environment["WORKER_POOL"], "-c", "48")
        return {"orders": sizing.Size(options, 3), "email": sizing.Size(options, 1)}

    monkeypatch.setattr(sizing, "sizes", sizes)
    ours = systems.ours("threads")
    assert [spec.name for spec in ours.specs] == ["orders", "orders2", "orders3", "email", "relay", "beat"]
    assert ours.warm == 2 * 3 * 48
