"""The pools that are measured."""

from __future__ import annotations

import pytest

from benchmarks import pools, systems


def test_a_named_size_is_used():
    steps, _, emails, _ = systems.ours("prefork", steps=8, emails=6).specs
    assert ("8" in steps.command, "6" in emails.command) == (True, True)


@pytest.mark.parametrize("pool", pools.KINDS)
def test_every_thread_or_process_has_had_an_order_before_a_measurement(pool):
    assert systems.ours(pool).warm >= pools.size_of(pool, "orders")
