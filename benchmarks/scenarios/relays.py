"""One, two and four concurrent relays: nothing is published twice, and more relays publish more."""

from __future__ import annotations

import collections
import json
import subprocess
import sys
from typing import Any

from celery import current_app

from benchmarks import measure, processes, tables
from benchmarks.harness import Contestant, Incorrect, Result, Sample, alternate
from benchmarks.scenarios import Options, Say
from outbox.relay import probes

QUEUE = "orders"


def run(options: Options, say: Say) -> Result:
    """Compare; every message's id must be in the queue exactly once."""
    rows = options.scaled(10_000, 400)
    counts = (2,) if options.quick else (1, 2, 4)
    contestants = [
        Contestant(
            name=_name(count),
            run=lambda count=count: drained(rows, count),  # type: ignore[misc]
            baseline=_name(1) if 1 in counts and count > 1 else "",
        )
        for count in counts
    ]
    result = Result(scenario="relays", unit="messages/s")
    result.rows = alternate(contestants, rounds=options.rounds, say=say)
    for count in counts[1:]:
        result.judge(
            f"{count} relays do more than one, ratio", result.row(_name(count)).ratio or 0.0, least=1.0
        )
    return result


def _name(count: int) -> str:
    return "1 relay" if count == 1 else f"{count} relays"


def drained(rows: int, relays: int) -> Sample:
    """
    Drain `rows` committed messages in several concurrent processes.

    Raises:
        Incorrect: if a message was lost or published twice.
    """
    tables.clean()
    tables.write_messages(rows)
    meter = measure.Meter(measure.servers())
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.load.drainers", str(relays)],
        cwd=processes.ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise Incorrect(f"a relay failed: {done.stderr[-3000:]}")
    report: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    cpu, _ = meter.read()
    _check(rows, report["published"])
    return Sample(value=rows / report["seconds"], units=rows, cpu={"relays": report["cpu"], **cpu})


def _check(rows: int, published: list[int]) -> None:
    seen: collections.Counter[str] = collections.Counter()
    with current_app.connection_for_read() as link:
        queue = current_app.amqp.queues[QUEUE](link.default_channel)
        while message := queue.get(no_ack=True):
            if message.headers["task"] != probes.PROBE:  # probes follow the parts of a large batch
                seen[message.decode()[1]["message_id"]] += 1
    twice = sum(count > 1 for count in seen.values())
    if twice or len(seen) != rows or sum(published) != rows:
        raise Incorrect(
            f"{rows} messages: {len(seen)} arrived, {twice} of them more than once; the relays say {published}"
        )
