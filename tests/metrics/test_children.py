"""What a main process says of its children."""

from __future__ import annotations

import os
import subprocess
import sys

from prometheus_client import CollectorRegistry

from orderflow.observability import children
from orderflow.observability.children import Children
from orderflow.observability.metrics import _Measured

WORKS = "import time\nwhile time.process_time() < 0.3: pass"


def test_processor_time_of_a_child_is_counted_while_it_has_ended_and_is_not_collected_yet():
    before = children.read()
    child = subprocess.Popen([sys.executable, "-c", WORKS])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)

    ended = children.read()
    child.wait()
    collected = children.read()

    assert ended.seconds - before.seconds > 0.25
    assert collected.seconds - before.seconds > 0.25
    assert ended.processes == before.processes, "it is no child that does anything"


def test_the_counter_of_processor_time_never_falls(monkeypatch):
    registry = CollectorRegistry()
    registry.register(_Measured("", None))

    def scraped(seconds):
        monkeypatch.setattr(children, "read", lambda: Children(1, 0, seconds))
        return registry.get_sample_value("orderflow_child_processes_cpu_seconds_total")

    assert [scraped(seconds) for seconds in (5.0, 4.99, 6.0)] == [5.0, 5.0, 6.0]
