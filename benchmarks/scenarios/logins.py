"""
Accepting orders while eight anonymous clients try passwords: how much longer a client waits for its order.
"""

from __future__ import annotations

import contextlib
import functools
import json
import subprocess
import sys
from collections.abc import Iterator

from benchmarks import processes
from benchmarks.harness import Contestant, Incorrect, Result, alternate
from benchmarks.scenarios import Options, Say
from benchmarks.scenarios.intake import requested

ATTACKERS = 8


def run(options: Options, say: Say) -> Result:
    """Compare requests beside the logins with requests that are alone."""
    result = Result(scenario="logins", unit="orders/s")
    requests = options.scaled(400, 16)
    result.rows = alternate(
        [
            Contestant(name="alone", run=lambda: requested("orderflow", requests, 1)),
            Contestant(
                name=f"beside {ATTACKERS} logins",
                run=lambda: requested("orderflow", requests, 1, beside=attack),
                baseline="alone",
            ),
        ],
        rounds=options.rounds,
        say=say,
    )
    alone, beside = (row.counts["ms median"] for row in result.rows)
    result.judge("at most 5 x as long for an order, at the median", beside / alone, most=5)
    return result


@contextlib.contextmanager
def attack(address: str) -> Iterator[None]:
    """
    Try passwords at this host and port, as long as the block runs.

    Raises:
        Incorrect: if no password was tried, or one was accepted.
    """
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.load.logins", address, str(ATTACKERS)],
        cwd=processes.ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as attackers:
        end = functools.partial(attackers.communicate, timeout=60)
        try:
            yield
        finally:
            printed, _ = end()
    statuses: dict[str, int] = json.loads(printed.splitlines()[-1])
    if "302" in statuses or not statuses.get("200"):
        raise Incorrect(f"the logins ended as {statuses}: all should fail, and some after hashing")
