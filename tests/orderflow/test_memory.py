"""The memory of a process of the project before it has done anything."""

from __future__ import annotations

import json
import subprocess
import sys

import psutil
import pytest

from tests import processes

PROVIDERS = ("stripe", "twilio", "google.auth", "requests", "aiohttp")
FOR_THE_WEB = ("ninja", "pydantic", "limits")
FOR_COMMANDS = ("rich", "click_repl", "prompt_toolkit", "flower", "tornado")
OWN_PAGES = ("orders.admin", "outbox.admin", "notifications.admin", "orderflow.admin")

WORKER_MB = 95
"""
For the main process and for each child: a tenth more than the 80 that are wanted. They take 78 and 70 on 64-bit
Linux with Python 3.11, and 3 more with a session, whose library for encryption is loaded then.
"""

CHILD_OWN_MB = 30
"""For what a child does not share with its main process: 17 MB."""

LOADED = """
import json, sys
from orderflow.celery import app
from orderflow.configuration import startup
app.loader.import_default_modules()
startup.check_or_exit(without=startup.OF_PAGES)
print(json.dumps(list(sys.modules)))
"""

ADAPTERS = """
import sys
import django
django.setup()
from notifications import channels
from orders import adapters
{use}
print(*sys.modules)
"""


def loaded_by(code):
    """Return what a process has loaded that runs this code, which prints it."""
    answer = subprocess.run(
        [sys.executable, "-c", code],
        env=processes.environment() | {"SENTRY_DSN": "", "DJANGO_SETTINGS_MODULE": "orderflow.settings"},
        cwd=processes.ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return answer.stdout.splitlines()[-1]


def test_a_process_loads_what_it_uses_only(db):
    loaded = set(json.loads(loaded_by(LOADED)))

    assert {"orders", "orders.tasks", "notifications.tasks"} <= loaded
    assert loaded & {*PROVIDERS, *FOR_THE_WEB, *FOR_COMMANDS, *OWN_PAGES, "sentry_sdk"} == set()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("use", "libraries"),
    [
        ("adapters.payment_gateway()", {"stripe", "requests"}),
        ("adapters.warehouse()", {"requests"}),
        ("channels.get('email')", set()),
        ("channels.get('sms')", {"twilio", "requests"}),
        ("channels.get('push')", {"google.auth", "requests"}),
    ],
    ids=["payments", "warehouse", "email", "sms", "push"],
)
def test_a_pool_loads_the_library_of_its_own_provider(db, use, libraries):
    loaded = set(loaded_by(ADAPTERS.format(use=use)).split())

    assert loaded & set(PROVIDERS) == libraries


@pytest.mark.slow
@pytest.mark.processes
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("queue", "pool"),
    [
        ("orders", "threads"),
        ("orders", "prefork"),
        ("email", "threads"),
        ("relay", "solo"),
        ("jobs", "prefork"),
    ],
)
def test_a_worker_needs_little_memory_before_its_first_task(world, tmp_path, queue, pool):
    with processes.stack(tmp_path) as stack:
        worker = stack.worker(queue, queue, pool=pool, concurrency=32 if pool == "threads" else 1)
        worker.wait_until_ready()
        assert_small([psutil.Process(worker.pid), *worker.children()])
        own = [child.memory_full_info().uss / 2**20 for child in worker.children()]
        assert all(size < CHILD_OWN_MB for size in own), own


@pytest.mark.slow
@pytest.mark.processes
@pytest.mark.django_db(transaction=True)
def test_beat_needs_little_memory(world, tmp_path):
    with processes.stack(tmp_path) as stack:
        beat = stack.beat()
        processes.eventually(lambda: beat.has_logged("beat: Starting"), "beat starts")
        assert_small([psutil.Process(beat.pid)])


def assert_small(found):
    """Assert that each process is small; `-rP` shows the resident memory, and with shared pages divided."""
    sizes = {each.pid: (each.memory_info().rss / 2**20, each.memory_full_info().pss / 2**20) for each in found}
    sys.stdout.write("; ".join(f"{rss:.1f} MB, PSS {pss:.1f} MB" for rss, pss in sizes.values()))
    assert max(rss for rss, _ in sizes.values()) < WORKER_MB, sizes
