"""What traces cost: the pipeline with all traces recorded and exported, compared with none."""

from __future__ import annotations

import contextlib
import dataclasses
import subprocess
import sys
import urllib.request
from collections.abc import Iterator

from benchmarks import environment, processes, systems
from benchmarks.harness import Contestant, Incorrect, Result, Sample, alternate
from benchmarks.scenarios import Options, Say, pipeline

LEAST = 0.9
"""The wanted ratio of the orders per second with traces to those without."""

RECORD_ALL = {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "1.0"}


def run(options: Options, say: Say) -> Result:
    """Compare OrderFlow with itself."""
    orders = options.scaled(2_000, 40)
    system = systems.ours(options.pool)
    result = Result(scenario="traces", unit="orders/s")
    result.rows = alternate(
        [
            Contestant(name="without traces", run=lambda: pipeline.throughput(system, orders)),
            Contestant(name="with traces", run=lambda: _traced(system, orders), baseline="without traces"),
        ],
        rounds=options.rounds,
        say=say,
    )
    if not options.quick:
        ratio = result.ratio("with traces", "without traces")
        result.judge(f"at least {LEAST:g} x the orders per second without traces", ratio, least=LEAST)
    return result


def _traced(system: systems.System, orders: int) -> Sample:
    """
    Measure with all traces, of which every process exports its part.

    Raises:
        Incorrect: if nothing was exported.
    """
    with _receiver() as port:
        address = f"http://127.0.0.1:{port}"
        with environment.changed(OTEL_EXPORTER_OTLP_ENDPOINT=address, **RECORD_ALL):
            sample = pipeline.throughput(system, orders)
        with urllib.request.urlopen(address, timeout=10) as answer:
            received = int(answer.read())
    if received < orders:
        raise Incorrect(f"{received} bytes of traces were exported for {orders} orders")
    counts = {**sample.counts, "kB exported": received / 1e3 / orders}
    return dataclasses.replace(sample, counts=counts)


@contextlib.contextmanager
def _receiver() -> Iterator[int]:
    """A receiver in a process of its own, which is not measured; yields its port."""
    command = [sys.executable, "-m", "benchmarks.load.receiver"]
    receiver = subprocess.Popen(command, cwd=processes.ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert receiver.stdout is not None
        yield int(receiver.stdout.readline())
    finally:
        receiver.kill()
        receiver.wait()
