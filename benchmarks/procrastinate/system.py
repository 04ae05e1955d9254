"""The baseline as a system: its tables, its texts, its workers."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Iterator

from django.db import connection

from benchmarks import environment, processes
from benchmarks.processes import Spec
from benchmarks.procrastinate import sql, venv
from benchmarks.systems import System
from notifications import rendering
from notifications.models import Channel
from orders.contracts import OrderFulfilled

CONCURRENCY = 64
"""Jobs in flight of one worker: as many as OrderFlow's two pools of threads have together."""

WORKER = "benchmarks.procrastinate.worker"


def system(workers: int, *, python: str, writer: str = "procrastinate") -> System:
    """Procrastinate with this many workers; `writer` is one of `sql.FIRST_JOBS`."""
    specs = tuple(
        Spec(
            name=f"worker{number}",
            command=["-m", WORKER, str(CONCURRENCY), *(["tuned"] if "tuned" in writer else [])],
            ready="Starting worker on",
            python=python,
        )
        for number in range(workers)
    )
    kinds = "1 worker" if workers == 1 else f"{workers} workers"
    return System(name=f"{writer}, {kinds}", writer=writer, specs=specs, warm=2 * CONCURRENCY * workers)


@contextlib.contextmanager
def installed(**variables: str) -> Iterator[str]:
    """
    Make its environment and its tables; yields its Python, and removes the tables afterwards.

    Its process gets `variables` in addition to the environment.

    Raises:
        Unavailable: if its packages cannot be installed.
    """
    python = venv.python()
    _execute(f"DROP SCHEMA IF EXISTS {sql.SCHEMA} CASCADE")
    _execute(f"CREATE SCHEMA {sql.SCHEMA}")
    try:
        run(python, "schema", **variables)
        write_texts()
        yield python
    finally:
        _execute(f"DROP SCHEMA {sql.SCHEMA} CASCADE")


def run(python: str, *words: str, **variables: str) -> None:
    """Run its worker with these arguments and wait for it."""
    done = subprocess.run(
        [python, "-m", WORKER, *words],
        cwd=processes.ROOT,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode or " ERROR " in done.stderr:  # a job that fails does not end the worker
        raise processes.NotReady(f"procrastinate failed: {done.stderr[-3000:]}")


def write_texts() -> None:
    """Write the texts of its e-mail, rendered from the project's templates, with placeholders."""
    event = OrderFulfilled(
        order_id="",
        order_number="$order_number",
        customer_name="$customer_name",
        customer_email="$customer_email",
        customer_phone="",
        customer_push_token="",
        total_minor=500,
        currency="GBP",
        carrier="$carrier",
        tracking_number="$tracking_number",
    )
    text = rendering.render(event, channel=Channel.EMAIL)
    parts = {"subject": text.subject, "text": text.text, "html": text.html}
    (environment.FOLDER / sql.TEXTS).write_text(json.dumps(parts))


def _execute(statement: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement)
