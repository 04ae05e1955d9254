"""Concurrent processes that start the same work at the same moment, forked from a process without a session."""

from __future__ import annotations

import multiprocessing
import time
import traceback
from collections.abc import Callable
from typing import Any, Generic, NamedTuple, TypeVar

T = TypeVar("T")

START_WITHIN = 60.0


class Together(NamedTuple, Generic[T]):
    """When all began and ended, in Unix seconds, and their results."""

    began: float
    ended: float
    answers: list[T]

    @property
    def seconds(self) -> float:
        return self.ended - self.began


def together(work: Callable[[int], T], *, count: int) -> Together[T]:
    """
    Run `work(number)` in `count` processes that start at the same moment.

    Call it before this process has used the database: sessions must not be shared.

    Raises:
        RuntimeError: with the traceback, if one of them fails.
    """
    context = multiprocessing.get_context("fork")
    barrier, queue = context.Barrier(count + 1), context.SimpleQueue()
    workers = [
        context.Process(target=_run, args=(work, number, barrier, queue), daemon=True)
        for number in range(count)
    ]
    for worker in workers:
        worker.start()
    barrier.wait(START_WITHIN)
    began = time.time()
    answers = [queue.get() for _ in workers]
    ended = time.time()
    for worker in workers:
        worker.join()
    for failed, answer in answers:
        if failed:
            raise RuntimeError(answer)
    return Together(began, ended, [answer for _, answer in answers])


def _run(work: Callable[[int], Any], number: int, barrier: Any, queue: Any) -> None:
    from django.db import connection

    connection.ensure_connection()
    barrier.wait(START_WITHIN)
    try:
        answer = (False, work(number))
    except Exception:
        answer = (True, traceback.format_exc())
    queue.put(answer)
