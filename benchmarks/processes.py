"""The worker processes of the systems: started for one round, measured as groups, stopped after it."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from benchmarks import environment
from orderflow.stack.supervision import children

ROOT = Path(__file__).resolve().parent.parent
START_WITHIN = 60.0
STOP_WITHIN = 8.0


class NotReady(Exception):
    """A process did not come up; the message contains its log."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spec:
    """A process to start. `ready` is the text in its log that shows it takes work; empty if that is at once."""

    name: str
    command: Sequence[str]
    ready: str = ""
    python: str = sys.executable
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)


class Running:
    """One process with its children."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.log = environment.FOLDER / f"{spec.name}.log"
        self.log.unlink(missing_ok=True)
        self.popen: subprocess.Popen[bytes] = children.start(
            [spec.python, *spec.command],
            environment={**os.environ, **spec.environment},
            log=self.log,
            cwd=ROOT,
        )

    def wait_until_ready(self, *, every: float) -> None:
        """
        Wait until its log shows that it accepts work.

        Raises:
            NotReady: if it ends, or takes longer than `START_WITHIN`.
        """
        deadline = time.monotonic() + START_WITHIN
        while self.spec.ready not in self.log.read_text(errors="replace"):
            if self.popen.poll() is not None or time.monotonic() > deadline:
                raise NotReady(f"{self.spec.name} did not come up:\n{self.log.read_text()[-3000:]}")
            time.sleep(every)

    def stop(self) -> None:
        """Stop it and its children: by SIGTERM, then by SIGKILL."""
        children.send(self.popen, signal.SIGTERM)

    def wait(self) -> None:
        """Wait until it has ended."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.popen.wait(STOP_WITHIN)
        children.end_group(self.popen.pid)
        self.popen.wait()


@contextlib.contextmanager
def running(specs: Sequence[Spec], *, every: float = 0.05) -> Iterator[dict[str, list[int]]]:
    """
    Run processes during the block; yields the process ids of their groups, for a meter.

    Whether they are ready is looked at `every` so many seconds.

    Raises:
        NotReady: if one does not come up.
    """
    started: list[Running] = []
    try:
        for spec in specs:
            started.append(Running(spec))
        for process in started:
            process.wait_until_ready(every=every)
        groups: dict[str, list[int]] = {}
        for process in started:
            groups.setdefault(process.spec.name.rstrip("0123456789"), []).append(process.popen.pid)
        yield groups
    finally:
        for process in started:
            process.stop()
        for process in started:
            process.wait()


def until(condition: Callable[[], bool], *, within: float, what: str, every: float = 0.1) -> None:
    """
    Wait until `condition` holds.

    Raises:
        TimeoutError: with `what`, if it does not hold within `within` seconds.
    """
    deadline = time.monotonic() + within
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {within:.0f} s: {what}")
        time.sleep(every)
