"""Processor time and memory are read from the kernel, for whole process trees."""

from __future__ import annotations

import os
import subprocess
import sys

import psycopg
import pytest
from django.db import connection

from benchmarks import measure
from benchmarks.measure import Stat
from tests.processes import eventually

BURN = """
import subprocess, sys, time
if sys.argv[1:]:
    while time.process_time() < 0.3: pass
else:
    subprocess.run([sys.executable, sys.argv[0], "child"])
    print("done", flush=True)
    sys.stdin.read()
"""


proc = pytest.mark.skipif(
    not os.path.exists("/proc/self/stat"),
    reason="the kernel's figures are read from /proc, which this system lacks",
)


def test_a_name_with_spaces_and_parentheses_shifts_nothing():
    numbers = ["0"] * 49
    numbers[1], numbers[11:15], numbers[21] = "7", ["100", "50", "25", "25"], "3"
    stat = measure.parse_stat(f"42 (odd) name (x)) S {' '.join(numbers[1:])}")
    assert stat == Stat(parent=7, seconds=200 / measure.TICKS, memory=3 * measure.PAGE)


def test_a_tree_is_a_process_and_all_its_descendants():
    parents = {1: 0, 10: 1, 11: 10, 12: 11, 20: 1}
    known = {pid: Stat(parent, 0.0, 0) for pid, parent in parents.items()}
    assert measure.tree(10, known) == {10, 11, 12}
    assert measure.tree(99, known) == set()


@proc
def test_the_time_of_ended_children_counts(tmp_path):
    script = tmp_path / "burn.py"
    script.write_text(BURN)
    with subprocess.Popen([sys.executable, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"done\n"
        assert measure.seconds_of({"all": [process.pid]})["all"] >= 0.25  # the kernel counts in hundredths
        assert measure.memory_of({"all": [process.pid]})["all"] > 1_000_000
        process.stdin.close()


@pytest.mark.django_db(transaction=True)
def test_a_meter_sees_the_work_of_the_database():
    from orders.models import Product

    assert measure.database_process() > 0
    meter = measure.Meter(measure.servers())
    for _ in range(5):
        Product.objects.count()
    # Sessions report their transactions once a second at most.
    eventually(lambda: Product.objects.count() or meter.read()[1] >= 5, "five transactions are counted")


@pytest.mark.django_db(transaction=True)
def test_peaks_are_those_of_the_system_without_the_benchmark_itself():
    address = {
        name: value
        for name, value in connection.get_connection_params().items()
        if name not in ("cursor_factory", "context")
    }
    with measure.Peaks({"own": [os.getpid()]}) as peaks:
        uncounted = measure.UNCOUNTED["PGAPPNAME"]
        with (
            psycopg.connect(**address, application_name=uncounted),
            psycopg.connect(**address),
            psycopg.connect(**address),
        ):
            eventually(lambda: peaks.sessions == 2, "two sessions are counted, not the first")
        eventually(lambda: peaks.memory > 1_000_000, "memory is sampled")
    assert peaks.sessions == 2  # a peak stays


@proc
def test_shared_pages_are_divided():
    own = {"own": [os.getpid()]}
    assert 1_000_000 < measure.shares_of(own)["own"] <= measure.memory_of(own)["own"]


@proc
def test_the_share_of_all_processors_is_between_none_and_all():
    since = measure.ticks()
    eventually(lambda: measure.ticks() != since, "the kernel has counted")
    assert 0.0 <= measure.share(since) <= 1.0


def test_waiting_for_the_disk_is_not_work(monkeypatch):
    monkeypatch.setattr(measure, "ticks", lambda: [30.0, 0.0, 10.0, 40.0, 20.0, 0.0, 0.0, 0.0])
    assert measure.share([0.0] * 8) == pytest.approx(0.4)


def test_without_the_kernels_figures_the_share_is_zero(monkeypatch):
    monkeypatch.setattr(measure, "ticks", list)
    assert measure.share([]) == 0.0
