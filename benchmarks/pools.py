"""The pools of OrderFlow's workers: threads, as `run.py` starts them, or processes."""

from __future__ import annotations

from collections.abc import Sequence

THREADS, PREFORK = "threads", "prefork"
KINDS = (THREADS, PREFORK)
USUAL = 32

PREFORK_SIZES = {"orders": 4, "email": 1}
"""The sizes that `run.py` had with processes."""


def options(kind: str, size: int) -> tuple[str, ...]:
    """Return Celery's options for a pool of this kind and size."""
    return ("-P", kind, "-c", str(size))


def size_of(kind: str, queue: str) -> int:
    """Return the calls in flight of a queue's worker: of a pool of threads as many as `run.py` gives it."""
    if kind == PREFORK:
        return PREFORK_SIZES[queue]
    from orderflow.stack.processes import EARLY_POOLS, LATER_POOLS

    return _threads({**LATER_POOLS, **EARLY_POOLS}[queue])


def _threads(pool: Sequence[str]) -> int:
    return int(pool[pool.index("-c") + 1]) if THREADS in pool else USUAL
