"""
The supervisor: starts processes in order, restarts them, stops them in order. One thread, one loop.

It waits for its own processes by process id and never looks them up by name, so it touches nothing else on the
machine.
"""

import dataclasses
import enum
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from orderflow.stack.problem import Problem, tail
from orderflow.stack.supervision import children
from orderflow.stack.supervision.process_specs import Kind, Process, ProcessSpec, StopRank

START_PATIENCE = 60.0  # seconds until a process must be ready
STOP_PATIENCE = {
    StopRank.APPLICATION: 3.5,
    StopRank.SANDBOX: 0.5,
    StopRank.BROKER: 2.0,
    StopRank.DATABASE: 10.0,
}
FOREGROUND_PATIENCE = 5.0  # seconds; pytest stops the processes of its tests in that time
RESTARTS, WITHIN = 5, 60.0  # a process that dies more often than this, in these seconds, is given up
RETIRED = 75  # the exit code of a worker that ended to be replaced; see `outbox.worker.retirement`
RETIRED_AFTER = 10.0  # seconds; one that ends sooner counts as dying, because it would do so for ever
_REPLACED = re.compile(r"to be started again: ([^\"\n]+)")
START_TRIES = 5  # for processes whose log says that another try may succeed
TICK_STARTING, TICK_STEADY = 0.03, 0.5


class State(enum.Enum):
    """The state of a supervised process."""

    WAITING = "waiting"
    STARTING = "starting"
    READY = "ready"
    DONE = "done"
    RESTARTING = "restarting"
    GIVEN_UP = "given up"
    STOPPED = "stopped"


@dataclasses.dataclass
class Watched:
    """A process description, and its current process."""

    spec: ProcessSpec
    state: State = State.WAITING
    process: Process | None = None
    begun: float = 0.0
    next_start: float = 0.0
    tries: int = 0
    replaced_because: str = ""
    """Why the last process asked to be replaced; empty if it died."""
    deaths: deque[float] = dataclasses.field(default_factory=deque)

    @property
    def is_satisfied(self) -> bool:
        return self.state in (State.READY, State.DONE)

    @property
    def is_settled(self) -> bool:
        return self.is_satisfied or self.state is State.GIVEN_UP


class Interrupted(Exception):
    """The user asked to stop: by Ctrl-C, `down`, or by closing the terminal."""


