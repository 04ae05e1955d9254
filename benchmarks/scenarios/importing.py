"""The retailer's own file: orders written per second, and memory that does not grow with the file."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from benchmarks import environment, measure, processes, systems, tables
from benchmarks.harness import Contestant, Incorrect, Result, Sample, alternate
from benchmarks.scenarios import Options, Say
from orders.models import Order
from outbox.models import OutboxMessage

FLAT = 1.1
"""The allowed ratio of memory in the last quarter of the import to the second quarter."""


def run(options: Options, say: Say) -> Result:
    """Import the file into empty tables; there is no naive system to compare with."""
    result = Result(scenario="importing", unit="orders/s")
    if not environment.DATA.is_file():
        result.skipped = f"the retailer's file is not at {environment.DATA}; name it in ORDERFLOW_DATA"
        return result
    limit = 50 if options.quick else 0
    result.rows = alternate(
        [Contestant(name="orderflow", run=lambda: imported(limit))], rounds=options.rounds, say=say
    )
    row = result.row("orderflow")
    result.judge("at least 300 orders/s", row.median, least=300)
    if not options.quick:
        result.judge("memory flat, last quarter to second, ratio", row.counts["memory growth"], most=FLAT)
    return result


def imported(limit: int) -> Sample:
    """
    Import once.

    Raises:
        Incorrect: if an order or its message is missing.
    """
    tables.clean()
    meter = measure.Meter(systems.servers_and({}))
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.load.importer", str(environment.DATA), str(limit)],
        cwd=processes.ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise Incorrect(f"the import failed: {done.stderr[-3000:]}")
    report: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    cpu, transactions = meter.read()
    placed = report["orders_placed"]
    if not placed == Order.objects.count() == OutboxMessage.objects.count():
        raise Incorrect(f"{placed} orders imported, {Order.objects.count()} there")
    quarter = max(1, len(report["memory"]) // 4)
    second, last = report["memory"][quarter : 2 * quarter], report["memory"][-quarter:]
    return Sample(
        value=placed / report["seconds"],
        units=placed,
        cpu={"import": report["cpu"], **cpu},
        counts={
            "transactions": transactions / placed,
            "lines": report["lines_imported"] / placed,
            "memory MB": max(report["memory"]) / 1e6,
            "memory growth": max(last) / max(second) if second else 1.0,
        },
    )
