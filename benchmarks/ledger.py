"""The calls of the stub providers, and the times of steps: one file for all processes, one entry per line."""

from __future__ import annotations

import functools
import os
import time
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import environment


class Line(NamedTuple):
    """One entry: its kind, its order, and its time (Unix seconds)."""

    kind: str
    key: str
    at: float


def path() -> Path:
    """The file."""
    return environment.FOLDER / "ledger"


def note(kind: str, key: str) -> None:
    """Append an entry; short appends of several processes do not interleave."""
    os.write(_descriptor(os.getpid()), f"{kind}\t{key}\t{time.time():.6f}\n".encode())


def read(kind: str) -> list[Line]:
    """Return all entries of one kind, oldest first."""
    if not path().exists():
        return []
    lines = (text.split("\t") for text in path().read_text().splitlines())
    return [Line(what, key, float(at)) for what, key, at in lines if what == kind]


def clear() -> None:
    """Delete all entries; processes with the open file continue at its new beginning."""
    path().write_bytes(b"")


def note_times_of_tasks() -> None:
    """Record the beginning and the end of every task with an order id."""
    from celery import signals

    signals.task_prerun.connect(_began, weak=False)
    signals.task_postrun.connect(_ended, weak=False)


@functools.cache
def _descriptor(process: int) -> int:
    return os.open(path(), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)


def _began(task: Any, args: Any, kwargs: dict[str, Any], **_: Any) -> None:
    _time("began", task, args, kwargs)


def _ended(task: Any, args: Any, kwargs: dict[str, Any], **_: Any) -> None:
    _time("ended", task, args, kwargs)


def _time(what: str, task: Any, args: Any, kwargs: dict[str, Any]) -> None:
    order = kwargs.get("order_id") or (args[0] if args else "")
    if order:
        note(f"{what} {task.name.rpartition('.')[2]}", str(order))
