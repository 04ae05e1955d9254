"""What one order costs in statements, transactions and broker messages; asserted, as no machine changes it."""

from __future__ import annotations

import dataclasses

from benchmarks import budget, counting, systems, tables
from benchmarks.harness import Result, Row
from benchmarks.naive.celery import app as naive
from benchmarks.scenarios import Options, Say
from benchmarks.writers import placer

ORDERS = 20
"""So many that what is done once per batch weighs little, and the same number each time."""


def run(options: Options, say: Say) -> Result:
    """Count both systems; what OrderFlow needs beyond its budget is a failure."""
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
    """Count placing, and placing with all that follows, on clean tables."""
    tables.clean()
    place = placer(name)
    place(0)  # what a process does once is not counted
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
