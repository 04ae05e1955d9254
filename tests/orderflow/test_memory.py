"""The memory of a process of the project before it has done anything."""

from __future__ import annotations

import json
import subprocess
import sys

import psutil
import pytest

from tests import processes

PROVIDERS = ("stripe", "twilio", "google", "requests", "aiohttp")
FOR_THE_WEB = ("ninja", "pydantic")

WORKER_MB = 125
"""For the main process and for each child. They take 112 and 98 on 64-bit Linux with Python 3.11."""

LOADED = """
import json, sys
from orderflow.celery import app
app.loader.import_default_modules()
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""


def test_a_process_loads_what_it_uses_only(db):
    answer = subprocess.run(
        [sys.executable, "-c", LOADED],
        env=processes.environment() | {"SENTRY_DSN": ""},
        cwd=processes.ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    loaded = set(json.loads(answer.stdout.splitlines()[-1]))

    assert "orders" in loaded
    assert loaded & {*PROVIDERS, *FOR_THE_WEB, "sentry_sdk"} == set()


@pytest.mark.slow
@pytest.mark.processes
@pytest.mark.django_db(transaction=True)
def test_a_worker_needs_little_memory_before_its_first_task(world, tmp_path):
    with processes.stack(tmp_path) as stack:
        worker = stack.worker("orders", "orders")
        worker.wait_until_ready()
        sizes = {
            process.pid: process.memory_info().rss / 2**20
            for process in [psutil.Process(worker.pid), *worker.children()]
        }
    assert len(sizes) > 1
    assert max(sizes.values()) < WORKER_MB, sizes