class Supervisor:
    """
    Runs processes as a context manager: leaving it stops all of them, whatever happened.

    `report` is called on every change of state. `restarts` is how often a process may die in a minute before it
    is given up. Use it from the main thread, which receives the signals.
    """

    def __init__(
        self,
        specs: Sequence[ProcessSpec],
        *,
        report: Callable[[Watched], None] = lambda watched: None,
        restarts: int | None = None,
    ) -> None:
        self.watched = {spec.name: Watched(spec) for spec in specs}
        self._report = report
        self._restarts = RESTARTS if restarts is None else restarts
        self._stop_requests = 0
        self._interrupt_is_ours = True
        self._previous: dict[signal.Signals, Any] = {}
        self._wakeup: tuple[int, int] | None = None

    def __enter__(self) -> "Supervisor":
        self._wakeup = reader, writer = os.pipe()
        os.set_blocking(reader, False)
        os.set_blocking(writer, False)
        signal.set_wakeup_fd(self._wakeup[1], warn_on_full_buffer=False)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            self._previous[number] = signal.signal(number, self._on_signal)
        self._previous[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, lambda number, frame: None)
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.stop()
        finally:
            signal.set_wakeup_fd(-1)
            for number, handler in self._previous.items():
                signal.signal(number, handler)
            for descriptor in self._wakeup or ():
                os.close(descriptor)

    def add(self, specs: Sequence[ProcessSpec]) -> None:
        """Supervise more processes."""
        self.watched |= {spec.name: Watched(spec) for spec in specs}

    def start(self) -> None:
        """
        Start the early processes and return when all of them are ready.

        Raises:
            Problem: if one does not come up.
            Interrupted: if a stop is requested meanwhile.
        """
        while not all(watched.is_settled for watched in self.watched.values() if watched.spec.early):
            self._tick(early_only=True, rest=TICK_STARTING)

    def start_rest(self) -> None:
        """
        Return when all processes are ready, or given up.

        Raises:
            Problem: if an essential one does not come up.
            Interrupted: if a stop is requested meanwhile.
        """
        while not all(watched.is_settled for watched in self.watched.values()):
            self._tick(rest=TICK_STARTING)

    def run_foreground(
        self, command: Sequence[str], *, environment: Mapping[str, str], cwd: Path | str, owns_interrupt: bool
    ) -> int:
        """
        Run a command on this terminal while the processes are kept running, and return its exit code.

        With `owns_interrupt`, Ctrl-C is left to the command, as in a shell. Otherwise it stops everything, and
        the command does not receive it, so that it prints no traceback.

        Raises:
            Interrupted: if a stop is requested; the command is stopped first.
        """
        end_by = signal.SIGINT if owns_interrupt else signal.SIGTERM
        process = subprocess.Popen(
            list(command),
            env=dict(environment),
            cwd=cwd,
            start_new_session=not owns_interrupt,
            preexec_fn=children.dies_with_parent(end_by),
        )
        self._interrupt_is_ours = not owns_interrupt
        try:
            while process.poll() is None:
                self._tick(rest=TICK_STEADY)
        finally:
            self._interrupt_is_ours = True
            if process.poll() is None:
                _end(process, by=end_by)
        return process.returncode

    def run_until_interrupted(self) -> NoReturn:
        """
        Keep the processes running until a stop is requested.

        Raises:
            Problem: if a server dies.
            Interrupted: always, at the end.
        """
        while True:
            self._tick(rest=TICK_STEADY)

    def stop(self) -> None:
        """Stop applications, the sandbox, the broker and the database in turn. A second request kills them."""
        requests = self._stop_requests
        for rank in StopRank:
            alive = [
                w
                for w in self.watched.values()
                if w.spec.stop_rank is rank and w.process and w.process.poll() is None
            ]
            for watched in alive:
                assert watched.process is not None
                children.send(watched.process, watched.spec.stop_by)
            end = time.monotonic() + STOP_PATIENCE[rank]
            while any(w.process and w.process.poll() is None for w in alive) and time.monotonic() < end:
                if self._stop_requests > max(requests, 1) and rank is not StopRank.DATABASE:
                    break
                self._rest(0.05)
            for watched in alive:
                assert watched.process is not None
                children.end_group(watched.process.pid)
                watched.process.wait()
                self._move(watched, State.STOPPED)

    def _tick(self, *, rest: float, early_only: bool = False) -> None:
        """Advance every process once, then sleep until a signal arrives or the time is up."""
        if self._stop_requests:
            raise Interrupted
        for watched in self.watched.values():
            if watched.spec.early or not early_only:
                self._advance(watched)
        settled = all(watched.is_settled for watched in self.watched.values())
        self._rest(rest if settled or early_only else TICK_STARTING)

    def _advance(self, watched: Watched) -> None:
        now = time.monotonic()
        if watched.state is State.WAITING:
            if all(self.watched[name].is_settled for name in watched.spec.after if name in self.watched):
                self._spawn(watched)
        elif watched.state is State.RESTARTING:
            if now >= watched.next_start:
                self._spawn(watched)
        elif watched.state is State.STARTING:
            assert watched.process is not None
            if watched.spec.is_ready(watched.process):
                self._move(watched, State.DONE if watched.spec.kind is Kind.STEP else State.READY)
            elif watched.process.poll() is not None:
                self._on_death(watched)
            elif now - watched.begun > START_PATIENCE:
                if watched.spec.essential and not watched.deaths:
                    raise Problem(
                        f"{watched.spec.name} was not ready after {START_PATIENCE:.0f} s.", log=watched.spec.log
                    )
                children.end_group(watched.process.pid)
        elif watched.state is State.READY:
            assert watched.process is not None
            if watched.process.poll() is not None:
                self._on_death(watched)

    def _spawn(self, watched: Watched) -> None:
        watched.begun = time.monotonic()
        watched.process = watched.spec.start()
        self._move(watched, State.STARTING)

    def _on_death(self, watched: Watched) -> None:
        assert watched.process is not None
        spec, code, now = watched.spec, watched.process.returncode, time.monotonic()
        children.end_group(watched.process.pid)
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        never_ready = watched.state is State.STARTING and not watched.deaths
        if never_ready and spec.may_try_again(tail(spec.log)) and watched.tries < START_TRIES:
            watched.tries, watched.next_start = watched.tries + 1, now + 0.3
            self._move(watched, State.RESTARTING)
        elif spec.kind is not Kind.SERVICE or (never_ready and spec.essential):
            doing = (
                "instead of coming up"
                if watched.state is State.STARTING
                else "while everything else was running"
            )
            raise Problem(f"{spec.name} {how} {doing}.", log=spec.log)
        elif code == RETIRED and now - watched.begun > RETIRED_AFTER:
            reasons = _REPLACED.findall(tail(spec.log))
            watched.replaced_because = reasons[-1] if reasons else how
            watched.next_start = now
            self._move(watched, State.RESTARTING)
        else:
            watched.replaced_because = ""
            watched.deaths.append(now)
            while now - watched.deaths[0] > WITHIN:
                watched.deaths.popleft()
            # Immediately, then after a growing pause: 0, 0.5, 1, 2, 4 seconds.
            watched.next_start = now + (
                0.25 * 2 ** (len(watched.deaths) - 1) if len(watched.deaths) > 1 else 0.0
            )
            self._move(watched, State.GIVEN_UP if len(watched.deaths) > self._restarts else State.RESTARTING)

    def _move(self, watched: Watched, state: State) -> None:
        watched.state = state
        self._report(watched)

    def _rest(self, seconds: float) -> None:
        """Sleep, but wake up at once when a child ends or a signal arrives."""
        assert self._wakeup is not None
        if select.select([self._wakeup[0]], [], [], seconds)[0]:
            os.read(self._wakeup[0], 4096)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if number != signal.SIGINT or self._interrupt_is_ours:
            self._stop_requests += 1


def _end(process: "subprocess.Popen[Any]", *, by: signal.Signals) -> None:
    """Stop a foreground command: give it time to clean up, then kill it. It may have left the cursor hidden."""
    process.send_signal(by)
    try:
        process.wait(FOREGROUND_PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if sys.stdout.isatty():
        sys.stdout.write("\x1b[?25h")
        sys.stdout.flush()
