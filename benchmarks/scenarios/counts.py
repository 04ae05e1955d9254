"""
The statements, transactions and broker messages of one order; asserted, because they do not depend on the
machine.
"""

from __future__ import annotations

import dataclasses

from benchmarks import budget, counting, systems, tables
from benchmarks.harness import Result, Row
from benchmarks.load.writers import placer
from benchmarks.naive.celery import app as naive
from benchmarks.scenarios import Options, Say

ORDERS = 20
"""Enough that costs per batch weigh little, and always the same number."""


def run(options: Options, say: Say) -> Result:
    """Count both systems; exceeding OrderFlow's budget is a failure."""
    result = Result(scenario="counts", unit="statements per order")
    for name, app, limits in (
        ("orderflow", None, (budget.PLACING, budget.WHOLE_ORDER)),
        ("naive", naive, (None, None)),
    ):
        placed, whole = measured(name, app)
        for what, counts, limit in (("placing", placed, limits[0]), ("whole order", whole, limits[1])):
            values = dataclasses.asdict(counts)
            result.rows.append(
                Row(
                    name=f"{name}, {what}",
                    median=counts.queries,
                    low=counts.queries,
                    high=counts.queries,
                    counts=values,
                )
            )
            if limit:
                result.failures += [
                    f"{what}: {values[kind]:.2f} {kind} per order, {most:.2f} allowed by benchmarks/budget.py"
                    for kind, most in dataclasses.asdict(limit).items()
                    if values[kind] > most + 0.005
                ]
    return result


def measured(name: str, app: object) -> tuple[budget.Counts, budget.Counts]:
    """Count placing, and placing with all following work, on empty tables."""
    tables.clean()
    place = placer(name)
    place(0)  # one-time work of the process is not counted
    counting.work_off(counting.Counter(), app=app)  # type: ignore[arg-type]
    tables.clean()
    counter = counting.Counter()
    with counter.watching():
        for number in range(ORDERS):
            place(number)
    placed = counter.per(ORDERS)
    counting.work_off(counter, app=app)  # type: ignore[arg-type]
    systems.check(ORDERS)
    return placed, counter.per(ORDERS)
