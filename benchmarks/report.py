"""The result of a run: tables for people, JSON for programs."""

from __future__ import annotations

import dataclasses
import datetime as dt
import importlib.metadata
import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import redis
from django.conf import settings
from django.db import connection

from benchmarks.harness import Result, Row, figure

PACKAGES = ("Django", "celery", "kombu", "psycopg", "redis", "amqp")
ROOT = Path(__file__).resolve().parent.parent


def table(result: Result) -> str:
    """Return a scenario's rows as aligned text, followed by its verdicts and notes."""
    title = f"{result.scenario} ({result.unit})" if result.unit else result.scenario
    if result.skipped:
        return f"{title}: skipped, {result.skipped}"
    lines = [title]
    if result.rows:
        lines += _aligned(
            [("", "median", "min-max", "ratio", "cpu ms each", "counts each"), *map(_cells, result.rows)]
        )
    lines += [
        f"  {'met    ' if verdict.met else 'NOT MET'}  {verdict.requirement}: {verdict.measured}"
        for verdict in result.verdicts
    ]
    lines += [f"  {note}" for note in result.notes]
    return "\n".join(lines)


def document(results: Sequence[Result], *, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return all results with the versions, the machine and the commit."""
    return {
        "measured_at": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "commit": _git("rev-parse", "HEAD"),
        "uncommitted_changes": bool(_git("status", "--porcelain", "--untracked-files=no")),
        "arguments": dict(arguments),
        "versions": versions(),
        "machine": machine(),
        "results": [dataclasses.asdict(result) for result in results],
    }


def write(path: Path, results: Sequence[Result], *, arguments: Mapping[str, Any]) -> None:
    """Write the JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document(results, arguments=arguments), indent=1, default=str) + "\n")


def versions() -> dict[str, str]:
    """The versions of Python, the relevant packages, and the servers."""
    found = {"Python": platform.python_version()}
    found |= {name: importlib.metadata.version(name) for name in PACKAGES}
    with connection.cursor() as cursor:
        cursor.execute("SHOW server_version")
        found["PostgreSQL"] = cursor.fetchone()[0]
    if settings.BROKER_URL.startswith("redis"):
        with redis.Redis.from_url(settings.BROKER_URL) as link:
            server = link.info("server")
        found["broker"] = (
            f"{server.get('server_name', 'redis')} {server.get('valkey_version', server['redis_version'])}"
        )
    else:
        found["broker"] = "RabbitMQ"
    return found


def machine() -> dict[str, Any]:
    """The machine, and its load at the end: other work on the machine makes figures useless."""
    return {
        "system": platform.platform(),
        "processors": os.cpu_count(),
        "processor": _processor(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "load_average": os.getloadavg(),
    }


def _cells(row: Row) -> tuple[str, ...]:
    ratio = ""
    if row.ratio is not None:
        ratio = f"{row.ratio:.2f} x {row.baseline} ({row.ratio_low:.2f}-{row.ratio_high:.2f})"
    return (
        row.name,
        figure(row.median),
        f"{figure(row.low)}-{figure(row.high)}",
        ratio,
        _cpu(row),
        " ".join(f"{name} {figure(count)}" for name, count in row.counts.items()),
    )


def _cpu(row: Row) -> str:
    """The sum of all processes, then each process."""
    parts = " ".join(f"{name} {figure(used)}" for name, used in row.cpu.items())
    return f"{figure(sum(row.cpu.values()))}: {parts}" if parts else ""


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def _git(*words: str) -> str:
    try:
        done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return done.stdout.strip()
