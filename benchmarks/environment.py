"""The environment of one process of the benchmark; only this module reads it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

FOLDER = Path(os.environ.get("BENCHMARK_FOLDER", ".orderflow"))
"""The folder of the stubs' ledger and the workers' logs."""

DATABASE_URL = os.environ.get("DATABASE_URL", "")
"""For programs that run without Django, and for a second database on the same server."""

ANSWER_SECONDS = float(os.environ.get("BENCHMARK_ANSWER_SECONDS", "0"))
"""How long a stub provider takes to respond."""

NOTES_TIMES = bool(os.environ.get("BENCHMARK_TIMES"))
"""Whether workers record when steps begin and end, for the scenario `latency`."""

DATA = Path(
    os.environ.get(
        "ORDERFLOW_DATA", Path(__file__).parents[2] / "shared" / "data" / "online-retail-2010-12.csv.gz"
    )
)
"""The retailer's file, for the scenario `importing`."""

IS_NAIVE = bool(os.environ.get("BENCHMARK_NAIVE"))
"""Whether the process belongs to a baseline, which uses Django's default handling of sessions."""

IS_TUNED = bool(os.environ.get("BENCHMARK_TUNED"))
"""Whether the naive system is tuned."""

BROKER_PROCESS = int(os.environ.get("BENCHMARK_BROKER_PID") or 0)
"""The process of a broker that cannot report its own id; 0: it can."""


@contextlib.contextmanager
def changed(**variables: str) -> Iterator[None]:
    """Set variables for the processes that are started within the block: workers and writers."""
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
