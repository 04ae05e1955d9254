"""
The pools of OrderFlow's workers: threads, as `run.py` starts them, or processes.

Sizes are those of `run.py` on this machine; `WORKER_THREADS` in the environment changes them, as there.
"""

from __future__ import annotations

import os

THREADS, PREFORK = "threads", "prefork"
KINDS = (THREADS, PREFORK)


def options(kind: str, size: int) -> tuple[str, ...]:
    """Return Celery's options for a pool of this kind and size."""
    return ("-P", kind, "-c", str(size))


def workers(kind: str, queue: str) -> list[tuple[str, ...]]:
    """Return the options of each worker of a queue."""
    from orderflow.stack import sizing

    size = sizing.sizes({**os.environ, "WORKER_POOL": kind})[queue]
    return [size.options] * size.processes


def slots(kind: str, queue: str) -> int:
    """Return the calls that all workers of a queue have in flight."""
    return sum(int(pool[-1]) for pool in workers(kind, queue))
