"""The costs of a round: processor seconds and memory of process trees, transactions of the database."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import redis
from django.conf import settings
from django.db import connection

from benchmarks import environment

TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


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
