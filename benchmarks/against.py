"""
OrderFlow as of another commit, measured beside the current one: its files, its schema, the same packages.

Its own benchmark runs there, for one round at a time, on the same servers and in a database of its own.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from django.db import connection

from benchmarks import environment
from benchmarks.harness import Incorrect, Sample
from benchmarks.processes import ROOT

ROUND = """
import dataclasses, json, sys
import django
django.setup()
from benchmarks.scenarios.pipeline import throughput
from benchmarks.systems import OURS
sample = throughput(OURS, int(sys.argv[1]), answer=float(sys.argv[2]))
print(json.dumps({"value": sample.value, "units": sample.units, "cpu": dict(sample.cpu)}))
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Other:
    """The other commit's files, and the environment of its processes."""

    name: str
    files: Path
    environment: dict[str, str]

    def throughput(self, orders: int, *, answer: float = 0.0) -> Sample:
        """
        Run one round of its own scenario `pipeline`.

        Raises:
            Incorrect: if that fails.
        """
        printed = self._run("-c", ROUND, str(orders), str(answer))
        return Sample(**json.loads(printed.splitlines()[-1]))

    def migrate(self) -> None:
        """Bring its database to its schema."""
        self._run("manage.py", "migrate", "--noinput", "--skip-checks")

    def _run(self, *words: str) -> str:
        done = subprocess.run(
            [sys.executable, *words],
            cwd=self.files,
            env={**os.environ, **self.environment},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise Incorrect(f"{self.name} failed: {done.stderr[-3000:]}")
        return done.stdout


@contextlib.contextmanager
def checked_out(commit: str) -> Iterator[Other]:
    """
    Make the files and the database of a commit, and remove them afterwards.

    Raises:
        Incorrect: if there is no such commit, or it cannot be set up.
    """
    full = _git("rev-parse", "--verify", "--quiet", f"{commit}^{{commit}}").decode().strip()
    place = environment.FOLDER / f"commit-{full[:7]}"
    files, logs, database = place / "files", place / "logs", f"benchmark_{full[:7]}"
    for folder in (files, logs):
        folder.mkdir(parents=True)
    archive = _git("archive", full)
    subprocess.run(["tar", "-x", "-C", str(files)], input=archive, check=True)
    _execute(f"CREATE DATABASE {database}")
    try:
        address = urlunsplit(urlsplit(environment.DATABASE_URL)._replace(path=f"/{database}"))
        variables = {"DATABASE_URL": address, "PYTHONPATH": str(files), "BENCHMARK_FOLDER": str(logs)}
        other = Other(name=f"commit {full[:7]}", files=files, environment=variables)
        other.migrate()
        yield other
    finally:
        _execute(f"DROP DATABASE {database} WITH (FORCE)")
        shutil.rmtree(files, ignore_errors=True)


def _git(*words: str) -> bytes:
    done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, check=False)
    if done.returncode:
        raise Incorrect(f"`git {' '.join(words)}` failed: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout


def _execute(statement: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement)
