"""The pools of OrderFlow's workers: threads, as `run.py` starts them, or processes."""

from __future__ import annotations

THREADS, PREFORK = "threads", "prefork"
KINDS = (THREADS, PREFORK)

SIZES = {THREADS: {"orders": 32, "email": 32}, PREFORK: {"orders": 4, "email": 1}}
"""Calls in flight of one worker, by its queue."""


def options(kind: str, size: int) -> tuple[str, ...]:
    """Return Celery's options for a pool of this kind and size."""
    return ("-P", kind, "-c", str(size))


def size_of(kind: str, queue: str) -> int:
    """Return the calls in flight of a queue's worker."""
    return SIZES[kind][queue]
