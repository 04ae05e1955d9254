"""
How many worker processes run.py starts for each queue, and how many tasks each of them runs at once.

Steps and notifications mostly wait for providers, so they run in threads: a process has many calls in flight,
and a second process helps only when the interpreter of the first is busy. `WORKER_POOL=prefork` returns to one
process per call. The numbers are chosen from the processors and the memory of this machine.
"""

import dataclasses
import math
from collections.abc import Mapping

from orderflow import providers
from orderflow.stack import machine
from orderflow.stack.problem import Problem

THREADS, PREFORK = "threads", "prefork"

USUAL_THREADS, MOST_THREADS = 32, 256

MORE_THREADS = {"orders": 96, "email": 64}
"""Every order has an e-mail, and waits for two other providers one after the other. With 32 threads each, 66
orders/s were possible at 200 ms a call; with 64 and 32, 128 and 57 at 500 ms; with these, 128 and 78."""

BUSY = {"orders": 0.4, "email": 0.2}
"""Queues whose work grows with the number of orders, and the part of all processors that each keeps busy."""

MOST_PROCESSES = {"orders": 3, "email": 2}
MOST_CHILDREN = {"orders": 24, "email": 12}
"""With more, all sessions together would come near the 100 that PostgreSQL allows by default."""

CHILDREN_PER_CORE = {"orders": 2, "email": 1}
"""More prefork children than processors, because most of them wait."""

OF_THE_OTHERS = 1000
"""MB of the servers, the web, Flower, beat, the sandbox, and one process for each of the other queues."""

OF_ONE_PROCESS = 150
"""MB of a worker process with threads, or of a child of a prefork pool, under load."""


OF_WEB, OF_RELAY, OF_MAIN_LOOP, SHARED = 8, 3, 1, 8
"""Database sessions: of the web's threads, of the relay, of the main loop of a worker, and those that the
threads of a worker share by default."""


@dataclasses.dataclass(frozen=True)
class Size:
    """The worker processes of one queue, and the options that each of them is started with."""

    options: tuple[str, ...]
    processes: int = 1


def sizes(environment: Mapping[str, str], *, cores: int = 0, memory: int = 0) -> dict[str, Size]:
    """
    Return the size of each queue's workers. `cores` and `memory` (bytes) are this machine's, unless given.

    Raises:
        Problem: if a variable that chooses them is wrong.
    """
    kind = _kind(environment)
    cores, memory = cores or machine.cores(), memory or machine.memory()
    affordable = 1 + max(0, memory // 2**20 - OF_THE_OTHERS) // OF_ONE_PROCESS // len(BUSY)
    # The relay does one thing at a time. Jobs may take minutes of a processor: they have their own process.
    found = {"relay": Size(("-P", "solo")), "jobs": Size(_options(PREFORK, 1))}
    for queue in ("orders", *providers.CHANNELS):
        if kind == PREFORK:
            wanted = CHILDREN_PER_CORE.get(queue, 0) * cores
            children = min(wanted, MOST_CHILDREN.get(queue, 1), affordable)
            found[queue] = Size(_options(kind, max(1, children)))
        else:
            wanted = math.floor(BUSY.get(queue, 0) * cores + 0.5)
            processes = min(wanted, MOST_PROCESSES.get(queue, 1), affordable)
            found[queue] = Size(_options(kind, _threads(environment, queue)), max(1, processes))
    return found


def sessions(environment: Mapping[str, str], *, cores: int = 0, memory: int = 0) -> int:
    """Return how many database sessions all processes of the stack may open."""
    chosen = environment.get("DATABASE_POOL_SIZE", "")
    shared = int(chosen) if chosen.isdecimal() else SHARED  # the settings refuse what is no number
    return OF_WEB + sum(
        _sessions_of(name, size, shared)
        for name, size in sizes(environment, cores=cores, memory=memory).items()
    )


def _sessions_of(queue: str, size: Size, shared: int) -> int:
    if queue == "relay":
        return OF_RELAY
    kind, number = size.options[1], int(size.options[3])
    return size.processes * (min(shared, number) + OF_MAIN_LOOP if kind == THREADS else number)


def _options(kind: str, number: int) -> tuple[str, ...]:
    return "-P", kind, "-c", str(number)


def _kind(environment: Mapping[str, str]) -> str:
    chosen = environment.get("WORKER_POOL") or THREADS
    if chosen not in (THREADS, PREFORK):
        raise Problem(f"WORKER_POOL is {chosen!r}: it must be {THREADS} (the default) or {PREFORK}.")
    return chosen


def _threads(environment: Mapping[str, str], queue: str) -> int:
    chosen = environment.get("WORKER_THREADS") or str(MORE_THREADS.get(queue, USUAL_THREADS))
    if not chosen.isascii() or not chosen.isdigit() or not 1 <= int(chosen) <= MOST_THREADS:
        raise Problem(f"WORKER_THREADS is {chosen!r}: it must be a number from 1 to {MOST_THREADS}.")
    return int(chosen)
