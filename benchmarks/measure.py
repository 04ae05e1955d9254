"""The costs of a round: processor seconds and memory of process trees, transactions of the database."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import psycopg
import redis
from django.conf import settings
from django.db import connection

from benchmarks import environment

TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")

UNCOUNTED = {"PGAPPNAME": "benchmark"}
"""The environment of a process whose sessions belong to the benchmark, not to a system under test."""


class Stat(NamedTuple):
    """The kernel's statistics of one process: times in seconds, memory in bytes."""

    parent: int
    seconds: float
    memory: int


def parse_stat(text: str) -> Stat:
    """Parse one `/proc/<pid>/stat`. Its second field, the name in parentheses, may contain any characters."""
    fields = text.rpartition(")")[2].split()
    own_and_reaped = sum(int(ticks) for ticks in fields[11:15])
    return Stat(parent=int(fields[1]), seconds=own_and_reaped / TICKS, memory=int(fields[21]) * PAGE)


def processes() -> dict[int, Stat]:
    """All processes of the machine by id; empty without `/proc`."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            found[int(folder.name)] = parse_stat((folder / "stat").read_text())
    return found


def tree(root: int, among: Mapping[int, Stat]) -> set[int]:
    """A process and all its descendants."""
    members = {root} & set(among)
    while more := {pid for pid, stat in among.items() if stat.parent in members} - members:
        members |= more
    return members


def seconds_of(roots: Mapping[str, Iterable[int]]) -> dict[str, float]:
    """The processor seconds used so far by each group of process trees, including ended children."""
    known = processes()
    return {
        name: sum(known[pid].seconds for root in pids for pid in tree(root, known))
        for name, pids in roots.items()
    }


def memory_of(roots: Mapping[str, Iterable[int]]) -> dict[str, int]:
    """The current memory in bytes of each group of process trees; shared pages count for each process."""
    known = processes()
    return {
        name: sum(known[pid].memory for root in pids for pid in tree(root, known))
        for name, pids in roots.items()
    }


def shares_of(roots: Mapping[str, Iterable[int]]) -> dict[str, int]:
    """The same with shared pages divided among the processes that share them; 0 without `/proc`."""
    known = processes()
    return {
        name: sum(_share(pid) for root in pids for pid in tree(root, known)) for name, pids in roots.items()
    }


def _share(pid: int) -> int:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return 1024 * int(line.split()[1])
    return 0


def database_process() -> int:
    """The main process of PostgreSQL, which must run on this machine."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        backend = cursor.fetchone()[0]
    stat = processes().get(backend)
    return stat.parent if stat else 0


def broker_process() -> int:
    """The broker's process on this machine; 0 if it is unknown."""
    if urlsplit(settings.BROKER_URL).scheme.startswith("redis"):
        with contextlib.closing(redis.Redis.from_url(settings.BROKER_URL)) as link:
            return int(link.info("server")["process_id"])
    return environment.BROKER_PROCESS


def transactions() -> int:
    """The transactions of this database so far; those of the last few idle milliseconds may be missing."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()"
        )
        return int(cursor.fetchone()[0])


def sessions() -> int:
    """The current sessions of this database."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()")
        return int(cursor.fetchone()[0])


def share(since: Sequence[float]) -> float:
    """The share of all processors that was busy since `ticks`, with whatever else runs; 0 without `/proc`."""
    now = ticks()
    passed = [after - before for before, after in zip(since, now, strict=True)]
    return 1 - (passed[3] + passed[4]) / sum(passed) if passed and sum(passed) else 0.0


def ticks() -> list[float]:
    """The times of all processors so far by state, as the kernel counts them; empty without `/proc`."""
    try:
        first = Path("/proc/stat").read_text().partition("\n")[0]
    except OSError:
        return []
    return [float(number) for number in first.split()[1:9]]


class Peaks:
    """Samples the memory of processes and the sessions of the database, in a thread, while it is a context."""

    EVERY = 0.5

    def __init__(self, roots: Mapping[str, Iterable[int]]) -> None:
        self.memory = self.sessions = 0
        self._roots = {name: list(pids) for name, pids in roots.items()}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        # The benchmark's own session is not one of the system's.
        with connection.cursor() as cursor:
            cursor.execute("SELECT set_config('application_name', %s, false)", [UNCOUNTED["PGAPPNAME"]])

    def __enter__(self) -> Peaks:
        self._thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._ended.set()
        self._thread.join()

    def _sample(self) -> None:
        known = connection.get_connection_params()
        address = {name: value for name, value in known.items() if name not in ("cursor_factory", "context")}
        with psycopg.connect(**address, application_name=UNCOUNTED["PGAPPNAME"], autocommit=True) as session:
            while True:
                found = session.execute(
                    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
                    " AND backend_type = 'client backend' AND application_name <> %s",
                    [UNCOUNTED["PGAPPNAME"]],
                ).fetchone()
                self.sessions = max(self.sessions, found[0] if found else 0)
                self.memory = max(self.memory, sum(memory_of(self._roots).values()))
                if self._ended.wait(self.EVERY):
                    return


class Meter:
    """Measures from its creation to `read`: processor seconds by group, and transactions."""

    def __init__(self, roots: Mapping[str, Iterable[int]]) -> None:
        self._roots = {name: list(pids) for name, pids in roots.items()}
        self._seconds = seconds_of(self._roots)
        self._transactions = transactions()

    def read(self) -> tuple[dict[str, float], int]:
        """Processor seconds by group, and transactions, since its creation."""
        now = seconds_of(self._roots)
        used = {name: max(0.0, now[name] - before) for name, before in self._seconds.items()}
        return used, transactions() - self._transactions


def servers() -> dict[str, list[int]]:
    """The servers as groups for a meter."""
    return {"postgres": [database_process()], "broker": [broker_process()]}
