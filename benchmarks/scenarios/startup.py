"""From the start of a process until it is ready, and its memory then: each role alone, one after the other."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from benchmarks import measure, pools, processes, systems, tables
from benchmarks.harness import Contestant, Incorrect, Result, Sample, alternate
from benchmarks.pools import PREFORK, THREADS
from benchmarks.processes import Spec
from benchmarks.scenarios import Options, Say
from benchmarks.scenarios.intake import web
from orderflow.stack import ports
from orderflow.stack.supervision import probes

MOST_MEMORY = 80
"""Megabytes of a worker process before its first task."""

WORKERS = ("orders, threads", "orders, prefork", "email, threads", "relay")
"""The roles for which `MOST_MEMORY` holds, for each of their processes."""

COMMAND = ("manage.py", "outbox_status")

_NO_PROCESS: Any = None


def run(options: Options, say: Say) -> Result:
    """Start each role in turns; the files are in the system's cache after the first round."""
    result = Result(scenario="startup", unit="ms to ready")
    tables.clean()
    contestants = [
        Contestant(name="web", run=started_web),
        Contestant(name="command", run=started_command),
        Contestant(name="beat", run=lambda: started(systems.BEAT)),
        Contestant(name="relay", run=lambda: started(systems.RELAY)),
        *(
            Contestant(name=f"{queue}, {kind}", run=_worker(queue, kind))
            for kind in (THREADS, PREFORK)
            for queue in ("orders", "email")
        ),
    ]
    result.rows = alternate(contestants, rounds=options.rounds, say=say)
    for role in WORKERS:
        largest = result.row(role).counts["largest MB"]
        result.judge(
            f"{role}: at most {MOST_MEMORY} MB in a process before its first task", largest, most=MOST_MEMORY
        )
    return result


def _worker(queue: str, kind: str) -> Callable[[], Sample]:
    spec = systems.own_worker(queue, *pools.workers(kind, queue)[0])
    return lambda: started(spec)


def started(spec: Spec) -> Sample:
    """Start one process, and wait until its log shows that it takes work."""
    began = time.perf_counter()
    with processes.running([spec], every=0.01) as groups:
        took = time.perf_counter() - began
        return _sample(took, groups)


def started_web() -> Sample:
    """Start the web server as `run.py` does, and wait until it answers."""
    port = ports.choose()
    ready = probes.answers(f"http://127.0.0.1:{port}/livez")
    began = time.perf_counter()
    with processes.running([web(port)]) as groups:
        processes.until(lambda: ready(_NO_PROCESS), within=60, what="the web server answers", every=0.01)
        took = time.perf_counter() - began
        return _sample(took, groups)


def started_command() -> Sample:
    """
    Run a command of operators from its start to its end; memory is its largest.

    Raises:
        Incorrect: if it fails.
    """
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *COMMAND], cwd=processes.ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _, status, used = os.wait4(process.pid, 0)
    took = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in (0, 1):  # 1: something is wrong with the relay, which does not run here
        raise Incorrect(f"{' '.join(COMMAND)} ended with {process.returncode}")
    largest = used.ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)
    return Sample(
        value=1000 * took,
        cpu={"process": used.ru_utime + used.ru_stime},
        counts={"MB": largest, "largest MB": largest},
    )


def _sample(took: float, groups: dict[str, list[int]]) -> Sample:
    known = measure.processes()
    own = {pid for pids in groups.values() for root in pids for pid in measure.tree(root, known)}
    return Sample(
        value=1000 * took,
        cpu={"process": sum(known[pid].seconds for pid in own)},
        counts={
            "MB": sum(known[pid].memory for pid in own) / 1e6,
            "PSS MB": sum(measure.shares_of(groups).values()) / 1e6,
            "largest MB": max((known[pid].memory for pid in own), default=0) / 1e6,
        },
    )
