"""Flower: it keeps a bounded number of tasks, and gets no events of periodic tasks."""

from __future__ import annotations

import itertools
import re
import time

import pytest
from flower.events import EventsState

from orderflow.celery import app
from orderflow.stack import processes
from tests.processes import ROOT

HEAP_PER_TASK = 4
"""References that Celery's state keeps for each task."""


@pytest.mark.slow
def test_the_memory_of_flower_is_bounded():
    clock, state = itertools.count(1), EventsState(max_tasks_in_memory=processes.FLOWER_TASKS, callback=None)
    for number in range(2 * processes.FLOWER_TASKS):
        for kind in ("task-received", "task-succeeded"):
            state.event(
                {
                    "type": kind, "uuid": str(number), "name": "orders.tasks.charge", "hostname": "orders@here",
                    "clock": next(clock), "timestamp": time.time(), "local_received": time.time(),
                    "utcoffset": 0, "pid": 1, "result": "True", "runtime": 0.1,
                }
            )  # fmt: skip
    assert len(state.tasks) == processes.FLOWER_TASKS
    assert len(state._taskheap) <= HEAP_PER_TASK * processes.FLOWER_TASKS


def test_every_flower_that_we_start_gets_the_limit():
    compose = (ROOT / "docker-compose.yml").read_text()
    assert re.findall(r"--max-tasks=(\d+)", compose) == [str(processes.FLOWER_TASKS)]
    assert "--max-tasks={FLOWER_TASKS}" in (ROOT / "orderflow/stack/processes.py").read_text()


AGAIN_AND_AGAIN = {
    "outbox.tasks.drain", "outbox.tasks.sweep", "outbox.tasks.unpark", "outbox.tasks.settle_replays",
    "outbox.tasks.watch_for_restores", "outbox.tasks.probe", "orders.tasks.sweep",
}  # fmt: skip


def test_flower_hears_of_work_and_not_of_what_runs_again_and_again_beside_it():
    silent = {name for name, task in app.tasks.items() if not task.send_events}

    assert silent == AGAIN_AND_AGAIN
